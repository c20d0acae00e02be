"""What goes wrong with a write, and whose fault it is: the write's, the disk's or ours."""

from __future__ import annotations

import errno

import apsw

from ring0.errors import Ring0Error, StoreFailed, StoreFull
from ring0.store.base import GuardFailed, Write, WriteImpossible


def is_of_the_disk(error: Exception) -> bool:
    """Nothing can be written any more; otherwise only this write can't be."""
    unfit = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError)
    return isinstance(error, OSError) or (
        isinstance(error, apsw.Error) and not isinstance(error, unfit)
    )


def is_full(error: BaseException) -> bool:
    """Is it for want of space?"""
    if isinstance(error, apsw.IOError):  # The WAL's index grows in a file of its own.
        return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE)
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, apsw.FullError)


def refusal(work: object, error: Exception) -> Exception:
    """What the caller of a write is told that was refused alone."""
    if isinstance(error, GuardFailed | Ring0Error):
        return error
    if isinstance(work, Write):
        return impossible(work, error)
    refused = WriteImpossible(
        f"What is kept beside the journal can't be written ({type(work).__name__}).",
        why=f"{type(error).__name__}: {str(error)[:200]}",
        todo="A fault of ring0: the journal is as it was. Report it, with `ring0 memory stats`.",
    )
    refused.__cause__ = error
    return refused


def impossible(write: Write, error: Exception) -> WriteImpossible:
    """A write that contradicts the journal, or that holds what can't be stored."""
    kinds = ", ".join(type(event).__name__ for event in write.events)
    refused = WriteImpossible(
        f"An event of {write.run[:80]!r} can't be put on record ({kinds}).",
        why=f"{type(error).__name__}: {str(error)[:200]}".encode("utf-8", "replace").decode(),
        todo="A fault of ring0: nothing of it was written. Report it, with `ring0 show`.",
    )
    refused.__cause__ = error
    return refused


def closed() -> StoreFailed:
    """The journal was closed."""
    return StoreFailed(
        "The journal is closed.",
        why="The kernel is ending, or has ended.",
        todo="Start it again; `ring0 recover` goes on with what it was doing.",
    )


def full() -> StoreFull:
    """Only what stops or ends something is still put on record."""
    return StoreFull(
        "The disk is full: the journal can't be written.",
        why="Nothing runs that isn't on record, so every call is refused from here on.",
        todo="Free some space, then run `ring0 recover`; what was acknowledged is safe.",
    )


def explain(error: BaseException) -> Ring0Error:
    """What a failing disk means to a person."""
    told: Ring0Error
    if is_full(error):
        told = full()
    else:
        told = StoreFailed(
            f"The journal can't be written: {error}.",
            why="Nothing runs that isn't on record, so every call is refused from here on.",
            todo="See to the disk, then run `ring0 recover`; what was acknowledged is safe.",
        )
    told.__cause__ = error
    return told
