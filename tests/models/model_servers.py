"""Providers on loopback that say what a test says, in the dialects that they speak."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ring0.runtime import Runtime

Answer = Callable[[web.Request], Any]


class Server:
    """Answers in turn, the last answer again and again; keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []
        """Bodies."""
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.hold: asyncio.Event | None = None
        """It waits for this before it answers."""
        self.here = asyncio.Event()
        """Somebody asks."""

    async def __aenter__(self) -> Server:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/{rest:.*}", self._on)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _on(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.paths.append(request.raw_path)
        self.headers.append(dict(request.headers))
        self.here.set()
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await _given(request, answer)


async def _given(request: web.Request, answer: Any) -> web.StreamResponse:
    if isinstance(answer, int):
        return web.json_response({"error": {"message": f"no ({answer})"}}, status=answer)
    if isinstance(answer, dict):
        return web.json_response(answer)
    assert isinstance(answer, list)  # Pieces of a stream; None: it breaks off.
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for piece in answer:
        if piece is None:
            assert request.transport is not None
            request.transport.abort()
            break
        await response.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
        await asyncio.sleep(0.01)
    return response


def chat(text: str = "hello", model: str = "m-1", **more: Any) -> dict[str, Any]:
    """A whole chat completion: 11 tokens in, 7 out."""
    return {
        "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
        "model": model,
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
        **more,
    }


def piece(text: str = "", **more: Any) -> dict[str, Any]:
    """One chunk of a chat completion."""
    return {"choices": [{"index": 0, "delta": {"content": text, **more}}]}


END: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


class Quick(Runtime):
    """A runtime that sleeps for nobody's retry, and notes how long it was to have slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
