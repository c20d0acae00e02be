"""Agents that do the same again and again, and are right to: none of them is to be stopped.

Each is a real run through the gate, against a real local server, database or workspace. The task
says which kind of work, and its seed how much of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.loop_cases.servers import Asking
from ring0 import Context, agent, tool
from ring0.errors import ToolFailed

http: Final = Asking()
PAUSE_S: Final = 0.11
DATABASE: Final = Path(tempfile.gettempdir()) / f"ring0-bench-loops-{os.getpid()}.db"
"""Made and removed by who runs these agents."""


@tool(effect="pure")
async def page(page: int) -> dict[str, Any]:
    """One page of items."""
    return await http.get("page", page=page)


@tool(effect="idempotent")
async def following(case: str) -> dict[str, Any]:
    """The next rows; the server remembers where it was."""
    return await http.get("following", case=case)


@tool(effect="pure")
async def job(case: str, takes: int) -> dict[str, Any]:
    """The state of a job."""
    return await http.get("job", case=case, takes=takes)


@tool(effect="pure")
async def progress(case: str, takes: int) -> dict[str, Any]:
    """How far a job is."""
    return await http.get("job", case=case, takes=takes, steps=1)


@tool(effect="pure", polls=True)
async def watch(case: str, takes: int) -> dict[str, Any]:
    """The state of a job, for who waits for it."""
    return await http.get("job", case=case, takes=takes)


@tool(effect="idempotent")
async def take(case: str, jobs: int) -> dict[str, Any]:
    """Takes a job from a queue."""
    return await http.get("take", case=case, jobs=jobs)


@tool(effect="pure")
async def flaky(case: str, fails: int) -> dict[str, Any]:
    """Fails the first times."""
    return await http.get("flaky", case=case, fails=fails)


@tool(effect="pure")
async def check(item: int) -> dict[str, Any]:
    """Whether an item is in order."""
    return await http.get("check", item=item)


TOOLS: Final[Sequence[Callable[..., Any]]] = [
    page,
    following,
    job,
    progress,
    watch,
    take,
    flaky,
    check,
]


@agent(tools=TOOLS, budget="200 calls, 5 min")
async def reader(ctx: Context, task: str) -> int:
    """A child: reads the guidelines as all its siblings do, then its own item."""
    await ctx.tool("page", page=0)
    return len(str(await ctx.tool("check", item=int(task))))


@agent(
    tools=TOOLS,
    builtins={"files": {"use": "files"}, "crm": {"use": "sql", "database": str(DATABASE)}},
    agents=[reader],
    budget="5000 calls, 10 min",
)
async def worker(ctx: Context, task: str) -> None:
    """Does one kind of work."""
    kind, _, seed = task.partition("/")
    await KINDS[kind](ctx, task, random.Random(seed))


async def paging(ctx: Context, case: str, dice: random.Random) -> None:
    number = 0
    while (await ctx.tool("page", page=number))["items"]:
        number += 1


async def cursor(ctx: Context, case: str, dice: random.Random) -> None:
    while (await ctx.tool("following", case=case))["rows"]:
        pass


async def polling(ctx: Context, case: str, dice: random.Random) -> None:
    takes = dice.randrange(2, 14)
    while (await ctx.tool("job", case=case, takes=takes))["state"] != "done":
        await ctx.sleep(PAUSE_S)


async def polling_with_a_look(ctx: Context, case: str, dice: random.Random) -> None:
    """Each time it looks at more than the job."""
    takes = dice.randrange(2, 14)
    while (await ctx.tool("job", case=case, takes=takes))["state"] != "done":
        await ctx.tool("files.list")
        await ctx.sleep(PAUSE_S)


async def polling_progress(ctx: Context, case: str, dice: random.Random) -> None:
    """Without a pause: each answer says more."""
    takes = dice.randrange(5, 40)
    while (await ctx.tool("progress", case=case, takes=takes))["state"] != "done":
        pass


async def watching(ctx: Context, case: str, dice: random.Random) -> None:
    takes = dice.randrange(10, 60)
    while (await ctx.tool("watch", case=case, takes=takes))["state"] != "done":
        pass


async def retrying(ctx: Context, case: str, dice: random.Random) -> None:
    """Up to three failures at once; more with pauses that grow."""
    fails, pauses = dice.choice([(1, False), (2, False), (3, False), (4, True), (7, True)])
    for attempt in range(9):
        try:
            await ctx.tool("flaky", case=case, fails=fails)
            return
        except ToolFailed:
            if pauses:
                await ctx.sleep(PAUSE_S * (1 + attempt / 4))


async def mapping(ctx: Context, case: str, dice: random.Random) -> None:
    """Every item gives the same answer."""
    for item in range(dice.randrange(10, 60)):
        await ctx.tool("check", item=item)


async def mapping_at_once(ctx: Context, case: str, dice: random.Random) -> None:
    await asyncio.gather(*(ctx.tool("check", item=n) for n in range(dice.randrange(5, 40))))


async def asking_many(ctx: Context, case: str, dice: random.Random) -> None:
    """The same question to ten at once, as for a vote; twice."""
    for _ in range(2):
        await asyncio.gather(*(ctx.tool("check", item=1) for _ in range(dice.randrange(4, 12))))


async def read_modify_write(ctx: Context, case: str, dice: random.Random) -> None:
    """Its statements have no values of their own: those would be asked about."""
    name = {"parameters": [case]}
    insert = "INSERT INTO account (name) VALUES (?)"
    await ctx.tool("crm.execute", statement=insert, **name)
    for _ in range(dice.randrange(4, 12)):
        await ctx.tool("crm.query", statement="SELECT amount FROM account WHERE name = ?", **name)
        raised = "UPDATE account SET amount = amount + id WHERE name = ?"
        await ctx.tool("crm.execute", statement=raised, **name)


async def writing(ctx: Context, case: str, dice: random.Random) -> None:
    """Writes, reads again what it wrote, mends it, and lists the files each time."""
    for number in range(dice.randrange(3, 10)):
        await ctx.tool("files.list")
        await ctx.tool("files.write", path="draft.md", text=f"draft {number}")
        await ctx.tool("files.read", path="draft.md")


async def rereading(ctx: Context, case: str, dice: random.Random) -> None:
    """Comes back to its notes before each step."""
    await ctx.tool("files.write", path="plan.md", text="check them all")
    for item in range(dice.randrange(5, 30)):
        await ctx.tool("files.read", path="plan.md")
        await ctx.tool("check", item=item)


async def queueing(ctx: Context, case: str, dice: random.Random) -> None:
    jobs = dice.randrange(3, 40)
    while (found := (await ctx.tool("take", case=case, jobs=jobs))["job"]) is not None:
        await ctx.tool("check", item=found["id"])


async def draining(ctx: Context, case: str, dice: random.Random) -> None:
    """Takes all jobs first."""
    jobs = dice.randrange(3, 40)
    while (await ctx.tool("take", case=case, jobs=jobs))["job"] is not None:
        pass


async def equal_children(ctx: Context, case: str, dice: random.Random) -> None:
    children = [await ctx.spawn(reader, "7") for _ in range(dice.randrange(3, 8))]
    await asyncio.gather(*(child.wait() for child in children))


async def children_in_turn(ctx: Context, case: str, dice: random.Random) -> None:
    """Each child reads the same guidelines and has an item of its own."""
    for item in range(dice.randrange(5, 9)):
        await (await ctx.spawn(reader, str(item))).wait()


async def noting(ctx: Context, case: str, dice: random.Random) -> None:
    for item in range(dice.randrange(5, 20)):
        await ctx.tool("check", item=item)
        await ctx.memory.append(f"{case}: {item} is in order")
        if item % 4 == 0:
            await ctx.memory.recall("order")


Work = Callable[[Context, str, random.Random], Awaitable[None]]
KINDS: Final[dict[str, Work]] = {
    work.__name__: work
    for work in (
        paging, cursor, polling, polling_with_a_look, polling_progress, watching, retrying, mapping,
        mapping_at_once, asking_many, read_modify_write, writing, rereading, queueing, draining,
        equal_children, children_in_turn, noting,
    )
}  # fmt: skip
