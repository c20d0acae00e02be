"""Agents that wait, for the tests of putting runs away: each notes how often it was begun."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ring0 import Context, agent, tool

begun: Counter[str] = Counter()
"""By run: how often its function was entered."""
acted: Counter[str] = Counter()
"""By call id: how often the effect happened."""


@tool(effect="once")
def act(what: str) -> str:
    """Does something in the world."""
    acted[what] += 1
    return f"did {what}"


@agent(name="sleeper")
async def sleeper(ctx: Context, task: str) -> str:
    """Sleeps for as long as the task says."""
    begun[ctx.run] += 1
    before = await ctx.random()
    await ctx.sleep(float(task))
    return f"{before == await_once(ctx.run, before)}"


_seen: dict[str, float] = {}


def await_once(run: str, number: float) -> float:
    """The number that this run was given when it was begun first."""
    return _seen.setdefault(run, number)


@agent(name="asker", tools=[act])
async def asker(ctx: Context, task: str) -> str:
    """Asks to act, and says what came of it."""
    begun[ctx.run] += 1
    return await ctx.tool("act", what=task)


@agent(name="patient", tools=[act], budget="100 calls, 100 h")
async def patient(ctx: Context, task: str) -> str:
    """As asker, with more time than a person has to answer."""
    begun[ctx.run] += 1
    return await ctx.tool("act", what=task)


@agent(name="leaf")
async def leaf(ctx: Context, task: str) -> str:
    """Sleeps, then echoes: `SECONDS TEXT`."""
    begun[ctx.run] += 1
    seconds, _, text = task.partition(" ")
    if float(seconds):
        await ctx.sleep(float(seconds))
    if text == "fail":
        raise ValueError("as it was told")
    return text


@agent(name="middle", agents=["leaf"])
async def middle(ctx: Context, task: str) -> Any:
    """Waits for one leaf."""
    begun[ctx.run] += 1
    child = await ctx.spawn("leaf", task)
    return await child.wait()


@agent(name="top", agents=["middle", "leaf"])
async def top(ctx: Context, task: str) -> Any:
    """Waits for a middle one."""
    begun[ctx.run] += 1
    child = await ctx.spawn("middle", task)
    return await child.wait()


@agent(name="many", agents=["leaf", "asker"], tools=[act])
async def many(ctx: Context, task: str) -> Any:
    """`HOW task task …`: one leaf each, waited for in that way."""
    begun[ctx.run] += 1
    how, *tasks = task.split(";")
    children = [await ctx.spawn("leaf", one) for one in tasks]
    if how == "gather":
        return await ctx.gather(*children)
    if how == "errors":
        return [str(one) for one in await ctx.gather(*children, return_errors=True)]
    if how == "race":
        return await ctx.race(*children)
    if how == "any":
        first = await ctx.wait_any(*children)
        return [children.index(first), await first.wait()]
    if how == "cancel":
        await children[0].cancel()
        return [child.run for child in children]
    raise AssertionError(how)


@agent(name="pair", tools=[act])
async def pair(ctx: Context, task: str) -> Any:
    """Two asks and a timer at once."""
    import asyncio

    begun[ctx.run] += 1
    return await asyncio.gather(
        ctx.tool("act", what=f"{task} 1"), ctx.tool("act", what=f"{task} 2"), ctx.sleep(2)
    )


@agent(name="counter")
async def counter(ctx: Context, task: str) -> int:
    """Makes so many calls, one after another."""
    begun[ctx.run] += 1
    for _ in range(int(task)):
        await ctx.now()
    return int(task)


@agent(name="chatty")
async def chatty(ctx: Context, task: str) -> int:
    """Goes on until somebody stops it."""
    import asyncio

    begun[ctx.run] += 1
    made = 0
    while made < 100_000:
        await ctx.now()
        await asyncio.sleep(0.002)
        made += 1
    return made
