"""Finds where in this machine's cgroups a kernel may make some of its own. It makes none itself.

Version 2 wants that a group with groups beneath it holds no process: `look` may move the kernel's
own processes one group down for that, where nobody else is in its group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

_REQUIRED: Final = ("memory", "pids")
_WANTED_V1: Final = ("memory", "pids", "cpu", "cpuacct")
_LEAF: Final = "ring0-kernel"
"""Where the kernel moves to, in its own group of version 2."""


class Found(msgspec.Struct, frozen=True):
    """What bounds a sandbox as a whole here."""

    mechanism: str
    """`cgroup v2`, `cgroup v1`, or `rlimits` (each process alone)."""
    controllers: tuple[str, ...]
    why: str
    """Where the groups are; or, with `rlimits`, why there are none."""
    todo: str = ""


@dataclass(frozen=True)
class Base:
    """The folders that a kernel may make groups in."""

    version: int
    folders: Mapping[str, str] = field(hash=False)
    """Controller → folder. In version 2 the same one for all."""


@dataclass(frozen=True)
class _Hierarchy:
    """One mount of a cgroup file system, and the kernel's own place in it."""

    version: int
    controllers: frozenset[str]
    top: str
    """The mount point."""
    own: str
    """The folder of the group that this process is in."""


def look(mounts: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup") -> tuple[
    Base | None, Found
]:  # fmt: skip
    """The base and what to say about it; without a base the reason."""
    hierarchies = list(_hierarchies(_read(mounts), _read(own)))
    base, second = _version_2(next((h for h in hierarchies if h.version == 2), None))
    if base is None:
        base, first = _version_1([h for h in hierarchies if h.version == 1])
        if base is None:
            return None, Found(
                "rlimits",
                (),
                f"{second} {first}",
                "Run ring0 as root, or with a delegated cgroup: systemd-run --user --scope "
                "-p Delegate=yes ring0 ...",
            )
        return base, Found("cgroup v1", tuple(base.folders), base.folders["memory"])
    controllers = tuple(sorted(set(_words(base.folders["memory"], "cgroup.controllers"))))
    return base, Found("cgroup v2", controllers, base.folders["memory"])


def enable(folder: str) -> None:
    """Version 2: groups beneath `folder` get the controllers. Raises OSError for a required one."""
    for name in (*_REQUIRED, "cpu"):
        try:
            _write(os.path.join(folder, "cgroup.subtree_control"), f"+{name}")
        except OSError:
            if name in _REQUIRED:
                raise


# --- version 2 --------------------------------------------------------------------------------


def _version_2(seen: _Hierarchy | None) -> tuple[Base | None, str]:
    """The kernel's own group, or the nearest above that hands its controllers down already."""
    if seen is None:
        return None, "No cgroup v2 is mounted."
    if not set(_REQUIRED) <= set(_words(seen.top, "cgroup.controllers")):
        return None, "cgroup v2 has no memory and pids controller here (version 1 has them)."
    if _is_ours(seen.own):
        try:
            _step_down(seen.own)
            enable(seen.own)
            return _base_2(seen.own), ""
        except OSError:
            pass  # not delegated as a whole: look further up
    folder = seen.own
    while True:
        handed_down = set(_words(folder, "cgroup.subtree_control"))
        if set(_REQUIRED) <= handed_down and _is_writable(folder):
            return _base_2(folder), ""
        if folder == seen.top:
            # The real root group, not that of a container, may hold processes and groups.
            if not os.path.exists(os.path.join(folder, "cgroup.type")) and _is_writable(folder):
                with contextlib.suppress(OSError):
                    enable(folder)
                    return _base_2(folder), ""
            return None, f"No cgroup v2 from {seen.own} upwards may be written to."
        folder = os.path.dirname(folder)


def _base_2(folder: str) -> Base:
    return Base(2, dict.fromkeys(_REQUIRED, folder))


def _is_ours(folder: str) -> bool:
    """May it be written to, and is nobody in it but this process and its children?"""
    if not _is_writable(folder):
        return False
    pids = {int(word) for word in _words(folder, "cgroup.procs")}
    return bool(pids) and all(_is_own(pid) for pid in pids)


def _is_own(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0
    return False


def _step_down(folder: str) -> None:
    """Moves the processes of our own group into a leaf, so that others can be made beside it."""
    leaf = os.path.join(folder, _LEAF)
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf, 0o755)
    for word in _words(folder, "cgroup.procs"):
        with contextlib.suppress(ProcessLookupError):
            _write(os.path.join(leaf, "cgroup.procs"), word)


# --- version 1 --------------------------------------------------------------------------------


def _version_1(seen: list[_Hierarchy]) -> tuple[Base | None, str]:
    """The kernel's own group of each controller: what bounds the kernel bounds its sandboxes."""
    folders = {
        name: hierarchy.own
        for name in _WANTED_V1
        for hierarchy in seen
        if name in hierarchy.controllers
    }
    missing = [name for name in _REQUIRED if name not in folders]
    if missing:
        return None, f"No cgroup v1 has the controller {' and '.join(missing)}."
    closed = [folder for name, folder in folders.items() if not _is_writable(folder)]
    if any(folders[name] in closed for name in _REQUIRED):
        return None, f"cgroup v1: {closed[0]} may not be written to."
    return Base(1, {n: f for n, f in folders.items() if f not in closed}), ""


# --- both -------------------------------------------------------------------------------------


def _hierarchies(mounts: str, own: str) -> Iterator[_Hierarchy]:
    places = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        places[frozenset(names.split(",")) - {""}] = path
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = (_plain(word) for word in before.split(" ")[3:5])
        if kind == "cgroup2" and frozenset() in places:
            yield _Hierarchy(2, frozenset(), point, _inside(point, root, places[frozenset()]))
        elif kind == "cgroup":
            mounted = set(options.split(","))
            for group in filter(mounted.issuperset, filter(None, places)):
                yield _Hierarchy(1, group, point, _inside(point, root, places[group]))


def _inside(point: str, root: str, path: str) -> str:
    """Where `path` is shown when `root` is mounted at `point`. In a container that was given only
    its own part, that part is the mount point itself."""
    prefix = root.rstrip("/")
    if path == root or path.startswith(prefix + "/"):
        return os.path.normpath(point + "/" + path[len(prefix) :])
    return point


def _plain(word: str) -> str:
    """Without the octal escapes of mountinfo."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word


def _is_writable(folder: str) -> bool:
    """May groups be made here, and processes moved into them? A read-only mount says no too."""
    return os.access(folder, os.W_OK | os.X_OK) and os.access(
        os.path.join(folder, "cgroup.procs"), os.W_OK
    )


def _words(folder: str, name: str) -> list[str]:
    return _read(os.path.join(folder, name)).split()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
