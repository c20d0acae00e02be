"""Turns on the real kernel: who waits for a slot, who holds one, and who needs none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing, JumpingRuntime, World, world

from ring0.errors import EffectUnknown, ManifestInvalid, RunDead
from ring0.kernel.agent.manifests import read_config
from ring0.kernel.live import LiveRun
from ring0.scheduler.admission import ResourceLoad
from ring0.tools.registry import Tool
from ring0.types import (
    AgentManifest,
    Budget,
    CallKind,
    CallState,
    Effect,
    Operator,
    Outcome,
    Request,
    RunState,
)

ONE = "[scheduler]\ncalls_at_once = 1\n"


@contextlib.asynccontextmanager
async def office(home: Path, config: str = ONE, **more: Any) -> AsyncIterator[World]:
    """A kernel with this ring0.toml, and one run at work."""
    home.mkdir()
    (home / "ring0.toml").write_text(config)
    async with world(home, **more) as w:
        yield w


async def another(w: World, name: str = "other", **fields: Any) -> LiveRun:
    """One more run of the same kernel; the tests' own stays `w.run`."""

    async def agent(run: LiveRun) -> None:
        await asyncio.Event().wait()

    row = await w.kernel.start_embedded(
        AgentManifest(name=name, **fields), (), {f"agent:{name}": agent}, "a task", principal="al"
    )
    return w.kernel.gate.live[row.id]


def ask(w: World, run: LiveRun, tool: Any, number: int = 1, **args: Any) -> asyncio.Task[Outcome]:
    run.tools[tool.manifest.name] = Tool(tool)
    request = Request(
        kind=CallKind.TOOL, name=tool.manifest.name, args=args, path="7", counter=number
    )
    return asyncio.create_task(w.kernel.gate.call(run.handle, request))


def load_of(w: World, name: str = "call") -> ResourceLoad:
    return next(one for one in w.kernel.load().resources if one.name == name)


async def queued(w: World, count: int) -> None:
    async with asyncio.timeout(5):
        while w.kernel.load().queued != count:
            await asyncio.sleep(0.002)


async def test_a_call_waits_while_all_slots_are_taken_and_then_goes(tmp_path: Path) -> None:
    async with office(tmp_path / "home") as w:
        first, second = Doing("first"), Doing("second")
        go = first.hold()
        one = ask(w, w.run, first)
        await first.begun.wait()
        two = ask(w, await another(w), second)
        await queued(w, 1)
        assert second.done == 0
        load = load_of(w)
        assert (load.in_use, load.size, load.by_tenant) == (1, 1, {"local": 1})
        assert (await w.row()).state is RunState.RUNNING
        go.set()
        assert (await one).state is (await two).state is CallState.OK
        assert load_of(w).in_use == w.kernel.load().queued == 0


async def test_a_run_of_a_higher_class_goes_before_those_that_came_first(tmp_path: Path) -> None:
    async with office(tmp_path / "home") as w:
        order: list[str] = []

        def tool(name: str) -> Doing:
            return Doing(name, act=lambda *_: order.append(name))

        first = tool("first")
        go = first.hold()
        calls = [ask(w, w.run, first)]
        await first.begun.wait()
        for name, priority in (("low", 9), ("middle", 5), ("high", 0)):
            calls.append(ask(w, await another(w, name, priority=priority), tool(name)))
            await queued(w, len(calls) - 1)
        go.set()
        await asyncio.gather(*calls)
        assert order == ["first", "high", "middle", "low"]


async def test_nothing_is_held_while_a_human_is_asked(tmp_path: Path) -> None:
    async with office(tmp_path / "home") as w:
        held = w.start(w.tool(Doing("pay", own=False, mutates=True)).manifest.name, {})
        approval = await w.pending()
        assert all(one.in_use == 0 for one in w.kernel.load().resources)
        assert (await ask(w, await another(w), Doing("act"))).state is CallState.OK
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        assert (await held).state is CallState.OK


async def test_nothing_is_held_while_it_is_asked_anew_what_changed_in_the_queue(
    tmp_path: Path,
) -> None:
    async with office(tmp_path / "home") as w:
        first, changes = Doing("first"), Doing("changes")
        go = first.hold()
        one = ask(w, await another(w), first)
        await first.begun.wait()
        two = ask(w, w.run, changes)
        await queued(w, 1)
        changes.prepared = {"own": False, "mutates": True}  # What was harmless is so no more.
        go.set()
        await one
        approval = await w.pending()
        assert load_of(w).in_use == 0 and changes.done == 0
        assert (await ask(w, await another(w, "third"), Doing("act"))).state is CallState.OK
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        assert (await two).state is CallState.OK


