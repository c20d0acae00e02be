"""Erases what a run was told, said and returned, for good, and leaves every proof as it was.

An event holds addresses, never values, and an address is keyed: with the values goes the key of
their run, so that nobody can try which value an address was of. Not here: copies that somebody made
(archives, back-ups, exports), and what the events themselves name (tools, hosts, file names).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ring0.errors import InvalidInput, NotFound, StoreFailed
from ring0.observability.verify import named
from ring0.store import Write, archiving
from ring0.store import events as ev
from ring0.store.lists import Listed
from ring0.store.sqlite import SqliteStore
from ring0.types import ENDED, LIVE, CallState, Frozen, Run

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel


class Erased(Frozen, frozen=True, kw_only=True):
    """What became of one run."""

    run: str
    values: int
    records: int
    """What memory held of it."""
    wiped: bool
    """No byte of it is left in the file. False: somebody reads the journal as it was before."""


async def erase(kernel: Kernel, runs: Sequence[str], *, by: str, note: str = "") -> list[Erased]:
    """All of them, or none where one can't be. Raises NotFound, InvalidInput, StoreFailed."""
    store = kernel.store
    async with kernel.storing:
        rows = [await _row(store, run) for run in dict.fromkeys(runs)]
        for row in rows:
            if why := await _keeps(store, row, {other.id for other in rows}):
                raise InvalidInput(
                    f"{row.id} can't be erased: {why[0]}.",
                    why="Nothing was erased of any run.",
                    todo=why[1],
                )
        for row in rows:  # One that a crash left, and no event names.
            archiving.path_of(kernel.home, row.id).unlink(missing_ok=True)
        async with kernel.memory.forgetting((row.tenant, row.principal, row.agent) for row in rows):
            erased = [await _erase(store, row, by, note) for row in rows]
        try:
            await store.wiped()
        except StoreFailed:
            return [replace(one, wiped=False) for one in erased]
        return erased


async def kept_back(kernel: Kernel, runs: Sequence[str]) -> list[tuple[str, tuple[str, str]]]:
    """Which of them can't be erased together: why not, and what to do. Raises NotFound."""
    rows = [await _row(kernel.store, run) for run in dict.fromkeys(runs)]
    together = {row.id for row in rows}
    found = [(row.id, await _keeps(kernel.store, row, together)) for row in rows]
    return [(run, why) for run, why in found if why is not None]


async def _erase(store: SqliteStore, row: Run, by: str, note: str) -> Erased:
    addresses = await _named(store, row)
    records = tuple(store.remembered(row.id))
    event = ev.ValuesErased(values=len(addresses), records=records, by=by, note=note)
    await store.append(Write(run=row.id, durable=True, events=[event], erased=addresses))
    return Erased(run=row.id, values=len(addresses), records=len(records), wiped=True)


async def _row(store: SqliteStore, run: str) -> Run:
    row = await store.run(run)
    if row is None:
        raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps --all` lists them.")
    return row


async def _keeps(store: SqliteStore, row: Run, together: set[str]) -> tuple[str, str] | None:
    """What speaks against it, and what to do; None: nothing."""
    if row.erased:
        return "it was erased before", "Leave it out."
    if row.state not in ENDED:
        return f"it goes on: it is {row.state}", f"`ring0 kill {row.id}` ends it."
    if await store.runs(states=LIVE, root=row.root, most=1):
        return "another run of its tree goes on", "Wait for its end, or `ring0 kill` it."
    if store.storage.archive(row.id) is not None:
        return "its values are in an archive", f"`ring0 unarchive {row.id}` first."
    if any(call.state is CallState.UNKNOWN for call in await store.calls(row.id)):
        return "nobody has said what became of one of its effects", "`ring0 settle` it."
    for standing in await store.standings():
        if standing.run == row.id and not standing.revoked_by:
            return "what was approved in advance there still stands", "Revoke it first."
    if left := await _sharing(store, row) - together:
        names = ", ".join(sorted(left))
        return f"it shares its values with {names}", "Name them all: they go together."
    return None


async def _sharing(store: SqliteStore, row: Run) -> set[str]:
    """Runs with the same key: forks, and what they were forked from."""
    key = await store.run_key(row.id)
    return {run for run in store.runs_keyed(key) if run != row.id}


async def _named(store: SqliteStore, row: Run) -> list[str]:
    """Addresses of all that lies under its key: what its events name, the parts of what lies in
    parts, what it told others."""
    stack = [message.body for message in store.messages_keyed(row.id)]
    async for entry in store.entries(row.id):
        if not isinstance(entry.body, ev.MessageSent):  # Its body is the sender's.
            stack += named(entry)
    found: dict[str, None] = {}
    while stack:
        where = stack.pop()
        if where in found or (lying := store.storage.lies(where)) is None:
            continue
        found[where] = None
        is_list, value = lying
        stack += Listed(value).parts() if is_list else ()
    return list(found)
