"""A guard holds, or nothing is written."""

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

import journal_orders
import journals
from journals import queued
from ring0.store import GuardFailed, Store, Write, address, base
from ring0.store import events as ev
from ring0.types import (
    Budget,
    LockMode,
    RunState,
)


class GuardConformance(Suite):
    """Every guard at its edges."""

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
            (base.NotUndone(call="r-1/0/0"), base.NotUndone(call="r-1/0/1")),
            (base.NotUndone(call="r-1/0/0"), base.NotUndone(call="r-1/0/9")),
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
            (base.DenialsBelow(root="r-1", most=1), base.DenialsBelow(root="r-1", most=0)),
            (base.DenialsBelow(root="r-1", most=1), base.DenialsBelow(root="r-none", most=1)),
            (base.Room(run="r-1", tokens=70), base.Room(run="r-1", tokens=71)),
            (base.Room(run="r-1", children=2), base.Room(run="r-1", children=3)),
            (base.Room(run="r-full", calls=0), base.Room(run="r-full", calls=1)),
            (
                base.CapRoom(uses=(cap("k", 3, 50), cap("new", 7, 7))),
                base.CapRoom(uses=(cap("k", 4, 50),)),
            ),
            (base.CapRoom(uses=()), base.CapRoom(uses=(cap("new", 1, 9), cap("k", 1, 47)))),
            (
                base.CapRoom(uses=(cap("k", 1, 50), cap("k", 2, 50))),
                base.CapRoom(uses=(cap("k", 2, 50), cap("k", 2, 50))),
            ),
            (base.CapRoom(uses=(cap("k", 50, 50, 8),)), base.CapRoom(uses=(cap("k", 4, 50, 7),))),
            (base.CapRoom(uses=(cap("k", 3, 50, 6),)), base.CapRoom(uses=(cap("k", 4, 50, 6),))),
            (held("r-1", "a", 4), held("r-1", "a", 3)),
            (held("r-1", "a", 4), held("r-1", "a", 5)),
            (held("r-1", "a", 4), held("r-full", "a", 4)),
            (held("r-1", "a", 4), held("r-1", "over", 5)),
            (held("r-1", "a", 4), held("r-1", "a", 4, tenant="other")),
            (free("r-1", "a"), free("r-full", "a")),
            (free("r-full", "shared", LockMode.SHARED), free("r-full", "shared")),
            (free("r-full", "over"), free("r-full", "a", LockMode.SHARED)),
            (free("r-full", "a", tenant="other"), free("r-full", "a")),
            (free("r-full", "b"), free("r-full", "b\nc")),
            (base.MessageWaits(to="r-1", number=2), base.MessageWaits(to="r-1", number=1)),
            (base.MessageWaits(to="r-1", number=2), base.MessageWaits(to="r-1", number=3)),
            (base.MessageWaits(to="r-1", number=2), base.MessageWaits(to="r-full", number=2)),
        ],
        ids=lambda guard: type(guard).__name__,
    )
    async def test_a_guard_holds_or_nothing_is_written(
        self, store: Store, place: Place, good: base.Guard, bad: base.Guard
    ) -> None:
        soon = place.runtime.now_us() + 1_000_000
        for write in (
            queued("r-1", budget=Budget(calls=10, cost_microusd=1_000, tokens=100, children=2)),
            journals.moved("r-1", epoch=1),
            journals.sent("r-1", "r-1", b"one"),
            journals.sent("r-1", "r-1", b"two"),
            journals.intended("r-1", 0, reserve=200, tokens=90, caps=[cap("k", 47, 50)]),
            journals.ended("r-1", 0, cost=100, tokens=30, label=journals.UNTRUSTED, received=1),
            journals.locked("r-1", "over", 3, expires_us=soon),
            journals.locked("r-1", "a", 4),
            journals.locked("r-1", "over", 5, expires_us=soon),
            journals.locked("r-1", "shared", 6, mode=LockMode.SHARED),
            journals.locked("r-1", "b\nc", 7),
            queued("r-full", budget=Budget(calls=1)),
            journals.intended("r-full", 0),
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

    async def test_an_order_fires_once_for_a_moment_and_never_while_it_does_not_stand(
        self, store: Store
    ) -> None:
        await store.append(journal_orders.set_cron("nightly", done_us=1_000))
        cron = await journal_orders.cron_of(store, "nightly")

        def firing(run: str, due_us: int, *, version: int = cron.version) -> Write:
            guard = base.OrderStands(order="cron", name="nightly", version=version, due_us=due_us)
            event = ev.CronFired(cron="nightly", version=version, due_us=due_us)
            return journal_orders.fired(run, event, guards=[guard, base.RunNew(run=run)])

        await refuses(store, firing("r-1", 1_000), GuardFailed)
        await refuses(store, firing("r-1", 2_000, version=cron.version + 1), GuardFailed)
        told = await asyncio.gather(
            *(store.append(firing(f"r-{n}", 2_000)) for n in range(5)), return_exceptions=True
        )
        assert sum(not isinstance(answer, GuardFailed) for answer in told) == 1
        (first,) = await store.runs()
        with pytest.raises(GuardFailed, match="there already"):
            await store.append(firing(first.id, 3_000))
        pause = ev.OrderPaused(order="cron", name="nightly", by="ann")
        await store.append(journal_orders.about_order(pause))
        await refuses(store, firing("r-9", 3_000), GuardFailed)
        by_hand = base.OrderStands(order="cron", name="nightly", version=cron.version, paused=True)
        event = ev.CronFired(cron="nightly", version=cron.version, by="ann")
        await store.append(journal_orders.fired("r-9", event, guards=[by_hand]))
        assert (await journal_orders.cron_of(store, "nightly")).done_us == 2_000
        removed = ev.OrderRemoved(order="cron", name="nightly", by="ann")
        await store.append(journal_orders.about_order(removed))
        for guard in (by_hand, base.OrderStands(order="hook", name="nightly", version=1)):
            event = ev.CronFired(cron="nightly", version=cron.version, by="ann")
            await refuses(store, journal_orders.fired("r-10", event, guards=[guard]), GuardFailed)
        await assert_rows_say_what_the_journal_says(store)
