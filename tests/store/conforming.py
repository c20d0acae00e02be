"""What the suites of all stores share: places, what the rows must be, short ways to say things."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from ring0.errors import StoreDamaged
from ring0.store import Store, Write, base
from ring0.store.project import NEWEST_KILL, NEWEST_LOCK, project
from ring0.types import (
    CapUse,
    LockMode,
)
from simulated import Simulated

HOSTILE = [
    "a\x00b",
    "'; DROP TABLE event; --",
    '" OR "1"="1',
    "NEAR(a b) AND NOT x*^:{}()",
    "line\nbreak\r\x0b\u2028",
    "\x1b[31mred\x1b[0m",
    "%_\\?*[a-z]",
    "\u202egnp.exe\u200d\ufeff",
    "🦀𝔘\U0010ffff",
    "e\u0301 vs é",
    " ",
    "x" * 10_000,
]


class Place(Protocol):
    """Where a store lies."""

    runtime: Simulated

    async def open(self) -> Store: ...


class InMemory:
    """`store.project.Tables` as plain dictionaries: what the rows must be."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Any] = {}

    def get(self, table: str, key: str) -> Any:
        return self.rows.get((table, key))

    def put(self, table: str, key: str, row: Any) -> None:
        if row is None:
            self.rows.pop((table, key), None)
        else:
            self.rows[table, key] = row

    def of(self, table: str) -> list[Any]:
        return [row for (name, _), row in self.rows.items() if name == table]


async def rebuilt(store: Store) -> InMemory:
    """The projections, made again from the journal."""
    tables = InMemory()
    async for entry in store.entries():
        project(entry, tables)
    return tables


async def assert_rows_say_what_the_journal_says(store: Store) -> None:
    """Every row that can be read is the one that the journal makes, and there are no others."""
    await store.flush()
    wanted = await rebuilt(store)
    runs = wanted.of("run")
    assert sorted((await store.runs(most=100_000)), key=str) == sorted(runs, key=str)
    for run in runs:
        assert await store.run(run.id) == run
        calls = [call for call in wanted.of("call") if call.run == run.id]
        assert await store.calls(run.id) == sorted(calls, key=lambda call: call.seq)
        for call in calls:
            assert await store.call(call.id) == call
        files = {
            key.removeprefix(run.id + "\n"): row
            for (table, key), row in wanted.rows.items()
            if table == "file" and key.startswith(run.id + "\n")
        }
        assert {file.path: file for file in await store.files(run.id)} == files
        approvals = [approval for approval in wanted.of("approval") if approval.run == run.id]
        assert sorted(await store.approvals(run=run.id), key=str) == sorted(approvals, key=str)
        for standing in [one for one in wanted.of("standing") if one.run == run.id]:
            assert await store.standing(standing.id) == standing
        messages = [message for message in wanted.of("message") if message.to == run.id]
        assert await store.messages(run.id, waiting=False) == messages
        assert await store.messages(run.id) == [m for m in messages if not m.taken_by]
        for message in messages:
            assert await store.message(run.id, message.number) == message
        locks = [lock for lock in wanted.of("lock") if lock.run == run.id and lock.resource]
        assert await store.locks(run=run.id) == sorted(locks, key=lambda lock: lock.resource)
    given = sorted(wanted.of("standing"), key=lambda one: (one.given_us, one.id))
    assert await store.standings() == given
    assert await store.logins() == sorted(wanted.of("login"), key=lambda one: one.key)
    assert await store.settings() == {one.name: one for one in wanted.of("setting")}
    held = sorted(wanted.of("quarantine"), key=lambda one: (one.tenant, one.source))
    assert await store.quarantines() == held
    newest_lock = wanted.get("lock", NEWEST_LOCK)
    assert await store.newest_fence() == (newest_lock.fence if newest_lock else 0)
    for cap in wanted.of("cap"):
        assert await store.cap_used(cap.key, cap.window) == cap.used
        assert await store.cap_used(cap.key, cap.window + 1) == 0
    for tenant in wanted.of("tenant"):
        assert await store.tenant(tenant.tenant) == tenant
    wakes = sorted(run.wake_us for run in runs if run.wake_us)
    assert await store.next_wake_us() == (wakes[0] if wakes else 0)
    due = [run.wake_us for run in await store.runs_due(2**62, 100_000)]
    assert due == wakes
    alive = [row for row in wanted.of("sandbox") if not row.ended]
    assert sorted(await store.sandboxes_alive(), key=str) == sorted(alive, key=str)
    for row in wanted.of("record"):
        one = await store.record(row.id)
        assert one is not None
        assert (one.act, one.seq, one.label, one.state) == (row.act, row.seq, row.label, row.state)
        assert (one.superseded_us, one.superseded_by) == (row.superseded_us, row.superseded_by)
        assert (one.valid_from_us, one.valid_to_us) == (row.valid_from_us, row.valid_to_us)
    there = [size.records for size in await store.scopes()]
    assert sum(there) == len(wanted.of("record"))
    for window in wanted.of("window"):
        assert await store.window(window.run) == window
    newest = wanted.get("kill", NEWEST_KILL)
    assert await store.kill_generation() == (newest.generation if newest else 0)


async def refuses(store: Store, write: Write, error: type[Exception]) -> str:
    """The store refuses it, and nothing of it is there."""
    await store.flush()
    before = await store.head()
    with pytest.raises(error) as told:
        await store.append(write)
    await store.flush()
    assert await store.head() == before
    for where in write.blobs:
        with pytest.raises(StoreDamaged):
            await store.blob(where)
    return str(told.value)


def cap(key: str, amount: int, most: int, window: int = 7) -> CapUse:
    return CapUse(key=key, amount=amount, most=most, window=window)


def held(run: str, resource: str, fence: int, *, tenant: str = "acme") -> base.LockHeld:
    return base.LockHeld(run=run, tenant=tenant, resource=resource, fence=fence)


def free(
    run: str, resource: str, mode: LockMode = LockMode.EXCLUSIVE, *, tenant: str = "acme"
) -> base.LockFree:
    return base.LockFree(run=run, tenant=tenant, resource=resource, mode=mode)


class Suite:
    """A part of the suite: a store of its own for each test."""

    @pytest.fixture
    async def store(self, place: Place) -> AsyncIterator[Store]:
        store = await place.open()
        yield store
        await store.close()
