"""A support agent on smolagents, which calls tools by name (its other kind writes Python)."""

import argparse

from smolagents import ChatMessageStreamDelta, LogLevel, OpenAIModel, ToolCallingAgent, tool

ORDERS = {"1234": "paid 19.00 EUR, lost on its way"}


@tool
def look_up(order: str) -> str:
    """What is known of an order.

    Args:
        order: Its number.
    """
    return ORDERS.get(order, "unknown")


@tool
def refund(order: str, amount: str) -> str:
    """Pays an order back.

    Args:
        order: Its number.
        amount: How much, with the currency.
    """
    return f"refunded {amount} for order {order}"


def answer(task: str, stream: bool) -> str:
    support = ToolCallingAgent(
        tools=[look_up, refund],
        model=OpenAIModel("gpt-5-mini"),
        instructions="You are support. Look an order up before you refund it.",
        verbosity_level=LogLevel.OFF,
        stream_outputs=stream,
    )
    if not stream:
        return str(support.run(task))
    last = ""
    for step in support.run(task, stream=True):
        if isinstance(step, ChatMessageStreamDelta) and step.content:
            print(f"[{step.content}]", flush=True)
        last = str(getattr(step, "output", last))
    return last


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("task")
    said = parser.parse_args()
    print(answer(said.task, said.stream))
