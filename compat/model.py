"""A provider on this machine's loopback that speaks chat completions and says the same each time:
it looks an order up, pays it back where it was asked to, and tells what came of it.

It counts what it was asked: a question that comes twice was paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from aiohttp import web

ORDER: Final = "1234"
AMOUNT: Final = "19.00 EUR"
_ORDER: Final = re.compile(r"\b(refund )?order (\d{4})", re.IGNORECASE)
_REFUSED: Final = "was not allowed"
_RESULTS_IN_TEXT: Final = "Observation:"
"""smolagents tells a model the results of its tools as a user's text."""
_PIECE_CHARS: Final = 6
_PIECE_S: Final = 0.05


class StubModel:
    """Its answers hang on nothing but the question."""

    def __init__(self) -> None:
        self.asked = 0
        """Questions that came: each is paid for."""
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Its base address."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked += 1
        message = answer(body)
        if not body.get("stream"):
            return web.json_response(_whole(message))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in _pieces(message):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await asyncio.sleep(_PIECE_S)  # What comes at once may be passed on at once.
        await response.write(b"data: [DONE]\n\n")
        return response


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """The message that answers this question."""
    texts = [_text(one) for one in body["messages"]]
    offered = [one["function"]["name"] for one in body.get("tools", ())]
    wanted, results = _wanted(body["messages"]), _results(body["messages"])
    if any(_REFUSED in text for text in texts):
        return _says("I was not allowed to pay it back.", offered)
    if len(results) < len(wanted):
        step, arguments = wanted[len(results)]
        name = next((one for one in offered if one.endswith(step)), "")
        if name:
            return _proposes(name, arguments, len(results))
    found = results[-1].partition("\n")[0] if results else "nothing"  # Clients add to it.
    return _says(f"Order {ORDER} is settled: {found}", offered)


def _wanted(messages: list[dict[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    for message in messages:
        if message["role"] == "user" and (found := _ORDER.search(_text(message))):
            steps = [("look_up", {"order": found[2]})]
            if found[1]:
                steps.append(("refund", {"order": found[2], "amount": AMOUNT}))
            return steps
    return []


def _results(messages: list[dict[str, Any]]) -> list[str]:
    found = []
    for message in messages:
        text = _text(message)
        if message["role"] == "tool":
            found.append(text)
        elif message["role"] == "user" and _RESULTS_IN_TEXT in text:
            found += [part.strip() for part in text.split(_RESULTS_IN_TEXT)[1:]]
    return found


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _says(text: str, offered: list[str]) -> dict[str, Any]:
    if "final_answer" in offered:  # smolagents ends by a tool.
        return _proposes("final_answer", {"answer": text}, 9)
    return {"role": "assistant", "content": text}


def _proposes(name: str, arguments: dict[str, str], number: int) -> dict[str, Any]:
    call = {
        "id": f"call_{number}_{name}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    }
    return {"role": "assistant", "content": "One moment, please.", "tool_calls": [call]}


def _reason(message: dict[str, Any]) -> str:
    return "tool_calls" if "tool_calls" in message else "stop"


_USAGE: Final = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def _whole(message: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": _reason(message)}
    return {
        "id": "stub",
        "object": "chat.completion",
        "created": 0,
        "model": "stub",
        "choices": [choice],
        "usage": _USAGE,
    }


def _pieces(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    text = message["content"]
    yield _piece({"role": "assistant", "content": ""})
    for start in range(0, len(text), _PIECE_CHARS):
        yield _piece({"content": text[start : start + _PIECE_CHARS]})
    for index, call in enumerate(message.get("tool_calls", ())):
        whole = call["function"]["arguments"]
        first = {**call, "index": index, "function": {**call["function"], "arguments": whole[:5]}}
        yield _piece({"tool_calls": [first]})
        rest = {"index": index, "function": {"arguments": whole[5:]}}
        yield _piece({"tool_calls": [rest]})
    yield _piece({}, _reason(message))
    yield {**_piece({}), "choices": [], "usage": _USAGE}


def _piece(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {
        "id": "stub",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "stub",
        "choices": [choice],
    }
