"""A run's workspace inside a sandbox: laid out before its program starts, collected after its end.

What the program did to its files is what differs then, by digest. Not for a sandbox whose processes
still live, unless the caller can bear that a file is taken in the middle of a write.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached, NotFound, Ring0Error, ToolFailed
from ring0.runtime import Runtime
from ring0.tools.driver import FileChange
from ring0.tools.files.undoing import Replaced, digest, evidence
from ring0.tools.sandbox.beneath import Beneath, Entry, LeftOut
from ring0.tools.workspace.files import Workspace, canonical_path, check_fits
from ring0.types import File, Frozen, Integrity, Label

OWN: Final = ".ring0"
"""A folder of the sandbox's own beside the run's files: never part of the workspace."""

T = TypeVar("T")


class Laid(Frozen, frozen=True, kw_only=True):
    """A file as the sandbox has it."""

    blob: str
    """Of the workspace's row at that time; empty: the sandbox's own change, not on record yet."""
    digest: str
    label: Label


class LaidOut(msgspec.Struct, kw_only=True):
    """What a sandbox was given of a workspace, by path."""

    files: dict[str, Laid] = {}

    @property
    def label(self) -> Label:
        """The worst of all that the program could read."""
        label = Label(integrity=Integrity.USER)
        for laid in self.files.values():
            label = label.join(
                Label(integrity=laid.label.integrity, confidentiality=laid.label.confidentiality)
            )
        return label


class Collected(msgspec.Struct, kw_only=True):
    """What a program did to the files."""

    files: tuple[FileChange, ...]
    undo: bytes
    """Evidence for `files.undo`; empty where nothing was changed."""
    left_out: tuple[LeftOut, ...]
    """What is there and is not taken: no regular file, a path that a workspace can't have, a
    second name, what can't be read. A file of the workspace in such a place stays as it was."""
    laid: LaidOut
    """What the sandbox has now: for the next `lay_out` into one that lives on."""


class _Stop:
    """Tells a thread to leave off at the next file: nobody waits for what it does any more."""

    now = False


async def lay_out(
    workspace: Workspace, beneath: Beneath, runtime: Runtime, before: LaidOut | None = None
) -> LaidOut:
    """Puts the run's files beneath the sandbox's folder. Into one that has some already, `before`,
    what differs from the workspace as it is now. Raises LimitReached where they don't fit,
    CallInvalid where one can't be a file there."""
    there = before.files if before else {}
    laid: dict[str, Laid] = {}
    piece: list[tuple[str, bytes | None]] = []
    size_bytes = 0
    for file in await workspace.list():
        if _is_own(file.path):
            continue
        has = there.get(file.path)
        if has is not None and has.blob == file.blob:
            laid[file.path] = has
            continue
        content = await workspace.content(file.blob)
        laid[file.path] = Laid(blob=file.blob, digest=digest(content), label=file.label)
        if has is None or has.digest != laid[file.path].digest:
            piece.append((file.path, content))
            size_bytes += len(content)
        if size_bytes >= limits.LAY_OUT_PIECE_SIZE_BYTES:
            await _in_thread(runtime, _write, beneath, piece)
            piece, size_bytes = [], 0
    piece += [(path, None) for path in there.keys() - laid.keys()]
    if piece:
        await _in_thread(runtime, _write, beneath, piece)
    return LaidOut(files=laid)


async def collect(
    workspace: Workspace, beneath: Beneath, laid: LaidOut, runtime: Runtime, label: Label
) -> Collected:
    """The files that are not as they were laid out; each gets `label`. Raises LimitReached where
    the workspace can't hold them, ToolFailed where another call has changed one meanwhile: then
    nothing is taken. Ask for `workspace.turn()` before: another may change one right after."""
    found = await _in_thread(runtime, _take, beneath, laid)
    changes: dict[str, bytes | None] = dict(found.changed)
    strange = {left.path for left in found.left_out}
    for path in laid.files.keys() - found.paths:
        if strange.isdisjoint(_with_those_above(path)):
            changes[path] = None
    rows = {file.path: file for file in await workspace.list()}
    replaced: dict[str, Replaced] = {}
    now = dict(laid.files)
    for path in sorted(changes):
        was, content = now.pop(path, None), changes[path]
        if (rows[path].blob if path in rows else "") != (was.blob if was else ""):
            raise _changed_meanwhile(path)
        replaced[path] = Replaced(
            before=was.blob if was else "",
            label=was.label if was else None,
            after=digest(content),
        )
        if content is not None:
            now[path] = Laid(blob="", digest=digest(content), label=label)
    _check_fits(rows, changes)
    return Collected(
        files=tuple(FileChange(path=path, value=changes[path], label=label) for path in replaced),
        undo=evidence(replaced),
        left_out=tuple(sorted(found.left_out)),
        laid=LaidOut(files=now),
    )


