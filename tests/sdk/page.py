"""The example that the SDK is described by, async and plain, and a puppet for its model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_TOOLS = """
from ring0 import agent, tool, Context

WORLD: list[str] = []


@tool
async def cancel_refund(order_id: str) -> str:
    WORLD.append(f"cancelled {order_id}")
    return WORLD[-1]


@tool(effect="once", reversal="compensable:cancel_refund", critical=["amount"])
async def refund(ctx: Context, order_id: str, amount: int) -> str:
    WORLD.append(f"paid {amount} for {order_id}")
    return WORLD[-1]
"""

PAGE = (
    _TOOLS
    + """

@agent(model="default", tools=[refund], budget="0.50 USD, 200k tokens, 10 min")
async def support(ctx: Context, ticket: str) -> str:
    past = await ctx.memory.recall(ticket, k=3)
    answer = await ctx.loop(system="You are support.", user=ticket, context=past)
    return answer.text
"""
)

PLAIN = (
    _TOOLS.replace("async def", "def")
    + """

@agent(model="default", tools=[refund], budget="0.50 USD, 200k tokens, 10 min")
def support(ctx: Context, ticket: str) -> str:
    past = ctx.wait(ctx.memory.recall(ticket, k=3))
    answer = ctx.wait(ctx.loop(system="You are support.", user=ticket, context=past))
    return answer.text
"""
)

PUPPET = r"""
answer = "Done:\n{done}\nRefused:\n{refused}"
[[rules]]
name = "a refund"
when = '^refund 80 for order (?P<order>[A-Z]-\d+)'
call = "refund"
args = { order_id = "{order}", amount = 80 }
"""


def loaded(folder: Path, name: str, source: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
