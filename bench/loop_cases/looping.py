"""Agents that never come to an end by themselves: each is to be stopped in its fifth round.

The task says which kind of loop, and its seed the rest: the period, what is called, the noise in
the answers. The result is the round in which the first call was refused (0: none was).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ring0 import Context, agent, tool
from ring0.errors import CallDenied, LoopStopped, ToolFailed

ROUNDS: Final = 60
PERIODS: Final = range(1, 9)
_now: Final = itertools.count(1_772_359_200)
"""A clock of the benchmark's own: seconds since 1970, each look a few later."""
_hits: Final[Counter[str]] = Counter()


def _moment(second: int) -> str:
    return f"2026-03-01T{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"


NOISE: Final[dict[str, Callable[[dict[str, Any], int, int], Any]]] = {
    "a timestamp": lambda body, n, now: {**body, "checked_at": _moment(now)},
    "seconds since 1970": lambda body, n, now: {**body, "generated": now},
    "an HTTP date": lambda body, n, now: {
        **body, "date": f"Sun, 01 Mar 2026 10:{n // 60 % 60:02d}:{n % 60:02d} GMT"},
    "a request id": lambda body, n, now: {**body, "request_id": f"{now * 7919:x}"},
    "a UUID": lambda body, n, now: {**body, "trace": f"{now:08x}-0000-4000-8000-{n:012x}"},
    "a duration": lambda body, n, now: {**body, "took_ms": now % 97 / 8},
    "a duration in a text": lambda body, n, now: f"{body}: 12 passed in {now % 97 / 8 + 1:.2f}s",
    "a try in a text": lambda body, n, now: f"{body}: no answer (attempt {n})",
    "a counter called hits": lambda body, n, now: {**body, "hits": n},
    "a counter called seq": lambda body, n, now: {**body, "seq": n},
    "a number": lambda body, n, now: {**body, "value": n},
}  # fmt: skip


@tool(effect="pure")
def look(case: str, call: int, noise: str = "") -> Any:
    """Looks at something that does not change."""
    _hits[case] += 1
    body = {"status": "pending", "of": call}
    return NOISE[noise](body, _hits[case], next(_now)) if noise else body


@tool(effect="pure")
def fails(case: str) -> None:
    """Fails, each time."""
    raise RuntimeError("503: the service is busy")


async def _rounds(one_round: Callable[[int], Awaitable[Any]]) -> int:
    for number in range(1, ROUNDS + 1):
        try:
            await one_round(number)
        except LoopStopped:
            return number
    return 0


async def cycle(ctx: Context, case: str, dice: random.Random, noise: str = "") -> int:
    """The same calls in the same order."""
    period = dice.choice(PERIODS)

    async def again(number: int) -> None:
        for call in range(period):
            await ctx.tool("look", case=case, call=call, noise=noise)

    return await _rounds(again)


async def noisy_cycle(ctx: Context, case: str, dice: random.Random) -> int:
    return await cycle(ctx, case, dice, noise_of(dice))


def noise_of(dice: random.Random) -> str:
    return dice.choice([name for name in NOISE if name != "a number"])


async def hidden_in_answers(ctx: Context, case: str, dice: random.Random) -> int:
    """A number under a name that tells nothing counts up: nobody can tell that from progress."""
    return await cycle(ctx, case, dice, "a number")


async def hidden_in_arguments(ctx: Context, case: str, dice: random.Random) -> int:
    """Each call asks for something else, and hears the same: as who looks through many things."""

    async def again(number: int) -> None:
        await ctx.tool("look", case=case, call=number)

    return await _rounds(again)


async def shuffled(ctx: Context, case: str, dice: random.Random) -> int:
    """The same calls in another order each time."""
    calls = list(range(dice.choice(PERIODS)))

    async def again(number: int) -> None:
        dice.shuffle(calls)
        for call in calls:
            await ctx.tool("look", case=case, call=call)

    return await _rounds(again)


async def at_once(ctx: Context, case: str, dice: random.Random) -> int:
    """Several calls side by side, and again."""
    calls = range(dice.choice(PERIODS))

    async def again(number: int) -> None:
        await asyncio.gather(*(ctx.tool("look", case=case, call=call) for call in calls))

    return await _rounds(again)


async def failing(ctx: Context, case: str, dice: random.Random) -> int:
    async def again(number: int) -> None:
        try:
            await ctx.tool("fails", case=case)
        except ToolFailed:
            pass

    return await _rounds(again)


