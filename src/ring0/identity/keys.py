"""The keys of a data folder's identities, in one file that only its owner can read, made when they
are first needed: of tokens, of the JWTs for edges, of certificates. Never in the journal.

What is done with a key is in tokens.py, jwts.py and certificates.py.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error, StoreDamaged

KEY_FILE: Final = "identity.key"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One private key. Its `repr` does not show it."""

    private: str
    """As whoever uses it writes it."""
    made_us: int
    name: str = ""
    certificate: str = ""
    """PEM, where it belongs to an authority."""

    def __repr__(self) -> str:
        return f"Key({self.name!r}, «hidden»)"


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them; the newest of each kind comes last."""

    version: int = 1
    token: Key | None = None
    signing: tuple[Key, ...] = ()
    authorities: tuple[Key, ...] = ()


class Keys:
    """The keys of one data folder. Its `repr` shows none."""

    def __init__(self, home: Path) -> None:
        """Reads nothing yet."""
        self._path = home / KEY_FILE
        self._held: Held | None = None

    def __repr__(self) -> str:
        return f"Keys({str(self._path)!r})"

    def held(self) -> Held:
        """What there is. Raises StoreDamaged where the file can't be read or others may."""
        if self._held is None:
            self._held = _read(self._path)
        return self._held

    def change(self, how: Callable[[Held], Held]) -> Held:
        """Puts others in their place, on disk when this returns; `how` sees what is there, and
        gives the same back where nothing is to be done. Raises StoreDamaged."""
        with self._alone():
            before = _read(self._path)
            after = how(before)
            if after is not before:
                self._write(after)
            self._held = after
            return after

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _not_written(self._path, error) from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, held: Held) -> None:
        """A new file takes the old one's place, whole or not at all."""
        beside = self._path.with_name(KEY_FILE + ".new")
        try:
            beside.unlink(missing_ok=True)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.json.encode(held))
                file.flush()
                os.fsync(fd)
            os.replace(beside, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _not_written(self._path, error) from None


def _read(path: Path) -> Held:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Held()
    except OSError as error:
        raise _damaged(path, f"it can't be read: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            raise _damaged(path, "it is no plain file of yours")
        if status.st_mode & 0o077:
            raise _damaged(path, "others may read or write it", f"chmod 600 {path}")
        content = os.read(fd, limits.KEY_FILE_SIZE_BYTES_MAX)
    finally:
        os.close(fd)
    try:
        held = msgspec.json.decode(content, type=Held)
    except msgspec.MsgspecError:  # Its message could quote a key.
        raise _damaged(path, "it is not what ring0 wrote") from None
    if held.version != 1:
        raise _damaged(path, f"it is of version {held.version}, which this ring0 can't read")
    return held


def _not_written(path: Path, error: OSError) -> Ring0Error:
    return StoreDamaged(
        f"{path} can't be written: {error.strerror}.",
        why="The keys that were there are still there.",
        todo="Look at the disk and at the folder's rights.",
    )


def _damaged(path: Path, why: str, todo: str = "") -> Ring0Error:
    return StoreDamaged(
        "The keys of identities are not read.",
        why=f"{path}: {why}.",
        todo=todo or "Put it back; or move it away: then all that was signed with them is void.",
    )
