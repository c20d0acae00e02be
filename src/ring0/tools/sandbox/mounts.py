"""What a sandbox can see of the host: the system's libraries, the interpreter, and what is named.

All of it read-only. This decides; the mounting itself is done by inside/tree.py.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from ring0.errors import InvalidInput, SandboxUnavailable

_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_FILES: Final = ("/etc/ld.so.cache", "/etc/alternatives")
"""The loader's index, and the links that /usr/bin/awk and others are on Debian."""

_OURS: Final = ("/dev", "/etc", "/proc", "/run", "/sys", "/tmp")  # noqa: S108
"""Made anew in each sandbox. Nothing that a caller names is put there."""

_PROJECT: Final = frozenset({".git", ".hg", ".env", "pyproject.toml", "agent.toml", "ring0.toml"})
PYTHONS_OWN: Final = ("bin", "lib", "lib64", "include", "share", "pyvenv.cfg")
"""What is Python's own where somebody made an environment in the folder of their project."""

_NEVER: Final = frozenset({".git", ".env", ".netrc", ".ssh", ".aws", ".gnupg"})


class Mount(msgspec.Struct, frozen=True):
    """A file or folder of the host, read-only inside."""

    source: str
    """Absolute path on the host."""
    target: str
    """Absolute path inside."""


class Plan(msgspec.Struct, frozen=True):
    """What is made, in this order."""

    links: tuple[tuple[str, str], ...]
    """Where, and what the link says: /bin → usr/bin."""
    mounts: tuple[tuple[str, str], ...]
    """Real path on the host, path inside; parents first, none beneath another."""


def runtime_mounts() -> tuple[Mount, ...]:
    """What programs need to start at all: the system's libraries, this interpreter, its
    environment, and the `ring0` package where that is installed from a checkout (then its own
    folder only: beside it lie the project's files)."""
    return tuple(mount for mount, _ in _runtime(sys.prefix, sys.base_prefix, sys.executable))


@functools.lru_cache(maxsize=4)
def _runtime(*_: str) -> tuple[tuple[Mount, str], ...]:
    """Each with its real path. Looked up once: none of it moves while this Python runs."""
    paths = [path for path in _SYSTEM if os.path.lexists(path)]
    paths += [path for path in _SYSTEM_FILES if os.path.exists(path)]
    package = os.path.realpath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))
    for path in (*_interpreter_folders(), package):
        if not _covered(path, paths):
            paths.append(path)
    return tuple((Mount(path, path), os.path.realpath(path)) for path in paths)


def is_systems(path: str) -> bool:
    """Does it lie in what every sandbox sees of the system?"""
    return any(_within(path, folder) for folder in _SYSTEM)


def has_place(target: str) -> bool:
    """Can a mount be put there? Not where a sandbox has something of its own."""
    return target != "/" and not any(_within(target, ours) for ours in _OURS)


def plan(mounts: tuple[Mount, ...]) -> Plan:
    """Check what a caller asks for and put it, with `runtime_mounts()`, in the order of making.

    `InvalidInput` for a mount that isn't there, shows a home or a secret, or has no place."""
    for mount in mounts:
        _check(mount)
    links: dict[str, str] = {}
    binds: dict[str, str] = {}
    runtime = _runtime(sys.prefix, sys.base_prefix, sys.executable)
    for mount, real in (*runtime, *((mount, os.path.realpath(mount.source)) for mount in mounts)):
        if os.path.dirname(mount.source) == "/" and os.path.islink(mount.source):
            links[mount.target] = os.readlink(mount.source)
        elif binds.setdefault(mount.target, real) != real:
            raise InvalidInput(f"Two mounts have the same place in the sandbox: {mount.target}")
    ordered: list[tuple[str, str]] = []
    for target in sorted(binds):
        above = next((t for _, t in ordered if _within(target, t)), None)
        if above is None:
            ordered.append((binds[target], target))
        elif os.path.realpath(binds[above] + target[len(above) :]) != binds[target]:
            raise InvalidInput(
                f"The sandbox has no place for {target}.",
                why=f"It lies beneath {above}, which is mounted from the host, read-only.",
                todo="Mount it elsewhere, for instance beneath /opt.",
            )
    return Plan(links=tuple(links.items()), mounts=tuple(ordered))


def _interpreter_folders() -> Iterator[str]:
    """The environment, the base installation, and every link on the way from one to the other."""
    folders = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    hop = sys.executable
    for _ in range(16):
        folder = os.path.dirname(hop)
        if os.path.basename(folder) == "bin":
            folders.append(os.path.dirname(folder))
        if not os.path.islink(hop):
            break
        hop = os.path.normpath(os.path.join(folder, os.readlink(hop)))
    for path in dict.fromkeys(folders):
        for shown in dict.fromkeys((os.path.normpath(path), os.path.realpath(path))):
            if shown == "/" or _shows_home(shown):
                raise SandboxUnavailable(
                    f"Python is installed in {shown}, which can't be shown to a sandbox.",
                    why="That folder holds more than Python.",
                    todo="Install ring0 into a virtual environment of its own.",
                )
            if _PROJECT & set(os.listdir(shown)):
                yield from filter(os.path.exists, (os.path.join(shown, own) for own in PYTHONS_OWN))
            else:
                yield shown


def _check(mount: Mount) -> None:
    for path in (mount.source, mount.target):
        if not path.startswith("/") or os.path.normpath(path) != path or "\0" in path:
            raise InvalidInput(f"A mount's path must be absolute and without '..': {path!r}")
    real = os.path.realpath(mount.source)
    if not os.path.exists(real):
        raise InvalidInput(f"There is nothing at {mount.source} to mount.")
    if real == "/" or _shows_home(real) or _NEVER & set(real.split("/")):
        raise InvalidInput(
            f"{mount.source} is not shown to a sandbox.",
            why="It is, or holds, a home folder or a place where secrets are kept.",
            todo="Mount the folder that is needed, and only that.",
        )
    if not has_place(mount.target):
        raise InvalidInput(
            f"A mount can't be placed at {mount.target}.",
            why=f"The sandbox has its own {', '.join(_OURS)}.",
            todo="Mount it elsewhere, for instance beneath /opt.",
        )


def _shows_home(path: str) -> bool:
    """Is `path` a home folder, or a folder above one?"""
    homes = {os.path.realpath(os.path.expanduser("~")), "/root", "/home"}
    return any(_within(home, path) for home in homes)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _covered(path: str, paths: list[str]) -> bool:
    return any(_within(path, folder) for folder in paths if not os.path.islink(folder))