async def test_nothing_is_held_while_somebody_settles_an_unknown_effect(tmp_path: Path) -> None:
    def lost(*_: object) -> None:
        raise EffectUnknown("the connection broke")

    async with office(tmp_path / "home") as w:
        call = ask(w, w.run, Doing("pay", effect=Effect.ONCE, act=lost))
        await w.until(RunState.WAITING, "unknown")
        assert (await ask(w, await another(w), Doing("act"))).state is CallState.OK
        (record,) = await w.calls()
        await w.kernel.settle(record.id, happened=False, by="alice")
        await call


async def test_a_call_that_fails_gives_its_slot_back(tmp_path: Path) -> None:
    async with office(tmp_path / "home") as w:
        w.tool(Doing("bug", act=lambda *_: 1 / 0))
        for _ in range(3):
            assert (await w.call("bug", {})).state is CallState.ERROR
        assert load_of(w).in_use == 0


async def test_a_killed_runs_calls_leave_the_queue_at_once(tmp_path: Path) -> None:
    async with office(tmp_path / "home") as w:
        first, never = Doing("first"), Doing("never")
        go = first.hold()
        one = ask(w, w.run, first)
        await first.begun.wait()
        victim = await another(w)
        waiting = [ask(w, victim, never, number) for number in range(3)]
        await queued(w, 3)
        await w.kernel.kill("run", victim.id, by="alice")
        assert w.kernel.load().queued == 0
        go.set()
        assert (await one).state is CallState.OK
        await asyncio.gather(*waiting, return_exceptions=True)
        assert never.done == 0 and load_of(w).in_use == 0


async def test_a_killed_run_gives_back_the_slot_that_it_held(tmp_path: Path) -> None:
    async with office(tmp_path / "home") as w:
        first = Doing("first")
        first.hold()
        victim = await another(w)
        one = ask(w, victim, first)
        await first.begun.wait()
        two = ask(w, w.run, Doing("act"))
        await queued(w, 1)
        await w.kernel.kill("run", victim.id, by="alice")
        assert (await two).state is CallState.OK
        await asyncio.gather(one, return_exceptions=True)


async def test_a_queued_call_of_a_run_whose_time_is_over_is_not_carried_out(
    tmp_path: Path,
) -> None:
    runtime = JumpingRuntime()
    async with office(tmp_path / "home", runtime=runtime) as w:
        first, late = Doing("first"), Doing("late")
        go = first.hold()
        ask(w, w.run, first)
        await first.begun.wait()
        short = await another(w, budget=Budget(wall_s=1_000))
        waiting = ask(w, short, late)
        await queued(w, 1)
        runtime.jump(1_500)
        await queued(w, 0)
        go.set()
        await asyncio.gather(waiting, return_exceptions=True)
        assert late.done == 0


async def test_what_waits_by_itself_takes_no_slot(tmp_path: Path) -> None:
    async with office(tmp_path / "home") as w:
        first = Doing("first")
        go = first.hold()
        one = ask(w, w.run, first)
        await first.begun.wait()
        assert (await w.kind(CallKind.NOW, {})).state is CallState.OK
        assert (await w.kind(CallKind.SLEEP, {"seconds": 0.01})).state is CallState.OK
        assert (await w.kind(CallKind.MEMORY_APPEND, {"text": "a note"})).state is CallState.OK
        go.set()
        await one


async def test_sandboxes_have_slots_of_their_own(tmp_path: Path) -> None:
    config = "[scheduler]\ncalls_at_once = 3\nsandboxes_at_once = 1\n"
    async with office(tmp_path / "home", config) as w:
        boxed, second = Doing("boxed", slots=("sandbox",)), Doing("second", slots=("sandbox",))
        go = boxed.hold()
        one = ask(w, w.run, boxed)
        await boxed.begun.wait()
        two = ask(w, await another(w), second)
        await queued(w, 1)
        assert load_of(w, "sandbox").by_tenant == {"local": 1}
        assert (await ask(w, await another(w, "free"), Doing("act"))).state is CallState.OK
        assert second.done == 0
        go.set()
        await asyncio.gather(one, two)


async def test_a_full_queue_is_an_outcome_that_says_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(tmp_path / "home") as w:
        monkeypatch.setattr(w.kernel.admission._queue, "_queued_max", 2)
        first, tool = Doing("first"), Doing("act")
        go = first.hold()
        one = ask(w, w.run, first)
        await first.begun.wait()
        crowd = await another(w)
        waiting = [ask(w, crowd, tool, number) for number in range(2)]
        await queued(w, 2)
        refused = await ask(w, crowd, tool, 7)
        assert refused.error is not None and refused.error["code"] == "busy"
        assert "in about 1 s" in refused.error["todo"]
        assert (await w.recorded(f"{crowd.id}/7/7")).state is CallState.REFUSED
        go.set()
        await asyncio.gather(one, *waiting)


