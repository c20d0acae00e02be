"""Agents and tools that are plain functions: they wait for their calls in a thread of their own, by
the same ids as an async one's, and hold nobody else up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest
from sdk_fakes import FakeDoor, info

from ring0 import Context, agent, errors, tool
from ring0.runtime import Runtime
from ring0.sdk.declare import tool_of
from ring0.sdk.runner import run_agent
from ring0.sdk.toolside import run_tool
from ring0.types import CallKind, Request


def answer(request: Request) -> Any:
    if request.kind is CallKind.MODEL:
        return {"text": "done"}
    return {"did": request.name}


def test_a_plain_agent_makes_the_same_calls_as_an_async_one() -> None:
    @agent
    def plain(ctx: Context, task: str) -> Any:
        first = ctx.wait(ctx.tool("one"))
        answered = ctx.wait(ctx.loop(user=task, tools=[]))
        return [first, answered.text, ctx.wait(ctx.tool("two", n=1))]

    @agent
    async def waits(ctx: Context, task: str) -> Any:
        first = await ctx.tool("one")
        answered = await asyncio.create_task(ctx.loop(user=task, tools=[]))
        return [first, answered.text, await ctx.tool("two", n=1)]

    doors = FakeDoor(answer), FakeDoor(answer)
    values = [
        asyncio.run(run_agent(body, door, info()))
        for body, door in zip((plain, waits), doors, strict=True)
    ]
    assert values[0] == values[1] == [{"did": "one"}, "done", {"did": "two"}]
    # What is one call is numbered in the agent's own task, and so is each one of its thread.
    assert doors[0].ids["one"] == "0/1" and doors[0].ids["two"] == "0/2"
    assert doors[0].seen[0] == doors[1].seen[0] and doors[0].seen[2] == doors[1].seen[2]


def test_a_plain_agent_is_the_same_on_every_run() -> None:
    @agent
    def plain(ctx: Context) -> None:
        for number in range(5):
            ctx.wait(ctx.tool(f"t{number}"))
            ctx.wait(ctx.loop(user="hi", tools=[]))

    doors = [FakeDoor(answer) for _ in range(3)]
    for door in doors:
        asyncio.run(run_agent(plain, door, info()))
    assert doors[0].seen == doors[1].seen == doors[2].seen and len(doors[0].seen) == 10


def test_what_a_call_is_refused_with_is_raised_where_it_is_waited_for() -> None:
    @agent
    def plain(ctx: Context) -> str:
        with pytest.raises(errors.CallDenied):
            ctx.wait(ctx.tool("x"))
        ctx.wait(ctx.tool("x"))
        return "never"

    door = FakeDoor(lambda request: errors.CallDenied("No."))
    with pytest.raises(errors.CallDenied):
        asyncio.run(run_agent(plain, door, info()))


def test_a_fault_of_a_plain_agent_names_its_place() -> None:
    @agent
    def plain(ctx: Context) -> None:
        raise ValueError("no luck")

    with pytest.raises(errors.RunFailed) as caught:
        asyncio.run(run_agent(plain, FakeDoor(answer), info()))
    assert "no luck" in caught.value.what and "test_plain.py" in caught.value.why


def test_who_can_await_does_not_wait() -> None:
    @agent
    async def desk(ctx: Context) -> None:
        ctx.wait(ctx.tool("x"))

    door = FakeDoor(answer)
    with pytest.raises(errors.CallInvalid) as caught:
        asyncio.run(run_agent(desk, door, info()))
    assert "await" in caught.value.todo and door.seen == []


def test_a_thread_that_a_plain_agent_starts_makes_no_calls() -> None:
    """Its order beside the agent's own calls would be another on each run."""
    refused: list[str] = []

    @agent
    def plain(ctx: Context) -> None:
        def other() -> None:
            try:
                ctx.tool("x")
            except errors.CallInvalid as error:
                refused.append(error.why)

        for target in (other, contextvars.Context().run):
            thread = threading.Thread(target=target, args=() if target is other else (other,))
            thread.start()
            thread.join()

    door = FakeDoor(answer)
    asyncio.run(run_agent(plain, door, info()))
    assert len(refused) == 2 and door.seen == []


def test_a_thread_beside_an_async_agent_makes_no_calls() -> None:
    """`to_thread` takes the task's context along; its order beside the task is nobody's."""

    @agent
    async def desk(ctx: Context) -> None:
        await asyncio.to_thread(lambda: ctx.tool("x"))

    door = FakeDoor(answer)
    with pytest.raises(errors.CallInvalid) as caught:
        asyncio.run(run_agent(desk, door, info()))
    assert "thread" in caught.value.why and door.seen == []


def test_a_local_function_of_a_plain_agents_loop_does_not_wait_for_the_loop_that_runs_it() -> None:
    def ask(ctx: Context) -> Any:
        return ctx.wait(ctx.tool("x"))

    @agent
    def plain(ctx: Context) -> Any:
        return ctx.wait(ctx.loop(user="hi", tools=[], local=[ask])).messages

    turns = iter(
        [{"text": "", "tool_calls": [{"id": "1", "name": "ask", "args": {}}]}, {"text": ""}]
    )
    said = asyncio.run(run_agent(plain, FakeDoor(lambda request: next(turns)), info()))
    assert "only an agent that is a plain function waits so" in said[2]["content"]


async def test_a_plain_agent_holds_nobody_up() -> None:
    @agent
    def plain(ctx: Context) -> str:
        time.sleep(0.3)
        return "slept"

    running = asyncio.create_task(run_agent(plain, FakeDoor(answer), info()))
    begun, ticks = time.monotonic(), 0
    while time.monotonic() - begun < 0.2:
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 3 and not running.done()
    assert await running == "slept"


async def test_a_plain_agent_that_is_stopped_hears_of_it_at_its_next_call() -> None:
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()

    @agent
    def plain(ctx: Context) -> None:
        try:
            ctx.wait(ctx.tool("x"))
        finally:
            loop.call_soon_threadsafe(heard.set)

    door = FakeDoor(lambda request: asyncio.sleep(60))
    running = asyncio.create_task(run_agent(plain, door, info()))
    while not door.seen:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(5):
        await heard.wait()


@tool(effect="pure")
def slow(n: int) -> int:
    """Twice, after a while."""
    time.sleep(0.3)
    return 2 * n


async def test_a_plain_tool_holds_nobody_up_where_others_share_its_process() -> None:
    declared = tool_of(slow)
    assert declared is not None
    running = asyncio.create_task(run_tool(declared, {"n": 4}, "r/0/1", None, Runtime()))
    begun, ticks = time.monotonic(), 0
    while time.monotonic() - begun < 0.2:
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 3 and await running == 8
    assert await run_tool(declared, {"n": 4}, "r/0/1") == 8
