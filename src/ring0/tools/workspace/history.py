"""What a run, or one call of it, did to the run's files: as the journal tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from ring0.store import Store
from ring0.store import events as ev
from ring0.types import Call, File, FileDelta, Frozen


class Change(Frozen, frozen=True, kw_only=True):
    """A file before and after; None: it was not there."""

    path: str
    before: FileDelta | None
    after: FileDelta | None


async def changes_of_run(store: Store, run: str) -> list[Change]:
    """From what was copied in at the start to what is there now. Sorted by path."""
    began: dict[str, FileDelta] = {}
    async for entry in store.entries(run):
        if isinstance(entry.body, ev.RunQueued):
            _apply(began, entry.body.files)
            break
    now = {file.path: _as_delta(file) for file in await store.files(run)}
    return await _changes(store, began, now)


async def changes_of_call(store: Store, call: Call) -> list[Change]:
    """Of this one call: what it was given and what it left. Sorted by path."""
    files: dict[str, FileDelta] = {}
    async for run, body in _history(store, call.run):
        if isinstance(body, ev.RunQueued):
            _apply(files, body.files)
        elif run == call.run and body.call == call.id:
            after = dict(files)
            _apply(after, body.files)
            return await _changes(store, files, after)
        else:
            _apply(files, body.files)
    return []


async def _history(
    store: Store, run: str
) -> AsyncIterator[tuple[str, ev.RunQueued | ev.CallEnded]]:
    """All that touched the run's files, in the order of the log: also what took calls of it back,
    which is another run's doing."""
    undone = any(call.undone_by for call in await store.calls(run))
    async for entry in store.entries("" if undone else run):
        body = entry.body
        if not isinstance(body, ev.RunQueued | ev.CallEnded):
            continue
        files_of = body.files_of if isinstance(body, ev.CallEnded) else ""
        if (files_of or entry.run) == run:
            yield entry.run, body


async def _changes(
    store: Store, before: Mapping[str, FileDelta], after: Mapping[str, FileDelta]
) -> list[Change]:
    found = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if not await _same(store, old, new):
            found.append(Change(path=path, before=old, after=new))
    return found


async def _same(store: Store, old: FileDelta | None, new: FileDelta | None) -> bool:
    if old is None or new is None or old.size_bytes != new.size_bytes:
        return old is new
    # An undo writes under the key of its own run: the same content has two addresses then.
    return old.blob == new.blob or await store.blob(old.blob) == await store.blob(new.blob)


def _apply(files: dict[str, FileDelta], deltas: tuple[FileDelta, ...]) -> None:
    for delta in deltas:
        if delta.blob:
            files[delta.path] = delta
        else:
            files.pop(delta.path, None)


def _as_delta(file: File) -> FileDelta:
    return FileDelta(path=file.path, blob=file.blob, size_bytes=file.size_bytes, label=file.label)
