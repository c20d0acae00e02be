"""Crons: each moment has one run at the most, whatever crashes, jumps or is done at once; what is
missed follows the stated rule; and what runs is what was given.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cron_world import crons
from kernel_world import world

import journal_orders
from ring0 import limits
from ring0.errors import Busy, InvalidInput, KernelBusy, NotFound, StoreDamaged, StoreFull
from ring0.kernel.life.firing import Firing
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import GuardFailed
from ring0.store import events as ev
from ring0.types import Cron, Missed, Overlap, Run, RunState, Schedule


async def test_each_moment_starts_one_run_for_whoever_gave_the_order(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        given = await w.set(principal="ann (uid 7)", tenant="acme")
        assert await w.passes(59) == []
        (first,) = await w.passes(1)
        assert (first.principal, first.tenant, first.agent) == ("ann (uid 7)", "acme", "clerk")
        assert first.agent_digest == given.agent_digest and not first.parent
        await w.end(first.id)
        (second,) = await w.passes(60)
        assert second.id != first.id
        row = await w.cron()
        assert (row.runs, row.last_run, row.skipped) == (2, second.id, "")
        assert (await verify(w.store)).ok


async def test_looked_at_again_and_again_a_moment_starts_nothing_twice(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        await w.set()
        w.runtime.advance(60)
        loops = [Firing(w.orders, w.store, w.runtime, lambda *_: None) for _ in range(5)]
        await asyncio.gather(*(loop.look() for loop in loops))
        assert len(w.begins) == 1 and len(await w.events(ev.CronFired)) == 1


async def test_a_second_kernel_that_saw_the_same_moment_due_is_refused(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        cron = await w.set()
        w.runtime.advance(60)
        due = cron.set_us + 60_000_000
        await w.orders.fire(cron, due, 0)
        for moment in (due, due - 60_000_000):
            with pytest.raises(GuardFailed):
                await w.orders.fire(cron, moment, 0)
        assert len(w.begins) == 1


async def test_a_crash_between_the_firing_and_the_start_neither_loses_nor_doubles_the_run(
    tmp_path: Path,
) -> None:
    async with crons(tmp_path) as w:
        await w.set()
        w.fails_after = asyncio.CancelledError  # The kernel dies right after the commit.
        with pytest.raises(asyncio.CancelledError):
            await w.passes(60)
        await w.crash()
        w.fails_after = lambda: None
        assert await w.passes(0) == [] and len(w.begins) == 1
        row = await w.row(w.begins[0])
        assert row.state is RunState.QUEUED  # A recovery starts it, as any queued run.
        assert (await w.cron()).last_run == row.id

        w.fails = lambda: OSError("the kernel dies right before")
        await w.end(row.id)
        await w.passes(60)
        assert len(w.begins) == 1 and "fault of ring0" in w.said[-1]
        await w.crash()
        w.fails = lambda: None
        assert len(await w.passes(0)) == 1


async def test_a_clock_that_is_set_back_fires_nothing_twice(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        await w.set()
        (run,) = await w.passes(60)
        await w.end(run.id)
        w.runtime.advance(-3_600)
        for _ in range(70):
            assert await w.passes(60) == [] or w.runtime.now_us() > run.started_us
        assert len({row.cron: 1 for row in await w.events(ev.CronFired)}) == 1
        due = [event.due_us for event in await w.events(ev.CronFired)]
        assert due == sorted(set(due)), "a moment came twice"


async def test_a_clock_that_jumps_ahead_has_missed_what_lies_between(tmp_path: Path) -> None:
    for rule, count in ((Missed.SKIP, 0), (Missed.ONCE, 1)):
        folder = tmp_path / rule
        folder.mkdir()
        async with crons(folder) as w:
            await w.set(schedule=Schedule(every_s=3_600), missed=rule)
            assert len(await w.passes(5 * 3_600 + 600)) == count
            row = await w.cron()
            assert row.done_us == row.set_us + 5 * 3_600_000_000
            assert await w.passes(600) == []
            if rule is Missed.SKIP:
                assert row.skipped == "it was missed"
                (skipped,) = await w.events(ev.CronSkipped)
                assert skipped.moments == 5


async def test_missed_ones_get_a_run_each_one_after_another(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        await w.set(schedule=Schedule(every_s=3_600), missed=Missed.ALL, overlap=Overlap.QUEUE)
        started: list[Run] = await w.passes(3 * 3_600 + 600)
        for expected in (2, 3):
            assert len(started) == expected - 1 and await w.passes(0) == []  # It waits.
            await w.end(started[-1].id)
            started += await w.passes(1)
        await w.end(started[-1].id)
        assert await w.passes(1) == [] and len(started) == 3


async def test_all_of_them_at_once_is_refused_when_it_is_given(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        with pytest.raises(InvalidInput, match="shut out"):
            await w.set(missed=Missed.ALL)


async def test_while_a_run_goes_on_the_next_moment_is_left_out_on_record(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        await w.set()
        (run,) = await w.passes(60)
        assert await w.passes(60) == []
        assert (await w.cron()).skipped == f"{run.id} went on still"
        await w.end(run.id, RunState.FAILED)
        assert await w.passes(0) == []  # That one is over.
        assert len(await w.passes(60)) == 1


async def test_what_waited_for_the_run_before_starts_once_when_it_ends(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        await w.set(overlap=Overlap.QUEUE)
        (run,) = await w.passes(60)
        assert await w.passes(60) == [] and await w.passes(300) == []
        w.runtime.advance(200)
        await w.end(run.id)
        (then,) = await w.passes(0)
        assert then.id != run.id
        assert (await w.events(ev.CronFired))[-1].skipped == 8
        await w.end(then.id)


async def test_two_crons_at_the_same_instant_both_start_and_a_broken_one_keeps_back_none(
    tmp_path: Path,
) -> None:
    async with crons(tmp_path) as w:
        await w.set("a")
        broken = await w.set("b", agent="other")
        await w.set("c")
        (w.home / "snapshots" / broken.agent_digest / "clerk.py").write_text("changed")
        assert len({row.id for row in await w.passes(60)}) == 0  # All three had that code.
        assert all(cron.skipped for cron in await w.store.crons())
        (w.home / "snapshots" / broken.agent_digest / "clerk.py").write_text("print('first')\n")
        w.fails = iter([None, InvalidInput("no"), None]).__next__
        assert len({row.id for row in await w.passes(60)}) == 2
        assert sorted(cron.skipped for cron in await w.store.crons()) == ["", "", "no"]


async def test_what_runs_is_the_code_as_it_was_given_until_it_is_given_anew(
    tmp_path: Path,
) -> None:
    async with crons(tmp_path) as w:
        given = await w.set()
        (tmp_path / "clerk.py").write_text("print('second')\n")
        (run,) = await w.passes(60)
        assert run.agent_digest == given.agent_digest
        kept = w.home / "snapshots" / run.agent_digest / "clerk.py"
        assert kept.read_text() == "print('first')\n"
        with pytest.raises(InvalidInput, match="already"):
            await w.set()
        await w.end(run.id)
        again = await w.set(anew=True)
        (run,) = await w.passes(60)
        assert run.agent_digest == again.agent_digest != given.agent_digest


async def test_an_agent_that_was_changed_on_disk_does_not_run(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        given = await w.set()
        kept = w.home / "snapshots" / given.agent_digest / "clerk.py"
        kept.chmod(0o644)
        kept.write_text("evil")
        assert await w.passes(60) == []
        assert "not what it was" in (await w.cron()).skipped
        with pytest.raises(StoreDamaged):
            w.orders.changed = lambda: None
            await w.orders.fire_now("often", by="ann")


async def test_too_many_runs_that_wait_put_the_moment_off_and_do_not_lose_it(
    tmp_path: Path,
) -> None:
    async with crons(tmp_path) as w:
        await w.set()
        w.fails = lambda: Busy("too many", after_s=3)
        w.runtime.advance(60)
        now = w.runtime.now_us()
        assert await w.firing.look() == now + 3_000_000
        w.fails = lambda: None
        assert len(await w.passes(3)) == 1


async def test_a_full_disk_ends_no_loop(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        await w.set()
        w.fails = lambda: StoreFull("full")
        assert await w.passes(60) == [] and "full" in w.said[-1]
        w.fails = lambda: None
        assert len(await w.passes(10)) == 1


async def test_a_journal_that_can_not_be_read_for_a_moment_ends_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crons(tmp_path) as w:
        await w.set(schedule=Schedule(every_s=30))
        real, left = w.store.crons, 3

        async def crons_or_not() -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                raise OSError("Input/output error")
            return await real()

        monkeypatch.setattr(w.store, "crons", crons_or_not)
        w.firing.begin()
        async with asyncio.timeout(20):
            while not w.begins:
                await asyncio.sleep(0.001)
        await w.firing.close()
        assert "Input/output error" in w.said[0]


async def test_the_loop_sleeps_until_the_next_moment(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        given = await w.set(schedule=Schedule(every_s=30))
        w.firing.begin()
        async with asyncio.timeout(20):
            while not w.begins:
                await asyncio.sleep(0.001)
        await w.firing.close()
        assert (await w.row(w.begins[0])).started_us - given.set_us == 30_000_000


async def test_the_loop_wakes_for_a_new_order(tmp_path: Path) -> None:
    async with crons(tmp_path, Runtime()) as w:
        w.firing.begin()
        await asyncio.sleep(0.05)  # It sleeps now, for a minute.
        soon = Schedule(at_us=w.runtime.now_us() + 300_000)
        async with asyncio.timeout(10):
            await w.set("soon", soon)
            while not w.begins:
                await asyncio.sleep(0.01)
        await w.firing.close()


async def test_a_paused_or_removed_cron_starts_nothing(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        await w.set()
        await w.orders.pause("cron", "often", by="ann")
        with pytest.raises(InvalidInput, match="paused already"):
            await w.orders.pause("cron", "often", by="ann")
        assert await w.passes(60) == []
        w.runtime.advance(300)
        await w.orders.resume("cron", "often", by="ann")
        cron = await w.cron()
        await w.orders.pause("cron", "often", by="ann")
        with pytest.raises(GuardFailed):  # Whoever saw it due before the pause.
            await w.orders.fire(cron, w.runtime.now_us(), 0)
        await w.orders.remove("cron", "often", by="ann")
        assert await w.passes(60) == []
        with pytest.raises(GuardFailed):
            await w.orders.fire(cron, w.runtime.now_us(), 0)
        with pytest.raises(NotFound):
            await w.orders.resume("cron", "often", by="ann")


async def test_a_kill_pauses_what_would_start_the_same_again(tmp_path: Path) -> None:
    async with world(tmp_path / "home", start=False) as w:
        writes = [("clerk", "acme"), ("cook", "acme")]
        for agent, tenant in writes:
            await w.store.append(journal_orders.set_cron(agent, agent=agent, tenant=tenant))
        await w.kernel.kill("agent", "clerk", by="ann (uid 7)")
        paused = {cron.name: cron.paused_by for cron in await w.store.crons()}
        assert paused == {"clerk": "ann (uid 7)", "cook": ""}
        await w.kernel.kill("all", "", by="bob")
        assert [cron.paused_by for cron in await w.store.crons()] == ["ann (uid 7)", "bob"]


async def test_a_person_starts_one_by_hand_and_its_next_moment_comes_all_the_same(
    tmp_path: Path,
) -> None:
    async with crons(tmp_path) as w:
        await w.set()
        with pytest.raises(KernelBusy):
            await w.orders.fire_now("often", by="bob")
        w.orders.changed = lambda: None  # As in a kernel with a loop.
        run = await w.orders.fire_now("often", by="bob")
        assert run.principal == "ann"  # Whose budgets and caps count it.
        assert (await w.events(ev.CronFired))[-1].by == "bob"
        await w.end(run.id)
        assert len(await w.passes(60)) == 1


async def test_a_moment_that_is_named_comes_once_and_its_name_is_free_again(
    tmp_path: Path,
) -> None:
    async with crons(tmp_path) as w:
        at = Schedule(at_us=w.runtime.now_us() + 60_000_000)
        await w.set("once", at)
        (run,) = await w.passes(61)
        await w.end(run.id)
        for _ in range(5):
            assert await w.passes(3_600) == []
        with pytest.raises(InvalidInput, match="past"):
            await w.set("once", at)
        await w.set("once", Schedule(at_us=w.runtime.now_us() + 60_000_000))


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", "a b", "-a", "é", "a" * 65, "a\n"])
async def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    async with crons(tmp_path) as w:
        with pytest.raises(InvalidInput):
            await w.set(name)
        assert await w.store.crons() == []


async def test_a_secret_in_the_task_is_never_stored(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        cron = await w.set(task="use hunter2-hunter2 now")
        assert b"hunter2-hunter2" not in await w.store.blob(cron.task)


async def test_there_are_so_many_crons_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ORDERS_MAX", 2)
    async with crons(tmp_path) as w:
        await w.set("a")
        await w.set("b")
        with pytest.raises(InvalidInput, match="2 of them"):
            await w.set("c")
        await w.set("b", anew=True)


async def test_given_anew_while_it_fires_the_old_order_starts_nothing(tmp_path: Path) -> None:
    async with crons(tmp_path) as w:
        old: Cron = await w.set()
        w.runtime.advance(60)
        await w.set(anew=True)
        for go in (w.orders.fire(old, w.runtime.now_us(), 0), w.orders.skip(old, 9**18, 1, "x")):
            with pytest.raises(GuardFailed):
                await go
        assert w.begins == []


async def test_given_anew_in_the_middle_of_a_look_it_is_looked_at_in_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gave it anew has poked the loop; without that it does not look again and again."""
    async with crons(tmp_path) as w:
        await w.set()
        real = w.orders.fire

        async def too_late(*given: Any) -> Run:
            await w.set(anew=True)
            return await real(*given)

        monkeypatch.setattr(w.orders, "fire", too_late)
        w.runtime.advance(60)
        assert await w.firing.look() == w.runtime.now_us() + limits.CRON_LOOK_S_MAX * 1_000_000
        assert w.begins == [] and w.said == []
