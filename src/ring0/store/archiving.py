"""The file that holds the values of an ended run, beside the journal: written whole, read warily.

    magic, then frames: form (1 byte), address (32), size as it lies in the file (4), size of the
    value (4), the value, deflated where that makes it shorter; then a frame of zeros.

The journal names the SHA-256 of the whole file, and each value is checked against its address
under the run's key. Nothing that it says of itself is believed: a length is bounded before a byte
of it is read, a value before it is unpacked. Not here: which values go there (kernel/operating/).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

from ring0 import limits
from ring0.errors import InvalidInput, StoreDamaged, StoreFailed, StoreFull
from ring0.store.lists import fits

FOLDER: Final = "archive"
_ENDING: Final = ".r0a"
_WRITING: Final = ".r0a.new"
ENDINGS: Final = (_ENDING, _WRITING)
"""Of all names that are ours in that folder."""
_MAGIC: Final = b"ring0-archive-v1\n"
_FRAME: Final = struct.Struct(">B32sII")
_LIST_BIT: Final = 1
_PACKED_BIT: Final = 2
_FRAME_BIT: Final = 4
"""In every frame: the end has none."""
_ANY: Final = _LIST_BIT | _PACKED_BIT | _FRAME_BIT
_END: Final = b"\0" * _FRAME.size
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def path_of(home: Path, run: str) -> Path:
    """Where the archive of a run lies. Raises InvalidInput: a name that could be another's file."""
    if not _NAME.fullmatch(run):
        raise InvalidInput(f"{run[:40]!r} can't be archived.", todo="`ring0 ps --all` lists runs.")
    return home / FOLDER / f"{run}{_ENDING}"


class Writing:
    """Writes one archive: nothing of it stands under its name before `finish`. Use it in a `with`;
    what was not finished is taken away. Raises StoreFull, StoreFailed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_suffix(_WRITING)
        self._sha = hashlib.sha256()
        self._file: BinaryIO | None = None

    def __enter__(self) -> Writing:
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._beside.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._beside, flags, 0o600), "wb")
            self._put(_MAGIC)
        except OSError as error:
            self._drop()
            raise not_written(self._path, error) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._drop()

    def add(self, values: list[tuple[str, bool, bytes]]) -> None:
        """(address, whether it is a list, what lies there)."""
        try:
            for where, is_list, value in values:
                packed = zlib.compress(value, 6)
                shorter = len(packed) < len(value)
                form = _FRAME_BIT | _LIST_BIT * is_list | _PACKED_BIT * shorter
                lies = packed if shorter else value
                self._put(_FRAME.pack(form, bytes.fromhex(where), len(lies), len(value)))
                self._put(lies)
        except OSError as error:
            raise not_written(self._path, error) from None

    def finish(self) -> str:
        """On disk under its name when this returns. The SHA-256 of the file."""
        file = self._file
        assert file is not None, "it is being written"
        try:
            self._put(_END)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(self._beside, self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise not_written(self._path, error) from None
        return self._sha.hexdigest()

    def _put(self, raw: bytes) -> None:
        assert self._file is not None, "it is being written"
        self._file.write(raw)
        self._sha.update(raw)

    def _drop(self) -> None:
        try:
            if self._file is not None:
                self._file.close()
        except OSError:
            pass  # What could not be written is taken away.
        try:
            self._beside.unlink(missing_ok=True)
        except OSError:
            pass


def read(path: Path, digest: str, key: bytes) -> Iterator[tuple[str, bool, bytes]]:
    """What was added, in order, once the whole file was found to be the one of that digest. Raises
    StoreDamaged."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            if _digest(file) != digest:
                raise damaged(path, "it is not the file that was written")
            yield from _values(path, file, key)
    except FileNotFoundError:
        raise damaged(path, "it is gone") from None
    except OSError as error:
        raise damaged(path, f"it can't be read: {error.strerror}") from None


def is_whole(path: Path, digest: str) -> bool:
    """Whether the file is the one that was written."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            return _digest(file) == digest
    except OSError:
        return False


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    sha = hashlib.sha256()
    while piece := file.read(limits.ARCHIVE_READ_SIZE_BYTES):
        sha.update(piece)
    return sha.hexdigest()


def _values(path: Path, file: BinaryIO, key: bytes) -> Iterator[tuple[str, bool, bytes]]:
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise damaged(path, "it is no archive of this ring0")
    while (head := file.read(_FRAME.size)) != _END:
        if len(head) != _FRAME.size:
            raise damaged(path, "it ends too early")
        form, raw, lies, size = _FRAME.unpack(head)
        if max(lies, size) > limits.BLOB_SIZE_BYTES_MAX or form & ~_ANY or not form & _FRAME_BIT:
            raise damaged(path, "it holds what no archive does")
        value = file.read(lies)
        if len(value) != lies:
            raise damaged(path, "it ends too early")
        if form & _PACKED_BIT:
            value = _unpacked(path, value, size)
        where, is_list = raw.hex(), bool(form & _LIST_BIT)
        if len(value) != size or not fits(key, where, value, is_list=is_list):
            raise damaged(path, f"its value {where[:16]}… is not what was archived")
        yield where, is_list, value


def _unpacked(path: Path, value: bytes, size: int) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(value, size + 1)
    except zlib.error as error:
        raise damaged(path, f"a value can't be unpacked ({error})") from None
    if len(found) != size or not unpacking.eof:
        raise damaged(path, "a value is not as long as it says")
    return found


def sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def not_written(path: Path, error: OSError) -> StoreFull | StoreFailed:
    """What a file beside the journal could not be written for."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            f"There is no room for {path}.",
            why="The disk is full; nothing of it was kept, and the journal is as it was.",
            todo="Free some space, or put the folder on another disk (a link to it will do).",
        )
    return StoreFailed(
        f"{path} can't be written: {error.strerror or error}.",
        why="Nothing of it was kept, and the journal is as it was.",
        todo="See to the folder's permissions and to the disk.",
    )


def damaged(path: Path, why: str) -> StoreDamaged:
    """What is told of an archive that is not as it was written."""
    return StoreDamaged(
        f"The archive {path} can't be used: {why}.",
        why="It was changed, cut short or taken away since it was written; nothing was read of it.",
        todo="Put the file back from a back-up. The journal itself is whole without it.",
    )
