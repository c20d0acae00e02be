"""A private folder on the host for a sandbox without mounts of its own: made, measured, removed.

What a hostile program leaves in it decides nothing: no link is followed, depth costs no recursion.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from typing import Final

from ring0 import limits
from ring0.tools.sandbox import cgroups

_PREFIX: Final = "ring0-work-"
_SANDBOX_UIDS: Final = range(2_000_000_000, 2_110_000_000)
"""Those of kernel/sandboxes.py and of probe.py: nobody else has them."""
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make(uid: int | None) -> str:
    """An empty folder that `uid` (or this user) may enter, and nobody else. Its name says which
    kernel it is of."""
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{cgroups.kernel_name()}-")
    if uid is not None:
        os.chown(folder, uid, uid)
    return folder


def sweep() -> int:
    """At boot: removes what kernels that are dead have left. Returns how many."""
    count = 0
    top = tempfile.gettempdir()
    for name in os.listdir(top):
        kernel = name.removeprefix(_PREFIX).rpartition("-")[0]
        if not name.startswith(_PREFIX) or not cgroups.is_left_behind(kernel):
            continue
        seen = os.stat(os.path.join(top, name), follow_symlinks=False)
        # The names are guessable and the folder is everybody's: only what is surely a sandbox's.
        if stat.S_ISDIR(seen.st_mode) and (
            seen.st_uid in _SANDBOX_UIDS or seen.st_uid == os.geteuid()
        ):
            remove(os.path.join(top, name))
            count += 1
    return count


def is_over(folder: str, size_bytes_max: int) -> bool:
    """Does it hold more than that, or more or deeper folders than anyone needs? To be asked while
    a program writes: the answer is about that moment."""
    size, entries = 0, 0
    try:
        pending = [(os.open(folder, _OPEN), 0)]
    except OSError:
        return False
    while pending:
        fd, depth = pending.pop()
        try:
            with os.scandir(fd) as listing:
                for entry in listing:
                    entries += 1
                    with contextlib.suppress(OSError):  # it is gone
                        seen = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
                        size += seen.st_blocks * 512
                        if stat.S_ISDIR(seen.st_mode):
                            pending.append((os.open(entry.name, _OPEN, dir_fd=fd), depth + 1))
                    if (
                        size > size_bytes_max
                        or entries > limits.WORK_ENTRIES_MAX
                        or len(pending) > limits.WORK_FOLDERS_OPEN_MAX
                        or depth > limits.WORK_DEPTH_MAX
                    ):
                        for other, _ in pending:
                            os.close(other)
                        return True
        except OSError:
            pass
        finally:
            os.close(fd)
    return False


def remove(folder: str) -> None:
    """With all that is in it; when its processes are dead. Folders are flattened before they are
    emptied, so that a chain of 100,000 of them is no harder than as many side by side."""
    try:
        top = os.open(folder, _OPEN)
    except FileNotFoundError:
        return
    try:
        count = 0
        while names := os.listdir(top):
            for name in names:
                if not _unlink(name, top):
                    count = _flatten(name, top, count)
    finally:
        os.close(top)
    os.rmdir(folder)


def _flatten(name: str, top: int, count: int) -> int:
    """Empties one folder of `top`: its files go, its folders become `top`'s."""
    os.chmod(name, 0o700, dir_fd=top)
    fd = os.open(name, _OPEN, dir_fd=top)
    try:
        for inner in os.listdir(fd):
            if not _unlink(inner, fd):
                count += 1
                os.chmod(inner, 0o700, dir_fd=fd)  # else it can't be moved
                os.rename(inner, _free_name(top, count), src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=top)
    return count


def _free_name(top: int, count: int) -> str:
    """One that nothing in `top` has: a hostile program may have guessed the first ones."""
    while True:
        name = f".ring0-{count}"
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            return name
        count += limits.WORK_ENTRIES_MAX


def _unlink(name: str, folder: int) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True
