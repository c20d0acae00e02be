"""What takes a call back: from its intent on nobody else does, until it is known to have failed."""

from __future__ import annotations

import pytest
from conforming import Suite, assert_rows_say_what_the_journal_says

import journals
from journals import queued
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.types import CallState

DONE = "r-1/0/0"


async def undone_by(store: Store) -> str:
    await store.flush()
    row = await store.call(DONE)
    assert row is not None
    return row.undone_by


class UndoConformance(Suite):
    async def _done(self, store: Store) -> None:
        """A call that was done, and another run that may take it back."""
        for run in ("r-1", "r-2"):
            await store.append(queued(run))
            await store.append(journals.moved(run, epoch=1))
        await store.append(journals.intended("r-1"))
        await store.append(journals.ended("r-1", undo=b"put back"))

    async def test_a_call_is_taken_back_by_one_from_its_intent_on(self, store: Store) -> None:
        await self._done(store)
        guard = base.NotUndone(call=DONE)
        await store.append(journals.intended("r-2", 0, undoes=DONE, guards=[guard]))
        assert await undone_by(store) == "r-2/0/0"
        second = journals.intended("r-2", 1, undoes=DONE, guards=[guard])
        with pytest.raises(GuardFailed):
            await store.append(second)
        await store.append(journals.ended("r-2", 0, undoes=DONE))
        assert await undone_by(store) == "r-2/0/0"
        with pytest.raises(GuardFailed):
            await store.append(second)
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_step_that_failed_leaves_the_call_to_others(self, store: Store) -> None:
        await self._done(store)
        await store.append(journals.intended("r-2", 0, undoes=DONE))
        outcome = journals.ended("r-2", 0)
        (event,) = outcome.events
        assert isinstance(event, ev.CallEnded)
        failed = ev.CallEnded(call=event.call, state=CallState.ERROR, outcome=event.outcome)
        await store.append(Write(run="r-2", blobs=outcome.blobs, events=[failed]))
        assert await undone_by(store) == ""
        again = journals.intended("r-2", 1, undoes=DONE, guards=[base.NotUndone(call=DONE)])
        await store.append(again)
        assert await undone_by(store) == "r-2/0/1"
        await assert_rows_say_what_the_journal_says(store)

    @pytest.mark.parametrize("happened", [True, False])
    async def test_a_step_that_was_cut_off_holds_the_call_until_somebody_says_what_became_of_it(
        self, store: Store, happened: bool
    ) -> None:
        await self._done(store)
        await store.append(journals.intended("r-2", 0, undoes=DONE))
        await store.append(journals.cut_off("r-2", 0))
        assert await undone_by(store) == "r-2/0/0"
        await store.append(journals.settled("r-2", 0, happened=happened))
        assert await undone_by(store) == ("r-2/0/0" if happened else "")
        await assert_rows_say_what_the_journal_says(store)

    async def test_each_entry_of_a_run_has_its_place_in_the_log_of_all(self, store: Store) -> None:
        await self._done(store)
        await store.flush()
        log = [entry async for entry in store.entries()]
        for run in ("r-1", "r-2", "kernel"):
            found = [(place, entry) async for place, entry in store.placed(run)]
            assert all(log[place] == entry for place, entry in found)
            assert [entry for _, entry in found] == [one for one in log if one.run == run]
