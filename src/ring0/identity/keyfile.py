"""Files that only their owner reads: written whole or not at all, refused where others may look.

For keys and the vault. What they hold is not this module's business.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ring0.errors import Ring0Error, StoreDamaged


def read_private(path: Path, size_bytes_max: int) -> bytes | None:
    """What it holds; None where it is not there. Raises StoreDamaged where others may read it, or
    where it is anything but a plain file of ours."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(path, f"it can't be read: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            raise damaged(path, "it is no plain file of yours")
        if status.st_mode & 0o077:
            raise damaged(path, "others may read or write it", f"chmod 600 {path}")
        if status.st_size > size_bytes_max:
            raise damaged(path, f"it is larger than {size_bytes_max:,} bytes")
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(size_bytes_max)
    finally:
        os.close(fd)


def write_private(path: Path, content: bytes) -> None:
    """Takes the old one's place, on disk when this returns. Raises StoreDamaged; the old one is
    then still there. Whoever may write at the same time holds `alone`."""
    beside = path.with_name(path.name + ".new")
    try:
        _write_beside(beside, content)
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise not_written(path, error) from None


def check_room(path: Path, size_bytes: int) -> None:
    """Could so much be written there now? Raises StoreDamaged."""
    beside = path.with_name(path.name + ".room")
    try:
        _write_beside(beside, b"\0" * size_bytes)
    except OSError as error:
        raise not_written(path, error) from None
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path, name: str = "") -> Iterator[None]:
    """While it is entered, nobody else who asks for the same is in. `name`: a file of the folder
    to hold; the folder itself where it is empty. Raises StoreDamaged."""
    path = folder / name if name else folder
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW if name else os.O_RDONLY | os.O_DIRECTORY
    try:
        held = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise not_written(path, error) from None
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            raise not_written(path, error) from None
        yield
    finally:
        os.close(held)


def damaged(path: Path, why: str, todo: str = "") -> Ring0Error:
    """For the vault and its key."""
    return StoreDamaged(
        "The vault is not opened.",
        why=f"{path}: {why}.",
        todo=todo or "Put it right, or move it away and set the secrets again.",
    )


def not_written(path: Path, error: OSError) -> Ring0Error:
    """It could not be, and nothing is lost."""
    return StoreDamaged(
        f"{path} can't be written: {error.strerror}.",
        why="What it held before is still there.",
        todo="Look at the disk and at the folder's rights.",
    )


def _write_beside(beside: Path, content: bytes) -> None:
    beside.unlink(missing_ok=True)  # Of somebody who was killed.
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
