"""A support agent on Pydantic AI. `--model` is any model that it knows by name."""

import argparse
import asyncio
from collections.abc import AsyncIterable

from pydantic_ai import (
    Agent,
    AgentStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    RunContext,
    TextPart,
    TextPartDelta,
)

ORDERS = {"1234": "paid 19.00 EUR, lost on its way"}
support = Agent(instructions="You are support. Look an order up before you refund it.")


@support.tool_plain
def look_up(order: str) -> str:
    """What is known of an order."""
    return ORDERS.get(order, "unknown")


@support.tool_plain
def refund(order: str, amount: str) -> str:
    """Pays an order back."""
    return f"refunded {amount} for order {order}"


async def show(_: RunContext, events: AsyncIterable[AgentStreamEvent]) -> None:
    async for event in events:
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
            print(f"[{event.part.content}]", flush=True)
        elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
            print(f"[{event.delta.content_delta}]", flush=True)


async def answer(model: str, task: str, stream: bool) -> str:
    run = await support.run(task, model=model, event_stream_handler=show if stream else None)
    return run.output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="openai:gpt-5-mini")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("task")
    said = parser.parse_args()
    print(asyncio.run(answer(said.model, said.task, said.stream)))
