"""Locks between runs: who waits, who is refused, and what stands after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kernel_world import Doing, JumpingRuntime, database, rows
from locks_world import Actor, band, code
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import RunDead
from ring0.kernel.kernel import Kernel
from ring0.store.events import LockFreed
from ring0.tools.driver import CallContext
from ring0.tools.functions import EmbeddedFunction
from ring0.tools.registry import Tool
from ring0.types import Budget, CallKind, Effect, Operator, RunState
from simulated import Simulated

T = TypeVar("T")


class Jumping(JumpingRuntime):
    """Waits end when the clock is moved, too; the clock that never goes back moves with it."""

    def __init__(self) -> None:
        super().__init__()
        self.monotonic_offset_us = 0

    def monotonic_us(self) -> int:
        return super().monotonic_us() + self.monotonic_offset_us

    def jump(self, seconds: float) -> None:
        self.monotonic_offset_us += max(0, int(seconds * 1_000_000))
        super().jump(seconds)

    def set_back(self, seconds: float) -> None:
        super().jump(-seconds)

    async def sleep(self, seconds: float) -> None:
        await self._until(self.monotonic_us() + int(seconds * 1_000_000))

    async def _until(self, until: int) -> None:
        while (left := until - self.monotonic_us()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), left / 1_000_000)

    async def wait_for(self, awaitable: Awaitable[T], seconds: float) -> T:
        wanted = asyncio.ensure_future(awaitable)
        # Counted from now, not from when the timer's task begins: a jump may come in between.
        until = self.monotonic_us() + int(seconds * 1_000_000)
        timer = asyncio.ensure_future(self._until(until))
        try:
            await asyncio.wait({wanted, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                raise TimeoutError
            return await wanted
        finally:
            wanted.cancel()
            timer.cancel()


class Patient(Simulated):
    """Before it jumps, the journal's thread gets a moment, unless the dice say that it does not.
    It never jumps as far as to the end of a run."""

    async def sleep(self, seconds: float) -> None:
        if seconds > 10_000:
            await asyncio.Event().wait()
        until_us = self.now_us() + round(max(0.0, seconds) * 1_000_000)
        if self._dice.random() < 0.9:
            await asyncio.sleep(0.004)
        await super().sleep(max(0, until_us - self.now_us()) / 1_000_000)


async def settled(*tasks: asyncio.Task[Any], seconds: float = 0.1) -> list[bool]:
    await asyncio.sleep(seconds)
    return [task.done() for task in tasks]


async def freed(kernel: Kernel) -> list[tuple[str, str]]:
    await kernel.store.flush()
    return [
        (entry.body.resource, entry.body.how)
        async for entry in kernel.store.entries()
        if isinstance(entry.body, LockFreed)
    ]


# --- taking, waiting, freeing ----------------------------------------------------------------


async def test_a_run_waits_as_a_row_until_the_lock_that_it_wants_is_freed(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        first = await one.lock("table:customers")
        waiting = asyncio.create_task(two.lock("table:customers"))
        await two.until(RunState.WAITING, "lock")
        assert not waiting.done()
        assert (await one.free("table:customers")).value == {"held": True}
        second = await waiting
        assert second.value["fence"] > first.value["fence"]
        await two.until(RunState.RUNNING)


async def test_a_run_that_has_no_call_left_can_free_its_locks(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start(budget=Budget(calls=2))
        await one.lock("x")
        await one.lock("y")
        assert code(await one.lock("z")) == "limit_reached"
        assert code(await one.free("x")) == "ok"
        assert code(await one.free("y")) == "ok"
        row = await one.row()
        assert row.calls_used == one.run.row.calls_used == 2


async def test_shared_locks_stand_beside_each_other(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two, three = await b.start(), await b.start(), await b.start()
        assert code(await one.lock("x", shared=True)) == "ok"
        assert code(await two.lock("x", shared=True)) == "ok"
        assert code(await three.lock("x", wait_s=0)) == "limit_reached"


async def test_who_waited_long_enough_is_told_who_holds_it(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        await one.lock("x")
        for wait_s in (0, 0.1):
            refused = await two.lock("x", wait_s=wait_s)
            assert code(refused) == "limit_reached"
            assert one.id in refused.error["why"] and "fence 1" in refused.error["why"]
        await two.until(RunState.RUNNING)


async def test_a_lock_is_the_runs_and_is_not_given_to_it_twice(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        await one.lock("x")
        assert code(await one.lock("X")) == "call_invalid"
        assert code(await one.free("x")) == "ok"
        assert code(await one.free("x")) == "call_invalid"
        assert (await one.lock("x")).value["fence"] == 2


async def test_a_reader_becomes_a_writer_under_a_new_fence(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        await one.lock("x", shared=True)
        await two.lock("x", shared=True)
        upgrade = asyncio.create_task(one.lock("x"))
        assert await settled(upgrade) == [False]
        await two.free("x")
        assert (await upgrade).value == {**(await upgrade).value, "mode": "exclusive", "fence": 3}


async def test_a_run_holds_a_bounded_number_of_locks(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        for number in range(limits.LOCKS_PER_RUN_MAX):
            assert code(await one.lock(f"x:{number}")) == "ok"
        assert code(await one.lock("one:more")) == "limit_reached"


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"resource": ""},
        {"resource": "a\nb\0"},
        {"resource": "x", "lease_s": 0},
        {"resource": "x", "lease_s": limits.LOCK_LEASE_S_MAX + 1},
        {"resource": "x", "wait_s": -1},
        {"resource": "x", "do": "steal"},
        {"resource": "x", "tenant": "other"},
        {"resource": 7},
    ],
)
async def test_an_odd_request_for_a_lock_is_refused(tmp_path: Path, args: Any) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        assert code(await one.call(CallKind.LOCK, args)) == "call_invalid"


# --- ends ------------------------------------------------------------------------------------


async def test_the_end_of_a_run_frees_its_locks(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        await one.lock("x")
        waiting = asyncio.create_task(two.lock("x"))
        await two.until(RunState.WAITING, "lock")
        await one.end()
        assert code(await asyncio.wait_for(waiting, 5)) == "ok"
        assert await freed(b.kernel) == [("x", "ended")]


async def test_a_kill_of_a_holder_lets_the_next_on(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        await one.lock("x")
        waiting = asyncio.create_task(two.lock("x"))
        await two.until(RunState.WAITING, "lock")
        await b.kernel.kill("run", one.id, by="alice")
        assert code(await asyncio.wait_for(waiting, 5)) == "ok"


async def test_a_kill_of_who_waits_takes_it_out_of_the_queue(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two, three = await b.start(), await b.start(), await b.start()
        await one.lock("x")
        killed = asyncio.create_task(two.lock("x"))
        await two.until(RunState.WAITING, "lock")
        waiting = asyncio.create_task(three.lock("x"))
        await three.until(RunState.WAITING, "lock")
        await b.kernel.kill("run", two.id, by="alice")
        with pytest.raises(RunDead):
            await killed
        await one.free("x")
        assert code(await asyncio.wait_for(waiting, 5)) == "ok"


async def test_a_lease_that_is_over_lets_the_next_on_and_is_on_record(tmp_path: Path) -> None:
    runtime = Jumping()
    async with band(tmp_path / "home", runtime) as b:
        one, two = await b.start(), await b.start()
        await one.lock("x", lease_s=60)
        waiting = asyncio.create_task(two.lock("x"))
        await two.until(RunState.WAITING, "lock")
        runtime.jump(59)
        assert await settled(waiting) == [False]
        runtime.jump(2)
        assert (await asyncio.wait_for(waiting, 5)).value["fence"] == 2
        assert await freed(b.kernel) == [("x", "expired")]


async def test_a_clock_that_is_set_back_revives_no_lease_and_makes_none_longer(
    tmp_path: Path,
) -> None:
    runtime = Jumping()
    async with band(tmp_path / "home", runtime) as b:
        one, two = await b.start(), await b.start()
        one.tool("x")
        await one.lock("x", lease_s=60)
        waiting = asyncio.create_task(two.lock("x"))
        await two.until(RunState.WAITING, "lock")
        runtime.set_back(86_400)
        runtime.jump(61)  # A minute goes by, in a day that was before.
        assert (await asyncio.wait_for(waiting, 5)).value["fence"] == 2
        assert code(await one.touch()) == "lock_lost"
        # Nor is one that is taken now over at once: it is counted from the journal's time.
        assert code(await two.free("x")) == "ok"
        three = await b.start()
        three.tool("y")
        assert code(await three.lock("y", lease_s=60)) == "ok"
        assert code(await three.touch()) == "ok"


async def test_a_renewal_keeps_the_fence_and_never_makes_a_lease_shorter(tmp_path: Path) -> None:
    runtime = Jumping()
    async with band(tmp_path / "home", runtime) as b:
        one, two = await b.start(), await b.start()
        first = (await one.lock("x", lease_s=60)).value
        runtime.jump(50)
        renewed = (await one.renew("x", 60)).value
        assert renewed["fence"] == first["fence"]
        assert renewed["expires_us"] - first["expires_us"] >= 50_000_000
        runtime.jump(50)
        assert code(await two.lock("x", wait_s=0)) == "limit_reached"
        assert (await one.renew("x", 1)).value["expires_us"] == renewed["expires_us"]
        runtime.jump(20)
        assert code(await one.renew("x", 60)) == "lock_lost"


# --- what calls touch ------------------------------------------------------------------------


async def test_a_call_waits_while_another_run_has_locked_what_it_touches(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        mine, other = one.tool("table:customers"), two.tool("Table:Customers")
        await one.lock("table:customers", shared=True)
        touching = asyncio.create_task(two.touch())
        await two.until(RunState.WAITING, "lock")
        assert other.done == 0
        assert code(await one.touch()) == "ok" and mine.done == 1
        await one.free("table:customers")
        assert code(await touching) == "ok" and other.done == 1


async def test_a_lock_is_not_granted_while_a_call_that_touches_it_is_under_way(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        driver = one.tool("x")
        gate = driver.hold()
        touching = asyncio.create_task(one.touch())
        await driver.begun.wait()
        locking = asyncio.create_task(two.lock("x"))
        assert await settled(locking) == [False]
        gate.set()
        assert code(await touching) == code(await locking) == "ok"


async def test_a_run_that_lost_its_lock_may_not_touch_what_it_was_on(tmp_path: Path) -> None:
    runtime = Jumping()
    async with band(tmp_path / "home", runtime) as b:
        one, two = await b.start(), await b.start()
        driver = one.tool("x")
        await one.lock("x", lease_s=1)
        runtime.jump(2)
        refused = await one.touch()
        assert code(refused) == "lock_lost" and "lease is over" in refused.error["why"]
        await two.lock("x")
        refused = await one.touch()
        assert code(refused) == "lock_lost"
        assert "fence was 1, and is 2 now" in refused.error["why"]
        assert two.id in refused.error["why"] and driver.done == 0
        assert (await one.free("x")).value == {"held": False}
        await two.free("x")
        assert code(await one.touch()) == "ok"  # As any run that never took it.


async def test_a_lease_that_ends_between_the_turn_and_the_intent_is_seen_in_the_intent(
    tmp_path: Path,
) -> None:
    runtime = Jumping()
    async with band(tmp_path / "home", runtime) as b:
        one = await b.start()
        driver = one.tool("x")
        await one.lock("x", lease_s=1)
        turn = b.kernel.locking.turn

        async def slow(*given: Any) -> bool:
            waited = await turn(*given)
            runtime.jump(2)
            return waited

        b.kernel.locking.turn = slow  # type: ignore[method-assign]
        assert code(await one.touch()) == "lock_lost" and driver.done == 0


async def test_the_fences_of_what_a_run_took_are_handed_to_its_drivers_even_of_what_it_lost(
    tmp_path: Path,
) -> None:
    runtime = Jumping()
    async with band(tmp_path / "home", runtime) as b:
        one = await b.start()
        seen: list[dict[str, int]] = []
        one.tool(act=lambda args, context: seen.append(dict(context.fences)))
        await one.lock("x", lease_s=1)
        await one.lock("y")
        await one.touch()
        runtime.jump(2)
        await one.free("y")
        await one.touch()
        assert seen == [{"x": 1, "y": 2}, {"x": 1}]


async def test_a_function_that_names_what_it_touches_is_kept_from_what_is_locked(
    tmp_path: Path,
) -> None:
    seen: list[Any] = []

    async def close(args: dict[str, Any], call: str, fences: dict[str, int]) -> str:
        seen.append((args["id"], fences))
        return "closed"

    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        schema = {"type": "object", "properties": {"id": {}}, "required": ["id"]}
        manifest = replace(
            Doing("close", effect=Effect.PURE).manifest,
            locks=("ticket:{id}",),
            schema=schema,
        )
        for actor in (one, two):
            actor.run.tools["close"] = Tool(EmbeddedFunction(manifest, close))
        await one.lock("ticket:42")
        other = asyncio.create_task(two.touch("close", id=42))
        assert code(await two.touch("close", id=43)) == "ok"
        assert code(await one.touch("close", id="42")) == "ok"
        assert await settled(other) == [False]
        assert code(await two.touch("close", id="4\0")) == "call_invalid"
        assert code(await two.touch("close", id=[1])) == "call_invalid"
        await one.free("ticket:42")
        assert code(await other) == "ok"
        assert seen == [(43, {}), ("42", {"ticket:42": 1}), (42, {})]


@pytest.mark.parametrize("name", ["table:customer", "table:crm.db/customer"])
async def test_two_agents_on_one_database_agree_on_what_its_tables_are_called(
    tmp_path: Path, name: str
) -> None:
    path = database(tmp_path)
    async with band(tmp_path / "home") as b:
        one = await b.start(tools={"crm": {"use": "sql", "database": str(path)}})
        two = await b.start(tools={"shop": {"use": "sql", "database": str(path)}})
        await one.lock(name)
        statement = {"statement": "UPDATE customer SET state = 'closed' WHERE id = 1"}
        changing = asyncio.create_task(two.touch("shop.execute", **statement))
        await two.until(RunState.WAITING, "approval")
        (approval,) = await b.kernel.store.approvals(run=two.id)
        await b.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        await two.until(RunState.WAITING, "lock")
        assert rows(path)[0][2] == "open"
        await one.free(name)
        assert code(await changing) == "ok" and rows(path)[0][2] == "closed"
        await two.end()
        await one.lock(name)
        undoing = asyncio.create_task(b.kernel.undo(two.id, by="alice"))
        assert await settled(undoing, seconds=0.3) == [False]
        assert rows(path)[0][2] == "closed"
        await one.free(name)
        assert (await undoing).state is RunState.DONE and rows(path)[0][2] == "open"


async def test_nothing_is_held_while_a_human_is_asked(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        driver = one.tool("x", mutates=True, own=False)
        asking = asyncio.create_task(one.touch())
        await one.until(RunState.WAITING, "approval")
        assert code(await two.lock("x", wait_s=0)) == "ok"
        (approval,) = await b.kernel.store.approvals(run=one.id)
        await b.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        await one.until(RunState.WAITING, "lock")
        assert driver.done == 0
        await two.free("x")
        assert code(await asking) == "ok"


async def test_what_a_call_touches_more_by_the_time_of_its_turn_is_waited_for_too(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        await one.lock("x")
        await one.lock("y")
        driver = two.tool("x")
        touching = asyncio.create_task(two.touch())
        await two.until(RunState.WAITING, "lock")
        driver.prepared["touches"] = ("x", "y")
        await one.free("x")
        assert await settled(touching) == [False]
        assert driver.done == 0
        gate = driver.hold()
        await one.free("y")
        await driver.begun.wait()
        locking = asyncio.create_task(one.lock("y"))  # Which is under way: it is claimed too.
        assert await settled(locking) == [False]
        gate.set()
        assert code(await touching) == code(await locking) == "ok"


async def test_what_a_call_touches_more_is_claimed_though_nobody_has_locked_it(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        await one.lock("x")
        driver = two.tool("x")
        touching = asyncio.create_task(two.touch())
        await two.until(RunState.WAITING, "lock")
        driver.prepared["touches"] = ("x", "y")
        gate = driver.hold()
        await one.free("x")
        await driver.begun.wait()
        locking = asyncio.create_task(one.lock("y"))
        assert await settled(locking) == [False]
        gate.set()
        assert code(await touching) == code(await locking) == "ok"


# --- deadlock --------------------------------------------------------------------------------


async def test_the_youngest_of_a_deadlock_is_told_and_the_other_goes_on(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        old, young = await b.start(), await b.start()
        await old.lock("x")
        await young.lock("y")
        waiting = asyncio.create_task(young.lock("x"))
        await young.until(RunState.WAITING, "lock")
        other = asyncio.create_task(old.lock("y"))
        told = await asyncio.wait_for(waiting, 5)
        assert code(told) == "deadlock"
        assert old.id in told.error["why"] and young.id in told.error["why"]
        assert await settled(other) == [False]
        await young.free("y")
        assert code(await other) == "ok"


async def test_a_child_that_touches_what_its_waiting_parent_has_locked_is_told(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        parent = await b.start()
        child = await b.child_of(parent)
        driver = child.tool("x")
        await parent.lock("x")
        touching = asyncio.create_task(child.touch())
        await child.until(RunState.WAITING, "lock")
        joining = asyncio.create_task(parent.call(CallKind.WAIT, {"run": child.id}))
        assert code(await asyncio.wait_for(touching, 5)) == "deadlock" and driver.done == 0
        await child.end("gave up")
        assert (await joining).value == "gave up"


async def test_a_parent_that_was_put_away_while_it_waits_counts_as_one_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARK_AFTER_S", 0)
    async with band(tmp_path / "home") as b:
        parent = await b.start()
        child = await b.child_of(parent)
        await parent.lock("x")
        joining = asyncio.create_task(parent.call(CallKind.WAIT, {"run": child.id}))
        async with asyncio.timeout(10):
            while parent.id in b.kernel.gate.live:
                await asyncio.sleep(0.005)
        with contextlib.suppress(RunDead):
            await joining
        child.tool("x")
        assert code(await child.touch()) == "deadlock"


# --- crashes ---------------------------------------------------------------------------------


async def test_a_run_that_is_recovered_holds_its_lock_still_and_hears_the_same_fence(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        fence = (await one.lock("x")).value
    async with band(tmp_path / "home") as b:
        other = await b.start()
        assert code(await other.lock("x", wait_s=0)) == "limit_reached"
        (run,) = await b.recover()
        one = await b.actor(run)
        driver = one.tool("x")
        assert (await one.lock("x")).value == fence
        assert code(await one.touch()) == "ok" and driver.done == 1
        assert (await one.free("x")).value == {"held": True}
        assert (await other.lock("x")).value["fence"] == fence["fence"] + 1


async def test_a_run_that_is_recovered_too_late_is_refused(tmp_path: Path) -> None:
    runtime = Jumping()
    async with band(tmp_path / "home", runtime) as b:
        one = await b.start()
        await one.lock("x", lease_s=60)
    runtime.jump(61)
    async with band(tmp_path / "home", runtime) as b:
        other = await b.start()
        assert (await other.lock("x", wait_s=0)).value["fence"] == 2
        (run,) = await b.recover()
        one = await b.actor(run)
        driver = one.tool("x")
        assert (await one.lock("x", lease_s=60)).value["fence"] == 1
        assert code(await one.touch()) == "lock_lost" and driver.done == 0


async def test_a_wait_that_a_crash_cut_off_goes_on(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, two = await b.start(), await b.start()
        names = [one.id, two.id]
        await one.lock("x")
        waiting = asyncio.create_task(two.lock("x"))
        await two.until(RunState.WAITING, "lock")
    with pytest.raises(RunDead):
        await waiting
    async with band(tmp_path / "home") as b:
        assert sorted(await b.recover()) == sorted(names)
        one, two = [await b.actor(run) for run in names]
        waiting = asyncio.create_task(two.lock("x"))
        await one.lock("x")
        assert await settled(waiting) == [False]
        await one.free("x")
        assert (await waiting).value["fence"] == 2


async def test_a_lock_whose_call_was_cut_off_after_it_was_written_is_taken_once(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()

        async def never(*_: Any) -> Any:
            await asyncio.Event().wait()

        b.kernel.gate.record = never  # type: ignore[method-assign]
        taking = asyncio.create_task(one.lock("x"))
        while not await b.kernel.store.locks():
            await asyncio.sleep(0.005)
    with pytest.raises(RunDead):
        await taking
    async with band(tmp_path / "home") as b:
        (run,) = await b.recover()
        one = await b.actor(run)
        assert (await one.lock("x")).value["fence"] == 1
        assert len(await b.kernel.store.locks()) == 1


async def test_where_memory_and_rows_differ_the_rows_are_right(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        await one.lock("x")
        await one.lock("y")
        leases = b.kernel.locking.leases
        lock = leases.table.of(one.id)[0]
        leases.table.drop(("local", "x"), one.id)
        leases.table.hold(replace(lock, resource="z"), leases.now_us() * 2)
        one.run.row = replace(one.run.row, epoch=one.run.row.epoch + 1)  # As started again.
        await b.kernel.locking.learn(one.run)
        assert [held.resource for held in leases.table.of(one.id)] == ["x", "y"]
        one.run.row = replace(one.run.row, epoch=one.run.row.epoch - 1)


async def test_locks_of_runs_that_have_ended_are_freed_at_boot(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        await one.lock("x")

        async def forgets(run: str) -> None:
            pass

        b.kernel.locking.ended = forgets  # type: ignore[method-assign]
        await one.end()
        assert len(await b.kernel.store.locks()) == 1
    async with band(tmp_path / "home") as b:
        await b.kernel.store.flush()
        assert await b.kernel.store.locks() == []
        two = await b.start()
        assert (await two.lock("x", wait_s=0)).value["fence"] == 2


# --- many ------------------------------------------------------------------------------------


class Shop:
    """What runs change under their lock: says when two were in it at once."""

    def __init__(self) -> None:
        self.inside: dict[str, str] = {}
        self.highest: dict[str, int] = {}
        self.visits = 0
        self.faults: list[str] = []

    async def visit(self, args: dict[str, Any], context: CallContext) -> None:
        name, run = args["text"], context.run.id
        if name in self.inside:
            self.faults.append(f"{run} and {self.inside[name]} overlap in {name}")
        self.inside[name] = run
        fence, before = context.fences.get(name, 0), self.highest.get(name, 0)
        if fence < before:
            self.faults.append(f"{run} comes to {name} with {fence}, after {before}")
        self.highest[name] = fence
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del self.inside[name]
        self.visits += 1


async def test_two_runs_with_exclusive_locks_never_overlap_in_200_interleavings(
    tmp_path: Path,
) -> None:
    """On a clock that jumps to the next who sleeps: leases end in the middle of everything."""
    runtime, shop, told = Patient(7), Shop(), set()
    async with band(tmp_path / "home", runtime) as b:
        budget = Budget(calls=100_000, wall_s=10**8)
        actors = [await b.start(budget=budget) for _ in range(2)]
        for seed in range(200):
            name, dice = f"shop:{seed}", random.Random(seed)
            for actor in actors:
                actor.tool(name, act=shop.visit)
            told |= set(await _both(actors, name, dice, runtime))
    assert shop.faults == []
    assert shop.visits > 100
    assert told == {"ok", "lock_lost"}


async def _both(
    actors: list[Actor], name: str, dice: random.Random, runtime: Simulated
) -> list[str]:
    async def work(actor: Actor, pauses: list[float], lease_s: int) -> list[str]:
        told = []
        await runtime.sleep(pauses[0])
        told.append(code(await actor.lock(name, lease_s=lease_s)))
        for pause in pauses[1:]:
            told.append(code(await actor.touch(text=name, x=len(told))))
            await runtime.sleep(pause)
        told.append(code(await actor.free(name)))
        return told

    each = [
        work(actor, [dice.choice([0, 0.5, 2, 30]) for _ in range(3)], dice.choice([1, 20, 600]))
        for actor in actors
    ]
    return [one for told in await asyncio.gather(*each) for one in told]


async def test_many_runs_take_many_locks_in_any_order_and_all_come_through(
    tmp_path: Path,
) -> None:
    shop = Shop()
    async with band(tmp_path / "home") as b:
        actors = [await b.start() for _ in range(6)]
        names = ["a", "b", "c"]

        async def work(actor: Actor, dice: random.Random) -> int:
            deadlocks = 0
            for name in names:
                actor.tool(name, name=f"visit_{name}", act=shop.visit)
            for _ in range(8):
                mine = dice.sample(names, 2)
                for name in mine:
                    outcome = await actor.lock(name)
                    if code(outcome) == "deadlock":
                        deadlocks += 1
                        break
                    assert code(outcome) == "ok", outcome
                    outcome = await actor.touch(f"visit_{name}", text=name, x=actor.counter)
                    assert code(outcome) == "ok", outcome
                for name in mine:
                    await actor.free(name)
            return deadlocks

        async with asyncio.timeout(60):
            told = await asyncio.gather(
                *(work(actor, random.Random(n)) for n, actor in enumerate(actors))
            )
        assert shop.visits >= 48 and sum(told) > 0
        assert b.kernel.locking.snapshot() == []


async def test_calls_side_by_side_of_two_runs_that_touch_the_same_are_no_circle(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        holder, one, two = [await b.start(name) for name in ("holder", "one", "two")]
        for run in (one, two):
            run.tool("ticket:1")
        assert code(await holder.lock("ticket:1")) == "ok"
        touching = []
        for number, run in enumerate((one, two, one, two)):  # Each stands behind the other.
            touching.append(asyncio.create_task(run.touch(x=number)))
            await asyncio.sleep(0.01)
        await holder.free("ticket:1")
        assert [code(await task) for task in touching] == ["ok"] * 4