async def denied(ctx: Context, case: str, dice: random.Random) -> int:
    """A tool that it does not have, or arguments that do not fit."""
    name, args = dice.choice([("rm", {"path": case}), ("look", {"nothing": case})])

    async def again(number: int) -> None:
        try:
            await ctx.tool(name, **args)
        except LoopStopped:
            raise
        except Exception as error:
            assert isinstance(error, CallDenied) or "call" in str(error).casefold(), error

    return await _rounds(again)


async def noted(ctx: Context, case: str, dice: random.Random) -> int:
    """Between two equal looks it tells itself something new."""

    async def again(number: int) -> None:
        await ctx.tool("look", case=case, call=0)
        await ctx.memory.append(f"{case}: tried {number} times")

    return await _rounds(again)


async def two_texts(ctx: Context, case: str, dice: random.Random) -> int:
    """Writes A, writes B, writes A, …"""
    texts = [f"version {n}" for n in range(dice.randrange(2, 5))]

    async def again(number: int) -> None:
        for text in texts:
            await ctx.tool("files.write", path="a.md", text=text)

    return await _rounds(again)


async def slow(ctx: Context, case: str, dice: random.Random) -> int:
    """As pi#9637: the same call with the thinking of a model between (here 30 ms, there 7 s)."""

    async def again(number: int) -> None:
        await ctx.tool("look", case=case, call=0)
        await asyncio.sleep(0.03)

    return await _rounds(again)


async def children(ctx: Context, case: str, dice: random.Random) -> int:
    """The same task for a new child each time."""

    async def again(number: int) -> None:
        await (await ctx.spawn(helper, case)).wait()

    return await _rounds(again)


async def ping_pong(ctx: Context, case: str, dice: random.Random) -> int:
    """Two agents in turn, each told what the other said."""

    async def again(number: int) -> None:
        for one in (helper, critic):
            await (await ctx.spawn(one, case)).wait()

    return await _rounds(again)


async def messages(ctx: Context, case: str, dice: random.Random) -> int:
    """Two runs that tell each other the same."""
    other = await ctx.spawn(echo, "echo")

    async def again(number: int) -> None:
        await ctx.send(other, "over to you")
        await ctx.receive()

    found = await _rounds(again)
    await other.cancel()
    return found


async def recursion(ctx: Context, case: str, dice: random.Random) -> int:
    """Hands its own task down; the round is the depth at which that was refused."""
    return int(await (await ctx.spawn(handing, f"{case}!")).wait())


async def mutual_recursion(ctx: Context, case: str, dice: random.Random) -> int:
    """Two agents that hand one task to each other. Deeper than a tree may be by default."""
    return int(await (await ctx.spawn(handing, f"{case}?")).wait())


@agent(tools=[look], budget="20 calls, 1 min")
async def helper(ctx: Context, task: str) -> str:
    await ctx.tool("look", case=task, call=0)
    return "as before"


@agent(tools=[look], budget="20 calls, 1 min")
async def critic(ctx: Context, task: str) -> str:
    await ctx.tool("look", case=task, call=1)
    return "not good enough"


@agent(budget="200 calls, 1 min")
async def echo(ctx: Context, task: str) -> None:
    while True:
        heard = await ctx.receive()
        await ctx.send(heard.sender, "over to you")


@agent(agents=["handing", "handed"], budget="200 calls, 1 min")
async def handing(ctx: Context, task: str) -> int:
    other = "handed" if task.endswith("?") else "handing"
    try:
        return 1 + int(await (await ctx.spawn(other, task)).wait())
    except CallDenied:
        return 1


@agent(agents=["handing", "handed"], budget="200 calls, 1 min")
async def handed(ctx: Context, task: str) -> int:
    try:
        return 1 + int(await (await ctx.spawn("handing", task)).wait())
    except CallDenied:
        return 1


@agent(
    tools=[look, fails],
    builtins={"files": {"use": "files"}},
    agents=[helper, critic, echo, handing, handed],
    budget="5000 calls, 10 min",
)
async def looper(ctx: Context, task: str) -> int:
    kind, _, seed = task.partition("/")
    return await KINDS[kind](ctx, task, random.Random(seed))


Loop = Callable[[Context, str, random.Random], Awaitable[int]]
SHARES: Final[dict[Loop, int]] = {
    cycle: 30, noisy_cycle: 25, shuffled: 5, at_once: 4, failing: 4, denied: 4, noted: 4,
    two_texts: 5, slow: 5, children: 4, ping_pong: 4, messages: 3, recursion: 2,
    mutual_recursion: 1,
}  # fmt: skip
"""In percent."""
BEYOND: Final = (hidden_in_answers, hidden_in_arguments)
"""What no fingerprint can find: left to the cap on equal calls, and to the budget."""
KINDS: Final[dict[str, Loop]] = {loop.__name__: loop for loop in (*SHARES, *BEYOND)}
