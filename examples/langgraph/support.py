"""A support agent as a LangGraph graph of one's own."""

import argparse

from langchain.chat_models import init_chat_model
from langchain.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

SYSTEM = "You are support. Look an order up before you refund it."
ORDERS = {"1234": "paid 19.00 EUR, lost on its way"}


@tool
def look_up(order: str) -> str:
    """What is known of an order."""
    return ORDERS.get(order, "unknown")


@tool
def refund(order: str, amount: str) -> str:
    """Pays an order back."""
    return f"refunded {amount} for order {order}"


TOOLS = [look_up, refund]
model = init_chat_model("openai:gpt-5-mini").bind_tools(TOOLS)


def think(state: MessagesState) -> dict:
    return {"messages": [model.invoke([("system", SYSTEM), *state["messages"]])]}


graph = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", ToolNode(TOOLS))
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition)
graph.add_edge("tools", "think")
support = graph.compile()


def answer(task: str, stream: bool) -> str:
    asked = {"messages": [("user", task)]}
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
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("task")
    said = parser.parse_args()
    print(answer(said.task, said.stream))
