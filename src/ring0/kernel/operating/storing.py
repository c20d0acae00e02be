"""What operators do about room: values of ended runs go to files and come back, free pages go back
to the file system, tenants get quotas. Each goes on record.

An ended run keeps its events, and with them all that is proved of it; its task, its result and what
memory holds of it stay too. Not here: the archive's form (store/archiving.py), back-ups.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ring0 import limits
from ring0.errors import InvalidInput, NotFound, StoreFull
from ring0.observability.verify import named
from ring0.runtime import Runtime
from ring0.store import Write, archiving
from ring0.store import events as ev
from ring0.store.lists import Listed
from ring0.store.rows import TenantRow
from ring0.store.sqlite import SqliteStore
from ring0.types import ENDED, LIVE, Frozen, Run

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

_KEEPS: tuple[type[Any], ...] = (ev.StandingGiven, ev.MessageSent)
"""What these events name outlives their run."""


class Archived(Frozen, frozen=True, kw_only=True):
    """What became of one run."""

    run: str
    values: int = 0
    size_bytes: int = 0
    """As they were stored."""
    file_bytes: int = 0
    kept: str = ""
    """Why it was not archived."""


async def archive(kernel: Kernel, runs: Sequence[str], older_us: int, *, by: str) -> list[Archived]:
    """Archives these runs, or (of none) all that ended so long ago. Raises NotFound, StoreFull,
    StoreFailed: runs before the one that failed are archived."""
    store = kernel.store
    async with kernel.storing:
        await _tidy(kernel)
        forked = store.storage.forked()
        done: list[Archived] = []
        async for row in _these(store, runs) if runs else _ended(store, older_us):
            kept = await _keeps(store, row, forked)
            one = Archived(run=row.id, kept=kept) if kept else await _archive(kernel, row, by)
            if runs or one.values:
                done.append(one)
            if len(done) == limits.ARCHIVED_AT_ONCE_MAX:
                break
        return done


async def unarchive(kernel: Kernel, run: str, *, by: str) -> Archived:
    """Puts the values of a run back, and takes its archive away. Raises NotFound, StoreDamaged,
    StoreFull, LimitReached; what came back until then is there, and asking again goes on."""
    store = kernel.store
    async with kernel.storing:
        there = store.storage.archive((await _row(store, run)).id)
        if there is None:
            raise NotFound(f"{run} is in no archive.", todo="`ring0 archive --list` names them.")
        path = archiving.path_of(kernel.home, run)
        _check_room(kernel.home, there.size_bytes, f"{run} can't come back from its archive")
        values = archiving.read(path, there.digest, await store.run_key(run))
        left = there.values  # Some may be back already, of a try that was cut off.
        while batch := await kernel.runtime.in_thread(_batch, values):
            blobs = {
                where: Listed(raw) if is_list else raw
                for where, is_list, raw in batch
                if store.storage.is_archived(where)
            }
            if blobs:
                left -= len(blobs)
                back = ev.ValuesReturned(values=len(blobs), last=left == 0, by=by)
                await store.append(Write(run=run, durable=True, events=[back], returned=blobs))
        if left:
            raise archiving.damaged(path, f"{left} values are not in it")
        await kernel.runtime.in_thread(path.unlink, True)
        return Archived(run=run, values=there.values, size_bytes=there.size_bytes)


async def give_back(kernel: Kernel, *, by: str) -> dict[str, int]:
    """Gives free pages of the journal's file back to the file system, some at a time: calls go on.
    Raises StoreFull, StoreFailed."""
    store = kernel.store
    page_bytes, total = store.storage.page_bytes(), 0
    async with kernel.storing:
        free = store.storage.free_pages()
        step = min(free, limits.PAGES_GIVEN_BACK_AT_ONCE)
        _check_room(kernel.home, step * page_bytes, "The free pages can't be given back")
        while free > 0:
            pages = min(free, limits.PAGES_GIVEN_BACK_AT_ONCE)
            given = ev.RoomGivenBack(pages=pages, by=by)
            await store.append(Write(run=ev.KERNEL, durable=True, events=[given], free_pages=pages))
            left = store.storage.free_pages()
            total += free - left
            if left >= free:
                break
            free = left
    return {"pages": total, "bytes": total * page_bytes}


async def quota(kernel: Kernel, tenant: str, stored_bytes: int, *, by: str) -> TenantRow:
    """How much of the journal a tenant may fill; 0: what the bound lets it. Raises InvalidInput."""
    most = limits.TENANT_STORED_BYTES_MAX
    if not tenant or len(tenant) > limits.CALL_NAME_CHARS_MAX or not 0 <= stored_bytes <= most:
        raise InvalidInput(
            f"{stored_bytes:,} bytes can't be the quota of {tenant[:40]!r}.",
            why=f"A tenant has a name, and at most {most:,} bytes.",
            todo="`ring0 storage` lists tenants and what they use.",
        )
    event = ev.QuotaSet(tenant=tenant, stored_bytes=stored_bytes, by=by)
    await kernel.store.append(Write(run=ev.KERNEL, durable=True, events=[event]))
    return await kernel.store.tenant(tenant)


# --- which runs, and which values ----------------------------------------------------------------


async def _row(store: SqliteStore, run: str) -> Run:
    row = await store.run(run)
    if row is None:
        raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps --all` lists them.")
    return row


async def _ended(store: SqliteStore, older_us: int) -> AsyncIterator[Run]:
    """All that ended so long ago and are in no archive, the oldest first."""
    until_us = store.now_us() - older_us
    for run in store.storage.begun_before(until_us):
        row = await _row(store, run)
        if row.ended_us <= until_us:
            yield row


async def _these(store: SqliteStore, runs: Sequence[str]) -> AsyncIterator[Run]:
    for run in runs:
        yield await _row(store, run)


async def _keeps(store: SqliteStore, row: Run, forked: set[str]) -> str:
    """What speaks against it; empty: nothing."""
    if row.erased:
        return "its values were erased"
    if row.state not in ENDED:
        return f"it goes on: it is {row.state}"
    if store.storage.archive(row.id) is not None:
        return "it is in its archive already"
    if await store.runs(states=LIVE, root=row.root, most=1):
        return "another run of its tree goes on"
    if store.storage.left_unknown(row.id):
        return "nobody has said what became of one of its effects (`ring0 settle`)"
    if row.forked or row.id in forked:
        return "it shares its values with a fork"
    return ""


async def _named(store: SqliteStore, runtime: Runtime, run: str) -> dict[str, int]:
    """Addresses of all that goes, each with its size: what the run's events name, with the parts of
    what lies in parts, without what outlives it."""
    going: dict[str, None] = {}
    stays: set[str] = set()
    async for entry in store.entries(run):
        if entry.seq % limits.ARCHIVE_LOOKED_AT_ONCE == 0:
            await runtime.sleep(0)
        body = entry.body
        names = list(named(entry))
        if isinstance(body, _KEEPS):
            stays.update(names)
            continue
        going.update(dict.fromkeys(names))
        if isinstance(body, ev.RunQueued):
            stays.update((body.run.task, body.manifest))
        elif isinstance(body, ev.RunEnded):
            stays.add(body.result)
    found: dict[str, int] = {}
    stack = [where for where in going if where not in stays]
    while stack:
        where = stack.pop()
        if where in found or where in stays:
            continue
        weighed = store.storage.weighed(where)
        if weighed is None:
            continue  # It was erased: it has nothing left that could go.
        found[where], parts = weighed
        stack += Listed(parts).parts() if parts else ()
        if len(found) % limits.ARCHIVE_LOOKED_AT_ONCE == 0:
            await runtime.sleep(0)  # Calls go on meanwhile.
    return found


# --- doing it ------------------------------------------------------------------------------------


async def _archive(kernel: Kernel, row: Run, by: str) -> Archived:
    """The file is on disk before a value leaves the store; a crash in between leaves both."""
    store, runtime = kernel.store, kernel.runtime
    sizes = await _named(store, runtime, row.id)
    if not sizes:
        return Archived(run=row.id, kept="nothing of it could go")
    addresses, size_bytes = list(sizes), sum(sizes.values())
    # The file may be as long as the values, and so may the WAL that takes them out.
    _check_room(kernel.home, 2 * size_bytes, f"{row.id} can't be archived")
    path = archiving.path_of(kernel.home, row.id)
    with archiving.Writing(path) as writing:
        for batch in _batches(_lying(store, addresses)):
            await runtime.in_thread(writing.add, batch)
        digest = await runtime.in_thread(writing.finish)
    gone = ev.RunArchived(
        digest=digest, values=len(addresses), size_bytes=min(size_bytes, row.stored_bytes), by=by
    )
    await store.append(Write(run=row.id, durable=True, events=[gone], archived=addresses))
    return Archived(
        run=row.id,
        values=len(addresses),
        size_bytes=size_bytes,
        file_bytes=path.stat().st_size,
    )


async def _tidy(kernel: Kernel) -> None:
    """Files of this journal's runs that no event names: a crash left them, and who erases a run
    does not know of them. Others in that folder, to which another data folder's `archive` may be a
    link too, are not ours to take away."""
    there = {archiving.path_of(kernel.home, one.run) for one in kernel.store.storage.archives()}
    folder = kernel.home / archiving.FOLDER
    for path in await kernel.runtime.in_thread(lambda: sorted(folder.glob("*"))):
        if not path.name.endswith(archiving.ENDINGS) or path in there:
            continue
        if await kernel.store.run(path.name.partition(".")[0]) is not None:
            await kernel.runtime.in_thread(path.unlink, True)


def _lying(store: SqliteStore, addresses: Sequence[str]) -> Iterator[tuple[str, bool, bytes]]:
    for where in addresses:
        is_list, value = store.lying(where)
        yield where, is_list, value


def _batches(
    values: Iterator[tuple[str, bool, bytes]],
) -> Iterator[list[tuple[str, bool, bytes]]]:
    while batch := _batch(values):
        yield batch


def _batch(values: Iterator[tuple[str, bool, bytes]]) -> list[tuple[str, bool, bytes]]:
    found, size = [], 0
    for value in values:
        found.append(value)
        size += len(value[2])
        if size >= limits.ARCHIVE_BATCH_SIZE_BYTES:
            break
    return found


def _check_room(home: Path, size_bytes: int, what: str) -> None:
    """Looked at first: a write that fills the disk would stop every run. Raises StoreFull."""
    status = os.statvfs(home)
    free = status.f_bavail * status.f_frsize
    needed = size_bytes + limits.JOURNAL_ROOM_SIZE_BYTES_MIN
    if free < needed:
        raise StoreFull(
            f"{what}: {free:,} bytes are free, and it may take {needed:,}.",
            why="Values are on disk twice for a moment, and the journal needs room of its own.",
            todo="Free some space, or do it for fewer runs at a time.",
        )
