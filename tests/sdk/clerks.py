"""Clerks with a small window, and a model that knows nothing but what stands in it.

It takes the next step that it sees undone, and where it does not see what was done, it begins at
the beginning.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from ring0 import Context, agent, tool
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.memory import tokens
from ring0.models import ModelAnswer
from ring0.models.base import ToolCall
from ring0.runtime import Runtime
from ring0.sdk.embedded import DirectDoor, code_of
from ring0.sdk.runner import run_agent
from ring0.types import Budget, CallKind, CallState, Run

WINDOW_TOKENS = 2_400
ORDERS = [f"K{number}" for number in range(63)]
PARTS = 6
TURNS = len(ORDERS) * (PARTS + 2) + 2
"""One to read the list, one to plan, and for each order its parts, its entry and its step."""
POLICY = """
@id("open") @reason("The tools of this test may be called.")
permit (principal, action in Action::"tool", resource);
"""
MODELS = {
    "default": {
        "provider": "openai",
        "model": "m",
        "price_in_microusd_per_mtok": 0,
        "price_out_microusd_per_mtok": 0,
    }
}
BUDGET = Budget(calls=5 * TURNS, tokens=50_000_000, wall_s=3_600)


@tool(effect="pure")
def orders() -> str:
    """The orders that are to be entered."""
    return "orders: " + " ".join(ORDERS)


@tool(effect="pure")
def check(order: str, part: int) -> str:
    """Looks at one part of an order."""
    filler = hashlib.sha256(f"{order} {part}".encode()).hexdigest()[:24]
    return f"checked {order}/{part}: all is well with it, as the record {filler} says"


@tool(effect="idempotent")
def enter(order: str) -> str:
    """Enters an order."""
    return f"entered {order}"


TASK = "Read the list of orders, check all parts of each, enter it, and go on to the next."
SYSTEM = "You work through orders."


@agent(name="clerk", tools=[orders, check, enter], budget=BUDGET, models=MODELS)
async def compacting(ctx: Context, task: str) -> str:
    answer = await ctx.loop(
        system=SYSTEM, user=task, turns_max=3 * TURNS, window_tokens=WINDOW_TOKENS
    )
    return f"{answer.text} in {answer.turns} turns"


@agent(name="clerk", tools=[orders, check, enter], budget=BUDGET, models=MODELS)
async def truncating(ctx: Context, task: str) -> str:
    """As many frameworks do it: the oldest messages leave the window."""
    opening: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": task},
    ]
    rest: list[dict[str, Any]] = []
    offers = [
        {"name": one.name, "description": one.description, "schema": one.schema}
        for one in await ctx.tools()
    ]
    for turn in range(2 * TURNS):
        while tokens.of_messages([*opening, *rest, *offers]) > WINDOW_TOKENS - 100:
            rest = rest[2:]
        answer = await ctx.model([*opening, *rest], offers)
        if not answer.tool_calls:
            return f"{answer.text} in {turn + 1} turns"
        (call,) = answer.tool_calls
        said = {"role": "assistant", "content": "", "tool_calls": [msgspec.to_builtins(call)]}
        value = await ctx.tool(call.name, **call.args)
        rest += [said, {"role": "tool", "content": value, "tool_call_id": call.id}]
    raise AssertionError("it went on for ever")


class Model:
    """It sees the messages of one request, and remembers nothing."""

    def __init__(self) -> None:
        self.turns = 0
        self.largest = 0

    async def answer(self, request: Any, key: str, again: Any = None) -> ModelAnswer:
        self.turns += 1
        messages = [
            {"content": one.content, "tool_calls": msgspec.to_builtins(one.tool_calls)}
            for one in request.messages
        ]
        offered = [msgspec.to_builtins(one) for one in request.tools]
        self.largest = max(self.largest, tokens.of_messages([*messages, *offered]))
        plans = any(one.name == "memory_plan" for one in request.tools)
        name, args = self._next("\n".join(one.content for one in request.messages), plans)
        if not name:
            return ModelAnswer(text="all entered", tokens_in=1, tokens_out=1, model="m")
        call = ToolCall(id=f"c{self.turns}", name=name, args=args)
        return ModelAnswer(text="", tool_calls=(call,), tokens_in=1, tokens_out=1, model="m")

    def _next(self, seen: str, plans: bool) -> tuple[str, dict[str, Any]]:
        listed = re.findall(r"orders: ((?:K\d+ ?)+)", seen)
        step, is_over = self._step(seen)
        if is_over:
            return "", {}
        if step is None and not listed:
            return "orders", {}
        if step is None and plans:
            return "memory_plan", {"plan": [{"text": one} for one in listed[-1].split()]}
        entered = set(re.findall(r"entered (K\d+)", seen))
        entered |= set(re.findall(r'enter \{"order":"(K\d+)"\}: done', seen))
        if step is None:
            order = next((one for one in listed[-1].split() if one not in entered), "")
            return self._work(order, entered, seen) if order else ("", {})
        number, order = step
        if order in entered:
            return "memory_plan", {"step": number}
        return self._work(order, entered, seen)

    def _work(self, order: str, entered: set[str], seen: str) -> tuple[str, dict[str, Any]]:
        done = {int(part) for part in re.findall(rf"checked {order}/(\d+)", seen)}
        read = re.findall(rf'check {{"order":"{order}","part":(\d+)}}: read', seen)
        done |= {int(part) for part in read}
        for part in range(PARTS):
            if part not in done:
                return "check", {"order": order, "part": part}
        return "enter", {"order": order}

    def _step(self, seen: str) -> tuple[tuple[int, str] | None, bool]:
        """The next step, and whether none is left: by the newest word on the plan, or by the plan
        that the window begins with."""
        told = [json.loads(line) for line in seen.splitlines() if line.startswith('{"steps"')]
        if told:
            following = told[-1].get("next")
            return (following["step"], following["text"]) if following else None, not following
        shown = re.findall(r"^(\d+)\. \[(\w+)\] (K\d+)", seen, re.MULTILINE)
        left = [(int(number), order) for number, status, order in shown if status == "todo"]
        return left[0] if left else None, bool(shown) and not left


@contextlib.asynccontextmanager
async def kernel_with(home: Path, model: Model) -> AsyncIterator[Kernel]:
    home.mkdir(exist_ok=True)
    (home / "open.cedar").write_text(POLICY)
    (home / "ring0.toml").write_text('policy = ["open.cedar"]\n')

    async def embed(run: LiveRun, function: Any) -> Any:
        door = DirectDoor(kernel, run)
        return await run_agent(function, door, await door.describe())

    kernel = await open_kernel(home, Runtime(), {}, embed=embed)
    driver: Any = kernel.gate.kinds[CallKind.MODEL].driver
    driver._ports.provider = lambda run, name: model
    try:
        yield kernel
    finally:
        await kernel.close()


async def ran(kernel: Kernel, function: Any) -> tuple[Run, dict[str, Any]]:
    code = code_of(function)
    row = await kernel.start_embedded(
        code.family.manifest, code.family.others, code.functions, TASK, principal="alice"
    )
    row = await kernel.runs.wait(row.id)
    return row, msgspec.json.decode(await kernel.store.blob(row.result))


async def entered(kernel: Kernel, run: str) -> list[str]:
    calls = [one for one in await kernel.store.calls(run) if one.name == "enter"]
    done = [one for one in calls if one.state is CallState.OK]
    return [msgspec.json.decode(await kernel.store.blob(one.args))["order"] for one in done]
