"""A sandbox's process number 1 as the kernel holds it: named for ever, awaited, killed for certain.

Knows nothing of how a sandbox is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal

import msgspec

from ring0 import limits
from ring0.errors import SandboxFailed
from ring0.runtime import Runtime


class Identity(msgspec.Struct, frozen=True):
    """Names a sandbox's init for ever: a pid alone is used again."""

    pid: int
    """The host's number of the process that is 1 inside."""
    start_ticks: int
    """Field 22 of /proc/<pid>/stat: clock ticks from boot to its start."""
    boot_id: str
    """/proc/sys/kernel/random/boot_id."""


class Exit(msgspec.Struct, frozen=True):
    """How a program ended; one of the two is None."""

    code: int | None
    signal: int | None


class Init:
    """A living or dead pid 1, held by a pidfd: a number could come to mean someone else."""

    def __init__(self, pidfd: int, identity: Identity) -> None:
        self._pidfd = pidfd
        self.identity = identity

    def kill(self) -> None:
        """SIGKILL. Linux then kills and buries every process of the namespace before this one."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def gone(self) -> Exit:
        """Returns when it is dead, and with it all of the namespace. To be called once."""
        await readable(self._pidfd)
        seen = Exit(None, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # another kernel's child, before a crash
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)  # noqa: ASYNC222  # it is dead
            if result is not None and result.si_code == os.CLD_EXITED:
                seen = Exit(result.si_status, None)
            elif result is not None:
                seen = Exit(None, result.si_status)
        os.close(self._pidfd)
        self._pidfd = -1
        return seen


async def confirm_dead(identity: Identity, runtime: Runtime) -> None:
    """Kill the sandbox of a kernel that crashed, and return when it is gone; `SandboxFailed` if it
    does not go. A pid that now belongs to another process is left alone: the sandbox is dead."""
    if identity.pid <= 1 or identity.boot_id != boot_id():
        return
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        # In this order: what was read is of the process that the pidfd holds, or that one is dead.
        if start_ticks(identity.pid) != identity.start_ticks:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await runtime.wait_for(readable(pidfd), limits.SANDBOX_KILL_S_MAX)
    except (TimeoutError, PermissionError) as error:
        raise not_dead(identity, str(error)) from None
    finally:
        os.close(pidfd)


async def program_dead(init: int) -> None:
    """Returns when the first process that an init of ours began (the program) is dead; at once
    where there is none any more. Sooner than init can tell: it has to be woken first."""
    try:
        pidfd = os.pidfd_open(first_child(init))
    except (OSError, IndexError):
        return
    try:
        await readable(pidfd)
    finally:
        os.close(pidfd)


def first_child(pid: int) -> int:
    """The first process that it began. Raises OSError, IndexError where there is none."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return int(file.read().split()[0])


def not_dead(identity: Identity, why: str = "") -> SandboxFailed:
    """The error for a sandbox that outlives its kill."""
    return SandboxFailed(
        f"The sandbox with process {identity.pid} could not be confirmed dead.",
        why=why or f"It is still there {limits.SANDBOX_KILL_S_MAX} s after SIGKILL.",
        todo=f"Look at /proc/{identity.pid}/stack; if it is stuck there, restart the machine.",
    )


def identify(pid: int) -> Identity:
    """The identity of a process that is alive, or dead and not yet waited for."""
    ticks = start_ticks(pid)
    if ticks is None:
        raise SandboxFailed("The sandbox's first process vanished while it was being made.")
    return Identity(pid, ticks, boot_id())


@functools.lru_cache(maxsize=1)
def boot_id() -> str:
    """Another one after each start of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int | None:
    """When a process began; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the program's name, which may hold spaces and brackets.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


async def readable(fd: int) -> None:
    """Returns when `fd` has something to read (a pidfd: when the process is dead)."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, settle)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
