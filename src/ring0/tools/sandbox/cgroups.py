"""Totals of a sandbox as a whole: memory with its files, processes, CPU time, by Linux's cgroups.

Version 2 where a subtree is ours to write in, version 1 as root; nothing else is tried. Where there
is neither, `create` gives None, rlimits hold for each process alone, and `found` says why.

A sandbox's way: `take`; `join` before "go" (or init writes "0" to each of `join_fds()` before it
forks or drops its uid); `watch` beside it, which tells when to kill; `give_back` once it is dead.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
from collections import deque
from collections.abc import Mapping

import msgspec

from ring0 import limits
from ring0.errors import SandboxFailed
from ring0.runtime import Runtime
from ring0.tools.sandbox.hierarchies import Base, Found, enable, look
from ring0.tools.sandbox.process import start_ticks
from ring0.tools.sandbox.spec import SandboxLimits

_PREFIX = "ring0-"
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class Usage(msgspec.Struct, frozen=True):
    """What a sandbox has used so far. -1 is "this machine doesn't tell"."""

    memory_bytes_peak: int = -1
    """Processes, files in memory, and Linux's own bookkeeping for them, at their highest."""
    cpu_us: int = -1
    """Of all its processes, the dead ones included."""
    processes: int = -1
    """Processes and threads now."""
    memory_kills: int = 0
    """How many processes Linux has ended because the memory was used up."""


class Group:
    """One sandbox's cgroups. Its processes are its sandbox's, and nobody else's."""

    def __init__(self, base: Base, folders: Mapping[str, str], wanted: SandboxLimits) -> None:
        self._base = base
        self._folders = folders
        self._limits = wanted
        self._cpu_us_before = 0
        """What others had used, where it has been another sandbox's."""
        self._is_over = False

    def join_fds(self) -> list[int]:
        """Descriptors to write "0" to, by the process that is to join. The caller closes them."""
        opened: list[int] = []
        try:
            for folder in dict.fromkeys(self._folders.values()):
                path = os.path.join(folder, "cgroup.procs")
                opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            for fd in opened:
                os.close(fd)
            raise _failed(error) from None
        return opened

    def join(self, pid: int) -> None:
        """Moves a child of this process in. Linux may take 10 ms for it (a grace period, where
        nobody has joined anything just before): do it in a thread, before "go"."""
        for folder in dict.fromkeys(self._folders.values()):
            try:
                _must_write(folder, "cgroup.procs", str(pid))
            except OSError as error:
                raise _failed(error) from None

    def processes(self) -> list[int]:
        """The pids of its living processes."""
        text = _read(os.path.join(self._folders["pids"], "cgroup.procs"))
        return [int(word) for word in text.split()]

    def usage(self) -> Usage:
        """As of now; what it was at the end, once everything is dead."""
        memory, pids = self._folders["memory"], self._folders["pids"]
        if self._base.version == 2:
            cpu = _field(_read(os.path.join(memory, "cpu.stat")), "usage_usec")
            peak = _number(_read(os.path.join(memory, "memory.peak")))  # Linux 5.19
            if peak < 0:
                peak = _number(_read(os.path.join(memory, "memory.current")))
            kills = _field(_read(os.path.join(memory, "memory.events")), "oom_kill")
        else:
            cpu = -1
            if "cpuacct" in self._folders:
                text = _read(os.path.join(self._folders["cpuacct"], "cpuacct.usage"))
                cpu = _number(text) // 1_000 - self._cpu_us_before if text else -1
            peak = _number(_read(os.path.join(memory, "memory.max_usage_in_bytes")))
            kills = _field(_read(os.path.join(memory, "memory.oom_control")), "oom_kill")
        current = _number(_read(os.path.join(pids, "pids.current")))
        return Usage(peak, cpu, current, max(0, kills))

    def over(self, cpu_s: int) -> str:
        """Which total is used up: `memory`, `cpu` (where `cpu_s` is above 0), or none."""
        used = self.usage()
        if used.memory_kills:
            return "memory"
        return "cpu" if 0 < cpu_s * 1_000_000 <= used.cpu_us else ""

    def kill(self) -> None:
        """SIGKILL to all; no process can be made in it from here on. They need not be gone yet."""
        if self._base.version == 2 and _write(self._folders["pids"], "cgroup.kill", "1"):
            return
        _write(self._folders["pids"], "pids.max", "0")  # whoever forks now, fails
        for _ in range(2):  # who was being made while the first list was read is on the second
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _kill_and_count(self) -> int:
        self.kill()
        return len(self.processes())

    async def end(self, runtime: Runtime) -> None:
        """Kills until nobody is left. `SandboxFailed` if somebody stays."""
        began_us = runtime.monotonic_us()
        while self._kill_and_count():
            if runtime.monotonic_us() - began_us > limits.SANDBOX_KILL_S_MAX * 1_000_000:
                raise SandboxFailed(
                    "The sandbox could not be confirmed dead.",
                    why=f"Processes {self.processes()} outlive their kill.",
                    todo="Look at their /proc/<pid>/stack; restart the machine if they are stuck.",
                )
            await runtime.sleep(limits.SANDBOX_GONE_POLL_MS / 1_000)

    def remove(self) -> None:
        """To be called when the sandbox is dead. What Linux still holds is taken up later."""
        if not self._is_over:
            self._is_over = True
            _waiting.extend(dict.fromkeys(self._folders.values()))
            _remove_waiting()

    def give_back(self) -> None:
        """`remove`, or keep it for the next sandbox. (Version 2 never forgets its peak.)"""
        if self._is_over:
            return
        if len(_spare) < limits.SANDBOX_GROUPS_SPARE_MAX and self._base.version == 1:
            self._is_over = True
            _spare.append(Group(self._base, self._folders, self._limits))
        else:
            self.remove()

    def _renew(self, wanted: SandboxLimits) -> bool:
        """For the next sandbox: counted from here on. False for one of other limits, or where
        somebody is in it, more than a little is charged to it, or processes were ended for it."""
        if wanted != self._limits or self.processes():
            return False
        memory, pids = self._folders["memory"], self._folders["pids"]
        charged = _number(_read(os.path.join(memory, "memory.usage_in_bytes")))
        used = self.usage()
        if used.memory_kills or not 0 <= charged <= limits.SANDBOX_GROUP_SPARE_BYTES_MAX:
            return False
        self._cpu_us_before = max(0, used.cpu_us)
        # `Group.kill` may have closed it for who forks.
        return _write(memory, "memory.max_usage_in_bytes", "0") and _write(
            pids, "pids.max", _processes(wanted)
        )


