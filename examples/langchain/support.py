"""A support agent on LangChain. `--model` is any model that it knows by name."""

import argparse

from langchain.agents import create_agent
from langchain.tools import tool

ORDERS = {"1234": "paid 19.00 EUR, lost on its way"}


@tool
def look_up(order: str) -> str:
    """What is known of an order."""
    return ORDERS.get(order, "unknown")


@tool
def refund(order: str, amount: str) -> str:
    """Pays an order back."""
    return f"refunded {amount} for order {order}"


def answer(model: str, task: str, stream: bool) -> str:
    support = create_agent(
        model,
        tools=[look_up, refund],
        system_prompt="You are support. Look an order up before you refund it.",
    )
    asked = {"messages": [{"role": "user", "content": task}]}
    if not stream:
        return support.invoke(asked)["messages"][-1].text
    last = ""
    for kind, found in support.stream(asked, stream_mode=["messages", "values"]):
        if kind == "values":
            last = found["messages"][-1].text
        elif found[0].type == "AIMessageChunk" and found[0].text:
            print(f"[{found[0].text}]", flush=True)
    return last


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="openai:gpt-5-mini")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("task")
    said = parser.parse_args()
    print(answer(said.model, said.task, said.stream))
