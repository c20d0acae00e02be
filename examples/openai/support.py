"""A support agent on OpenAI's own client. `--api responses` uses the newer of its two APIs."""

import argparse
import json

from openai import OpenAI

MODEL = "gpt-5-mini"
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
    return {"name": name, "description": text, "parameters": schema}


FUNCTIONS = [
    declared("look_up", "What is known of an order.", "order"),
    declared("refund", "Pays an order back.", "order", "amount"),
]


def chat(client: OpenAI, task: str, stream: bool) -> str:
    """Chat completions: the conversation is ours to keep."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
    tools = [{"type": "function", "function": one} for one in FUNCTIONS]
    while True:
        asked = {"model": MODEL, "messages": messages, "tools": tools}
        if stream:
            with client.chat.completions.stream(**asked) as events:
                for event in events:
                    if event.type == "content.delta":
                        print(f"[{event.delta}]", flush=True)
                message = events.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(**asked).choices[0].message
        messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
        if not message.tool_calls:
            return message.content
        for call in message.tool_calls:
            found = TOOLS[call.function.name](**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})


def responses(client: OpenAI, task: str, stream: bool) -> str:
    """Responses: the provider keeps the conversation."""
    tools = [{"type": "function", **one} for one in FUNCTIONS]
    asked = {"model": MODEL, "instructions": SYSTEM, "tools": tools}
    news, before = [{"role": "user", "content": task}], None
    while True:
        if stream:
            with client.responses.stream(
                **asked, input=news, previous_response_id=before
            ) as events:
                for event in events:
                    if event.type == "response.output_text.delta":
                        print(f"[{event.delta}]", flush=True)
                answer = events.get_final_response()
        else:
            answer = client.responses.create(**asked, input=news, previous_response_id=before)
        before = answer.id
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return answer.output_text
        news = [
            {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": TOOLS[call.name](**json.loads(call.arguments)),
            }
            for call in calls
        ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--api", choices=["chat", "responses"], default="chat")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("task")
    said = parser.parse_args()
    ask = chat if said.api == "chat" else responses
    print(ask(OpenAI(), said.task, said.stream))
