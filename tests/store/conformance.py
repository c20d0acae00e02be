"""What every store must do. A test module of a store gives the fixture `place`, and inherits.

A store is opened by `place.open()`; opened again after a close, it holds what was written.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, get_args

import pytest
from msgspec.structs import replace

import journals
from journals import SCOPE, call_row, key_of, queued, row_of
from ring0 import limits
from ring0.errors import StoreDamaged, StoreFailed
from ring0.store import GuardFailed, Store, Write, WriteImpossible, address, base, merkle
from ring0.store import events as ev
from ring0.store.project import NEWEST_KILL, project
from ring0.types import (
    ENDED,
    ApprovalState,
    Budget,
    CallState,
    FileDelta,
    Integrity,
    Label,
    RunState,
    Scope,
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
    alive = [row for row in wanted.of("sandbox") if not row.ended]
    assert sorted(await store.sandboxes_alive(), key=str) == sorted(alive, key=str)
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


def episodes(run: str, texts: Sequence[str], scope: Scope) -> list[Write]:
    """A run of the scope that remembers these texts, each from a call."""
    writes = [queued(run, scope=scope, remember=False), journals.moved(run, epoch=1)]
    for number, text in enumerate(texts):
        writes.append(journals.intended(run, number))
        writes.append(journals.ended(run, number, remember=text))
    return writes


class StoreConformance:
    """The suite."""

    @pytest.fixture
    async def store(self, place: Place) -> AsyncIterator[Store]:
        store = await place.open()
        yield store
        await store.close()

    # --- writing and reading --------------------------------------------------------------------

    async def test_a_durable_write_can_be_read_when_append_returns(self, store: Store) -> None:
        assert await store.append(queued("r-1")) == 1
        assert (await row_of(store, "r-1")).events == 1

    async def test_a_riding_write_can_be_read_after_a_flush(self, store: Store) -> None:
        await store.append(queued("r-1"))
        first = await store.append(
            Write(
                run="r-1",
                events=[
                    ev.RunMoved(state=RunState.RUNNING, epoch=1),
                    ev.RunMoved(state=RunState.WAITING, waiting_for="timer"),
                ],
            )
        )
        await store.flush()
        assert first == 2
        row = await row_of(store, "r-1")
        assert (row.state, row.waiting_for, row.events) == (RunState.WAITING, "timer", 3)

    async def test_a_riding_write_reaches_the_disk_by_itself(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        for _ in range(200):
            if (await row_of(store, "r-1")).epoch == 1:
                return
            await asyncio.sleep(0.01)
        pytest.fail("nobody wrote it down")

    async def test_what_was_written_is_there_when_opened_again(self, place: Place) -> None:
        store = await place.open()
        await journals.tell(store)
        before = [entry async for entry in store.entries()], await store.head()
        await store.close()
        store = await place.open()
        assert ([entry async for entry in store.entries()], await store.head()) == before
        await store.append(queued("r-9"))
        await store.append(Write(run=ev.KERNEL, durable=True, events=[ev.KernelStopped()]))
        await assert_rows_say_what_the_journal_says(store)
        await store.close()

    async def test_the_head_is_the_merkle_root_of_the_journal(self, store: Store) -> None:
        assert await store.head() == base.Head(size=0, root=merkle.EMPTY_ROOT.hex())
        await journals.tell(store)
        tree = merkle.Tree()
        async for entry in store.entries():
            tree.append(merkle.leaf_hash(ev.encode_entry(entry)))
        assert await store.head() == base.Head(size=tree.size, root=tree.root().hex())

    async def test_events_carry_the_time_of_the_runtime(self, store: Store, place: Place) -> None:
        await store.append(queued("r-1"))
        place.runtime.advance(3)
        await store.append(journals.moved("r-1", epoch=1))
        await store.flush()
        first, second = [entry async for entry in store.entries("r-1")]
        assert second.at_us - first.at_us == 3_000_000

    async def test_an_abandoned_read_of_the_journal_holds_nobody_in_the_past(
        self, store: Store
    ) -> None:
        await journals.tell(store)
        entries = store.entries()
        await anext(entries)
        await store.append(queued("r-9"))
        assert (await row_of(store, "r-9")).id == "r-9"

    # --- order ----------------------------------------------------------------------------------

    async def test_fifty_runs_at_once_keep_the_order_of_each(self, store: Store) -> None:
        async def live(run: str) -> None:
            await store.append(queued(run))
            await store.append(journals.moved(run, epoch=1))
            for number in range(20):
                await store.append(journals.intended(run, number, durable=number % 5 == 0))
                await store.append(journals.ended(run, number))

        names = [f"r-{number}" for number in range(50)]
        await asyncio.gather(*map(live, names))
        await store.flush()
        for run in names:
            entries = [entry async for entry in store.entries(run)]
            assert [entry.seq for entry in entries] == list(range(1, 43))
            numbers = [e.body.call.id for e in entries if isinstance(e.body, ev.CallIntended)]
            assert numbers == [f"{run}/0/{number}" for number in range(20)]
        assert (await store.head()).size == 50 * 42
        await assert_rows_say_what_the_journal_says(store)

    async def test_writes_that_nobody_awaits_in_between_stay_in_order(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        seqs = await asyncio.gather(
            *(store.append(journals.refused("r-1", number)) for number in range(600))
        )
        assert seqs == list(range(3, 603))

    async def test_ten_thousand_writes(self, store: Store) -> None:
        async def live(run: str) -> None:
            await store.append(queued(run))
            await store.append(journals.moved(run, epoch=1))
            for number in range(100):
                await store.append(journals.intended(run, number))
                await store.append(journals.ended(run, number))

        await asyncio.gather(*(live(f"r-{number}") for number in range(50)))
        await store.flush()
        head = await store.head()
        assert head.size == 50 * 202
        count = 0
        async for _ in store.entries():
            count += 1
        assert count == head.size

    # --- guards ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("good", "bad"),
        [
            (base.RunLive(run="r-1", epoch=1), base.RunLive(run="r-1", epoch=0)),
            (base.RunLive(run="r-1", epoch=1), base.RunLive(run="r-gone", epoch=2)),
            (base.RunLive(run="r-1", epoch=1), base.RunLive(run="r-none", epoch=0)),
            (base.NotKilled(run="r-1"), base.NotKilled(run="r-killed")),
            (base.LabelUnmoved(run="r-1", version=1), base.LabelUnmoved(run="r-1", version=0)),
            (base.Room(run="r-1", calls=7), base.Room(run="r-1", calls=8)),
            (
                base.Room(run="r-1", reserve_microusd=900),
                base.Room(run="r-1", reserve_microusd=901),
            ),
            (base.Room(run="r-1", calls=7), base.Room(run="r-none")),
            (base.CallFresh(call="r-1/0/9"), base.CallFresh(call="r-1/0/0")),
            (base.CallOpen(call="r-1/0/1"), base.CallOpen(call="r-1/0/0")),
            (base.CallOpen(call="r-1/0/2"), base.CallOpen(call="r-1/0/9")),
            (base.ApprovalPending(approval="a-1"), base.ApprovalPending(approval="a-2")),
            (base.ApprovalPending(approval="a-1"), base.ApprovalPending(approval="a-old")),
            (base.ApprovalPending(approval="a-1"), base.ApprovalPending(approval="a-none")),
            (
                base.ApprovalGood(approval="a-2", bound_to="b" * 64),
                base.ApprovalGood(approval="a-2", bound_to="c" * 64),
            ),
            (
                base.ApprovalGood(approval="a-2", bound_to="b" * 64),
                base.ApprovalGood(approval="a-1", bound_to="b" * 64),
            ),
            (base.AsksBelow(root="r-1", most=3), base.AsksBelow(root="r-1", most=2)),
        ],
        ids=lambda guard: type(guard).__name__,
    )
    async def test_a_guard_holds_or_nothing_is_written(
        self, store: Store, place: Place, good: base.Guard, bad: base.Guard
    ) -> None:
        soon = place.runtime.now_us() + 1_000_000
        for write in (
            queued("r-1", budget=Budget(calls=10, cost_microusd=1_000)),
            journals.moved("r-1", epoch=1),
            journals.intended("r-1", 0, reserve=200),
            journals.ended("r-1", 0, cost=100, label=journals.UNTRUSTED),
            journals.intended("r-1", 1),
            journals.intended("r-1", 2),
            journals.cut_off("r-1", 2),
            journals.asked("r-1", "a-1", 5),
            journals.asked("r-1", "a-2", 6),
            journals.answered("r-1", "a-2"),
            journals.asked("r-1", "a-old", 7, expires_us=soon),
            queued("r-gone"),
            journals.over("r-gone"),
            queued("r-killed"),
            journals.killed("run", "r-killed", 1),
        ):
            await store.append(write)
        place.runtime.advance(2)
        blob = {address(b"k", b"of a refused write"): b"of a refused write"}
        events = [ev.RunMoved(state=RunState.RUNNING, note="guarded")]
        guarded = Write(run="r-1", guards=[good, bad], events=events, blobs=blob, key=b"k" * 32)
        with pytest.raises(GuardFailed) as told:
            await store.append(guarded)
        assert told.value.guard == bad and told.value.detail
        guarded.key = b""
        await refuses(store, guarded, GuardFailed)
        await store.append(Write(run="r-1", guards=[good], events=events, durable=True))
        *_, last = [entry async for entry in store.entries("r-1")]
        assert last.body == events[0]
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_failing_guard_does_not_take_its_neighbours_with_it(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        writes = [
            journals.intended("r-1", n, guards=[base.RunLive(run="r-1", epoch=n % 3)])
            for n in range(30)
        ]
        told = await asyncio.gather(*map(store.append, writes), return_exceptions=True)
        assert [isinstance(answer, GuardFailed) for answer in told] == [
            n % 3 != 1 for n in range(30)
        ]
        await store.flush()
        assert len(await store.calls("r-1")) == 10

    # --- projections ----------------------------------------------------------------------------

    async def test_the_story_holds_every_kind_of_event(self, store: Store) -> None:
        await journals.tell(store)
        kinds = {type(entry.body) async for entry in store.entries()}
        assert kinds == set(get_args(ev.AnyEvent))

    async def test_every_row_says_what_the_journal_says(self, store: Store) -> None:
        await journals.tell(store)
        await journals.tell(store, "r-3", "r-4")
        await assert_rows_say_what_the_journal_says(store)

    async def test_the_rows_after_the_story(self, store: Store) -> None:
        await journals.tell(store)
        run, child = await row_of(store, "r-1"), await row_of(store, "r-2")
        assert (run.state, run.epoch, run.label_version) == (RunState.DONE, 2, 1)
        assert run.label == journals.UNTRUSTED and run.ended_us > 0
        assert (child.state, child.depth, child.root) == (RunState.DONE, 1, "r-1")
        states = {call.id[4:]: call.state for call in await store.calls("r-1")}
        assert states == {
            "0/0": CallState.OK,
            "0/1": CallState.REFUSED,
            "0/2": CallState.OK,
            "0/3": CallState.OK,
            "0/4": CallState.ERROR,
        }
        undone = await store.call("r-1/0/2")
        assert undone is not None and undone.undone_by == "r-1/0/3"
        assert await store.blob(undone.undo) == b"put back"
        assert [file.path for file in await store.files("r-1")] == ["notes/b.md"]
        assert await store.sandboxes_alive() == []
        approvals = {approval.id: approval for approval in await store.approvals(run="r-1")}
        assert approvals["a-r-1"].state is ApprovalState.CONSUMED
        assert approvals["a2-r-1"].state is ApprovalState.DENIED
        assert approvals["a2-r-1"].answered_by == "ann (uid 7)"

    async def test_a_random_history_is_taken_or_refused_as_the_projection_says(
        self, store: Store
    ) -> None:
        """Whatever comes in whatever order: the store takes exactly what can have happened."""
        dice = random.Random(20)
        model, seqs = InMemory(), dict.fromkeys(("r-0", "r-1", "r-2"), 0)
        taken = 0
        for _ in range(600):
            write = _any_write(dice)
            attempt = InMemory()
            attempt.rows = dict(model.rows)
            seq = seqs[write.run] + 1
            entry = ev.Entry(run=write.run, seq=seq, at_us=1, body=write.events[0])
            try:
                project(entry, attempt)
                possible = True
            except AssertionError:
                possible = False
            if possible:
                assert await store.append(write) == seq
                model, seqs[write.run] = attempt, seq
                taken += 1
            else:
                with pytest.raises(WriteImpossible):
                    await store.append(write)
        assert 50 < taken < 500
        await store.flush()
        assert (await store.head()).size == taken
        await assert_rows_say_what_the_journal_says(store)

    @pytest.mark.parametrize(
        "write",
        [
            pytest.param(queued("r-1"), id="queued twice"),
            pytest.param(journals.moved("r-none"), id="a run that was never queued"),
            pytest.param(journals.moved("r-over"), id="a move after the end"),
            pytest.param(journals.intended("r-over", 5), id="an intent after the end"),
            pytest.param(journals.over("r-over", epoch=2), id="two ends"),
            pytest.param(journals.over("r-1", epoch=7), id="an end under another epoch"),
            pytest.param(journals.intended("r-1", 0), id="intended twice"),
            pytest.param(journals.refused("r-1", 0), id="refused after it was intended"),
            pytest.param(journals.ended("r-1", 9), id="the outcome of no call"),
            pytest.param(journals.ended("r-1", 1), id="two outcomes"),
            pytest.param(journals.settled("r-1", 0), id="settled, but not unknown"),
            pytest.param(journals.cut_off("r-1", 1), id="cut off after its outcome"),
            pytest.param(journals.asked("r-1", "a-1"), id="asked twice"),
            pytest.param(journals.answered("r-1", "a-none"), id="an answer to nothing"),
            pytest.param(journals.answered("r-1", "a-no"), id="approved after a denial"),
            pytest.param(journals.answered("r-2", "a-1"), id="an answer for another run"),
            pytest.param(journals.intended("r-1", 4, approval="a-1"), id="not yet approved"),
            pytest.param(journals.intended("r-1", 4, approval="a-yes"), id="approved for another"),
            pytest.param(
                Write(run="r-1", events=[ev.SandboxEnded(sandbox="s-none")]), id="no such sandbox"
            ),
            pytest.param(
                Write(
                    run="r-2",
                    events=[ev.CallEnded(call="r-1/0/0", state=CallState.OK, outcome="o")],
                ),
                id="the outcome of another run's call",
            ),
            pytest.param(
                Write(
                    run="r-1",
                    events=[ev.CallIntended(call=replace(call_row("r-1", 8), run="r-2"))],
                ),
                id="a call in another run's name",
            ),
            pytest.param(
                Write(
                    run="r-1",
                    blobs={"0" * 64: b"\xff\xfe"},
                    events=[
                        ev.CallEnded(
                            call="r-1/0/0",
                            state=CallState.OK,
                            outcome="o",
                            remembered="0" * 64,
                        )
                    ],
                ),
                id="a memory that is no text",
            ),
            pytest.param(
                Write(
                    run="r-1",
                    events=[
                        ev.CallEnded(
                            call="r-1/0/0", state=CallState.OK, outcome="o", remembered="1" * 64
                        )
                    ],
                ),
                id="a memory that is not there",
            ),
            pytest.param(
                Write(
                    run="r-1",
                    blobs={"2" * 64: bytes(limits.BLOB_SIZE_BYTES_MAX + 1)},
                    events=[ev.RunMoved(state=RunState.RUNNING)],
                ),
                id="a value over the bound",
            ),
            pytest.param(
                Write(run="r-1", key=b"k" * 32, events=[ev.RunMoved(state=RunState.RUNNING)]),
                id="a second key",
            ),
            pytest.param(
                Write(run="r-1", events=[ev.RunMoved(state=RunState.RUNNING, note="\ud800")]),
                id="a lone surrogate",
            ),
            pytest.param(
                Write(
                    run="r-1",
                    events=[
                        ev.RunMoved(state=RunState.RUNNING),
                        ev.RunMoved(state=RunState.QUEUED),
                    ],
                ),
                id="only the second event is impossible",
            ),
        ],
    )
    async def test_a_history_that_can_not_be_is_refused_alone(
        self, store: Store, write: Write
    ) -> None:
        for honest in (
            queued("r-1"),
            journals.moved("r-1", epoch=1),
            journals.intended("r-1", 0),
            journals.intended("r-1", 1),
            journals.ended("r-1", 1),
            journals.asked("r-1", "a-1", 4),
            journals.asked("r-1", "a-no", 5),
            journals.answered("r-1", "a-no", ApprovalState.DENIED),
            journals.asked("r-1", "a-yes", 6),
            journals.answered("r-1", "a-yes"),
            queued("r-2"),
            queued("r-over"),
            journals.over("r-over"),
        ):
            await store.append(honest)
        fresh = {where: value for where, value in write.blobs.items() if len(set(where)) == 1}
        only = Write(run=write.run, events=write.events, blobs=fresh, key=write.key)
        told = await refuses(store, only, WriteImpossible)
        assert "Why:" in told and "Do:" in told
        # In one group with others, it takes none of them with it.
        before, after = journals.refused("r-1", 20), journals.refused("r-1", 21)
        answers = await asyncio.gather(
            *map(store.append, (before, only, after)), return_exceptions=True
        )
        assert isinstance(answers[1], WriteImpossible)
        assert answers[2] == int(str(answers[0])) + 1
        await assert_rows_say_what_the_journal_says(store)

    # --- budgets --------------------------------------------------------------------------------

    async def test_a_childs_budget_is_moved_from_its_parent_and_given_back(
        self, store: Store
    ) -> None:
        await store.append(queued("r-1", budget=Budget(calls=100, cost_microusd=1_000)))
        await store.append(journals.moved("r-1", epoch=1))
        parent = await row_of(store, "r-1")
        share = Budget(calls=40, cost_microusd=600)
        room = base.Room(run="r-1", calls=40, reserve_microusd=600)
        await store.append(queued("r-2", parent=parent, budget=share, guards=[room]))
        row = await row_of(store, "r-1")
        assert (row.calls_used, row.cost_used_microusd) == (40, 600)
        await store.append(journals.moved("r-2", epoch=1))
        await store.append(journals.intended("r-2", 0, reserve=500))
        await store.append(journals.ended("r-2", 0, cost=130))
        await store.append(journals.intended("r-2", 1, reserve=50))  # Never settled: it is spent.
        await store.append(journals.over("r-2", epoch=2))
        row, child = await row_of(store, "r-1"), await row_of(store, "r-2")
        assert (child.calls_used, child.cost_used_microusd) == (2, 180)
        assert (row.calls_used, row.cost_used_microusd) == (2, 180)

    async def test_two_children_never_get_more_than_the_parent_has(self, store: Store) -> None:
        await store.append(queued("r-1", budget=Budget(calls=100, cost_microusd=1_000)))
        parent = await row_of(store, "r-1")
        share = Budget(calls=30, cost_microusd=300)
        room = base.Room(run="r-1", calls=30, reserve_microusd=300)
        told = await asyncio.gather(
            *(
                store.append(queued(f"r-1-{n}", parent=parent, budget=share, guards=[room]))
                for n in range(8)
            ),
            return_exceptions=True,
        )
        assert [isinstance(answer, GuardFailed) for answer in told] == [False] * 3 + [True] * 5
        assert (await row_of(store, "r-1")).calls_used == 90

    async def test_two_hundred_calls_at_once_meet_a_cap_of_fifty(self, store: Store) -> None:
        await store.append(queued("r-1", budget=Budget(calls=50)))
        await store.append(journals.moved("r-1", epoch=1))
        told = await asyncio.gather(
            *(
                store.append(journals.intended("r-1", n, guards=[base.Room(run="r-1")]))
                for n in range(200)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, GuardFailed) for answer in told) == 150
        await store.flush()
        assert (await row_of(store, "r-1")).calls_used == 50

    # --- approvals ------------------------------------------------------------------------------

    async def test_an_approval_is_consumed_once(self, store: Store) -> None:
        good = base.ApprovalGood(approval="a-1", bound_to="b" * 64)
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        await store.append(journals.asked("r-1", "a-1", 0))
        await store.append(journals.answered("r-1", "a-1"))
        told = await asyncio.gather(
            *(
                store.append(journals.intended("r-1", 0, approval="a-1", guards=[good]))
                for _ in range(5)
            ),
            return_exceptions=True,
        )
        assert [isinstance(answer, GuardFailed) for answer in told] == [
            False,
            True,
            True,
            True,
            True,
        ]
        await store.flush()
        found = await store.approval("a-1")
        assert found is not None and found.state is ApprovalState.CONSUMED
        for state in (ApprovalState.APPROVED, ApprovalState.REVOKED, ApprovalState.PENDING):
            await refuses(store, journals.answered("r-1", "a-1", state), WriteImpossible)

    async def test_an_approval_expires_even_for_a_clock_that_is_set_back(
        self, store: Store, place: Place
    ) -> None:
        pending, good = (
            base.ApprovalPending(approval="a-1"),
            base.ApprovalGood(approval="a-1", bound_to="b" * 64),
        )
        expires_us = place.runtime.now_us() + 60_000_000
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        await store.append(journals.asked("r-1", "a-1", 0, expires_us=expires_us))
        place.runtime.advance(59)
        await store.append(journals.answered("r-1", "a-1", guards=[pending]))
        place.runtime.advance(1)
        intent = journals.intended("r-1", 0, approval="a-1", guards=[good])
        await store.append(journals.moved("r-1"))
        for _ in range(2):
            with pytest.raises(GuardFailed, match="expired"):
                await store.append(intent)
            place.runtime.advance(-30)

    async def test_the_journals_time_outlasts_the_process(self, place: Place) -> None:
        store = await place.open()
        expires_us = place.runtime.now_us() + 60_000_000
        await store.append(queued("r-1"))
        await store.append(journals.asked("r-1", "a-1", 0, expires_us=expires_us))
        place.runtime.advance(60)
        await store.append(journals.moved("r-1", epoch=1))
        await store.close()
        place.runtime.advance(-3_600)
        store = await place.open()
        pending = base.ApprovalPending(approval="a-1")
        with pytest.raises(GuardFailed, match="expired"):
            await store.append(journals.answered("r-1", "a-1", guards=[pending]))
        await store.close()

    async def test_asks_are_counted_over_the_tree_and_listed_by_age(self, store: Store) -> None:
        below = base.AsksBelow(root="r-1", most=2)
        await store.append(queued("r-1"))
        await store.append(queued("r-2", parent=await row_of(store, "r-1"), budget=Budget(calls=1)))
        await store.append(queued("r-9"))
        await store.append(journals.asked("r-9", "a-9"))
        await store.append(journals.asked("r-1", "a-1", guards=[below]))
        await store.append(journals.asked("r-2", "a-2", guards=[below]))
        with pytest.raises(GuardFailed):
            await store.append(journals.asked("r-2", "a-3", guards=[below]))
        pending = await store.approvals(states=[ApprovalState.PENDING])
        assert [approval.id for approval in pending] == ["a-1", "a-2", "a-9"]
        assert await store.approvals(states=[ApprovalState.APPROVED]) == []
        assert [a.id for a in await store.approvals(run="r-2")] == ["a-2"]

    # --- kills ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("scope", "target", "reached"),
        [
            ("run", "r-top", {"r-top", "r-mid", "r-leaf"}),
            ("run", "r-mid", {"r-mid", "r-leaf"}),
            ("run", "r-leaf", {"r-leaf"}),
            ("agent", "clerk", {"r-top", "r-mid", "r-leaf", "r-same-agent"}),
            ("agent", "cook", {"r-else"}),
            ("tenant", "acme", {"r-top", "r-mid", "r-leaf", "r-same-agent"}),
            ("all", "", {"r-top", "r-mid", "r-leaf", "r-same-agent", "r-else"}),
            ("agent", "r-top", set()),
            ("run", "clerk", set()),
        ],
    )
    async def test_a_kill_reaches_what_it_names_and_all_beneath(
        self, store: Store, scope: str, target: str, reached: set[str]
    ) -> None:
        small = Budget(calls=10)
        await store.append(queued("r-top"))
        await store.append(queued("r-mid", parent=await row_of(store, "r-top"), budget=small))
        await store.append(queued("r-leaf", parent=await row_of(store, "r-mid"), budget=small))
        await store.append(queued("r-same-agent"))
        await store.append(queued("r-else", scope=Scope(tenant="b", principal="ann", agent="cook")))
        await store.append(journals.killed(scope, target, await store.kill_generation() + 1))
        seen = await store.kill_generation()
        await store.append(queued("r-later", kill_seen=seen))
        dead = set()
        for run in ("r-top", "r-mid", "r-leaf", "r-same-agent", "r-else", "r-later"):
            try:
                await store.append(
                    Write(
                        run=run,
                        guards=[base.NotKilled(run=run)],
                        events=[ev.RunMoved(state=RunState.RUNNING, epoch=1)],
                    )
                )
            except GuardFailed:
                dead.add(run)
        assert dead == reached

    async def test_two_kills_that_saw_the_same_generation_both_reach(self, store: Store) -> None:
        await store.append(journals.killed("agent", "nobody", 1))
        await store.append(queued("r-1", kill_seen=await store.kill_generation()))
        await store.append(journals.killed("all", "", 1))  # Decided before the first was written.
        with pytest.raises(GuardFailed):
            await store.append(journals.intended("r-1", 0, guards=[base.NotKilled(run="r-1")]))
        assert await store.kill_generation() == 2

    # --- runs, files, sandboxes -----------------------------------------------------------------

    async def test_runs_are_found_by_state_parent_root_and_name(self, store: Store) -> None:
        for number, run in enumerate(["r-aa", "r-ab", "r-b", "r-%", "r-_", "q-é"]):
            await store.append(queued(run, started_us=number + 1))
        parent = await row_of(store, "r-aa")
        await store.append(queued("r-kid", parent=parent, budget=Budget(calls=1), started_us=50))
        await store.append(journals.moved("r-b", epoch=1))
        await store.append(journals.over("r-%"))
        names = [run.id for run in await store.runs()]
        assert names == ["r-kid", "q-é", "r-_", "r-%", "r-b", "r-ab", "r-aa"]
        assert [run.id for run in await store.runs(most=2)] == names[:2]
        assert [run.id for run in await store.runs(states=[RunState.RUNNING])] == ["r-b"]
        assert [run.id for run in await store.runs(states=ENDED)] == ["r-%"]
        assert [run.id for run in await store.runs(parent="r-aa")] == ["r-kid"]
        assert [run.id for run in await store.runs(root="r-aa")] == ["r-kid", "r-aa"]
        assert await store.runs(root="' OR 1=1 --") == []
        assert await store.runs_named("r-a") == ["r-aa", "r-ab"]
        assert await store.runs_named("r-%") == ["r-%"]
        assert await store.runs_named("r-_") == ["r-_"]
        assert await store.runs_named("q-é") == ["q-é"]
        assert len(await store.runs_named("")) == 3
        for nobody in ("%", "_", "R-A", "r-aaa", "\x00", "\ud800", "🦀", "q-\U0010ffff"):
            assert await store.runs_named(nobody) == []

    async def test_files_are_put_replaced_removed_and_kept_apart(self, store: Store) -> None:
        start = FileDelta(path="in.txt", blob="0" * 64, size_bytes=2, label=journals.UNTRUSTED)
        await store.append(queued("r-1", files=[start]))
        await store.append(queued("r-10"))
        for run in ("r-1", "r-10"):
            await store.append(journals.moved(run, epoch=1))
        changes: list[list[tuple[str, bytes | None]]] = [
            [("b.md", b"one"), ("a.md", b"two"), ("é/🦀\n%.md", b"")],
            [("b.md", b"one more"), ("gone.md", b"x")],
            [("gone.md", None), ("never.md", None)],
        ]
        for number, files in enumerate(changes):
            await store.append(journals.intended("r-1", number))
            await store.append(journals.ended("r-1", number, files=files))
        await store.append(journals.intended("r-10", 0))
        await store.append(
            journals.ended("r-10", 0, files=[("a.md", None), ("from-10.md", b"y")], files_of="r-1")
        )
        await store.flush()
        paths = [file.path for file in await store.files("r-1")]
        assert paths == ["b.md", "from-10.md", "in.txt", "é/🦀\n%.md"]
        assert await store.files("r-10") == [] and await store.files("") == []
        found = await store.file("r-1", "b.md")
        assert found is not None and found.size_bytes == 8
        assert await store.blob(found.blob) == b"one more"
        assert await store.file("r-1", "gone.md") is None

    async def test_a_sandbox_is_alive_until_it_is_confirmed_dead(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.sandboxed("r-1", "s-1"))
        await store.append(journals.sandboxed("r-1", "s-2"))
        assert [row.id for row in await store.sandboxes_alive()] == ["s-1", "s-2"]
        await store.append(journals.boxed_up("r-1", "s-1"))
        await store.flush()
        (alive,) = await store.sandboxes_alive()
        assert (alive.id, alive.run, alive.pid, alive.start_ticks) == ("s-2", "r-1", 42, 77)

    async def test_a_parked_sandbox_is_the_kernels_until_one_run_claims_it(
        self, store: Store
    ) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.parked("p-1"))
        await store.append(journals.parked("p-2"))
        assert [row.id for row in await store.sandboxes_parked()] == ["p-1", "p-2"]
        assert await store.sandboxes_alive() == []
        await store.append(journals.claimed("r-1", "p-1"))
        await store.flush()
        (alive,) = await store.sandboxes_alive()
        assert (alive.id, alive.run, alive.pid, alive.purpose) == ("p-1", "r-1", 43, "tool")
        assert [row.id for row in await store.sandboxes_parked()] == ["p-2"]
        await refuses(store, journals.claimed("r-1", "p-1"), WriteImpossible)
        await store.append(Write(run=ev.KERNEL, events=[ev.SandboxEnded(sandbox="p-2")]))
        await store.flush()
        assert await store.sandboxes_parked() == []

    # --- values ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("value", [b"", b"\x00\xff", b"x" * limits.BLOB_SIZE_BYTES_MAX])
    async def test_a_value_comes_back_as_it_was(self, store: Store, value: bytes) -> None:
        (where,) = blobs = journals.named("r-1", value)
        await store.append(queued("r-1"))
        for _ in range(2):  # A second time is nothing new.
            event = ev.RunMoved(state=RunState.RUNNING)
            await store.append(Write(run="r-1", blobs=blobs, durable=True, events=[event]))
        assert await store.blob(where) == value

    async def test_keys_belong_to_runs(self, store: Store) -> None:
        await store.append(queued("r-1"))
        assert await store.run_key("r-1") == key_of("r-1")
        with pytest.raises(StoreDamaged, match="key of run"):
            await store.run_key("r-none")

    async def test_what_is_not_there_is_not_there(self, store: Store) -> None:
        for name in ("", "r-none", "'", "\x00", "\ud800", "a\udfffb"):
            assert await store.run(name) is None
            assert await store.call(name) is None
            assert await store.approval(name) is None
            assert await store.file(name, name) is None
            assert await store.calls(name) == [] and await store.files(name) == []
            with pytest.raises(StoreDamaged):
                await store.blob(name)

    async def test_hostile_strings_come_back_as_they_were(self, store: Store) -> None:
        for number, text in enumerate(HOSTILE):
            run = f"r-{number}{text[:200]}"
            scope = Scope(tenant=text, principal=text, agent=text)
            await store.append(queued(run, task=text, scope=scope))
            await store.append(journals.moved(run, epoch=1, why=text))
            await store.append(journals.intended(run, 0))
            await store.append(journals.ended(run, 0, files=[(text, text.encode())]))
            await store.append(journals.asked(run, f"a-{run}"))
            await store.append(journals.killed("agent", text + "?", number + 1))
            await store.flush()
            row = await row_of(store, run)
            assert (row.tenant, row.waiting_for) == (text, text)
            assert await store.blob(row.task) == text.encode()
            assert [file.path for file in await store.files(run)] == [text]
            assert await store.runs_named(run) == [run]
            assert (await store.calls(run))[0].id == f"{run}/0/0"
            assert (await store.approvals(run=run))[0].id == f"a-{run}"
        await assert_rows_say_what_the_journal_says(store)

    # --- candidates for recall ------------------------------------------------------------------

    async def test_candidates_come_with_lengths_and_counts_of_their_scope(
        self, store: Store
    ) -> None:
        texts = ["Refund the refund, Zoë!", "foo_bar: refunds", '{"a": [1, 2, 3]}', "nothing"]
        for write in episodes("r-1", texts, SCOPE):
            await store.append(write)
        await store.flush()
        found = await store.candidates(SCOPE, ["refund", "zoe", "1", "absent"], 10)
        assert [c.episode.text for c in found.found] == [texts[2], texts[1], texts[0]]
        assert [c.length for c in found.found] == [4, 3, 4]
        assert [c.frequencies for c in found.found] == [(0, 0, 1, 0), (1, 0, 0, 0), (2, 1, 0, 0)]
        assert found.episodes == 4 and found.episodes_with == (2, 1, 1, 0)
        assert found.length_mean == (4 + 3 + 4 + 1) / 4
        first = found.found[-1].episode
        assert (first.run, first.role, first.label) == ("r-1", "result", journals.UNTRUSTED)

    async def test_only_the_newest_candidates_are_given(self, store: Store) -> None:
        for write in episodes("r-1", [f"refund {n}" for n in range(9)], SCOPE):
            await store.append(write)
        await store.flush()
        found = await store.candidates(SCOPE, ["refund"], 3)
        assert [c.episode.text for c in found.found] == ["refund 8", "refund 7", "refund 6"]
        assert found.episodes_with == (9,)

    async def test_nothing_of_another_scope_is_found_or_moves_a_number(self, store: Store) -> None:
        mine = ["refund for Zoë", "the ledger of May", "refund refund"]
        for write in episodes("r-1", mine, SCOPE):
            await store.append(write)
        await store.flush()
        questions = [["refund"], ["ledger", "refund"], ["zoë"], ["of may"], ["canary"]]
        before = [await store.candidates(SCOPE, asked, 50) for asked in questions]
        others = [
            Scope(tenant="other", principal="ann", agent="clerk"),
            Scope(tenant="acme", principal="bob", agent="clerk"),
            Scope(tenant="acme", principal="ann", agent="cook"),
            Scope(tenant="acme\x00", principal="ann", agent="clerk"),
            Scope(tenant="ACME", principal="ann", agent="clerk"),
            Scope(tenant="", principal="", agent=""),
            Scope(tenant="%", principal="%", agent="%"),
        ]
        dice = random.Random(5)
        for number, scope in enumerate(others):
            texts = [" ".join(dice.choices(["refund", "zoë", "canary", "may"], k=9))] * 8
            for write in episodes(f"r-other-{number}", texts, scope):
                await store.append(write)
        await store.flush()
        assert [await store.candidates(SCOPE, asked, 50) for asked in questions] == before
        for scope in others:
            found = await store.candidates(scope, ["ledger"], 50)
            assert found.found == () and found.episodes == 8

    @pytest.mark.parametrize(
        "term", [*HOSTILE, "", '"', "a AND", "*", "text:x", "-x", "___", "\ud800"]
    )
    async def test_no_term_is_syntax(self, store: Store, term: str) -> None:
        for write in episodes("r-1", ["refund", "AND OR NOT NEAR text"], SCOPE):
            await store.append(write)
        await store.flush()
        found = await store.candidates(SCOPE, [term], 10)
        assert len(found.episodes_with) == 1
        both = await store.candidates(SCOPE, [term, "refund"], 10)
        texts = [candidate.episode.text for candidate in both.found]
        assert ("refund" in texts) == ("\ud800" not in term)
        assert all(len(candidate.frequencies) == 2 for candidate in both.found)

    async def test_no_terms_find_nothing(self, store: Store) -> None:
        assert (await store.candidates(SCOPE, [], 10)).found == ()

    # --- bounds and ends ------------------------------------------------------------------------

    async def test_the_queue_is_bounded_and_what_it_took_is_written(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        monkeypatch.setattr(limits, "QUEUED_WRITES_MAX", 20)
        writes = [journals.refused("r-1", number) for number in range(3_000)]
        told = await asyncio.gather(*map(store.append, writes), return_exceptions=True)
        refusals = [answer for answer in told if isinstance(answer, StoreFailed)]
        assert refusals and "wait for the disk" in str(refusals[0])
        taken = [int(str(answer)) for answer in told if not isinstance(answer, Exception)]
        assert taken == list(range(3, 3 + len(taken))) and len(taken) >= 20
        await asyncio.sleep(0.05)
        await store.flush()
        assert (await row_of(store, "r-1")).events == 2 + len(taken)

    async def test_a_caller_that_is_cancelled_harms_nobody(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        tasks = [
            asyncio.ensure_future(store.append(journals.intended("r-1", n, durable=True)))
            for n in range(100)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, int) for answer in told[1::2])
        await assert_rows_say_what_the_journal_says(store)

    async def test_close_writes_what_was_taken_and_is_final(self, place: Place) -> None:
        store = await place.open()
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        tasks = [
            asyncio.ensure_future(store.append(journals.intended("r-1", n))) for n in range(300)
        ]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        late = asyncio.ensure_future(store.append(journals.intended("r-1", 999)))
        told = await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert told == list(range(3, 303))
        with pytest.raises(StoreFailed, match="closed"):
            await asyncio.wait_for(late, 10)
        await closing
        await store.close()
        for use in (store.append(journals.moved("r-1")), store.flush(), store.run("r-1")):
            with pytest.raises(StoreFailed, match="closed"):
                await use
        with pytest.raises(StoreFailed, match="closed"):
            await store.head()
        again = await place.open()
        assert (await row_of(again, "r-1")).events == 302
        await again.close()

    async def test_every_append_is_answered_whenever_the_store_closes(self, place: Place) -> None:
        for turn in range(20):
            store = await place.open()
            tasks = [
                asyncio.ensure_future(store.append(queued(f"r-{turn}-{n}"))) for n in range(20)
            ]
            for _ in range(turn % 4):
                await asyncio.sleep(0.001)
            await asyncio.gather(store.close(), store.close())
            tasks.append(asyncio.ensure_future(store.append(queued("r-late"))))
            told = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
            again = await place.open()
            for number, answer in enumerate(told[:-1]):
                there = await again.run(f"r-{turn}-{number}")
                assert (there is not None) == (not isinstance(answer, Exception))
            assert isinstance(told[-1], StoreFailed)
            await again.close()


def _any_write(dice: random.Random) -> Write:
    run = f"r-{dice.randrange(3)}"
    number, approval = dice.randrange(4), f"a-{dice.randrange(3)}-{run}"
    kind = dice.randrange(14)
    match kind:
        case 0:
            return queued(run)
        case 1 | 2:
            state = dice.choice([RunState.RUNNING, RunState.WAITING, RunState.QUEUED])
            return journals.moved(run, state)
        case 3:
            return journals.over(run) if dice.random() < 0.1 else journals.moved(run)
        case 4 | 5 | 6:
            using = approval if dice.random() < 0.3 else ""
            return journals.intended(run, number, approval=using, reserve=dice.randrange(9))
        case 7 | 8:
            label = Label(integrity=dice.choice(list(Integrity)))
            return journals.ended(run, number, cost=3, files=[("a", b"x")], label=label)
        case 9:
            return journals.refused(run, number)
        case 10:
            return journals.cut_off(run, number)
        case 11:
            return journals.settled(run, number)
        case 12:
            return journals.asked(run, approval, dice.randrange(4))
        case _:
            return journals.answered(run, approval, dice.choice(list(ApprovalState)))


__all__ = ["Place", "StoreConformance"]
