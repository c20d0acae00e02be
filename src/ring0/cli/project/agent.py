"""A support agent: it answers a ticket, and may pay money back. What it may do is in agent.toml."""

from ring0 import Context, ToolContext, agent, tool


@tool(effect="once", reversal="compensable:cancel_refund", critical=["order_id", "amount"])
async def refund(ctx: ToolContext, order_id: str, amount: int) -> str:
    """Pay back an amount, in whole dollars, of an order."""
    # Your shop's API is called here, in a sandbox of its own: docs/tools.md. Done once, whatever
    # crashes; the key lets the shop know it again.
    ctx.log(f"idempotency key {ctx.call_id}")
    return f"{amount} paid back for {order_id}"


@tool(effect="once", critical=["order_id"])
async def cancel_refund(order_id: str) -> str:
    """Take the refund of an order back: what `ring0 undo` calls."""
    return f"refund of {order_id} cancelled"


@agent(model="default", tools=[refund])
async def support(ctx: Context, ticket: str) -> str:
    past = await ctx.memory.recall(ticket, k=3)
    system = "You are support. Pay back what arrived broken."
    answer = await ctx.loop(system=system, user=ticket, context=past)
    return answer.text
