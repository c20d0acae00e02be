"""A support agent on the OpenAI Agents SDK."""

import argparse
import asyncio

from agents import Agent, Runner, function_tool

ORDERS = {"1234": "paid 19.00 EUR, lost on its way"}


@function_tool
def look_up(order: str) -> str:
    """What is known of an order."""
    return ORDERS.get(order, "unknown")


@function_tool
def refund(order: str, amount: str) -> str:
    """Pays an order back."""
    return f"refunded {amount} for order {order}"


support = Agent(
    name="support",
    instructions="You are support. Look an order up before you refund it.",
    model="gpt-5-mini",
    tools=[look_up, refund],
)


async def answer(task: str, stream: bool) -> str:
    if not stream:
        return (await Runner.run(support, task)).final_output
    run = Runner.run_streamed(support, task)
    async for event in run.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(f"[{event.data.delta}]", flush=True)
    return run.final_output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("task")
    said = parser.parse_args()
    print(asyncio.run(answer(said.task, said.stream)))
