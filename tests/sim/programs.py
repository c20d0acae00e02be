"""Agents that carry out a program of `plan.py`, through the real SDK and an unreliable door."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from ring0 import errors
from ring0.kernel.live import LiveRun
from ring0.sdk.context import Context
from ring0.sdk.declare import agent
from ring0.sdk.door import RunInfo
from ring0.sdk.embedded import DirectDoor
from ring0.types import Label, Request

if TYPE_CHECKING:
    from sim.plan import Step
    from sim.world import World

ENDS = (errors.RunDead, errors.ReplayDiverged, errors.StoreFull, errors.StoreFailed)


def encoded(name: str, program: list[Step], parent: str = "") -> str:
    """A program as the task of a run."""
    return msgspec.json.encode({"name": name, "steps": program, "parent": parent}).decode()


class Self:
    """What a program knows of itself."""

    def __init__(self, ctx: Context, told: dict[str, Any]) -> None:
        self.ctx = ctx
        self.name = told["name"]
        self.parent = told["parent"]
        self.children: list[str] = []


@agent(name="simulated")
async def carry_out(ctx: Context, task: str) -> Any:
    """Does its program, and returns what each step came to."""
    told = msgspec.json.decode(task)
    return await _steps(Self(ctx, told), told["steps"], "")


async def _steps(me: Self, steps: list[Step], at: str) -> list[Any]:
    results = []
    for number, step in enumerate(steps):
        try:
            results.append(await _step(me, step, f"{at}.{number}"))
        except ENDS:
            raise
        except errors.Ring0Error as error:
            results.append(["error", error.code])
    return results


async def _step(me: Self, step: Step, at: str) -> Any:
    ctx = me.ctx
    word, *rest = step
    match word:
        case "tool":
            tool, number, on = rest
            more = {"on": on} if on else {}
            return await ctx.tool(tool, n=number, **more)
        case "again":
            tool, number, times = rest
            return [await _try(ctx.tool(tool, n=number)) for _ in range(times)]
        case "model":
            number, most = rest
            asked = [{"role": "user", "content": f"q{number}" * 10}]
            return (await ctx.model(asked, max_tokens=most)).text
        case "note":
            return await ctx.memory.append(f"note {rest[0]}")
        case "recall":
            await ctx.memory.recall(f"note {rest[0]}", k=3)
            return "recalled"
        case "sleep":
            return await ctx.sleep(rest[0])
        case "now":
            await ctx.now()
            return "now"
        case "random":
            await ctx.random()
            return "random"
        case "wrong":
            return await ctx.tool("nothing", n=rest[0])
        case "ask":
            what, amount = rest
            await ctx.ask_for_more(why="simulated", **{what: amount})
            return "given"
        case "send":
            return await ctx.send(_receiver(me, rest[0]), {"n": rest[1]})
        case "receive":
            await ctx.receive(rest[0])
            return "received"
        case "lock":
            return await _locked(me, rest, at)
        case "both":
            return await _both(me, rest, at)
        case "spawn":
            return await _spawn(me, rest[0], rest[1], at)
        case _:
            raise AssertionError(f"no such step: {word}")


async def _try(call: Any) -> Any:
    try:
        return await call
    except ENDS:
        raise
    except errors.Ring0Error as error:
        return ["error", error.code]


def _receiver(me: Self, whom: str) -> str:
    if whom == "parent" and me.parent:
        return str(me.parent)
    if whom == "child" and me.children:
        return me.children[-1]
    return me.ctx.run


async def _both(me: Self, ways: list[Any], at: str) -> list[Any]:
    both = await asyncio.gather(
        *(_steps(me, way, f"{at}.{k}") for k, way in enumerate(ways)), return_exceptions=True
    )
    for one in both:
        if isinstance(one, BaseException):
            raise one
    return both


async def _locked(me: Self, rest: list[Any], at: str) -> list[Any]:
    resource, shared, lease_s, inner, frees = rest
    lock = await me.ctx.lock(resource, shared=shared, lease_s=lease_s)
    results = await _steps(me, inner, at)
    if len(inner) > 2:
        await _try(lock.renew())
    if frees:
        results.append(["freed", await _try(lock.free()) is not None])
    return results


async def _spawn(me: Self, how: str, children: list[Any], at: str) -> Any:
    ctx = me.ctx
    started = []
    for number, (kind, program) in enumerate(children):
        task = encoded(f"{me.name}{at}.{number}", program, ctx.run)
        only = ["*", "kernel:*", f"agent:*{number}*", "agent:*"] if number % 2 else None
        started.append(await ctx.spawn(kind, task, only=only))
        me.children.append(started[-1].run)
    match how:
        case "leave":
            return len(started)
        case "gather":
            results = await ctx.gather(*started, return_errors=True)
            return [one.code if isinstance(one, errors.Ring0Error) else one for one in results]
        case "race":
            await _try(ctx.race(*started))
            return "raced"
        case "any":
            await ctx.wait_any(*started)
            return "one"
        case "cancel":
            return [await _try(child.cancel()) for child in started]
        case _:
            return [await _try(child.wait()) for child in started]


class UnreliableDoor:
    """A door whose messages are late, lost and doubled; the SDK's rule holds: a connection that
    breaks is tried once more, under the same call id."""

    def __init__(self, world: World, kernel: Any, run: LiveRun) -> None:
        self._world = world
        self._door = DirectDoor(kernel, run)
        self._run = run

    async def call(self, request: Request) -> tuple[Any, Label]:
        world = self._world
        await world.pause("to the kernel", 0.01)
        luck = world.dice.random()
        if world.plan.calm or luck < 0.85:
            value = await self._door.call(request)
        elif luck < 0.92:
            world.seen("door doubled")
            first = self._sent(request)
            await world.pause("doubled", 0.05)
            second = self._sent(request)
            try:
                both = await asyncio.gather(first, second, return_exceptions=True)
            finally:
                first.cancel()
                second.cancel()
            value = _same(world, request, both)
        else:
            world.seen("door broken")
            lost = self._sent(request)
            try:
                await asyncio.wait({lost}, timeout=world.dice.random() ** 2 * 3)
            finally:
                lost.cancel()
            await world.pause("connects again", 0.1)
            value = await self._door.call(request)
        await world.pause("from the kernel", 0.01)
        return value

    def _sent(self, request: Request) -> asyncio.Future[Any]:
        """On its way; whoever sent it may be gone before the answer comes."""
        sent = asyncio.ensure_future(self._door.call(request))
        sent.add_done_callback(lambda one: None if one.cancelled() else one.exception())
        return sent

    async def describe(self) -> RunInfo:
        return await self._door.describe()

    async def finish(self, *, value: Any = None, error: dict[str, str] | None = None) -> None:
        """An embedded agent ends by returning."""


def _same(world: World, request: Request, both: list[Any]) -> Any:
    """One call id has one outcome, however often it is asked for."""
    told = [repr(one) if isinstance(one, BaseException) else one[0] for one in both]
    dead = [isinstance(one, ENDS) for one in both]  # The kernel, or the run, was over.
    if told[0] != told[1] and not any(dead):
        world.checks.found("one call, two outcomes", f"{request.kind} {request.path}: {told}")
    for one in both:
        if isinstance(one, BaseException):
            raise one
    return both[0]
