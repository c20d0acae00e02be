"""`ctx.lock`, `ctx.send`, `ctx.receive` and `@tool(locks=…)`, as an author writes them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ring0 import errors
from ring0.sdk import declare
from ring0.sdk.context import Context
from ring0.sdk.embedded import NotContained, embedded
from ring0.sdk.toolside import ToolContext, run_tool
from ring0.tools.touching import fill, why_not
from ring0.types import CallKind

pytestmark = pytest.mark.filterwarnings(f"ignore::{NotContained.__module__}.NotContained")

FENCES: list[int] = []


@declare.agent
async def keeper(ctx: Context, task: str) -> Any:
    """Takes a lock in every way."""
    async with ctx.lock("table:customers", lease_s=30) as lock:
        FENCES.append(lock.fence)
        await lock.renew()
        try:
            await ctx.lock("table:customers", wait_s=0)
        except errors.CallInvalid:
            FENCES.append(0)
    second = await ctx.lock("table:customers", shared=True)
    FENCES.append(second.fence)
    return await second.free()


@declare.agent
async def loser(ctx: Context, task: str) -> Any:
    """Its lease is over before it is done."""
    try:
        async with ctx.lock("x", lease_s=1):
            await ctx.sleep(1.1)
    except errors.LockLost as lost:
        return lost.code
    return "not told"


@declare.agent
async def breaker(ctx: Context, task: str) -> Any:
    """Fails inside of its lock, and frees it all the same."""
    try:
        async with ctx.lock("x"):
            raise ValueError("inside")
    except ValueError as error:
        again = await ctx.lock("x", wait_s=0)
        return [str(error), again.fence]


@declare.agent
async def clerk(ctx: Context, task: str) -> Any:
    """Is asked, and answers whoever asked."""
    asked = await ctx.receive()
    await ctx.send(asked.sender, {"answer": asked.value * 2})
    return "done"


@declare.agent(agents=[clerk])
async def boss(ctx: Context, task: str) -> Any:
    """Asks a child."""
    child = await ctx.spawn(clerk, "help")
    await ctx.send(child, 21)
    told = await ctx.receive(timeout_s=30)
    return [told.value, told.sender == child.run, told.number, await child.wait()]


async def test_a_lock_is_a_block_that_frees_it_and_can_be_renewed_within(tmp_path: Path) -> None:
    FENCES.clear()
    async with embedded(tmp_path, {}) as ring:
        assert await ring.run(keeper, "go") is True
        assert FENCES == [1, 0, 2]
        await ring.kernel.store.flush()
        assert await ring.kernel.store.locks() == []


async def test_a_block_whose_lock_was_lost_says_so_at_its_end(tmp_path: Path) -> None:
    async with embedded(tmp_path, {}) as ring:
        assert await ring.run(loser, "go") == "lock_lost"


async def test_a_block_that_fails_frees_its_lock_and_keeps_its_own_error(tmp_path: Path) -> None:
    async with embedded(tmp_path, {}) as ring:
        assert await ring.run(breaker, "go") == ["inside", 2]


async def test_a_parent_and_its_child_talk(tmp_path: Path) -> None:
    async with embedded(tmp_path, {}) as ring:
        assert await asyncio.wait_for(ring.run(boss, "go"), 30) == [
            {"answer": 42},
            True,
            1,
            "done",
        ]


async def test_the_id_of_a_lock_is_fixed_when_it_is_asked_for() -> None:
    made: list[tuple[Any, ...]] = []

    class Recording(Context):
        def __init__(self) -> None:
            pass

        def _call(self, kind: CallKind, name: str, args: Any) -> Any:
            made.append((kind, args))
            return asyncio.sleep(0)

    lock = Recording().lock("x", shared=True, lease_s=5, wait_s=1.5)
    assert made == [(CallKind.LOCK, {"resource": "x", "lease_s": 5, "shared": True, "wait_s": 1.5})]
    with pytest.raises(errors.Ring0Error):
        await lock  # What is no fence is none.


# --- what a tool touches ---------------------------------------------------------------------


def test_a_tool_says_by_its_arguments_what_it_touches() -> None:
    @declare.tool(locks=["ticket:{id}", "queue"])
    def close(id: int, note: str = "") -> str:
        return note

    declared = declare.tool_of(close)
    assert declared is not None and declared.manifest.locks == ("ticket:{id}", "queue")
    assert fill(declared.manifest.locks, {"id": 42}) == ("ticket:42", "queue")


@pytest.mark.parametrize(
    "template", ["", "ticket:{note}", "ticket:{nobody}", "ticket:{id", "{id!r}", "a\0", "x" * 201]
)
def test_a_template_that_can_not_be_filled_for_every_call_is_refused(template: str) -> None:
    with pytest.raises(errors.ManifestInvalid):

        @declare.tool(locks=[template])
        def close(id: int, note: str = "") -> str:
            return note

    assert why_not(template, {"required": ["id"]})


@pytest.mark.parametrize("value", [None, True, 1.5, [], {}, "", " ", "a\nb", "x" * 300])
def test_an_argument_that_is_no_name_refuses_the_call(value: Any) -> None:
    with pytest.raises(errors.CallInvalid):
        fill(("ticket:{id}",), {"id": value})


async def test_a_tool_is_given_the_fences_to_pass_on() -> None:
    @declare.tool
    def look(ctx: ToolContext) -> dict:
        return dict(ctx.fences)

    declared = declare.tool_of(look)
    assert declared is not None
    assert await run_tool(declared, {}, "r/0/1", {"x": 7}) == {"x": 7}
    assert await run_tool(declared, {}, "r/0/1") == {}
