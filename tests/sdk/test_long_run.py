"""500 turns on a small window: with compaction an agent ends its plan, without it it doesn't."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from clerks import (
    ORDERS,
    TASK,
    TURNS,
    WINDOW_TOKENS,
    Model,
    check,
    compacting,
    enter,
    entered,
    kernel_with,
    orders,
    ran,
    truncating,
)
from sdk_fakes import FakeDoor, info, manifest

from ring0 import Context, agent, errors
from ring0.kernel.live import LiveRun
from ring0.kernel.replay import again, of_journal, replay_gate
from ring0.memory import tokens
from ring0.runtime import Runtime
from ring0.sdk.embedded import DirectDoor, code_of
from ring0.sdk.runner import run_agent
from ring0.types import CallKind, Request, RunState


async def test_500_turns_on_a_small_window_end_with_the_plan_done(tmp_path: Path) -> None:
    model = Model()
    async with kernel_with(tmp_path / "home", model) as kernel:
        row, result = await ran(kernel, compacting)
        assert row.state is RunState.DONE, result
        assert result["value"].startswith("all entered")
        assert model.turns >= 500 and model.largest <= WINDOW_TOKENS
        # Each once, in order: nothing was lost, and nothing was done again.
        assert await entered(kernel, row.id) == ORDERS
        window = await kernel.store.window(row.id)
        assert window is not None and window.compactions > 20

        async def embed(run: LiveRun, function: Any) -> Any:
            door = DirectDoor(SimpleNamespace(gate=gate), run)
            return await run_agent(function, door, await door.describe())

        # A replay asks with the same bytes, each time older turns left the window.
        gate = replay_gate(kernel.store, Runtime(), {})
        recorded = await of_journal(
            tmp_path / "home", kernel.store, gate, row, code=code_of(compacting)
        )
        replayed = await again(recorded, gate, embed=embed)
        assert replayed.ok, replayed.divergence


async def test_without_it_the_same_agent_begins_again_and_never_ends_its_plan(
    tmp_path: Path,
) -> None:
    model = Model()
    async with kernel_with(tmp_path / "home", model) as kernel:
        row, result = await ran(kernel, truncating)
        assert row.state is RunState.FAILED, result
        assert result["error"]["code"] in ("loop_stopped", "limit_reached")
        assert len(set(await entered(kernel, row.id))) < len(ORDERS)
        assert model.largest <= WINDOW_TOKENS


def test_the_same_model_finishes_where_its_window_holds_everything() -> None:
    """So that what it fails of above is the window, and nothing else."""
    model, seen, done = Model(), TASK, []
    for _ in range(TURNS):
        name, args = model._next(seen, plans=False)
        if not name:
            break
        function = {"orders": orders, "check": check, "enter": enter}[name]
        seen += "\n" + function(**args)
        done += [args["order"]] if name == "enter" else []
    assert done == ORDERS


# --- the loop's side of it --------------------------------------------------------------------


class Kernel:
    """Answers a loop: a model that talks for ever, and a window that keeps `turns` turns."""

    def __init__(self, text: str = "word " * 60, turns: int = 1, ends_at: int = 6) -> None:
        self.text, self.turns, self.ends_at = text, turns, ends_at
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Any:
        self.asked.append(request)
        if request.kind is CallKind.MODEL:
            return self._answer(request.args)
        if request.kind is CallKind.TOOL:
            return self.text
        if request.kind is CallKind.MEMORY_COMPACT:
            return {"from": 1, "upto": 9, "summary": "s"}
        if request.kind is CallKind.MEMORY_ASSEMBLE:
            return {"text": "THE HEAD", "turns": min(self.turns, len(request.args["turns"]))}
        return {"plan": [{"step": 1, "text": "a", "status": "todo"}], "constraints": [],
                "questions": []}  # fmt: skip

    def _answer(self, args: dict[str, Any]) -> dict[str, Any]:
        if not args["tools"]:
            return {"text": "summed up"}
        number = len(self.of(CallKind.MODEL))
        if number >= self.ends_at:
            return {"text": "done"}
        return {"text": "", "tool_calls": [{"id": f"c{number}", "name": "look", "args": {}}]}

    def of(self, kind: CallKind) -> list[Any]:
        return [one.args for one in self.asked if one.kind is kind]


async def looped(kernel: Kernel, **more: Any) -> Any:
    @agent
    async def main(ctx: Context) -> Any:
        return await ctx.loop(system="be kind", user="go", window_tokens=900, **more)

    door = FakeDoor(kernel)
    return await run_agent(main, door, info(tools=(manifest("look"),)))


async def test_the_system_and_the_task_stay_and_older_turns_make_room_in_whole_turns() -> None:
    kernel = Kernel()
    answer = await looped(kernel)
    assert answer["text"] == "done" and kernel.of(CallKind.MEMORY_COMPACT)
    for asked in kernel.of(CallKind.MODEL):
        messages = asked["messages"]
        assert tokens.of_messages(messages) <= 900
        assert [one["content"] for one in messages[:2]] == ["be kind", "go"]
        assert sum(one["content"] == "THE HEAD" for one in messages) <= 1
        rest = [one["role"] for one in messages[2:] if one["content"] != "THE HEAD"]
        assert rest == ["assistant", "tool"] * (len(rest) // 2), "a result without its call"
    (first, *_) = kernel.of(CallKind.MEMORY_ASSEMBLE)
    assert first["last"] == 1 and first["turns"] == sorted(first["turns"]) and first["recall"] == 0


async def test_a_model_that_sums_up_itself_is_asked_by_a_call_of_its_own_within_the_window() -> (
    None
):
    kernel = Kernel()
    await looped(kernel, summarise=True)
    asked = [one for one in kernel.of(CallKind.MODEL) if not one["tools"]]
    assert asked and all(tokens.of_messages(one["messages"]) <= 900 for one in asked)
    assert {one["summary"] for one in kernel.of(CallKind.MEMORY_COMPACT)} == {"summed up"}


async def test_the_model_is_offered_its_plan_and_told_of_it_in_short() -> None:
    kernel = Kernel(ends_at=3)
    await looped(kernel)
    offered = {one["name"]: one for one in kernel.of(CallKind.MODEL)[0]["tools"]}
    assert set(offered) == {"look", "memory_plan"}
    assert "maxLength" not in msgspec.json.encode(offered["memory_plan"]).decode()

    class Planning(Kernel):
        def _answer(self, args: dict[str, Any]) -> dict[str, Any]:
            if len(self.of(CallKind.MODEL)) > 1:
                return {"text": "done"}
            call = {"id": "c", "name": "memory_plan", "args": {"plan": [{"text": "a"}]}}
            return {"text": "", "tool_calls": [call]}

    kernel = Planning()
    answer = await looped(kernel)
    assert kernel.of(CallKind.MEMORY_SET) == [{"plan": [{"text": "a"}]}]
    told = msgspec.json.decode(answer["messages"][3]["content"])
    assert told == {"steps": 1, "over": 0, "next": {"step": 1, "text": "a", "status": "todo"}}


@pytest.mark.parametrize("window_tokens", [1, 511, -5, 10**9])
async def test_a_window_that_can_not_be_is_refused_at_once(window_tokens: int) -> None:
    @agent
    async def main(ctx: Context) -> Any:
        with pytest.raises(errors.CallInvalid, match="window_tokens"):
            await ctx.loop(user="go", window_tokens=window_tokens)

    await run_agent(main, FakeDoor(lambda request: {"text": ""}), info())


async def test_a_window_that_is_too_small_for_what_it_begins_with_says_so() -> None:
    @agent
    async def main(ctx: Context) -> Any:
        with pytest.raises(errors.LimitReached, match="too small") as raised:
            await ctx.loop(system="word " * 900, user="go", window_tokens=900)
        assert "Raise window_tokens" in raised.value.todo

    await run_agent(main, FakeDoor(Kernel()), info(tools=(manifest("look"),)))


async def test_the_methods_of_memory_ask_for_what_they_say() -> None:
    seen: list[tuple[str, Any]] = []

    @agent
    async def main(ctx: Context) -> None:
        memory = ctx.memory
        await memory.append("a")
        await memory.append("a", key="k", procedure=True)
        await memory.recall("q")
        await memory.recall("q", 3, kinds=["fact"], as_of="2026-01-01", min_integrity="user")
        await memory.remember("Ann", "lives in", "Rome", sources=["r-1#2"], many=True)
        await memory.supersede("r-1#2", "b", why="c")
        await memory.forget("r-1#2", "r-1#3")
        await memory.explain("r-1#2")
        await asyncio.gather(memory.plan(["a", {"text": "b", "status": "done"}]), memory.step(1))
        await memory.constrain("c")
        await memory.question("d")
        await memory.answered(1)
        await memory.compact()
        await memory.assemble(900, turns=[1, 2], last=1, recall=0)

    door = FakeDoor(lambda request: seen.append((request.kind.value, request.args)))
    await run_agent(main, door, info())
    assert seen == [
        ("memory.append", {"text": "a"}),
        ("memory.append", {"text": "a", "key": "k", "kind": "procedure"}),
        ("memory.recall", {"query": "q", "k": 5}),
        (
            "memory.recall",
            {
                "query": "q",
                "k": 3,
                "kinds": ["fact"],
                "as_of": "2026-01-01",
                "min_integrity": "user",
            },
        ),
        (
            "memory.remember",
            {
                "subject": "Ann",
                "predicate": "lives in",
                "value": "Rome",
                "many": True,
                "sources": ["r-1#2"],
            },
        ),
        ("memory.supersede", {"id": "r-1#2", "text": "b", "why": "c"}),
        ("memory.forget", {"ids": ["r-1#2", "r-1#3"]}),
        ("memory.explain", {"id": "r-1#2"}),
        ("memory.set", {"plan": [{"text": "a"}, {"text": "b", "status": "done"}]}),
        ("memory.set", {"step": 1, "status": "done"}),
        ("memory.set", {"constraint": "c"}),
        ("memory.set", {"question": "d"}),
        ("memory.set", {"answered": 1}),
        ("memory.compact", {}),
        ("memory.assemble", {"budget_tokens": 900, "turns": [1, 2], "recall": 0, "last": 1}),
    ]
