"""A support agent on the Claude Agent SDK, with the Claude Code that it brings."""

import argparse
import asyncio

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ResultMessage,
    StreamEvent,
    TextBlock,
    create_sdk_mcp_server,
    query,
    tool,
)

ORDERS = {"1234": "paid 19.00 EUR, lost on its way"}


def text(said: str) -> dict:
    return {"content": [{"type": "text", "text": said}]}


@tool("look_up", "What is known of an order.", {"order": str})
async def look_up(args: dict) -> dict:
    return text(ORDERS.get(args["order"], "unknown"))


@tool("refund", "Pays an order back.", {"order": str, "amount": str})
async def refund(args: dict) -> dict:
    return text(f"refunded {args['amount']} for order {args['order']}")


async def answer(task: str, stream: bool) -> str:
    options = ClaudeAgentOptions(
        system_prompt="You are support. Look an order up before you refund it.",
        model="claude-sonnet-4-5",
        mcp_servers={"shop": create_sdk_mcp_server("shop", tools=[look_up, refund])},
        tools=[],
        allowed_tools=["mcp__shop__look_up", "mcp__shop__refund"],
        setting_sources=[],
        include_partial_messages=stream,
    )
    last = ""
    async for message in query(prompt=task, options=options):
        if isinstance(message, StreamEvent):
            delta = message.event.get("delta", {})
            if delta.get("type") == "text_delta":
                print(f"[{delta['text']}]", flush=True)
        elif isinstance(message, AssistantMessage):
            said = "".join(b.text for b in message.content if isinstance(b, TextBlock))
            last = said or last
        elif isinstance(message, ResultMessage):
            last = message.result or last
    return last


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("task")
    said = parser.parse_args()
    print(asyncio.run(answer(said.task, said.stream)))
