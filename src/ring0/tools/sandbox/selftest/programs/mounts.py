"""Tries to change the view: mounts old and new, another root."""

from __future__ import annotations

import ctypes
import os

from ring0.tools.sandbox.selftest.programs.inside import (
    MS_BIND,
    MS_REC,
    MS_REMOUNT,
    PLAYGROUND,
    Target,
    first,
    libc,
    mount,
    number,
    syscall,
)

AT_FDCWD, AT_RECURSIVE, OPEN_TREE_CLONE, FSCONFIG_CMD_CREATE, MOVE_MOUNT_FROM_EMPTY = (
    -100,
    0x8000,
    1,
    6,
    4,
)


def _places(target: Target) -> list[str]:
    """Mount points that it can see: read-only ones inside, the playground in the control."""
    return ["/usr", "/", "/dev/null", "/proc"] if target["inside"] else [PLAYGROUND]


def remount(target: Target) -> str:
    """A read-only mount, writable again."""

    def attempt(place: str) -> str:
        mount("", place, "", MS_REMOUNT | MS_BIND)
        return place

    return first(attempt, _places(target))


def new(target: Target) -> str:
    """A file system of its own making."""
    mount("x", PLAYGROUND, target["given"], 0)
    return "mounted"


def bind(target: Target) -> str:
    mount("/", PLAYGROUND, "", MS_BIND | MS_REC)
    return "mounted"


def detach(target: Target) -> str:
    """What hides something is taken away."""

    def attempt(place: str) -> str:
        if libc.umount2(place.encode(), ctypes.c_int(2)):
            raise OSError(ctypes.get_errno(), "")
        return place

    return first(attempt, [PLAYGROUND, *_places(target)])


def pivot(target: Target) -> str:
    """Another root: what is above it may be the host's."""
    os.chdir(PLAYGROUND)
    syscall(number(155, 41), b".", b".")
    return "pivoted"


def chroot(target: Target) -> str:
    """The way out of a chroot is another chroot."""
    os.chroot(PLAYGROUND)
    return "in another root"


def file_system_context(target: Target) -> str:
    """The new way to mount begins here."""
    fd = syscall(430, b"tmpfs", 0)
    syscall(431, fd, FSCONFIG_CMD_CREATE, None, None, 0)
    os.close(syscall(432, fd, 0, 0))
    return "a file system, in a descriptor"


def copy_of_tree(target: Target) -> str:
    os.close(syscall(428, AT_FDCWD, b"/", OPEN_TREE_CLONE | AT_RECURSIVE))
    return "a copy of the tree, in a descriptor"


def move(target: Target) -> str:
    """A mount put elsewhere."""
    place = PLAYGROUND.encode()
    source = b"/usr" if target["inside"] else place
    if not target["inside"]:
        fd = syscall(428, AT_FDCWD, source, OPEN_TREE_CLONE)
        syscall(429, fd, b"", AT_FDCWD, place, MOVE_MOUNT_FROM_EMPTY)
    else:
        syscall(429, AT_FDCWD, source, AT_FDCWD, place, 0)
    return "moved"


def attributes(target: Target) -> str:
    """Read-only taken off by mount_setattr, for a whole tree."""
    place = b"/" if target["inside"] else PLAYGROUND.encode()
    record = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
    syscall(442, AT_FDCWD, place, AT_RECURSIVE, record, 32)
    return "writable"