class _Found(msgspec.Struct):
    """What is beneath the folder now."""

    paths: set[str]
    """Of the files that are there and can be taken."""
    changed: dict[str, bytes]
    left_out: list[LeftOut]


def _write(beneath: Beneath, piece: list[tuple[str, bytes | None]], stop: _Stop) -> None:
    for path, content in piece:
        if stop.now:
            return
        try:
            if content is not None:
                beneath.write(path, content)
                continue
            with contextlib.suppress(NotFound):
                beneath.remove(path)
        except LimitReached:
            raise
        except Ring0Error as error:
            raise CallInvalid(
                f"The workspace's file {path[:200]!r} can't be laid out.",
                why=f"{error.what} {error.why}",
                todo="Remove it, or give it another name.",
            ) from None


def _take(beneath: Beneath, laid: LaidOut, stop: _Stop) -> _Found:
    """Looks and reads in one go, bounded before anything is read."""
    listing = beneath.look()
    left_out = [left for left in listing.left_out if not _is_own(left.path)]
    entries, strange = _named_well([e for e in listing.files if not _is_own(e.path)])
    left_out += strange
    check_fits({entry.path: entry.size_bytes for entry in entries})
    found = _Found(paths=set(), changed={}, left_out=left_out)
    size_bytes = 0  # a program that still lives may have made its files larger meanwhile
    for entry in entries:
        if stop.now:
            return found
        try:
            content = beneath.read(entry.path, limits.WORKSPACE_FILE_SIZE_BYTES_MAX)
        except LimitReached:
            raise
        except Ring0Error as error:
            left_out.append(LeftOut(entry.path, error.why or error.what))
            continue
        size_bytes += len(content)
        if size_bytes > limits.WORKSPACE_SIZE_BYTES_MAX:
            raise _grew_meanwhile()
        found.paths.add(entry.path)
        was = laid.files.get(entry.path)
        if was is None or was.digest != digest(content):
            found.changed[entry.path] = content
    return found


def _named_well(entries: Iterable[Entry]) -> tuple[list[Entry], list[LeftOut]]:
    """Those whose path a workspace can have; a program may give a file any name."""
    kept, strange = [], []
    for entry in entries:
        try:
            if canonical_path(entry.path) != entry.path:
                raise CallInvalid("", why="its path is written in a strange way")
        except CallInvalid as error:
            strange.append(LeftOut(entry.path, error.why))
        else:
            kept.append(entry)
    return kept, strange


def _changed_meanwhile(path: str) -> ToolFailed:
    return ToolFailed(
        f"{path!r} was changed by another call meanwhile.",
        why="Both began with the same file: one change would destroy the other."
        " Nothing of this call's files was taken.",
        todo="Make calls that change the same file one after the other.",
    )


def _grew_meanwhile() -> LimitReached:
    return LimitReached(
        "The files grew while they were read.",
        why=f"A workspace holds {limits.WORKSPACE_SIZE_BYTES_MAX} bytes.",
        todo="Write less, and let it be written before the call ends.",
    )


def _check_fits(rows: Mapping[str, File], changes: Mapping[str, bytes | None]) -> None:
    """With what other calls have written meanwhile."""
    sizes = {path: file.size_bytes for path, file in rows.items() if path not in changes}
    check_fits(sizes | {path: len(data) for path, data in changes.items() if data is not None})


def _is_own(path: str) -> bool:
    return _at_or_beneath(path, OWN)


def _with_those_above(path: str) -> Iterator[str]:
    """A path and each folder above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _at_or_beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


async def _in_thread(runtime: Runtime, work: Callable[..., T], *args: object) -> T:
    """Off the loop, and over when this returns, also when it is cancelled: the folder that the
    thread works on is closed next, and its descriptor may become another's."""
    stop = _Stop()
    task = asyncio.ensure_future(runtime.in_thread(work, *args, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.now = True
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved; the cancel is what counts
        raise
