"""Agents that are recorded, exported and replayed elsewhere: by the SDK, with children at work at
the same time, with a tool that fails and one that never comes back."""

import asyncio

from ring0 import Context, agent, tool


@tool(effect="pure")
def doubled(x: int) -> int:
    """Twice as much."""
    if x > 90:
        raise ValueError("too much")
    return x * 2


@tool(effect="pure", wall_s=1)
def stuck() -> None:
    """Never comes back."""
    while True:
        pass


@tool(effect="once")
def charge(amount: int) -> str:
    """Takes money: nobody runs this without being asked."""
    return f"charged {amount}"


@agent(name="child", tools=[doubled])
async def child(ctx: Context, task: str) -> list:
    each = [ctx.tool("doubled", x=int(task) * 10 + k) for k in range(3)]
    return [await asyncio.gather(*each), await ctx.random()]


@agent(name="parent", tools=[doubled, stuck, charge], agents=["child"])
async def parent(ctx: Context, task: str) -> dict:
    began = await ctx.now()
    children = [await ctx.spawn("child", str(number)) for number in range(2)]
    found = await ctx.gather(*children)
    said = []
    for name, args in (("doubled", {"x": 99}), ("stuck", {}), ("nothing", {})):
        try:
            said.append(await ctx.tool(name, **args))
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    paid = await ctx.tool("charge", amount=int(task))
    answer = await ctx.model([{"role": "user", "content": f"so: {found}"}])
    await ctx.memory.append("a note")
    return {"began": began, "found": found, "said": said, "paid": paid, "answer": answer.text}
