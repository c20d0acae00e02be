"""The data folder as the user named it: what can't be one is an error of its own, in every verb."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ring0.errors import InvalidInput, StoreDamaged
from ring0.kernel.agent import manifests
from ring0.store.sqlite.opening import HEAD, JOURNAL

TODO: Final = "Set RING0_HOME (or --home) to a folder that you may read and write."
_REFUSALS: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


def home_of(environment: Mapping[str, str]) -> Path:
    """The data folder's path. Raises InvalidInput."""
    try:
        return manifests.home_folder(environment)
    except (OSError, RuntimeError, ValueError) as error:  # `~nobody`, a circle of links
        raise InvalidInput(
            f"RING0_HOME names no folder: {environment.get('RING0_HOME', '')[:200]!r}.",
            why=str(error),
            todo=TODO,
        ) from None


def check_home(home: Path, *, write: bool = False) -> None:
    """Can this be a data folder? One that is not there yet can. Raises InvalidInput."""
    try:
        found = home.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(home, f"can't be read: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(home, "is not a folder")
    if not os.access(home, os.R_OK | os.X_OK):
        raise _refused(home, f"can't be read: {os.strerror(errno.EACCES)}")
    if write and not os.access(home, os.W_OK):
        raise _refused(home, f"can't be written to: {os.strerror(errno.EACCES)}")


def check_journal(home: Path) -> None:
    """Is there something to read? Raises StoreDamaged, InvalidInput."""
    path = home / JOURNAL
    try:
        if path.exists():
            if not os.access(path, os.R_OK):
                raise _refused(path, f"can't be read: {os.strerror(errno.EACCES)}")
            return
        anchored = (home / HEAD).exists()
    except OSError as error:
        raise _refused(home, f"can't be read: {error.strerror}") from None
    if anchored:
        raise StoreDamaged(
            f"The journal {path} is gone, but its head file is there.",
            why="The file was moved or deleted.",
            todo=f"Put back a copy of {JOURNAL}, or move {HEAD} aside to begin a new one.",
        )
    raise StoreDamaged(
        f"There is no journal in {home}: nothing has run here yet.",
        todo="Run an agent first, or set RING0_HOME to the folder that you mean.",
    )


def folder_refused(error: OSError) -> InvalidInput | None:
    """A file that the system refuses, told as such: no fault of ours. None where it is another."""
    if error.errno not in _REFUSALS or not isinstance(error.filename, str):
        return None
    return InvalidInput(f"{error.filename} can't be used: {error.strerror}.", todo=TODO)


def _refused(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"The data folder can't be used: {path} {why}.", todo=TODO)
