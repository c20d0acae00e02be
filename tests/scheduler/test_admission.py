"""Waiting for a turn: who waits is told, whoever goes away leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from ring0.errors import Busy, LimitReached
from ring0.runtime import Runtime
from ring0.scheduler.admission import Admission
from ring0.scheduler.buckets import Bucket
from ring0.scheduler.queue import FairQueue, Ticket, TicketState

FAR_US = 10**18


class Clock(Runtime):
    """Stands still until it is moved; who sleeps wakes when its time has come."""

    def __init__(self) -> None:
        self.us = 1_750_000_000_000_000
        self.sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us

    async def sleep(self, seconds: float) -> None:
        sleeper = (self.us + round(seconds * 1_000_000), asyncio.get_running_loop().create_future())
        self.sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            self.sleepers.remove(sleeper)

    async def wait_for(self, awaitable: Any, seconds: float) -> Any:
        timer = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait({awaitable, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not awaitable.done():
                raise TimeoutError
            return await awaitable
        finally:
            awaitable.cancel()
            timer.cancel()

    async def until(self, task: Awaitable[Any]) -> Any:
        """What the task comes to; the clock goes on to whatever is due next."""
        found = asyncio.ensure_future(task)
        while True:
            await settle()
            if found.done():
                return await found
            self.us = min(at for at, sleeper in self.sleepers if not sleeper.done())
            for at, sleeper in self.sleepers:
                if at <= self.us and not sleeper.done():
                    sleeper.set_result(None)


class Hall:
    """An admission on a clock that a test moves."""

    def __init__(self, **more: Any) -> None:
        self.runtime = Clock()
        most = more.pop("queued_max", 1_000)
        self.queue = FairQueue(sizes=more or {"call": 1}, queued_max=most)
        self.admission = Admission(self.runtime, self.queue)

    def ticket(self, run: str = "r", **fields: Any) -> Ticket:
        given = {"tenant": "t", "root": run, "priority": 5, "slots": ("call",), **fields}
        return Ticket(run=run, **given)

    def start(self, ticket: Ticket, deadline_us: int = FAR_US) -> asyncio.Task[bool]:
        return asyncio.create_task(self.admission.take(ticket, lambda: deadline_us))


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    made = Hall()
    yield made
    made.admission.close()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_where_there_is_room_nothing_is_awaited(hall: Hall) -> None:
    taking = hall.admission.take(hall.ticket(), lambda: FAR_US)
    with pytest.raises(StopIteration) as done:
        taking.send(None)
    assert done.value.value is False


async def test_who_waits_goes_when_a_slot_is_given_back(hall: Hall) -> None:
    first, second = hall.ticket(), hall.ticket()
    await hall.admission.take(first, lambda: FAR_US)
    waiting = hall.start(second)
    await settle()
    assert not waiting.done()
    hall.admission.give_back(first)
    assert await waiting is True
    hall.admission.give_back(first)  # Twice is nothing.
    assert hall.queue.resources()["call"].in_use == 1


async def test_who_is_cancelled_leaves_the_queue_at_once(hall: Hall) -> None:
    first = hall.ticket()
    await hall.admission.take(first, lambda: FAR_US)
    waiting = [hall.start(hall.ticket()) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    await settle()
    assert hall.admission.load().queued == 2
    hall.admission.give_back(first)
    assert await waiting[1] is True


async def test_a_slot_that_comes_with_the_cancel_is_not_lost(hall: Hall) -> None:
    first, second, third = hall.ticket(), hall.ticket(), hall.ticket()
    await hall.admission.take(first, lambda: FAR_US)
    cancelled, other = hall.start(second), hall.start(third)
    await settle()
    hall.admission.give_back(first)
    cancelled.cancel()  # It has been granted, and does not know it yet.
    assert second.state is TicketState.GRANTED
    assert await other is True
    assert second.state is TicketState.GONE


async def test_a_call_whose_runs_time_is_over_leaves_the_queue_with_an_error(hall: Hall) -> None:
    await hall.admission.take(hall.ticket(), lambda: FAR_US)
    deadline_us = hall.runtime.now_us() + 5_000_000
    with pytest.raises(LimitReached, match="time was over"):
        await hall.runtime.until(hall.admission.take(hall.ticket(), lambda: deadline_us))
    assert hall.runtime.now_us() == deadline_us
    assert hall.admission.load().queued == 0


async def test_a_deadline_that_is_raised_meanwhile_is_the_one_that_counts(hall: Hall) -> None:
    first = hall.ticket()
    await hall.admission.take(first, lambda: FAR_US)
    begun_us = hall.runtime.now_us()
    ends = [begun_us + 5_000_000]
    waiting = asyncio.create_task(hall.admission.take(hall.ticket(), lambda: ends[0]))
    await settle()
    ends[0] += 5_000_000
    with pytest.raises(LimitReached):
        await hall.runtime.until(waiting)
    assert hall.runtime.now_us() == begun_us + 10_000_000


async def test_who_is_pushed_out_is_told_when_to_come_back() -> None:
    hall = Hall(call=1, queued_max=3)
    await hall.admission.take(hall.ticket("x"), lambda: FAR_US)
    crowd = [hall.start(hall.ticket(f"c{n}", root="crowd")) for n in range(3)]
    await settle()
    other = hall.start(hall.ticket("other"))
    with pytest.raises(Busy, match="wait for their turn"):
        await crowd[-1]
    with pytest.raises(Busy):
        await hall.admission.take(hall.ticket("c9", root="crowd"), lambda: FAR_US)
    for task in (*crowd, other):
        task.cancel()


async def test_what_waits_for_a_bucket_goes_by_itself_when_it_has_filled() -> None:
    hall = Hall(call=10)
    hall.admission.add_bucket(Bucket("b", requests_per_min=6))
    begun_us = hall.runtime.now_us()
    went = []
    for _ in range(4):
        ticket = hall.ticket(bucket="b")
        await hall.runtime.until(hall.admission.take(ticket, lambda: FAR_US))
        went.append((hall.runtime.now_us() - begun_us) // 1_000_000)
        hall.admission.give_back(ticket)
    assert went == [0, 10, 20, 30]


async def test_who_waits_for_a_bucket_that_fills_sooner_does_not_wait_for_the_other() -> None:
    hall = Hall(call=10)
    for name, requests_per_min in (("slow", 1), ("quick", 6)):
        hall.admission.add_bucket(Bucket(name, requests_per_min=requests_per_min))
        await hall.admission.take(hall.ticket(bucket=name), lambda: FAR_US)
    begun_us = hall.runtime.us
    slow = hall.start(hall.ticket(bucket="slow"))
    await settle()
    quick = hall.start(hall.ticket(bucket="quick"))
    assert await hall.runtime.until(quick) is True
    assert hall.runtime.us == begun_us + 10_000_000
    assert await hall.runtime.until(slow) is True
    assert hall.runtime.us == begun_us + 60_000_000


async def test_a_slot_that_comes_before_the_bucket_has_filled_is_taken_when_it_has() -> None:
    hall = Hall(call=1)
    hall.admission.add_bucket(Bucket("b", requests_per_min=6))
    begun_us = hall.runtime.us
    first = hall.ticket(bucket="b")
    await hall.admission.take(first, lambda: FAR_US)
    second = hall.start(hall.ticket(bucket="b"))
    await settle()
    hall.admission.give_back(first)
    assert await hall.runtime.until(second) is True
    assert hall.runtime.us == begun_us + 10_000_000


async def test_tokens_that_were_not_used_let_the_next_go() -> None:
    hall = Hall(call=10)
    hall.admission.add_bucket(Bucket("b", tokens_per_min=600))
    first = hall.ticket(bucket="b", tokens=100)
    await hall.admission.take(first, lambda: FAR_US)
    second = hall.start(hall.ticket(bucket="b", tokens=90))
    await settle()
    begun_us = hall.runtime.us
    hall.admission.give_back(first, tokens=10)
    assert await hall.runtime.until(second) is True
    assert hall.runtime.us == begun_us, "it waited for the bucket"


async def test_a_provider_that_says_not_to_come_is_left_alone_until_then() -> None:
    hall = Hall(call=10)
    begun_us = hall.runtime.now_us()
    hall.admission.slow_down("b", 40.0)
    await hall.admission.take(hall.ticket(bucket="other"), lambda: FAR_US)
    assert hall.runtime.now_us() == begun_us
    await hall.runtime.until(hall.admission.take(hall.ticket(bucket="b"), lambda: FAR_US))
    assert hall.runtime.now_us() - begun_us == 40_000_000


async def test_what_a_provider_says_is_bounded() -> None:
    hall = Hall(call=10)
    hall.admission.slow_down("b", float("1e30"))
    bucket = hall.queue.buckets["b"]
    assert bucket.closed_until_us - hall.runtime.monotonic_us() == 24 * 3_600 * 1_000_000
    for number in range(5_000):
        hall.admission.slow_down(f"b{number}", 0.0)
    assert len(hall.queue.buckets) < 300


async def test_the_load_says_what_goes_and_who_waits_how_long() -> None:
    hall = Hall(call=1, sandbox=1)
    await hall.admission.take(hall.ticket(slots=("call", "sandbox")), lambda: FAR_US)
    waiting = [
        hall.start(hall.ticket(slots=("call", "sandbox"), priority=2)),
        hall.start(hall.ticket(tenant="u")),
    ]
    await settle()
    hall.runtime.us += 3_000_000
    load = hall.admission.load()
    found = {one.name: one for one in load.resources}
    assert (load.queued, load.oldest_us) == (2, 3_000_000)
    assert (found["call"].in_use, found["call"].size) == (1, 1)
    assert found["call"].by_class == {2: 1, 5: 1}
    assert found["call"].by_tenant == {"t": 1, "u": 1}
    assert found["sandbox"].by_tenant == {"t": 1}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert hall.admission.load().queued == 0


async def test_nobody_goes_once_it_is_held_and_who_goes_may_end(hall: Hall) -> None:
    first = hall.ticket()
    await hall.admission.take(first, lambda: FAR_US)
    hall.admission.hold()
    waiting = hall.start(hall.ticket())
    await settle()
    hall.admission.give_back(first)
    await settle()
    assert not waiting.done()
    waiting.cancel()
