"""A support agent on ring0's own SDK: `ring0 run support.py "Please refund order 1234."`

Its tools are the kernel's to carry out, each in a sandbox of its own: what is said of them here
(once, how it is taken back, which arguments count) holds, whatever the model or this file does.
"""

from ring0 import Context, ToolContext, agent, tool

ORDERS = {"1234": {"paid": 19, "state": "lost on its way"}}


@tool(effect="pure")
def look_up(order: str) -> dict[str, object]:
    """What is known of an order."""
    return dict(ORDERS.get(order, {}))


@tool(effect="once", reversal="compensable:cancel_refund", critical=["order", "amount"])
async def refund(ctx: ToolContext, order: str, amount: int) -> str:
    """Pay an order back."""
    ctx.log(f"the payment's idempotency key: {ctx.call_id}")
    return f"refunded {amount} for order {order}"


@tool(effect="once")
def cancel_refund(order: str) -> str:
    """Take the refund of an order back."""
    return f"cancelled the refund of order {order}"


@agent(
    model="default",
    tools=[look_up, refund],
    builtins={"files": {"use": "files"}},
    budget="0.50 USD, 200k tokens, 10 min",
)
async def support(ctx: Context, ticket: str) -> str:
    past = await ctx.memory.recall(ticket, k=3)
    answer = await ctx.loop(
        system="You are support. Look an order up before you refund it.",
        user=ticket,
        context=past,
        tools=["look_up", "refund"],
    )
    day = (await ctx.now()).date()
    await ctx.tool("files.write", path=f"answers/{day}.txt", text=answer.text)
    return answer.text