def found() -> Found:
    """Which mechanism there is on this machine, for this kernel, and why. Looked up once."""
    return _base()[1]


def take(name: str, wanted: SandboxLimits) -> Group | None:
    """`create`, or one that was another sandbox's and is as good as new."""
    while _spare:
        spare = _spare.popleft()
        if spare._renew(wanted):
            return spare
        spare.remove()
    return create(name, wanted)


def create(name: str, wanted: SandboxLimits) -> Group | None:
    """The cgroups of a new sandbox, limits set, nobody in them; None where there are none here.
    `SandboxFailed` where there should be: a limit is never left out silently."""
    base = _base()[0]
    if base is None:
        return None
    assert name and set(name) <= _NAME_CHARACTERS, name
    _remove_waiting()
    folders = {
        controller: os.path.join(folder, _own_folder(), name)
        for controller, folder in base.folders.items()
    }
    group = Group(base, folders, wanted)
    try:
        _open_own(base)
        for folder in dict.fromkeys(folders.values()):
            os.mkdir(folder, 0o755)
        _set_limits(base.version, folders, wanted)
    except OSError as error:
        group.remove()
        raise _failed(error) from None
    return group


async def watch(group: Group, cpu_s: int, runtime: Runtime) -> str:
    """Returns which total is used up, when one is; the caller then kills the sandbox. To be
    cancelled when the sandbox ends by itself."""
    while True:
        if used_up := group.over(cpu_s):
            return used_up
        await runtime.sleep(limits.SANDBOX_WATCH_MS / 1_000)


def sweep() -> int:
    """At boot: kills what dead kernels left in their cgroups, and removes them. Returns how many
    sandboxes' there were. One that Linux does not let go of stays for the next boot."""
    base = _base()[0]
    if base is None:
        return 0
    found = 0
    for parent in dict.fromkeys(base.folders.values()):
        for own in (os.path.join(parent, n) for n in _subfolders(parent) if _is_left_behind(n)):
            for folder in (os.path.join(own, name) for name in _subfolders(own)):
                found += parent == base.folders["pids"]
                if parent == base.folders["pids"]:
                    Group(base, {"pids": folder}, SandboxLimits()).kill()
                _waiting.append(folder)
            _waiting.append(own)
    _remove_waiting()
    return found


