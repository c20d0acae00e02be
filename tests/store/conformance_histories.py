"""Every row says what the journal says, and no history is taken that can not be."""

from __future__ import annotations

import asyncio
import random
from typing import get_args

import pytest
from conforming import (
    InMemory,
    Suite,
    assert_rows_say_what_the_journal_says,
    cap,
    refuses,
)
from msgspec.structs import replace

import journals
import stories
from journals import call_row, queued, row_of
from ring0 import limits
from ring0.store import Store, Write, WriteImpossible
from ring0.store import events as ev
from ring0.store.project import project
from ring0.types import (
    ApprovalState,
    CallState,
    Integrity,
    Label,
    RunState,
    Scope,
)


class HistoryConformance(Suite):
    """Projections."""

    # --- projections ----------------------------------------------------------------------------

    async def test_the_story_holds_every_kind_of_event(self, store: Store) -> None:
        await stories.tell(store)
        kinds = {type(entry.body) async for entry in store.entries()}
        assert kinds == set(get_args(ev.AnyEvent))

    async def test_every_row_says_what_the_journal_says(self, store: Store) -> None:
        await stories.tell(store)
        await stories.tell(store, "r-3", "r-4")
        await assert_rows_say_what_the_journal_says(store)

    async def test_the_rows_after_the_story(self, store: Store) -> None:
        await stories.tell(store)
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
            "0/8": CallState.REFUSED,
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
                Write(run="r-1", events=[ev.RunResumed(by="ann")]), id="resumed, but not paused"
            ),
            pytest.param(
                Write(run="r-1", events=[ev.RunPaused(by="ann"), ev.RunPaused(by="bob")]),
                id="paused twice",
            ),
            pytest.param(journals.unlocked("r-1", "none"), id="gave back what it does not hold"),
            pytest.param(journals.unlocked("r-2", "a"), id="gave back what another holds"),
            pytest.param(journals.locked("r-2", "c", 5), id="a fence that was given before"),
            pytest.param(journals.locked("r-2", "c", 4), id="a fence of the past"),
            pytest.param(
                journals.locked("r-2", "c", 6, tenant="other"), id="a lock of another tenant"
            ),
            pytest.param(
                journals.intended("r-1", 8, caps=[cap("k", 51, 50)]), id="more than a cap"
            ),
            pytest.param(
                journals.intended("r-1", 8, caps=[cap("k", -1, 50)]), id="a cap given back"
            ),
            pytest.param(
                journals.intended("r-1", 8, caps=[cap("k", 26, 50), cap("k", 25, 50)]),
                id="more than a cap, in two steps",
            ),
            pytest.param(journals.ended("r-1", 0, received=9), id="received what was not sent"),
            pytest.param(journals.sent("r-1", "r-none"), id="a message to nobody"),
            pytest.param(journals.sent("r-1", "r-other"), id="a message to another tenant"),
            pytest.param(journals.raised("r-1", calls=-1), id="a budget made smaller"),
            pytest.param(
                Write(run="r-1", events=[ev.CallsLost(calls=10_000)]), id="more lost than there was"
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
            journals.locked("r-1", "a", 5),
            queued("r-2"),
            queued(
                "r-other", scope=Scope(tenant="other", principal="ann", agent="clerk", run=None)
            ),
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
