"""A run that waits is a row: put away, woken by what it waited for, and nothing is lost between."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import parking_agents as agents
import pytest
from kernel_world import JumpingRuntime, begin, world
from parking_world import begun, parking

from ring0 import limits
from ring0.errors import Busy, CallDenied, RunDead
from ring0.types import ApprovalState, Budget, CallKind, Operator, RunState


async def test_a_run_that_sleeps_is_put_away_and_goes_on_where_it_was(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.sleeper, "1000")
        row = await p.away(run, "timer")
        assert abs(row.wake_us - runtime.now_us() - 1_000_000_000) < 5_000_000
        assert run not in p.kernel.gate.live and not p.runs.at_work()
        runtime.jump(1_001)
        assert await p.end(run) == "True", "it was given the very number that it had"
        assert begun(run) == 2
        await p.quiet()


async def test_a_run_is_not_put_away_before_it_has_waited_for_long_enough(tmp_path: Path) -> None:
    async with parking(tmp_path, park_after_s=0.3) as p:
        run = await p.start(agents.asker, "x")
        await p.asked()
        await asyncio.sleep(0.1)
        assert run in p.runs.at_work()
        row = await p.away(run)
        assert row.waiting_for == "approval"


async def test_an_approval_wakes_the_run_and_its_effect_happens_once(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.asker, "alpha")
        await p.away(run, "approval")
        (ask,) = await p.asked(run)
        await p.kernel.answer(ask.id, yes=True, by=Operator(name="alice"))
        assert await p.end(run) == "did alpha"
        assert agents.acted["alpha"] == 1 and begun(run) == 2


async def test_a_no_wakes_the_run_too(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.asker, "beta")
        await p.away(run)
        (ask,) = await p.asked(run)
        await p.kernel.answer(ask.id, yes=False, by=Operator(name="alice"))
        await p.end(run)
        assert agents.acted["beta"] == 0 and (await p.row(run)).state is RunState.FAILED


async def test_an_approval_that_is_given_while_the_run_is_being_put_away_is_not_lost(
    tmp_path: Path,
) -> None:
    """At every point of it: the answer is given a little later each time."""
    async with parking(tmp_path) as p:
        for steps in range(60):
            run = await p.start(agents.asker, f"race {steps}")
            async with asyncio.timeout(10):
                while not (found := await p.kernel.store.approvals(run=run)):
                    await asyncio.sleep(0)
            for _ in range(steps):
                await asyncio.sleep(0)
            await p.kernel.answer(found[0].id, yes=True, by=Operator(name="alice"))
            assert await p.end(run) == f"did race {steps}"
            assert agents.acted[f"race {steps}"] == 1
        await p.quiet()


async def test_an_ask_of_a_run_that_is_put_away_expires_and_the_run_hears_of_it(
    tmp_path: Path,
) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.patient, "gamma")
        row = await p.away(run)
        (ask,) = await p.asked(run)
        assert row.wake_us == ask.expires_us < row.deadline_us
        runtime.jump(limits.APPROVAL_EXPIRY_S + 1)
        await p.end(run)
        assert agents.acted["gamma"] == 0 and begun(run) == 2
        found = await p.kernel.store.approval(ask.id)
        assert found is not None and found.state is ApprovalState.EXPIRED


async def test_a_run_that_is_cancelled_in_the_middle_of_its_start_is_not_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parking(tmp_path) as p:
        begins, goes_on = asyncio.Event(), asyncio.Event()
        whole = p.runs._live_run

        async def slow(*given: object) -> object:
            run = await whole(*given)
            begins.set()
            await goes_on.wait()
            return run

        monkeypatch.setattr(p.runs, "_live_run", slow)
        starting = asyncio.ensure_future(p.start(agents.chatty, ""))
        await begins.wait()
        (row,) = await p.rows()
        ending = asyncio.ensure_future(p.runs.cancel(row.id, by="alice"))
        await asyncio.sleep(0)
        goes_on.set()
        await ending
        with pytest.raises(RunDead):
            await starting
        assert (await p.row(row.id)).state is RunState.CANCELLED
        assert begun(row.id) == 0 and not p.runs.at_work() and not p.kernel.gate.live
        assert p.runs.beginning.starts.at_work == 0


async def test_a_deadline_ends_a_run_that_is_put_away_without_starting_it(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.asker, "delta")
        row = await p.away(run)
        runtime.jump((row.deadline_us - runtime.now_us()) / 1e6 + 1)
        assert "are over" in await p.end(run)
        assert begun(run) == 1 and (await p.row(run)).state is RunState.FAILED


async def test_a_deadline_ends_a_run_that_is_at_work(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.chatty, "")
        await p.until(run, RunState.RUNNING)
        row = await p.row(run)
        runtime.jump((row.deadline_us - runtime.now_us()) / 1e6 + 1)
        assert "are over" in await p.end(run)


async def test_two_asks_and_a_timer_wait_together_and_each_is_answered(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.pair, "both")
        asks = await p.asked(run, 2)
        await p.away(run)
        await p.kernel.answer(asks[0].id, yes=True, by=Operator(name="alice"))
        async with asyncio.timeout(10):
            while (row := await p.row(run)).state is not RunState.DONE:
                # What the first did changed the run's label: the second is asked anew.
                pending = [ApprovalState.PENDING]
                for ask in await p.kernel.store.approvals(states=pending, run=run):
                    with contextlib.suppress(CallDenied):
                        await p.kernel.answer(ask.id, yes=True, by=Operator(name="alice"))
                await asyncio.sleep(0.01)
        assert row.state is RunState.DONE
        assert agents.acted["both 1"] == agents.acted["both 2"] == 1
        asked = await p.kernel.store.approvals(run=run)
        assert len(asked) <= 3, "nothing is asked twice that stands"


async def test_a_run_that_is_put_away_can_be_killed(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.asker, "epsilon")
        await p.away(run)
        (ask,) = await p.asked(run)
        assert await p.kernel.kill("run", run, by="alice") == [run]
        row = await p.row(run)
        assert row.state is RunState.CANCELLED and begun(run) == 1
        found = await p.kernel.store.approval(ask.id)
        assert found is not None and found.state is ApprovalState.REVOKED
        await p.quiet()


async def test_a_kill_at_any_moment_of_being_put_away_or_woken_ends_the_run(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        for steps in range(0, 120, 3):
            run = await p.start(agents.asker, f"kill {steps}")
            (ask,) = await p.asked(run)
            if steps % 2:
                await p.away(run)
                await p.kernel.answer(ask.id, yes=True, by=Operator(name="alice"))
            for _ in range(steps):
                await asyncio.sleep(0)
            try:
                await p.kernel.kill("run", run, by="alice")
            except Exception:
                assert steps % 2, "it could have ended by itself only where it was answered"
            row = await p.row(run)
            assert row.state in (RunState.CANCELLED, RunState.DONE, RunState.UNKNOWN)
            async with asyncio.timeout(5):
                while p.runs.is_here(run) or run in p.kernel.gate.live:
                    await asyncio.sleep(0)
            assert run not in p.runs.waking.away
        await p.quiet()


async def test_a_kernel_that_starts_anew_leaves_what_is_put_away_as_rows(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        asks = await p.start(agents.asker, "zeta")
        sleeps = await p.start(agents.sleeper, "1000")
        await p.away(asks)
        await p.away(sleeps)
        (ask,) = await p.asked(asks)
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        taken = await p.ring.resume(agents.asker)
        assert taken == [asks] and not p.runs.at_work() and begun(asks) == 1
        assert await p.ring.resume(agents.sleeper) == [sleeps]
        assert not p.runs.at_work() and begun(sleeps) == 1
        await p.kernel.answer(ask.id, yes=True, by=Operator(name="alice"))
        assert await p.end(asks) == "did zeta"
        runtime.jump(1_001)
        assert await p.end(sleeps) == "True"


async def test_what_happened_while_no_kernel_was_at_work_is_found_at_once(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.asker, "eta")
        await p.away(run)
        (ask,) = await p.asked(run)
    async with parking(tmp_path) as p:  # As `ring0 approve` does: it starts nothing.
        await p.kernel.answer(ask.id, yes=True, by=Operator(name="alice"))
        await asyncio.sleep(0.05)
        assert begun(run) == 1 and not p.runs.at_work()
    async with parking(tmp_path) as p:
        assert await p.ring.resume(agents.asker) == [run]
        assert await p.end(run) == "did eta"


async def test_a_parent_and_its_children_are_put_away_and_wake_each_other(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.top, "1000 deep")
        row = await p.away(run, "child")
        (middle,) = await p.rows("middle")
        (leaf,) = await p.rows("leaf")
        assert (await p.away(middle.id)).waiting_for == "child"
        assert (await p.away(leaf.id)).waiting_for == "timer"
        assert row.wake_us == row.deadline_us
        runtime.jump(1_001)
        assert await p.end(run) == "deep"
        assert [begun(one) for one in (run, middle.id, leaf.id)] == [2, 2, 2]
        await p.quiet()


async def test_a_tree_of_depth_three_is_done_with_one_place_to_work(tmp_path: Path) -> None:
    async with parking(tmp_path, at_work=1) as p:
        runs = [await p.start(agents.top, f"0 {number}") for number in range(5)]
        assert [await p.end(run) for run in runs] == [str(number) for number in range(5)]
        assert p.runs.beginning.starts.at_work == 0
        await p.quiet()


async def test_the_same_where_nothing_is_put_away(tmp_path: Path) -> None:
    async with parking(tmp_path, at_work=1, park_after_s=1_000) as p:
        runs = [await p.start(agents.top, f"0 {number}") for number in range(5)]
        assert [await p.end(run) for run in runs] == [str(number) for number in range(5)]


async def test_no_more_runs_are_at_work_than_may_be_and_the_rest_wait_their_turn(
    tmp_path: Path,
) -> None:
    async with parking(tmp_path, at_work=2) as p:
        runs = [await p.start(agents.counter, "20") for _ in range(12)]
        most = 0
        for _ in range(200):
            most = max(most, len(p.runs.at_work()))
            await asyncio.sleep(0)
        assert most == 2
        assert [await p.end(run) for run in runs] == [20] * 12


async def test_too_many_queued_runs_are_refused_with_the_word_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parking(tmp_path, at_work=1) as p:
        monkeypatch.setattr(p.runs.beginning.starts, "_queued_max", 2)
        runs = [await p.start(agents.chatty, "") for _ in range(3)]
        with pytest.raises(Busy, match="wait to begin") as refused:
            await p.start(agents.chatty, "")
        assert refused.value.after_s > 0
        assert len(await p.rows()) == 3, "what is refused leaves no row"
        for run in runs:
            await p.kernel.kill("run", run, by="alice")
        assert p.runs.beginning.starts.queued == 0 and p.runs.beginning.starts.at_work == 0


async def test_a_queued_run_can_be_killed_and_its_deadline_ends_it(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime, at_work=1) as p:
        first = await p.start(agents.chatty, "")
        second = await p.start(agents.counter, "1")
        third = await p.start(agents.counter, "1")
        assert (await p.row(second)).state is RunState.QUEUED
        await p.kernel.kill("run", second, by="alice")
        assert (await p.row(second)).state is RunState.CANCELLED
        runtime.jump(limits.RUN_WALL_S_DEFAULT + 1)
        assert "are over" in await p.end(first) and "are over" in await p.end(third)
        assert begun(second) == begun(third) == 0


async def test_queued_runs_begin_after_a_restart(tmp_path: Path) -> None:
    async with parking(tmp_path, at_work=1) as p:
        first = await p.start(agents.chatty, "")
        second = await p.start(agents.counter, "3")
    async with parking(tmp_path, at_work=1) as p:
        assert await p.ring.resume(agents.counter) == [second]
        assert await p.end(second) == 3
        assert (await p.row(first)).state is RunState.RUNNING, "its code is not here"


async def test_hundreds_of_runs_that_are_put_away_are_killed_together(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        runs = [await p.start(agents.sleeper, "1000") for _ in range(300)]
        top = await p.start(agents.top, "1000 x")
        for run in (*runs, top):
            await p.away(run)
        (leaf,) = await p.rows("leaf")
        await p.away(leaf.id)
        began_us = p.kernel.runtime.monotonic_us()
        await p.kernel.kill("all", "", by="alice")
        took_us = p.kernel.runtime.monotonic_us() - began_us
        states = {row.state for row in await p.rows()}
        assert states == {RunState.CANCELLED}
        assert not p.runs.waking.away and took_us < 10_000_000
        await p.quiet()


async def test_nothing_of_a_run_that_is_put_away_stays_in_memory_but_its_name(
    tmp_path: Path,
) -> None:
    import gc

    from ring0.kernel.live import LiveRun

    async with parking(tmp_path) as p:
        runs = [await p.start(agents.sleeper, "1000") for _ in range(20)]
        for run in runs:
            await p.away(run)
        gc.collect()
        kept = [one for one in gc.get_objects() if isinstance(one, LiveRun)]
        assert not [one.id for one in kept if one.id in runs]
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert not [name for name in names if any(run in name for run in runs)]


async def test_a_run_whose_process_stands_still_is_begun_anew_once_and_goes_on(
    tmp_path: Path,
) -> None:
    async with parking(tmp_path, park_after_s=1_000) as p:
        run = await p.start(agents.asker, "frozen")
        await p.asked(run)
        assert begun(run) == 1
        for _ in range(2):  # It is seen to stand still once more before it is gone.
            p.runs.stop_frozen(run)
        async with asyncio.timeout(10):
            while begun(run) == 1:
                await asyncio.sleep(0.002)
        (ask,) = await p.asked(run)
        await p.kernel.answer(ask.id, yes=True, by=Operator(name="alice"))
        assert await p.end(run) == "did frozen"
        assert agents.acted["frozen"] == 1 and begun(run) == 2


async def test_of_those_that_wait_only_processes_that_must_stay_count_and_each_of_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RUNS_RESIDENT_WAITING_MAX", 1)
    async with world(tmp_path / "home") as w:
        waiting = []

        async def waits(count: int, path: str) -> None:
            asking = w.kind(CallKind.WAIT, {"message": True}, path=path)
            waiting.append(asyncio.create_task(asking))
            async with asyncio.timeout(5):
                while w.run.waits["message"] < count:
                    assert not waiting[-1].done(), waiting[-1].result()
                    await asyncio.sleep(0.001)

        for count in (1, 2):  # Without a task path: it can't be started again.
            await waits(count, "")
        await begin(w, "another, with paths", Budget())
        await waits(1, "0")
        await begin(w, "another, without", Budget())
        refused = await w.kind(CallKind.WAIT, {"message": True}, path="")
        assert "can't be put away" in refused.error["what"]
    await asyncio.gather(*waiting, return_exceptions=True)