# --- ours -------------------------------------------------------------------------------------

_waiting: list[str] = []
"""Folders whose sandbox is dead, and that Linux did not let go of yet."""
_spare: deque[Group] = deque()
"""Emptied ones, for the next sandboxes. The one that is empty longest comes first."""


@functools.lru_cache(maxsize=1)
def _base() -> tuple[Base | None, Found]:
    return look()


def _own_folder() -> str:
    return _PREFIX + kernel_name()


@functools.lru_cache(maxsize=1)
def kernel_name() -> str:
    """Of this process for ever: a pid alone is used again, and means little elsewhere."""
    return f"{os.getpid()}-{start_ticks(os.getpid())}-{_pid_namespace()}"


def is_left_behind(kernel: str) -> bool:
    """Is it the `kernel_name` of a dead process? One of another pid namespace can't be told."""
    parts = kernel.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        return False
    pid, ticks, namespace = map(int, parts)
    return namespace == _pid_namespace() and start_ticks(pid) != ticks


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


@functools.lru_cache(maxsize=1)
def _open_own(base: Base) -> None:
    """The folder of this kernel, whose share of the CPU is that of all its sandboxes together."""
    owns = {c: os.path.join(folder, _own_folder()) for c, folder in base.folders.items()}
    for own in dict.fromkeys(owns.values()):
        with contextlib.suppress(FileExistsError):
            os.mkdir(own, 0o755)
    if base.version == 2:
        enable(owns["memory"])
        _write(owns["memory"], "cpu.weight", str(limits.SANDBOXES_CPU_WEIGHT))
    elif "cpu" in owns:
        _write(owns["cpu"], "cpu.shares", str(limits.SANDBOXES_CPU_SHARES))
    atexit.register(_close_own, os.getpid(), tuple(dict.fromkeys(owns.values())))


def _close_own(pid: int, owns: tuple[str, ...]) -> None:
    if os.getpid() != pid:
        return  # a fork of the kernel ends, not the kernel
    while _spare:
        _spare.popleft().remove()
    _remove_waiting()
    for own in owns:
        with contextlib.suppress(OSError):
            os.rmdir(own)


def _set_limits(version: int, folders: Mapping[str, str], wanted: SandboxLimits) -> None:
    """Files of a sandbox are in memory: its total is both."""
    memory = str(wanted.memory_bytes + wanted.tmp_bytes)
    if version == 2:
        _must_write(folders["memory"], "memory.max", memory)
        _write(folders["memory"], "memory.swap.max", "0")  # not there without swap
        _must_write(folders["memory"], "memory.oom.group", "1")
    else:
        _must_write(folders["memory"], "memory.limit_in_bytes", memory)
        _write(folders["memory"], "memory.memsw.limit_in_bytes", memory)  # dito
    _must_write(folders["pids"], "pids.max", _processes(wanted))


def _processes(wanted: SandboxLimits) -> str:
    return str(wanted.processes + 1)  # init is one of them


def _remove_waiting() -> None:
    for folder in list(_waiting):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError:
            continue
        _waiting.remove(folder)


def _is_left_behind(name: str) -> bool:
    return name.startswith(_PREFIX) and is_left_behind(name.removeprefix(_PREFIX))


def _subfolders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _read(path: str) -> str:
    """Whole, without what `open` does beside it: these are read for every sandbox."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 64 * limits.KIB):
            parts.append(part)
        return b"".join(parts).decode("ascii")
    except (OSError, ValueError):
        return ""
    finally:
        os.close(fd)


def _number(text: str) -> int:
    word = text.strip()
    return int(word) if word.isdigit() else -1


def _field(text: str, name: str) -> int:
    """Of lines like `oom_kill 3`."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value)
    return -1


def _must_write(folder: str, name: str, text: str) -> None:
    fd = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _write(folder: str, name: str, text: str) -> bool:
    """The same, where it is no harm if this Linux does not have it."""
    try:
        _must_write(folder, name, text)
    except OSError:
        return False
    return True


def _failed(error: OSError) -> SandboxFailed:
    return SandboxFailed(
        "The sandbox's limits could not be set.",
        why=f"{error.filename or 'cgroup'}: {error.strerror}",
        todo="Look at the machine's number of cgroups and at who else changes them.",
    )
