"""Answers of several people, changes, and yeses in advance: as rows, and as guards."""

from __future__ import annotations

import asyncio

import pytest
from conforming import Place, Suite, assert_rows_say_what_the_journal_says, refuses

import journals
from journals import queued, row_of
from ring0 import limits
from ring0.store import GuardFailed, Store, Write, WriteImpossible, base
from ring0.store import events as ev
from ring0.types import Approval, ApprovalState, Budget

GOOD = "b" * 64
SMALL = Budget(calls=10, cost_microusd=1_000)


async def approval_of(store: Store, key: str) -> Approval:
    await store.flush()
    found = await store.approval(key)
    assert found is not None
    return found


class ApprovalConformance(Suite):
    """What people answer."""

    async def test_it_is_approved_when_as_many_people_as_it_needs_have_said_yes(
        self, store: Store
    ) -> None:
        for write in (queued("r-1"), journals.moved("r-1", epoch=1)):
            await store.append(write)
        await store.append(journals.asked("r-1", "a-1", needs=3))
        for count, by in enumerate(("ann", "bob", "cy"), 1):
            await store.append(journals.answered("r-1", "a-1", by=by))
            row = await approval_of(store, "a-1")
            assert len(row.yes_by) == count and row.answered_by == by
            wanted = ApprovalState.APPROVED if count == 3 else ApprovalState.PENDING
            assert row.state is wanted
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_person_counts_once(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.asked("r-1", "a-1", needs=2))
        await store.append(journals.answered("r-1", "a-1", by="ann"))
        await refuses(store, journals.answered("r-1", "a-1", by="ann"), WriteImpossible)
        again = Write(
            run="r-1",
            events=journals.answered("r-1", "a-1", by="ann").events,
            guards=[base.ApprovalPending(approval="a-1", unless_by="ann")],
        )
        await refuses(store, again, GuardFailed)
        bob = base.ApprovalPending(approval="a-1", unless_by="bob")
        events = journals.answered("r-1", "a-1", by="bob").events
        await store.append(Write(run="r-1", events=events, guards=[bob]))
        assert (await approval_of(store, "a-1")).yes_by == ("ann", "bob")

    async def test_one_no_is_the_end_and_so_is_an_edit(self, store: Store) -> None:
        await store.append(queued("r-1"))
        for key in ("a-no", "a-edit"):
            await store.append(journals.asked("r-1", key, needs=2))
            await store.append(journals.answered("r-1", key, by="ann"))
        await store.append(journals.answered("r-1", "a-no", ApprovalState.DENIED, by="bob"))
        await store.append(journals.edited("r-1", "a-edit"))
        for key in ("a-no", "a-edit"):
            await refuses(store, journals.answered("r-1", key, by="cy"), WriteImpossible)
            edited = Write(run="r-1", events=journals.edited("r-1", key).events)
            await refuses(store, edited, WriteImpossible)
            for guard in (
                base.ApprovalGood(approval=key, bound_to=GOOD),
                base.ApprovalPending(approval=key, or_expired=True),
            ):
                await refuses(store, Write(run="r-1", events=[], guards=[guard]), GuardFailed)
        assert (await approval_of(store, "a-edit")).edits
        await assert_rows_say_what_the_journal_says(store)

    async def test_three_denials_in_a_row_pause_the_run(self, store: Store) -> None:
        await store.append(queued("r-1"))
        no, yes = ApprovalState.DENIED, ApprovalState.APPROVED
        for n, state in enumerate((no, no, yes, no, no, no)):
            assert not (await row_of(store, "r-1")).paused_by
            await store.append(journals.asked("r-1", f"a-{n}"))
            await store.append(journals.answered("r-1", f"a-{n}", state))
        row = await row_of(store, "r-1")
        assert row.denials == limits.DENIALS_IN_A_ROW_MAX and "in a row" in row.paused_by
        await store.append(Write(run="r-1", durable=True, events=[ev.RunResumed(by="ann")]))
        row = await row_of(store, "r-1")
        assert (row.denials, row.paused_by) == (0, "")
        await assert_rows_say_what_the_journal_says(store)

    async def test_denials_are_counted_for_a_whole_tree(self, store: Store) -> None:
        """In the row of its root: a child's no counts, a child's yes and a child's resume too."""
        await store.append(queued("r-1"))
        for child in ("r-2", "r-3"):
            await store.append(queued(child, parent=await row_of(store, "r-1"), budget=SMALL))
        below = base.DenialsBelow(root="r-1", most=limits.DENIALS_IN_A_ROW_MAX)
        no, yes = ApprovalState.DENIED, ApprovalState.APPROVED
        told = ((2, no, 1), (3, no, 2), (2, yes, 0), (3, no, 1), (1, no, 2), (2, no, 3))
        for n, (run, state, count) in enumerate(told):
            await store.append(Write(run="r-3", events=[], guards=[below]))
            await store.append(journals.asked(f"r-{run}", f"a-{n}"))
            await store.append(journals.answered(f"r-{run}", f"a-{n}", state))
            assert (await row_of(store, "r-1")).denials == count
        await refuses(store, Write(run="r-3", events=[], guards=[below]), GuardFailed)
        assert "in a row" in (await row_of(store, "r-2")).paused_by
        assert [(await row_of(store, f"r-{run}")).denials for run in (2, 3)] == [0, 0]
        await store.append(Write(run="r-2", durable=True, events=[ev.RunResumed(by="ann")]))
        assert (await row_of(store, "r-1")).denials == 0
        await store.append(Write(run="r-3", events=[], guards=[below]))
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_retry_uses_up_the_yes_that_was_given_for_it(self, store: Store) -> None:
        for write in (
            queued("r-1"),
            journals.moved("r-1", epoch=1),
            journals.asked("r-1", "a-1"),
            journals.answered("r-1", "a-1"),
            journals.intended("r-1", 0, approval="a-1"),
            journals.asked("r-1", "a-2"),
            journals.answered("r-1", "a-2"),
            Write(
                run="r-1",
                events=[ev.CallRetried(call="r-1/0/0", epoch=1, approval="a-2")],
                guards=[base.ApprovalGood(approval="a-2", bound_to=GOOD)],
            ),
        ):
            await store.append(write)
        for key in ("a-1", "a-2"):
            assert (await approval_of(store, key)).state is ApprovalState.CONSUMED
        found = await store.call("r-1/0/0")
        assert found is not None and found.approval == "a-2"
        again = Write(run="r-1", events=[ev.CallRetried(call="r-1/0/0", epoch=1, approval="a-2")])
        await refuses(store, again, WriteImpossible)
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_place_is_told_once(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.asked("r-1", "a-1"))
        await store.append(journals.told("r-1", "a-1"))
        await refuses(store, journals.told("r-1", "a-1"), WriteImpossible)
        await store.append(journals.told("r-1", "a-1", "other.example.com#2"))
        assert len((await approval_of(store, "a-1")).told) == 2
        await assert_rows_say_what_the_journal_says(store)

    @pytest.mark.parametrize(
        "end", ["revoked", "expired", "all:", "agent:clerk", "tenant:acme", "used up"]
    )
    async def test_a_standing_approval_is_good_until_one_of_its_ends(
        self, store: Store, place: Place, end: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At both places: where it answers an ask, and where that answer is used."""
        monkeypatch.setattr(limits, "STANDING_USES_MAX", 1)
        soon = place.runtime.now_us() + 1_000_000
        expires_us = soon if end == "expired" else journals.LATER_US
        await store.append(queued("r-1"))
        await store.append(journals.stands("r-1", "s-1", expires_us=expires_us))
        good = base.StandingGood(standing="s-1")
        await store.append(Write(run="r-1", events=[], guards=[good]))
        await store.append(journals.asked("r-1", "a-1", under="s-1"))
        await store.append(journals.answered("r-1", "a-1"))
        use = base.ApprovalGood(approval="a-1", bound_to=GOOD)
        await store.append(Write(run="r-1", events=[], guards=[use]))
        if end == "used up":
            await refuses(store, Write(run="r-1", events=[], guards=[good]), GuardFailed)
            await store.append(Write(run="r-1", events=[], guards=[use]))
            return
        monkeypatch.setattr(limits, "STANDING_USES_MAX", 9)
        await store.append(Write(run="r-1", events=[], guards=[good, use]))
        if end == "revoked":
            await store.append(journals.stands_no_more("r-1", "s-1"))
        elif end == "expired":
            place.runtime.advance(2)
        else:
            scope, _, target = end.partition(":")
            await store.append(journals.killed(scope, target, 1))
        for guard in (good, use):
            await refuses(store, Write(run="r-1", events=[], guards=[guard]), GuardFailed)
        for harmless in ("agent", "tenant"):
            await store.append(journals.killed(harmless, "another", 2))

    async def test_what_no_standing_approval_can_be_is_refused(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(queued("r-2"))
        await store.append(journals.stands("r-1", "s-1"))
        await store.append(journals.stands_no_more("r-1", "s-1"))
        await store.append(journals.stands("r-1", "s-2"))
        for write in (
            journals.stands("r-1", "s-1"),
            journals.stands("r-1", "s-3", tenant="other"),
            journals.stands("r-1", "s-3", uses=1),
            journals.stands_no_more("r-1", "s-1"),
            journals.stands_no_more("r-1", "s-none"),
            journals.stands_no_more("r-2", "s-2"),
            journals.asked("r-1", "a-1", under="s-1"),
            journals.asked("r-1", "a-1", under="s-none"),
            journals.asked("r-1", "a-1", under="s-2", needs=2),
            journals.asked("r-1", "a-1", yes_by=("ann",)),
        ):
            only = Write(run=write.run, events=write.events)
            await refuses(store, only, WriteImpossible)
        with pytest.raises(GuardFailed):
            guard = base.StandingGood(standing="s-none")
            await store.append(Write(run="r-1", events=[], guards=[guard]))
        await assert_rows_say_what_the_journal_says(store)

    async def test_of_many_yeses_at_once_only_as_many_count_as_it_needs(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.asked("r-1", "a-1", needs=2))
        answers = await asyncio.gather(
            *(
                store.append(
                    Write(
                        run="r-1",
                        durable=True,
                        events=journals.answered("r-1", "a-1", by=f"p{n // 2}").events,
                        guards=[base.ApprovalPending(approval="a-1", unless_by=f"p{n // 2}")],
                    )
                )
                for n in range(10)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(one, int) for one in answers) == 2
        assert len((await approval_of(store, "a-1")).yes_by) == 2
        await assert_rows_say_what_the_journal_says(store)
