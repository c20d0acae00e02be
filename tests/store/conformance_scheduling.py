"""Budgets, approvals, caps, locks, messages, timers and quotas."""

from __future__ import annotations

import asyncio

import pytest
from conforming import (
    Place,
    Suite,
    assert_rows_say_what_the_journal_says,
    cap,
    free,
    held,
    refuses,
)

import journals
from journals import queued, row_of
from ring0 import limits
from ring0.errors import LimitReached
from ring0.store import GuardFailed, Store, WriteImpossible, base
from ring0.types import (
    ApprovalState,
    Budget,
    RunState,
    Scope,
)


class SchedulingConformance(Suite):
    """What the scheduler keeps of runs."""

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

    async def test_the_journals_time_outlasts_two_restarts_with_a_clock_set_back(
        self, place: Place
    ) -> None:
        store = await place.open()
        await store.append(queued("r-1"))
        place.runtime.advance(60)
        late_us = place.runtime.now_us()
        await store.append(journals.moved("r-1", epoch=1))
        await store.close()
        for epoch in (2, 3):
            place.runtime.advance(-60)
            store = await place.open()
            await store.append(journals.moved("r-1", epoch=epoch))
            await store.flush()
            times = [entry.at_us async for entry in store.entries("r-1")]
            assert times == sorted(times) and times[-1] == late_us
            await store.close()

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

    # --- caps, locks, messages, timers ----------------------------------------------------------

    async def test_two_hundred_deletes_at_once_meet_a_cap_of_fifty(self, store: Store) -> None:
        """Over the runs of a principal: the counter is theirs together."""
        for run in ("r-1", "r-2"):
            await store.append(queued(run))
        use = cap("ann/crm.delete/rows", 1, 50)
        guards = [base.CapRoom(uses=(use,))]
        told = await asyncio.gather(
            *(
                store.append(journals.intended(f"r-{1 + n % 2}", n, caps=[use], guards=guards))
                for n in range(200)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, GuardFailed) for answer in told) == 150
        await store.flush()
        assert await store.cap_used(use.key, use.window) == 50
        assert await store.cap_used(use.key, use.window - 1) == 50, "it has seen a newer window"
        assert await store.cap_used(use.key, use.window + 1) == 0
        assert await store.cap_used("another") == 0

    async def test_of_many_that_want_a_lock_at_once_one_gets_it(self, store: Store) -> None:
        for number in range(20):
            await store.append(queued(f"r-{number}"))
        writes = [
            journals.locked(
                f"r-{n}", "table:customers", n + 1, guards=[free(f"r-{n}", "table:customers")]
            )
            for n in range(20)
        ]
        told = await asyncio.gather(*map(store.append, writes), return_exceptions=True)
        assert [isinstance(answer, GuardFailed) for answer in told] == [False] + [True] * 19
        await store.flush()
        (lock,) = await store.locks()
        assert (lock.run, lock.fence) == ("r-0", 1)

    async def test_fences_never_come_again_though_the_locks_are_gone(self, place: Place) -> None:
        store = await place.open()
        await store.append(queued("r-1"))
        await store.append(journals.locked("r-1", "a", 7))
        await store.append(journals.unlocked("r-1", "a"))
        await store.close()
        store = await place.open()
        assert await store.newest_fence() == 7 and await store.locks() == []
        await refuses(store, journals.locked("r-1", "a", 7), WriteImpossible)
        await store.append(journals.locked("r-1", "a", 8))
        await store.close()

    async def test_locks_are_listed_by_tenant_and_by_run_and_kept_apart(self, store: Store) -> None:
        tenants = ["acme", "acme\nx", "acm", " "]
        for number, tenant in enumerate(tenants):
            scope = Scope(tenant=tenant, principal="ann", agent="clerk", run=None)
            await store.append(queued(f"r-{number}", scope=scope))
            lock = journals.locked(f"r-{number}", "x\ny", number + 1, tenant=tenant)
            await store.append(lock)
        await store.append(journals.locked("r-0", "a", 9))
        await store.flush()
        assert [lock.resource for lock in await store.locks(tenant="acme")] == ["a", "x\ny"]
        assert [lock.run for lock in await store.locks(tenant="acme\nx")] == ["r-1"]
        assert [lock.run for lock in await store.locks(run="r-2")] == ["r-2"]
        assert len(await store.locks()) == 5

    async def test_a_lease_is_over_even_for_a_clock_that_is_set_back(
        self, store: Store, place: Place
    ) -> None:
        over_us = place.runtime.now_us() + 10_000_000
        await store.append(queued("r-1"))
        await store.append(queued("r-2"))
        await store.append(journals.locked("r-1", "a", 1, expires_us=over_us))
        place.runtime.advance(9.999999)
        await store.append(journals.moved("r-1", epoch=1))
        with pytest.raises(GuardFailed):
            await store.append(journals.locked("r-2", "a", 2, guards=[free("r-2", "a")]))
        await store.append(journals.intended("r-1", 0, guards=[held("r-1", "a", 1)]))
        place.runtime.advance(0.000001)
        await store.append(journals.moved("r-1"))
        place.runtime.advance(-60)
        with pytest.raises(GuardFailed, match="lease"):
            await store.append(journals.intended("r-1", 1, guards=[held("r-1", "a", 1)]))
        await store.append(journals.locked("r-2", "a", 2, guards=[free("r-2", "a")]))

    async def test_a_message_is_received_once(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(queued("r-2"))
        for text in (b"first", b"second"):
            await store.append(journals.sent("r-2", "r-1", text, key_of_run="r-2"))
        for number in range(3):
            await store.append(journals.intended("r-1", number))
        waits = [base.MessageWaits(to="r-1", number=1)]
        writes = [journals.ended("r-1", number, received=1) for number in range(3)]
        for write in writes:
            write.guards = waits
        told = await asyncio.gather(*map(store.append, writes), return_exceptions=True)
        assert [isinstance(answer, GuardFailed) for answer in told] == [False, True, True]
        await store.flush()
        (left,) = await store.messages("r-1")
        assert (left.number, left.sender, await store.blob(left.body)) == (2, "r-2", b"second")
        first = await store.message("r-1", 1)
        assert first is not None and first.taken_by == "r-1/0/0"
        assert len(await store.messages("r-1", waiting=False)) == 2
        assert await store.messages("r-2") == []

    async def test_runs_that_wait_are_due_when_their_time_has_come(self, store: Store) -> None:
        assert await store.next_wake_us() == 0
        for number, wake_us in enumerate([500, 300, 0, 400]):
            run = f"r-{number}"
            await store.append(queued(run))
            await store.append(journals.moved(run, epoch=1))
            waits = journals.moved(run, RunState.WAITING, why="timer", wake_us=wake_us)
            await store.append(waits)
        await store.flush()
        assert await store.next_wake_us() == 300
        assert await store.runs_due(299, 10) == []
        assert [run.id for run in await store.runs_due(400, 10)] == ["r-1", "r-3"]
        assert [run.id for run in await store.runs_due(9_999, 2)] == ["r-1", "r-3"]
        await store.append(journals.moved("r-1"))
        await store.append(journals.over("r-3", epoch=2))
        assert [run.id for run in await store.runs_due(9_999, 10)] == ["r-0"]
        assert await store.next_wake_us() == 500

    async def test_a_raised_budget_is_raised_for_those_above_who_have_moved_it_down(
        self, store: Store
    ) -> None:
        await store.append(queued("r-1", budget=Budget(calls=100, wall_s=60)))
        await store.append(
            queued("r-2", parent=await row_of(store, "r-1"), budget=Budget(calls=10, tokens=5))
        )
        await store.append(journals.raised("r-2", calls=7, tokens=9, children=1, wall_s=30))
        parent, child = await row_of(store, "r-1"), await row_of(store, "r-2")
        assert (child.budget.calls, child.budget.tokens, child.calls_used) == (17, 14, 0)
        assert (parent.budget.calls, parent.calls_used) == (107, 17)
        assert child.deadline_us == parent.deadline_us == journals.LATER_US + 30_000_000
        await store.append(journals.over("r-2"))
        assert (await row_of(store, "r-1")).calls_used == 0

    # --- quotas ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("bound", "whose"),
        [
            ("RUN_EVENTS_MAX", "The run r-1"),
            ("RUN_STORED_BYTES_MAX", "The run r-1"),
            ("TENANT_EVENTS_MAX", "The tenant 'acme'"),
            ("TENANT_STORED_BYTES_MAX", "The tenant 'acme'"),
        ],
    )
    async def test_a_quota_refuses_what_asks_for_more_and_never_what_has_happened(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, bound: str, whose: str
    ) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        await store.append(journals.intended("r-1", 0))
        await store.append(journals.asked("r-1", "a-1", 7))
        await store.append(
            queued("r-else", scope=Scope(tenant="b", principal="bob", agent="clerk", run=None))
        )
        row = await row_of(store, "r-1")
        used = row.events if "EVENTS" in bound else row.stored_bytes
        monkeypatch.setattr(limits, bound, used + 1)
        await store.append(journals.intended("r-1", 1))  # The last that there is room for.
        monkeypatch.setattr(limits, bound, used)
        for write in (
            journals.intended("r-1", 2),
            journals.refused("r-1", 3),
            journals.asked("r-1", "a-2", 4),
            journals.sent("r-1", "r-1"),
            journals.locked("r-1", "a", 1),
        ):
            write.blobs = {}
            assert whose in await refuses(store, write, LimitReached)
        for write in (
            journals.ended("r-1", 0, files=[("a", b"x" * 5_000)]),
            journals.cut_off("r-1", 1),
            journals.settled("r-1", 1),
            journals.answered("r-1", "a-1"),
            journals.over("r-1", epoch=2),
            journals.killed("run", "r-1", 1),
        ):
            await store.append(write)
        await store.append(journals.moved("r-else", epoch=1))
        await store.append(journals.intended("r-else", 0))
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_tenant_that_is_full_starts_no_run(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.append(queued("r-1"))
        monkeypatch.setattr(limits, "TENANT_EVENTS_MAX", 1)
        with pytest.raises(LimitReached, match="The tenant 'acme'"):
            await store.append(queued("r-2"))
        await store.append(
            queued("r-3", scope=Scope(tenant="b", principal="ann", agent="clerk", run=None))
        )
        assert (await store.tenant("acme")).events == 1
        assert (await store.tenant("nobody")).events == 0

    async def test_what_a_run_stores_is_counted_once_a_value(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.moved("r-1", epoch=1))
        before = (await row_of(store, "r-1")).stored_bytes
        sizes = []
        for number in range(2):
            await store.append(journals.intended("r-1", number))
            await store.append(journals.ended("r-1", number, files=[("a", b"x" * 100_000)]))
            await store.flush()
            after = (await row_of(store, "r-1")).stored_bytes
            sizes.append(after - before)
            before = after
        assert 100_000 < sizes[0] < 110_000 and sizes[1] < 10_000