async def test_before_a_stop_a_once_effect_ends_and_nothing_new_begins(tmp_path: Path) -> None:
    async with office(tmp_path / "home", "[scheduler]\ncalls_at_once = 9\n") as w:
        pay, late = Doing("pay", effect=Effect.ONCE), Doing("late")
        go = pay.hold()
        one = ask(w, w.run, pay)
        await pay.begun.wait()
        draining = asyncio.create_task(w.kernel.drain())
        await asyncio.sleep(0.02)
        assert not draining.done()
        two = ask(w, await another(w), late)
        await queued(w, 1)
        go.set()
        assert await draining is True
        assert (await w.recorded(f"{w.run.id}/7/1")).state is CallState.OK
        assert late.done == 0
        two.cancel()
        assert (await one).state is CallState.OK


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[scheduler]\ncalls_at_once = 0\n", "calls_at_once"),
        ("[scheduler]\ncalls = 5\n", "calls"),
        ("[scheduler.models.openai]\nat_once = 99999\n", "at_once"),
        ("[scheduler.tenants.acme]\nweight = 0\n", "weight"),
        ('[models.default]\nprovider = "openai"\ntokens_per_min = -1\n', "tokens_per_min"),
    ],
)
def test_what_is_wrong_in_the_scheduler_table_is_named(
    tmp_path: Path, text: str, named: str
) -> None:
    (tmp_path / "ring0.toml").write_text(text)
    with pytest.raises(ManifestInvalid, match=named):
        read_config(tmp_path)


# --- the sentence of the mission ------------------------------------------------------------------

CALL_S, SLOTS, MEASURED = 0.1, 4, 25


class Working:
    """A tool whose calls take CALL_S, and how long each waited for its turn."""

    def __init__(self) -> None:
        self.under_way = 0

        async def work(args: dict[str, Any], context: Any) -> Any:
            begun = asyncio.get_running_loop().time()
            self.under_way += 1
            await asyncio.sleep(CALL_S)
            self.under_way -= 1
            return {"waited_s": begun - args["x"]}

        self.driver = Doing("work", act=work)

    async def once(self, w: World, run: LiveRun, number: int) -> float:
        at = asyncio.get_running_loop().time()
        outcome = await ask(w, run, self.driver, number, x=at)
        return float(outcome.value["waited_s"])


async def _p95(w: World, run: LiveRun, tool: Working, first: int) -> float:
    waits = [await tool.once(w, run, first + number) for number in range(MEASURED)]
    return sorted(waits)[int(0.95 * MEASURED)]


async def test_a_low_priority_run_that_loops_and_spawns_does_not_hold_up_a_high_priority_one(
    tmp_path: Path,
) -> None:
    async with office(tmp_path / "home", f"[scheduler]\ncalls_at_once = {SLOTS}\n") as w:
        tool = Working()
        runs: list[str] = []

        async def loops(run: LiveRun) -> None:
            """Ten calls at a time for ever, and four children that do the same."""
            runs.append(run.id)
            gate = w.kernel.gate
            for child in range(4):
                request = Request(
                    kind=CallKind.SPAWN,
                    name="loops",
                    args={"task": f"{run.id} {child}"},
                    path="1",
                    counter=child,
                )
                await gate.call(run.handle, request)

            async def again(lane: int) -> None:
                for number in range(10_000):
                    await tool.once(w, run, lane * 10_000 + number)

            with contextlib.suppress(RunDead):
                await asyncio.gather(*(again(lane) for lane in range(10)))

        high = await another(w, "high", priority=0)
        alone = await _p95(w, high, tool, 0)
        manifest = AgentManifest(name="loops", priority=9, agents=("loops",))
        row = await w.kernel.start_embedded(
            manifest, (manifest,), {"agent:loops": loops}, "go", principal="alice"
        )
        async with asyncio.timeout(20):
            while len(runs) < 4 or w.kernel.load().queued < 5 * SLOTS:
                await asyncio.sleep(0.01)
        beside = await _p95(w, high, tool, 1_000)
        queue = w.kernel.load()
        await w.kernel.kill("run", row.id, by="alice")
        assert queue.queued >= 5 * SLOTS, "nothing was in the way"
        moved = beside - alone
        assert moved < CALL_S, f"p95 of its wait moved from {alone:.3f} s to {beside:.3f} s"
