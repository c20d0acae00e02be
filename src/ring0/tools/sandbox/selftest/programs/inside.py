"""What the attack programs share: raw system calls, and one line that says what was got.

The line is JSON: {"got": "..."} (empty: nothing), {"refused": "EPERM"} or {"broken": "..."}: a
fault of the program itself never counts as an attack that was held off.
"""

# An attack: what a linter warns of is meant.
# ruff: noqa: S108

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any

Target = dict[str, Any]

libc = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
NEW_NAMESPACE, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000
NEW_USER, NEW_PID, NEW_NET = 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PLAYGROUND = "/tmp"
"""Where a control in throw-away namespaces mounts, and where a sandbox may write."""


class Missing(Exception):
    """This machine does not have what the attack is about."""


def number(x86_64: int, aarch64: int) -> int:
    """A system call's number here."""
    found = aarch64 if ARM else x86_64
    if found < 0:
        raise Missing(f"{os.uname().machine} has no such call")
    return found


def syscall(which: int, *args: int | bytes | ctypes.Array[Any] | None) -> int:
    """Raises OSError as Linux says it."""
    longs = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = libc.syscall(ctypes.c_long(which), *longs)
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result


def reached(which: int, *args: int | bytes | ctypes.Array[Any] | None) -> str:
    """Did the call get as far as to look at its arguments? Raises OSError where it was refused."""
    try:
        syscall(which, *args)
    except OSError as error:
        if error.errno in REFUSALS:
            raise
        return f"Linux answered {name_of(error.errno)}"
    return "Linux did it"


def name_of(code: int | None) -> str:
    return errno.errorcode.get(code or 0, str(code))


def first(attempts: Callable[[str], str], candidates: list[str]) -> str:
    """The first candidate that gives something; raises the last refusal where none does."""
    refusal: OSError | None = None
    for candidate in candidates:
        try:
            if got := attempts(candidate):
                return got
        except OSError as error:
            refusal = error
    if refusal is not None:
        raise refusal
    return ""


def read_text(path: str, most: int = 65_536) -> str:
    """The beginning of a file, whatever it is; never blocks on a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, most).decode("utf-8", "replace")
    finally:
        os.close(fd)


def pids() -> list[int]:
    """Every process that can be seen."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def pause(seconds: float) -> None:
    select.select([], [], [], seconds)


def forked(function: Callable[[], None]) -> int:
    """A child that does it and ends; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def end(children: list[int]) -> None:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


def ask(connection: socket.socket) -> str:
    """What a service says first."""
    with connection:
        connection.settimeout(3)
        return connection.recv(4096).decode("utf-8", "replace")


def mount(source: str, target: str, kind: str, flags: int) -> None:
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), "")


def leave_the_host() -> None:
    """For a control: every power, in namespaces where nothing that it does harms anybody."""
    uid, gid = os.getuid(), os.getgid()
    user = 0 if uid == 0 else NEW_USER
    if libc.unshare(ctypes.c_int(user | NEW_NAMESPACE | NEW_UTS | NEW_IPC | NEW_NET)):
        raise Missing(f"uid {uid} gets no namespaces here: {name_of(ctypes.get_errno())}")
    if user:
        for name, text in (("setgroups", "deny"), ("gid_map", f"0 {gid} 1"),
                           ("uid_map", f"0 {uid} 1")):  # fmt: skip
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount("", "/", "", MS_REC | MS_PRIVATE)
    mount("play", PLAYGROUND, "tmpfs", MS_RDONLY)


def is_the_hosts(target: Target, name: str) -> bool:
    """Is it in that namespace of the machine's own?"""
    same: bool = os.readlink(f"/proc/self/ns/{name}") == target["namespaces"][name]
    return same


def first_process(target: Target) -> int:
    """Process 1 of the sandbox; never the machine's, which an attack that works would end."""
    if target["inside"] and not is_the_hosts(target, "pid"):
        if os.getpid() == 1:
            raise Missing("it is process 1 itself")
        return 1
    prey: int = target["prey"]
    return prey


def _is_no_sandbox(target: Target) -> bool:
    """Root in the machine's own namespaces: there no attack is tried."""
    return (
        target["inside"] and os.geteuid() == 0
        and all(is_the_hosts(target, name) for name in ("user", "mnt"))
    )  # fmt: skip


def main(program: Callable[[Target], str], target: Target) -> None:
    """Try it, and say what came of it."""
    try:
        if target.get("namespaced"):
            leave_the_host()
        open_to_all = "it is root, in the machine's own namespaces"
        said = {"got": open_to_all if _is_no_sandbox(target) else program(target)}
    except OSError as error:
        said = {"refused": name_of(error.errno)}
    except MemoryError:
        said = {"refused": "no memory"}
    except Missing as error:
        said = {"missing": str(error)}
    except Exception as error:
        said = {"broken": f"{type(error).__name__}: {error}"}
    data = (json.dumps(said) + "\n").encode()
    os.write(1, data)
    os._exit(0)
