"""What is asked of a sandbox, and its translation into what the launcher reads."""

from __future__ import annotations

import os
import resource
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, SandboxFailed, SandboxUnavailable
from ring0.tools.sandbox.mounts import Mount, plan
from ring0.tools.sandbox.seccomp import compile_filter

LINUX_MIN: Final = (5, 14)
"""mount_setattr is of 5.12; since 5.14 a limit on processes is counted per user namespace."""

_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_HOME: Final = "/tmp"  # noqa: S108  # of the sandbox
_ADDRESSES_SPARE_BYTES: Final = 16 * 1024 * limits.MIB
"""Address space beyond memory_bytes: V8 and Go reserve much more than they use."""


class SandboxLimits(msgspec.Struct, frozen=True):
    """What one sandbox may use. Memory and CPU are per process: there is no cgroup yet."""

    memory_bytes: int = limits.SANDBOX_MEMORY_BYTES_DEFAULT
    """Private writable memory of each process, its threads' stacks included."""
    processes: int = limits.SANDBOX_PROCESSES_DEFAULT
    """Processes and threads at once."""
    open_files: int = limits.SANDBOX_OPEN_FILES_DEFAULT
    """File descriptors of each process."""
    tmp_bytes: int = limits.SANDBOX_TMP_BYTES_DEFAULT
    """All that can be written to files (which are in memory)."""
    cpu_s: int = 0
    """CPU time of each process; 0 is without limit."""


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The sandbox to make and the program to run in it."""

    argv: tuple[str, ...]
    """A program by path, or by name to be found in env's PATH; and its arguments."""
    env: dict[str, str] = {}
    """All of its environment, but for HOME (/tmp), and PATH where none is given."""
    cwd: str = _HOME
    mounts: tuple[Mount, ...] = ()
    """Read-only, beside `runtime_mounts()`. Nothing else of the host is there."""
    doors: bool = False
    """Make a loopback TCP listener and /run/ring0/door.sock inside, and hand over both."""
    limits: SandboxLimits = SandboxLimits()
    host_uid: int | None = None
    """The sandbox's uid where the kernel is root: never 0, never shared. Ignored otherwise."""


def launcher_fields(spec: SandboxSpec) -> dict[str, object]:
    """`spec` as launcher.py's `Spec` reads it. Raises for what can't be."""
    release = os.uname().release
    version = tuple(int("".join(filter(str.isdigit, p)) or 0) for p in release.split(".")[:2])
    if version < LINUX_MIN:
        raise SandboxUnavailable(
            f"Linux {release} can't make the sandbox.",
            why="Read-only mounts as a whole, and a count of processes per sandbox, are newer.",
            todo=f"Use Linux {LINUX_MIN[0]}.{LINUX_MIN[1]} or later.",
        )
    if not spec.argv or not spec.argv[0]:
        raise InvalidInput("A sandbox needs a program to run.")
    env = {"PATH": _PATH, **spec.env, "HOME": _HOME}
    if any("\0" in text for text in (*spec.argv, spec.cwd, *env, *env.values())):
        raise InvalidInput("A NUL byte can't be part of an argument, a path or the environment.")
    if any(not name or "=" in name for name in env):
        raise InvalidInput("A name in the environment is empty or has '=' in it.")
    planned = plan(spec.mounts)
    return {
        "argv": list(spec.argv),
        "env": env,
        "cwd": spec.cwd,
        "links": list(planned.links),
        "mounts": list(planned.mounts),
        "door_port": limits.DOOR_PORT if spec.doors else 0,
        "tmp_bytes": spec.limits.tmp_bytes,
        "limits": _rlimits(spec.limits),
        "host_uid": _host_uid(spec.host_uid),
        "filter": compile_filter(os.uname().machine),
    }


def _rlimits(wanted: SandboxLimits) -> list[tuple[int, int, int]]:
    """(which, soft, hard). The launcher lowers each to what the kernel itself may have."""
    if min(wanted.memory_bytes, wanted.processes, wanted.open_files, wanted.tmp_bytes) <= 0:
        raise InvalidInput("A sandbox's limits must be above 0 (cpu_s: 0 or above).")
    both = {
        # DATA is what can be filled with private memory; AS bounds shared anonymous memory too.
        resource.RLIMIT_DATA: wanted.memory_bytes,
        resource.RLIMIT_AS: wanted.memory_bytes + _ADDRESSES_SPARE_BYTES,
        resource.RLIMIT_NPROC: wanted.processes + 1,  # init is one of them
        resource.RLIMIT_NOFILE: wanted.open_files,
        resource.RLIMIT_FSIZE: wanted.tmp_bytes,
        resource.RLIMIT_MEMLOCK: 64 * limits.KIB,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    result = [(which, value, value) for which, value in both.items()]
    if wanted.cpu_s > 0:  # SIGXCPU, and a second later SIGKILL
        result.append((resource.RLIMIT_CPU, wanted.cpu_s, wanted.cpu_s + 1))
    return result


def _host_uid(asked: int | None) -> int:
    if os.geteuid() != 0:
        return 0
    if asked is None or not 0 < asked < 2**32 - 2:
        raise SandboxFailed(
            "A kernel that runs as root must give each sandbox a uid of its own.",
            why="A sandbox with root's uid could write what belongs to root.",
            todo="Set host_uid, or run the kernel as an ordinary user.",
        )
    return asked
