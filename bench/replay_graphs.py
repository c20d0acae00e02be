"""Run graphs from seeds: what an agent of `ring0 bench replay` does, and one thing that is changed.

No two seeds make the same graph. What the agent saw of each step is its result, so that a replay
which brings back one other byte anywhere ends in another result.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import msgspec

from ring0 import Context, agent, tool
from ring0.errors import ReplayDiverged, Ring0Error, RunDead, StoreFailed
from ring0.sdk import paths

Step = list[Any]
ENDS: Final = (RunDead, ReplayDiverged, StoreFailed)
WORDS: Final = ("alpha", "beta", "gamma", "delta", "Grüße", "日本", "a\u0301", "\U0001f600")
CHANGES: dict[str, tuple[str, str]] = {}
"""By task, in a replay: (how, the step at which). Empty: the agent is as it was recorded."""
CHANGED_AT: dict[str, str] = {}
"""By run: the call that was the first to be another one."""


@tool(effect="pure")
async def echo(x: Any, size: int = 0) -> Any:
    """What it was given, and more of it."""
    return {"x": x, "more": "x" * size}


@tool(effect="pure")
async def fail(x: Any) -> Any:
    """Always fails."""
    raise ValueError(f"no {x}")


@tool(effect="pure", wall_s=1)
async def hang(x: Any) -> Any:
    """Longer than it may take."""
    await asyncio.sleep(5)


@tool(effect="idempotent")
async def put(x: Any) -> Any:
    """Idempotent."""
    return [x]


@tool(effect="once")
async def pay(x: Any) -> Any:
    """Somebody is asked first."""
    return f"paid {x}"


TOOLS: Final = [echo, fail, hang, put, pay]


def program(seed: int, dice: random.Random | None = None, depth: int = 0) -> list[Step]:
    """The steps of a seed."""
    dice = dice or random.Random(seed)
    count = dice.randint(2, 9 if depth == 0 else 4)
    return [_step(seed, dice, depth) for _ in range(count)]


def _step(seed: int, dice: random.Random, depth: int) -> Step:
    plain = ["echo"] * 6 + ["put"] * 2 + ["fail", "unknown", "wrong", "model", "model", "note"]
    plain += ["recall", "sleep", "now", "random", "derive", "lock", "send"]
    deep = ["both", "both", "spawn", "spawn", "caught", "pause"] if depth < 2 else []
    rare = ["pay"] if dice.random() < 0.15 else ["hang"] if dice.random() < 0.003 else []
    word = rare[0] if rare else dice.choice(plain + deep)
    value = [dice.choice(WORDS), dice.randint(0, 10**9), seed]
    match word:
        case "echo":
            return [word, value, dice.choice((0, 0, 3, 5_000))]
        case "both":
            ways = [program(seed, dice, depth + 1) for _ in range(dice.randint(2, 4))]
            return [word, dice.choice(("gather", "group", "first")), ways]
        case "spawn":
            how = dice.choice(("gather", "wait", "race", "any", "leave"))
            count = 1 if depth else dice.randint(1, 2)
            return [word, how, [program(seed, dice, 2) for _ in range(count)]]
        case "caught" | "pause":
            return [word, program(seed, dice, depth + 1)]
        case _:
            return [word, value]


@agent(name="graph", tools=TOOLS, agents=["leaf"], budget="2000 calls, 5 min, 100000000 tokens")
async def graph(ctx: Context, task: str) -> Any:
    return await _steps(ctx, task, msgspec.json.decode(task), "s")


@agent(name="leaf", tools=TOOLS, agents=["leaf"], budget="100 calls, 5 min, 1000000 tokens")
async def leaf(ctx: Context, task: str) -> Any:
    return await _steps(ctx, task, msgspec.json.decode(task), "s")


async def _steps(ctx: Context, task: str, steps: list[Step], at: str) -> list[Any]:
    seen = []
    for number, step in enumerate(steps):
        place = f"{at}.{number}"
        try:
            how, where = CHANGES.get(task, ("", ""))
            if where == place:
                _note(ctx)
                step = _changed(step, how)
                if how == "more":
                    seen.append(await ctx.tool("echo", x="one more"))
            seen.append(await _do(ctx, task, step, place))
            if where == place and how == "result":
                seen.append("another")
        except ENDS:
            raise
        except Ring0Error as error:
            seen.append([error.code, error.what, error.why])
    return seen


def _note(ctx: Context) -> None:
    """The call id that the next call of this task gets."""
    node = paths._node.get()
    assert node is not None
    CHANGED_AT[ctx.run] = f"{ctx.run}/{node.path}/{node.calls + 1}"


def _changed(step: Step, how: str) -> Step:
    match how:
        case "argument":
            return ["echo", [step[1], "changed"], step[2]]
        case "letter":
            return ["echo", [step[1][0] + "\u200b", *step[1][1:]], step[2]]
        case "tool":
            return ["put", step[1]]
        case "kind":
            return ["note", step[1]]
        case "less":
            return ["nothing"]
        case _:
            return step


HOWS: Final = ("argument", "letter", "tool", "kind", "less", "more", "result")


async def _do(ctx: Context, task: str, step: Step, at: str) -> Any:
    word, *rest = step
    match word:
        case "nothing":
            return None
        case "echo":
            return await ctx.tool("echo", x=rest[0], size=rest[1])
        case "put" | "fail" | "pay" | "hang":
            return await ctx.tool(word, x=rest[0])
        case "unknown":
            return await ctx.tool("no.such.tool", x=rest[0])
        case "wrong":
            return await ctx.tool("echo", y=rest[0])
        case "model":
            answer = await ctx.model([{"role": "user", "content": str(rest[0])}])
            return [answer.text, answer.tokens_in, answer.tokens_out]
        case "note":
            return await ctx.memory.append(str(rest[0]))
        case "recall":
            return await ctx.memory.recall(str(rest[0][0]) + " paid", k=3)
        case "sleep":
            return await ctx.sleep(rest[0][1] % 5 / 1000)
        case "now":
            return str(await ctx.now())
        case "random":
            return await ctx.random()
        case "derive":
            return await ctx.derive.sum([rest[0][1], 2])
        case "send":
            await ctx.send(ctx.run, rest[0])
            return (await ctx.receive()).value
        case "lock":
            async with ctx.lock(f"thing-{rest[0][1]}"):
                return await ctx.tool("echo", x=rest[0])
        case "caught":
            return await _steps(ctx, task, rest[0], at)
        case "pause":
            # Its own turns of the loop: what runs beside it is in another order each time.
            for _ in range(random.randrange(20)):
                await asyncio.sleep(0)
            return await _steps(ctx, task, rest[0], at)
        case "both":
            return await _both(ctx, task, rest[0], rest[1], at)
        case _:
            return await _spawned(ctx, rest[0], rest[1])


async def _both(ctx: Context, task: str, how: str, ways: list[list[Step]], at: str) -> Any:
    each = [_steps(ctx, task, way, f"{at}.{number}") for number, way in enumerate(ways)]
    if how == "group":
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in each]
        return [one.result() for one in tasks]
    tasks = [asyncio.ensure_future(one) for one in each]
    if how == "first":  # In whatever order they end: what each saw is the same.
        for done in asyncio.as_completed(tasks):
            await done
    return await asyncio.gather(*tasks)


async def _spawned(ctx: Context, how: str, programs: list[list[Step]]) -> Any:
    children = [await ctx.spawn("leaf", msgspec.json.encode(one).decode()) for one in programs]
    match how:
        case "leave":
            return len(children)
        case "gather":
            found = await ctx.gather(*children, return_errors=True)
            return [str(one) if isinstance(one, Exception) else one for one in found]
        case "race":
            return await ctx.race(*children)
        case "any":
            return (await ctx.wait_any(*children)).run
        case _:
            return [await child.wait() for child in children]


def places(steps: list[Step], at: str = "s") -> list[str]:
    """The steps of a program at which it can be changed: calls of `echo` in the run itself."""
    found = []
    for number, step in enumerate(steps):
        place = f"{at}.{number}"
        match step[0]:
            case "echo":
                found.append(place)
            case "caught" | "pause":
                found += places(step[1], place)
            case "both":
                for way, inner in enumerate(step[2]):
                    found += places(inner, f"{place}.{way}")
    return found
