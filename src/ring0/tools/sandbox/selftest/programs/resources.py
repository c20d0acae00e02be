"""Takes more than it may. `given` is how much: a few times the limit inside, and no more than that
in the control, where nothing bounds it."""

# An attack: what a linter warns of is meant.
# ruff: noqa: S108

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import resource
import signal

from ring0.tools.sandbox.selftest.programs.inside import (
    Target,
    end,
    libc,
    number,
    pause,
    syscall,
)

MIB = 1024 * 1024
PAGE = 4096
HOLDERS = 8
"""Processes that hold memory together."""


def processes(target: Target) -> str:
    """Forks, and each of its children forks, up to `given` in all."""
    children: list[int] = []
    refusal = 0
    try:
        while len(children) < target["given"]:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except OSError as error:
        refusal = error.errno or 0
    count = len(children)
    end(children)
    if refusal:
        raise OSError(refusal, "")
    return f"{count} processes"


def _noise() -> bytes:
    """What nothing makes smaller; another one in each process."""
    return hashlib.shake_128(str(os.getpid()).encode()).digest(MIB)


def _page(noise: bytes, at: int) -> bytes:
    """What belongs at that place: like no other page, and nothing that could be kept in less."""
    within = at % MIB
    return at.to_bytes(8, "little") + noise[within + 8 : within + PAGE]


def _fill(memory: mmap.mmap) -> bytes:
    """All of it. Returns what `_check` compares it with."""
    noise = _noise()
    for at in range(0, len(memory), PAGE):
        memory[at : at + PAGE] = _page(noise, at)
    return noise


def _check(memory: mmap.mmap, noise: bytes) -> None:
    """Is every page still what it was? Memory that loses what it is given was never held."""
    for at in range(0, len(memory), PAGE):
        if memory[at : at + PAGE] != _page(noise, at):
            raise RuntimeError(f"the memory has changed at {at}")


def heap(target: Target) -> str:
    """Private memory."""
    memory = mmap.mmap(-1, target["given"] * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _check(memory, _fill(memory))
    return f"{target['given']} MiB"


def shared(target: Target) -> str:
    """Shared memory, which limits on a process don't count."""
    memory = mmap.mmap(-1, target["given"] * MIB, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    _check(memory, _fill(memory))
    return f"{target['given']} MiB"


def _hold(size: int, telling: int, all_hold: int) -> None:
    """A child's life: says when its part is filled, checks it when all are, keeps it all along."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    noise = _fill(memory)
    os.write(telling, b".")
    os.read(all_hold, 1)
    _check(memory, noise)
    os.write(telling, b".")
    while True:
        signal.pause()


def many(target: Target) -> str:
    """A little in each of several processes, none of which lets go before all have checked theirs:
    one after the other would never be much."""
    all_hold, say_so = os.pipe()
    children: list[int] = []
    heard: list[int] = []
    try:
        for _ in range(HOLDERS):
            hearing, telling = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(say_so)
                    _hold(target["given"] * MIB // HOLDERS, telling, all_hold)
                finally:
                    os._exit(1)
            children.append(pid)
            heard.append(hearing)
            os.close(telling)  # so that a child's end is the end of its pipe
        if not all(os.read(hearing, 1) for hearing in heard):
            raise OSError(errno.ENOMEM, "")
        os.close(say_so)
        if not all(os.read(hearing, 1) for hearing in heard):
            raise RuntimeError("a process that held its part has ended, or found it changed")
    finally:
        end(children)
    return f"{target['given']} MiB at once in {HOLDERS} processes"


def memfd(target: Target) -> str:
    """A file that is in no file system."""
    fd = syscall(number(319, 279), b"x", 0)
    noise = _noise()
    for _ in range(target["given"]):
        if os.write(fd, noise) < MIB:
            raise OSError(errno.ENOSPC, "")
    return f"{target['given']} MiB"


def files(target: Target) -> str:
    """One file after the other, each small enough."""
    folders = {"tmp": "/tmp", "shm": "/dev/shm", "work": "/work"}
    folder = folders[target["attack"]] if target["inside"] else target["open_folder"]
    name = os.path.join(folder, f"{target['meeting']}-")
    made = []
    try:
        for at in range(target["given"]):
            made.append(f"{name}{at}")
            with open(made[-1], "wb", 0) as file:
                if file.write(bytes(MIB)) < MIB:
                    raise OSError(errno.ENOSPC, "")
    finally:
        for path in made:
            os.unlink(path)
    return f"{target['given']} MiB"


def inodes(target: Target) -> str:
    """Empty files: they take no room, but each takes memory of the machine."""
    folder = "/tmp" if target["inside"] else target["open_folder"]
    made = 0
    try:
        for at in range(target["given"]):
            os.close(os.open(f"{folder}/i{at}", os.O_WRONLY | os.O_CREAT, 0o600))
            made = at + 1
    finally:
        for at in range(made):
            os.unlink(f"{folder}/i{at}")
    return f"{made} files"


def descriptors(target: Target) -> str:
    for _ in range(target["given"]):
        os.dup(0)
    return f"{target['given']} descriptors"


def cpu(target: Target) -> str:
    """Works on, deaf to the signal that says it is enough; `given` is in seconds."""
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while resource.getrusage(resource.RUSAGE_SELF).ru_utime < target["given"]:
        sum(range(20_000))
    return f"{target['given']} s of CPU time"


def cpu_of_many(target: Target) -> str:
    """The same, a part in each of several processes, one after the other."""
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            while resource.getrusage(resource.RUSAGE_SELF).ru_utime < target["given"] / 5:
                sum(range(20_000))
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            return ""
    return f"{target['given']} s of CPU time"


def flood(target: Target) -> str:
    """Prints more than anybody wants to keep."""
    for _ in range(target["given"]):
        os.write(2, b"f" * MIB)
    return f"{target['given']} MiB printed"


def stay(target: Target) -> str:
    """Sleeps on; `given` is in seconds."""
    pause(target["given"])
    return f"{target['given']} s"


def core(target: Target) -> str:
    """A core dump: of a size, or to a program of the machine's that runs as root."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if not target["inside"] and hard != resource.RLIM_INFINITY and hard <= 1:
        hard = 0
    for wanted in ((MIB, hard), (0, 0)):
        try:
            resource.setrlimit(resource.RLIMIT_CORE, wanted)
        except (OSError, ValueError):
            continue
        return f"its limit is {wanted}"
    raise PermissionError(errno.EPERM, "")


def locked(target: Target) -> str:
    """Memory that the machine can't take back."""
    page = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    import ctypes

    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(MIB)):
        raise OSError(ctypes.get_errno(), "")
    return "1 MiB, locked"


def raise_limit(target: Target) -> str:
    """Its own limits, higher than they were."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not target["inside"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard))
        soft, hard = 8, hard - 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft + 1, hard + 1))
    except ValueError:
        raise PermissionError(errno.EPERM, "") from None
    return "higher"
