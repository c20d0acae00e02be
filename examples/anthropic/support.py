"""A support agent on Anthropic's own client."""

import argparse

from anthropic import Anthropic

MODEL = "claude-sonnet-4-5"
SYSTEM = "You are support. Look an order up before you refund it."
ORDERS = {"1234": "paid 19.00 EUR, lost on its way"}


def look_up(order: str) -> str:
    return ORDERS.get(order, "unknown")


def refund(order: str, amount: str) -> str:
    return f"refunded {amount} for order {order}"


TOOLS = {"look_up": look_up, "refund": refund}


def declared(name: str, text: str, *arguments: str) -> dict:
    properties = {one: {"type": "string"} for one in arguments}
    schema = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"name": name, "description": text, "input_schema": schema}


DECLARED = [
    declared("look_up", "What is known of an order.", "order"),
    declared("refund", "Pays an order back.", "order", "amount"),
]


def answer(client: Anthropic, task: str, stream: bool) -> str:
    messages = [{"role": "user", "content": task}]
    while True:
        asked = {"model": MODEL, "max_tokens": 1024, "system": SYSTEM, "tools": DECLARED}
        if stream:
            with client.messages.stream(**asked, messages=messages) as events:
                for text in events.text_stream:
                    print(f"[{text}]", flush=True)
                message = events.get_final_message()
        else:
            message = client.messages.create(**asked, messages=messages)
        messages.append({"role": "assistant", "content": message.content})
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            return "".join(block.text for block in message.content if block.type == "text")
        results = [
            {
                "type": "tool_result",
                "tool_use_id": call.id,
                "content": TOOLS[call.name](**call.input),
            }
            for call in calls
        ]
        messages.append({"role": "user", "content": results})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("task")
    said = parser.parse_args()
    print(answer(Anthropic(), said.task, said.stream))
