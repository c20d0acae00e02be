"""What is asked of a sandbox, and its translation into what makes it and what runs in it.

The two are apart: a sandbox is made without knowing what it will run, and waits like that.
"""

from __future__ import annotations

import functools
import os
import resource
import sys
from collections.abc import Collection
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, SandboxFailed, SandboxUnavailable
from ring0.tools.sandbox.mounts import Mount, plan
from ring0.tools.sandbox.seccomp import compile_filter

LINUX_MIN: Final = (5, 14)
"""mount_setattr is of 5.12; since 5.14 a limit on processes is counted per user namespace."""

_HOME: Final = "/tmp"  # noqa: S108  # of the sandbox
_ADDRESSES_SPARE_BYTES: Final = 16 * 1024 * limits.MIB
"""Address space beyond memory_bytes: V8 and Go reserve much more than they use."""


_NEVER_IMPORTED: Final = frozenset(
    {"antigravity", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "turtledemo"}
)
"""Of the standard library: what opens windows, prints, or is there to be run."""

_filter = functools.lru_cache(maxsize=1)(compile_filter)


class SandboxLimits(msgspec.Struct, frozen=True):
    """What one sandbox may use. Memory, processes and CPU time are totals of the sandbox where this
    machine has cgroups for it (`ring0 doctor` says so), and each process's own where it has not."""

    memory_bytes: int = limits.SANDBOX_MEMORY_BYTES_DEFAULT
    """Private writable memory, the threads' stacks included."""
    processes: int = limits.SANDBOX_PROCESSES_DEFAULT
    """Processes and threads at once."""
    open_files: int = limits.SANDBOX_OPEN_FILES_DEFAULT
    """File descriptors of each process."""
    tmp_bytes: int = limits.SANDBOX_TMP_BYTES_DEFAULT
    """All that can be written to files (which are in memory)."""
    cpu_s: int = 0
    """CPU time; 0 is without limit."""


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The sandbox to make and the program to run in it."""

    argv: tuple[str, ...] = ()
    """A program by path, or by name to be found in env's PATH; and its arguments. Beside `code`:
    what stands after "-c" in sys.argv."""
    code: str = ""
    """Python source, run as `python -I -c` would, but in an interpreter that is there already."""
    image: tuple[str, ...] = ()
    """Modules that this interpreter has imported beforehand; only for `code`. They are imported
    outside of any sandbox: ring0's own and the standard library's, or what the operator names."""
    env: dict[str, str] = {}
    """All of its environment, but for HOME (/tmp), and PATH where none is given."""
    cwd: str = _HOME
    mounts: tuple[Mount, ...] = ()
    """Read-only, beside `runtime_mounts()`. Nothing else of the host is there."""
    doors: bool = False
    """Make a loopback TCP listener and /run/ring0/door.sock inside, and hand over both."""
    egress: bool = False
    """Make a loopback TCP listener at PROXY_PORT inside, and hand it over."""
    workspace: bool = False
    """An empty folder /work beside /tmp; both together have `tmp_bytes`."""
    limits: SandboxLimits = SandboxLimits()
    host_uid: int | None = None
    """The sandbox's uid where the kernel is root: never 0, never shared. Ignored otherwise."""
    tier: str = "ns"
    """The weakest kind of isolation that will do (tiers.py)."""


def class_of(spec: SandboxSpec) -> bytes:
    """What a sandbox must have in common with another to be taken for it: all but the program.

    What is mounted counts as the file or folder that it is now, not as its name."""
    bare = msgspec.structs.replace(
        spec,
        argv=(), code="", env={}, cwd="", host_uid=None,
    )  # fmt: skip
    seen = []
    for mount in spec.mounts:
        try:
            status = os.stat(mount.source)
        except OSError:
            seen.append((0, 0, 0))  # the making will say what is wrong
        else:
            seen.append((status.st_dev, status.st_ino, status.st_mode))
    return msgspec.msgpack.encode((bare, seen))


def making_fields(spec: SandboxSpec) -> dict[str, object]:
    """`spec` as inside/'s `Making` reads it: nothing of the program. Raises for what can't be."""
    release = os.uname().release
    version = tuple(int("".join(filter(str.isdigit, p)) or 0) for p in release.split(".")[:2])
    if version < LINUX_MIN:
        raise SandboxUnavailable(
            f"Linux {release} can't make the sandbox.",
            why="Read-only mounts as a whole, and a count of processes per sandbox, are newer.",
            todo=f"Use Linux {LINUX_MIN[0]}.{LINUX_MIN[1]} or later.",
        )
    if spec.workspace and any((mount.target + "/").startswith("/work/") for mount in spec.mounts):
        raise InvalidInput(
            "A mount can't be placed in /work, which the program writes to.",
            todo="Mount it elsewhere, for instance beneath /opt.",
        )
    planned = plan(spec.mounts)
    return {
        "links": list(planned.links),
        "mounts": list(planned.mounts),
        "door_port": limits.DOOR_PORT if spec.doors else 0,
        "proxy_port": limits.PROXY_PORT if spec.egress else 0,
        "workspace": spec.workspace,
        "tmp_bytes": spec.limits.tmp_bytes,
        "limits": _rlimits(spec.limits),
        "host_uid": _host_uid(spec.host_uid),
        "filter": _filter(os.uname().machine),
    }


def program_fields(spec: SandboxSpec) -> dict[str, object]:
    """What is to run, as inside/'s tenant.py reads it. `InvalidInput` for what can't be."""
    if not spec.code and (not spec.argv or not spec.argv[0]):
        raise InvalidInput("A sandbox needs a program to run.")
    env = {**spec.env, "HOME": _HOME} if "HOME" in spec.env else spec.env
    texts = (*spec.argv, spec.cwd, *env, *env.values(), spec.code)
    if any("\0" in text for text in texts):
        raise InvalidInput("A NUL can't be part of a program, an argument, a path, or its env.")
    if any(not name or "=" in name for name in env):
        raise InvalidInput("A name in the environment is empty or has '=' in it.")
    try:
        for text in texts:
            os.fsencode(text)
        spec.code.encode()
    except UnicodeEncodeError:
        raise InvalidInput("A program, argument or environment holds half a character.") from None
    # HOME and PATH are there already: inside/tenant.py has them.
    return {"argv": list(spec.argv), "env": env, "cwd": spec.cwd, "code": spec.code}


def check_image(image: tuple[str, ...], named: Collection[str] = ()) -> None:
    """`InvalidInput` for a module that the kernel does not import outside of a sandbox. `named`:
    those that the operator allows, by the first part of their names."""
    if len(image) > limits.SANDBOX_MODULES_MAX:
        raise InvalidInput(f"An image has at most {limits.SANDBOX_MODULES_MAX} modules.")
    for module in image:
        parts = module.split(".")
        first = parts[0]
        known = first in sys.stdlib_module_names and first not in _NEVER_IMPORTED
        if not all(part.isidentifier() and part != "__main__" for part in parts):
            raise InvalidInput(f"{ascii(module)[:80]} is not the name of a module.")
        if not (known or first == "ring0" or first in named):
            raise InvalidInput(
                f"The module {first} is not imported ahead.",
                why="That happens outside of any sandbox, with all that the kernel may do.",
                todo="Let the program import it, or name it under [sandbox] image of ring0.toml.",
            )


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
    if wanted.cpu_s > 0:  # each process by itself: SIGXCPU, and a second later SIGKILL
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
