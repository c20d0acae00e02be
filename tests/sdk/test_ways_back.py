"""A tool that takes another one back comes with it, for `ring0 undo`; no model is offered it unless
the author lists it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from sdk_fakes import FakeDoor, info

from ring0 import Context, agent, tool
from ring0.sdk.load import collect
from ring0.sdk.runner import run_agent


@tool
async def unbook(order_id: str) -> None: ...


@tool(reversal="compensable:unbook")
async def cancel_refund(order_id: str) -> None: ...


@tool(reversal="compensable:cancel_refund")
async def refund(order_id: str, amount: int) -> None: ...


@tool
async def unrelated(order_id: str) -> None: ...


async def answered(ctx: Context) -> str:
    return (await ctx.loop(user="hi")).text


@agent(tools=[refund])
async def quiet(ctx: Context) -> str:
    return await answered(ctx)


@agent(tools=[refund, cancel_refund])
async def listed(ctx: Context) -> str:
    return await answered(ctx)


@agent(tools=[refund])
async def named(ctx: Context) -> str:
    return (await ctx.loop(user="hi", tools=["refund", "cancel_refund"])).text


DECLARED = collect(sys.modules[__name__], __file__)


def granted(name: str) -> set[str]:
    return {one.name for one in DECLARED.agents[name].functions}


def offered(function: Any) -> set[str]:
    door = FakeDoor(lambda request: {"text": "ok"})
    tools = DECLARED.agents[function.__name__].functions
    asyncio.run(run_agent(function, door, info(tools=tools)))
    return {one["name"] for one in door.seen[0].args["tools"]}


def test_what_takes_a_granted_tool_back_is_granted_with_it_and_nothing_else() -> None:
    assert granted("quiet") == {"refund", "cancel_refund", "unbook"}
    assert granted("listed") == {"refund", "cancel_refund", "unbook"}


def test_a_loop_offers_what_the_author_lists_and_not_what_came_along() -> None:
    assert offered(quiet) == {"refund"}
    assert offered(listed) == {"refund", "cancel_refund"}
    assert offered(named) == {"refund", "cancel_refund"}
