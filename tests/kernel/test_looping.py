"""The loop stop at the gate: what the model is told, what is refused, what is on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from kernel_world import Doing, JumpingRuntime, World, world

from ring0 import limits
from ring0.kernel.agent.agents import Agent, family_of
from ring0.models import ModelAnswer
from ring0.tools.driver import FileChange, Result
from ring0.types import (
    AgentManifest,
    Budget,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    ModelConfig,
    Outcome,
    RunState,
)

FREE = ModelConfig(
    provider="openai",
    model="m",
    price_in_microusd_per_mtok=0,
    price_out_microusd_per_mtok=0,
)
CLERK = AgentManifest(name="clerk", models={"default": FREE})
LABEL = Label(integrity=Integrity.USER)


def code(outcome: Outcome) -> str:
    return outcome.error["code"] if outcome.error else "ok"


def same(name: str = "look", **more: Any) -> Doing:
    return Doing(name, act=lambda args, context: {"status": "pending"}, **more)


async def look(w: World, times: int, name: str = "look", **more: Any) -> list[Outcome]:
    return [await w.call(name, {"x": 1}, **more) for _ in range(times)]


class Hearing:
    """A provider that keeps what it is sent."""

    def __init__(self, w: World) -> None:
        self.heard: list[Any] = []
        driver: Any = w.kernel.gate.kinds[CallKind.MODEL].driver
        driver._ports.provider = lambda run, name: self

    async def answer(self, request: Any, key: str, again: Any = None) -> ModelAnswer:
        self.heard.append([(one.role, one.content) for one in request.messages])
        return ModelAnswer(text="hm", tokens_in=1, tokens_out=1, model="m")


async def ask_model(w: World, text: str, **more: Any) -> Outcome:
    asked = {"messages": [{"role": "user", "content": text}]}
    return await w.call("default", asked, kind=CallKind.MODEL, **more)


async def test_the_third_time_is_told_and_the_fifth_is_refused_and_both_are_on_record(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(same())
        outcomes = await look(w, 6)
        assert [code(one) for one in outcomes] == ["ok"] * 4 + ["loop_stopped"] * 2
        assert [bool(one.notice) for one in outcomes] == [False, False, True, True, False, False]
        assert "look gave the same answer 3 times" in outcomes[2].notice
        assert tool.done == 4
        calls = await w.calls()
        assert [call.notice for call in calls] == [one.notice for one in outcomes]
        assert [call.state for call in calls[4:]] == [CallState.REFUSED] * 2
        stored = msgspec.json.decode(await w.store.blob(calls[2].outcome), type=Outcome)
        assert stored.notice == outcomes[2].notice


async def test_the_model_that_is_asked_next_hears_it_once_and_it_is_on_record(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", manifest=CLERK) as w:
        model, _ = Hearing(w), w.tool(same())
        before = await ask_model(w, "go", counter=901)
        await look(w, 3)
        await ask_model(w, "go on", counter=902)
        await ask_model(w, "and on", counter=903)
        assert [len(one) for one in model.heard] == [1, 2, 1]
        role, content = model.heard[1][-1]
        assert role == "system" and "same answer 3 times" in content
        told = {call.id[-3:]: call.notice for call in await w.calls() if call.kind == "model"}
        assert told == {"901": "", "902": content, "903": ""}
        # What the agent asked is what is compared in a replay: nothing was added to that.
        again = await ask_model(w, "go on", counter=902)
        assert again.state is CallState.OK and len(model.heard) == 3
        assert before.value["text"] == "hm"


async def test_what_a_failing_tool_says_again_and_again_is_a_loop_too(tmp_path: Path) -> None:
    def fail(args: Any, context: Any) -> Any:
        from ring0.errors import ToolFailed

        raise ToolFailed("503 busy")

    async with world(tmp_path / "home") as w:
        w.tool(Doing("flaky", act=fail))
        outcomes = await look(w, 5, "flaky")
        assert [code(one) for one in outcomes] == ["tool_failed"] * 4 + ["loop_stopped"]
        assert outcomes[2].notice and outcomes[2].state is CallState.ERROR


async def test_a_no_that_is_not_heard_is_a_loop_too(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        outcomes = await look(w, 6, "no_such_tool")
        assert [code(one) for one in outcomes] == ["denied"] * 4 + ["loop_stopped"] * 2
        assert outcomes[2].notice and "no_such_tool" not in outcomes[2].notice


async def test_a_sleep_before_each_look_makes_it_polling(tmp_path: Path) -> None:
    clock = JumpingRuntime()
    async with world(tmp_path / "home", runtime=clock, budget=Budget(calls=500)) as w:
        w.tool(same())
        for _ in range(12):
            assert code((await look(w, 1))[0]) == "ok"
            asleep = w.start("", {"seconds": 5}, kind=CallKind.SLEEP)
            await w.until(RunState.WAITING, "timer")
            clock.jump(6)
            await asleep
        short = await look(w, 1)
        for _ in range(4):
            await w.kind(CallKind.SLEEP, {"seconds": 0})
            short += await look(w, 1)
        assert code(short[-1]) == "loop_stopped", "a sleep of nothing is no pause"


async def test_writing_two_texts_in_turn_is_a_loop_and_writing_new_ones_is_not(
    tmp_path: Path,
) -> None:
    def write(args: dict[str, Any], context: Any) -> Result:
        change = FileChange(path="a.txt", value=args["text"].encode())
        return Result(value="ok", label=LABEL, files=(change,))

    async with world(tmp_path / "home") as w:
        w.tool(Doing("write", effect=Effect.IDEMPOTENT, act=write))
        for n in range(12):
            assert code(await w.call("write", {"text": f"{n}"})) == "ok"
        found = [code(await w.call("write", {"text": text})) for _ in range(5) for text in "AB"]
        assert found == ["ok"] * 8 + ["loop_stopped"] * 2


async def test_the_same_call_that_changes_other_rows_each_time_is_no_loop(tmp_path: Path) -> None:
    count = iter(range(100))

    def add(args: Any, context: Any) -> Result:
        return Result(value={"changed": 1}, label=LABEL, undo=b"row %d" % next(count))

    async with world(tmp_path / "home") as w:
        w.tool(Doing("add", effect=Effect.IDEMPOTENT, act=add))
        assert [code(one) for one in await look(w, 12, "add")] == ["ok"] * 12


async def test_a_loop_goes_on_being_one_after_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        w.tool(same())
        outcomes = await look(w, 4)
        run = w.run.id
    async with world(home, start=False) as w:
        tool = await again(w, run)
        recalled = await look(w, 4)
        assert recalled == outcomes and tool.done == 0
        assert code((await look(w, 1))[0]) == "loop_stopped" and tool.done == 0
        tree = w.run.watch.tree  # type: ignore[union-attr]
        assert list(tree.live) == [run]
        await w.kernel.kill("run", run, by="alice")
        assert not w.kernel.gate.trees._trees, "nothing is kept of a tree that is over"


async def test_a_notice_that_no_model_has_heard_is_told_after_the_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home, manifest=CLERK) as w:
        w.tool(same())
        await look(w, 3)
        run = w.run.id
    async with world(home, start=False) as w:
        await again(w, run)
        model = Hearing(w)
        await ask_model(w, "go on", counter=900)
        await ask_model(w, "and on", counter=901)
        assert [len(one) for one in model.heard] == [2, 1]


async def again(w: World, run: str) -> Doing:
    """The run of an earlier kernel, recovered, its calls made by the test."""

    async def agent(live: Any) -> object:
        return await w.end

    family = await family_of(w.store, run)
    functions = {f"agent:{family.manifest.name}": agent}
    assert await w.kernel.recover(Agent(family, "embedded", functions=functions)) == [run]
    w.run = w.kernel.gate.live[run]
    return w.tool(same())  # type: ignore[no-any-return]


async def test_a_tree_that_calls_too_quickly_waits_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TREE_CALLS_PER_S_MAX", 20)
    monkeypatch.setattr(limits, "TREE_CALLS_BURST_MAX", 5)
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act"))
        runtime = w.kernel.runtime
        begun = runtime.monotonic_us()
        for n in range(11):
            assert code(await w.call("act", {"x": n})) == "ok"
        assert tool.done == 11 and runtime.monotonic_us() - begun >= 250_000


async def test_recall_costs_nothing_of_a_trees_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TREE_CALLS_PER_S_MAX", 1)
    monkeypatch.setattr(limits, "TREE_CALLS_BURST_MAX", 2)
    async with world(tmp_path / "home") as w:
        w.tool(Doing("act"))
        begun = w.kernel.runtime.monotonic_us()
        for _ in range(50):
            await w.call("act", {"x": 1}, counter=7)
        assert w.kernel.runtime.monotonic_us() - begun < 900_000


async def plan(w: World, *texts: str) -> Outcome:
    return await w.kind(CallKind.MEMORY_SET, {"plan": [{"text": text} for text in texts]})


async def test_a_run_that_only_writes_its_plan_is_told_and_stopped(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        outcomes = [await plan(w, "look", "write") for _ in range(6)]
        assert [code(one) for one in outcomes] == ["ok"] * 4 + ["loop_stopped"] * 2
        assert "memory.set gave the same answer 3 times" in outcomes[2].notice


async def test_a_plan_that_goes_to_and_fro_is_no_news_of_the_world(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        texts = ["look", "write"] * 5
        outcomes = [await plan(w, text) for text in texts]
        assert [code(one) for one in outcomes] == ["ok"] * 8 + ["loop_stopped"] * 2
        tool = w.tool(same())
        for number in range(6):  # Nor is a new plan a reason to look once more.
            await plan(w, f"look {number}")
            await look(w, 1)
        assert tool.done == 4


async def test_a_plan_that_is_said_again_while_work_goes_on_stops_nothing(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("read", act=lambda args, context: f"page {args['x']}"))
        for number in range(20):
            assert (await plan(w, "read all")).state is CallState.OK
            done = await w.kind(CallKind.MEMORY_SET, {"step": 1, "status": "doing"})
            assert done.state is CallState.OK and not done.notice
            assert code(await w.call("read", {"x": number})) == "ok"
        assert tool.done == 20
