"""Each call has the same path and counter on every run, however its tasks are scheduled."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from sdk_fakes import FakeDoor, info

from ring0 import Context, agent, errors
from ring0.runtime import Runtime
from ring0.sdk.runner import run_agent

Body = Callable[[Context], Awaitable[Any]]


def play(body: Body, factory: Any = None, seed: int | None = None, uv: bool = False) -> FakeDoor:
    """One run of an agent with that body; a seed makes the door answer in another order."""
    chance = random.Random(seed)

    async def answer() -> None:
        for _ in range(chance.randrange(5) if seed is not None else 0):
            await asyncio.sleep(0)

    door = FakeDoor(lambda request: answer())

    @agent
    async def desk(ctx: Context) -> None:
        await body(ctx)

    async def main() -> None:
        if factory is not None:
            asyncio.get_running_loop().set_task_factory(factory)
        await run_agent(desk, door, info())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uv else None) as runner:
        runner.run(main())
    return door


async def branches(ctx: Context) -> None:
    async def branch(name: str) -> None:
        await ctx.tool(f"{name}.1")
        await asyncio.gather(ctx.tool(f"{name}.2"), ctx.tool(f"{name}.3"))
        await ctx.tool(f"{name}.4")

    first = asyncio.create_task(branch("a"))
    async with asyncio.TaskGroup() as group:
        group.create_task(branch("b"))
        group.create_task(branch("c"))
    await ctx.tool("main")
    await first


@pytest.mark.parametrize("uv", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_ids_do_not_depend_on_who_is_answered_first(seed: int, uv: bool) -> None:
    assert play(branches, seed=seed, uv=uv).ids == {
        "a.1": "0.1/1", "a.2": "0.1/2", "a.3": "0.1/3", "a.4": "0.1/4",
        "b.1": "0.2/1", "b.2": "0.2/2", "b.3": "0.2/3", "b.4": "0.2/4",
        "c.1": "0.3/1", "c.2": "0.3/2", "c.3": "0.3/3", "c.4": "0.3/4",
        "main": "0/1",
    }  # fmt: skip


def test_an_id_is_fixed_when_the_method_is_called_not_when_it_is_awaited() -> None:
    async def body(ctx: Context) -> None:
        first, second = ctx.tool("first"), ctx.tool("second")
        await second
        await first

    assert play(body).ids == {"second": "0/2", "first": "0/1"}


def test_an_existing_task_factory_still_makes_the_tasks() -> None:
    made = []

    def before(loop: Any, coro: Any, **options: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    assert play(branches, factory=before).ids["c.4"] == "0.3/4"
    assert len(made) >= 3


def test_an_old_task_factory_without_options_still_works() -> None:
    door = play(branches, factory=lambda loop, coro: asyncio.Task(coro, loop=loop))
    assert door.ids["c.4"] == "0.3/4"


def test_tasks_that_the_door_creates_take_no_number() -> None:
    async def noisy(*_: Any) -> None:
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)))

    door = FakeDoor(noisy)

    @agent
    async def desk(ctx: Context) -> None:
        await ctx.tool("before")
        await asyncio.create_task(ctx.tool("inside"))

        async def child() -> None:
            await ctx.tool("child")

        await asyncio.create_task(child())

    asyncio.run(run_agent(desk, door, info()))
    assert door.ids["child"] == "0.2/1"


def test_a_context_that_is_given_by_hand_is_not_shared_by_two_paths() -> None:
    import contextvars

    async def body(ctx: Context) -> None:
        async def child(name: str) -> None:
            await asyncio.sleep(0)
            await ctx.tool(name)

        shared = contextvars.copy_context()
        before = dict(shared)
        await asyncio.gather(
            asyncio.create_task(child("a"), context=shared),
            asyncio.create_task(child("b"), context=shared),
        )
        assert dict(shared) == before

    assert play(body).ids == {"a": "0.1/1", "b": "0.2/1"}


def test_two_agents_on_one_loop_do_not_number_each_others_tasks() -> None:
    doors = [FakeDoor(lambda request: asyncio.sleep(0)) for _ in range(2)]

    @agent
    async def desk(ctx: Context) -> None:
        await branches(ctx)

    async def main() -> None:
        await asyncio.gather(*(run_agent(desk, door, info()) for door in doors))

    asyncio.run(main())
    assert doors[0].ids == doors[1].ids == play(branches).ids


def test_a_call_from_a_thread_is_refused() -> None:
    async def body(ctx: Context) -> None:
        caught: list[Exception] = []

        def elsewhere() -> None:
            try:
                ctx.tool("x")
            except errors.CallInvalid as error:
                caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert caught

    assert play(body).seen == []


def test_a_task_made_past_the_factory_is_refused_and_not_given_anothers_path() -> None:
    async def body(ctx: Context) -> None:
        async def child() -> None:
            with pytest.raises(errors.CallInvalid, match="task factory"):
                ctx.tool("x")

        await asyncio.Task(child(), loop=asyncio.get_running_loop())

    assert play(body).seen == []


def test_tasks_nested_deeper_than_a_path_are_refused_calls_not_life() -> None:
    async def body(ctx: Context) -> None:
        async def nest(levels: int) -> None:
            if levels:
                await asyncio.create_task(nest(levels - 1))
            else:
                with pytest.raises(errors.LimitReached):
                    ctx.tool("deep")

        await nest(200)

    assert play(body).seen == []


async def test_tasks_that_are_left_behind_end_with_the_agent() -> None:
    ended: list[str] = []
    kept: list[asyncio.Task[None]] = []

    @agent
    async def desk(ctx: Context) -> None:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        kept.append(asyncio.create_task(forever()))
        await asyncio.sleep(0)

    await run_agent(desk, FakeDoor(lambda request: None), info())
    assert ended == ["cancelled"]


async def test_a_task_that_will_not_end_does_not_hold_the_run() -> None:
    free = asyncio.Event()
    kept: list[asyncio.Task[None]] = []

    class Jumping(Runtime):
        async def wait_for(self, awaitable: Any, seconds: float) -> Any:
            return await asyncio.wait_for(awaitable, 0.01)

    @agent
    async def desk(ctx: Context) -> str:
        async def stubborn() -> None:
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue

        kept.append(asyncio.create_task(stubborn()))
        await asyncio.sleep(0)
        return "done"

    assert await run_agent(desk, FakeDoor(lambda request: None), info(), Jumping()) == "done"
    free.set()
    await asyncio.wait(kept)
