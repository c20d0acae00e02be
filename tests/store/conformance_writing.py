"""What is written can be read, in order; bounds and ends."""

from __future__ import annotations

import asyncio

import pytest
from conforming import (
    Place,
    Suite,
    assert_rows_say_what_the_journal_says,
)

import journals
import stories
from journals import queued, row_of
from ring0 import limits
from ring0.errors import StoreFailed
from ring0.store import Store, Write, merkle, rows
from ring0.store import events as ev
from ring0.types import (
    RunState,
)


class WritingConformance(Suite):
    """Writing, order, bounds and ends."""

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
        await stories.tell(store)
        before = [entry async for entry in store.entries()], await store.head()
        await store.close()
        store = await place.open()
        assert ([entry async for entry in store.entries()], await store.head()) == before
        await store.append(queued("r-9"))
        await store.append(Write(run=ev.KERNEL, durable=True, events=[ev.KernelStopped()]))
        await assert_rows_say_what_the_journal_says(store)
        await store.close()

    async def test_the_head_is_the_merkle_root_of_the_journal(self, store: Store) -> None:
        assert await store.head() == rows.Head(size=0, root=merkle.EMPTY_ROOT.hex())
        await stories.tell(store)
        tree = merkle.Tree()
        async for entry in store.entries():
            tree.append(merkle.leaf_hash(ev.encode_entry(entry)))
        assert await store.head() == rows.Head(size=tree.size, root=tree.root().hex())

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
        await stories.tell(store)
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
