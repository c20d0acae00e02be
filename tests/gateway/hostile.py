"""A run's model doors with a provider behind them that sends the bytes a test gives it, and a
second run beside it that goes about its work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from gateway_world import Doors, doors
from model_doors import events

from ring0.gateway.door import Door
from ring0.types import AgentManifest, ModelConfig

CHAT = "/v1/chat/completions"
OTHERS_WAIT_S_MAX = 20
"""How long a call of another run may take beside an attack: far less than one that hangs, far more
than a slow machine needs."""
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TOOL = {"type": "function", "function": {"name": "refund", "parameters": {"type": "object"}}}
MAKERS = {"chat": "openai", "responses": "openai-responses", "messages": "anthropic"}

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Provider:
    """Reads one question a connection and sends what it was given, in turn; the last again."""

    def __init__(self, *answers: bytes | Answering) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.left = asyncio.Event()
        """Whoever asked has closed its connection."""
        self.server: asyncio.Server | None = None

    async def open(self) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        watching: asyncio.Task[Any] | None = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            self.asked.append(json.loads(await reader.readexactly(length)))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            watching = asyncio.ensure_future(self._watch(reader))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        if watching is not None:
            watching.cancel()
        writer.close()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        self.left.set()

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()


def whole(body: Any, status: str = "200 OK", **headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"content_type": "application/json", "content_length": str(len(raw)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status}\r\nconnection: close\r\n{lines}\r\n".encode() + raw


STREAM = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"


def sse(*data: Any) -> bytes:
    told = (one if isinstance(one, bytes) else json.dumps(one).encode() for one in data)
    return b"".join(b"data: " + one + b"\n\n" for one in told)


def streamed(*data: Any) -> bytes:
    return STREAM + sse(*data)


def answer(text: Any = "fine", calls: Any = None, **more: Any) -> dict[str, Any]:
    """A chat completion, whole."""
    message = {"role": "assistant", "content": text, "tool_calls": calls}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    choice = {"message": message, "finish_reason": "stop"}
    return {"choices": [choice], "model": "m-1", "usage": usage, **more}


def call(name: str, arguments: Any = "{}", id_: str = "c1") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of a chat completion's stream."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def part(arguments: str = "", index: int = 0, **more: Any) -> dict[str, Any]:
    """A piece of a tool call."""
    name = {"name": more.pop("name")} if "name" in more else {}
    one = {"index": index, "function": {"arguments": arguments, **name}, **more}
    return piece(tool_calls=[one])


def history(*results: tuple[str, str, str], name: str = "look") -> dict[str, Any]:
    """A conversation with calls (id, arguments) and what came of them."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
    for id_, arguments, result in results:
        messages.append({"role": "assistant", "tool_calls": [call(name, arguments, id_)]})
        messages.append({"role": "tool", "tool_call_id": id_, "content": result})
    return {**HELLO, "messages": messages}


class Hostile:
    """Doors, their provider, and what asks at them."""

    def __init__(self, d: Doors, provider: Provider) -> None:
        self.d = d
        self.w = d.w
        self.provider = provider
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{d.port}")

    async def post(self, body: Any = HELLO, path: str = CHAT, **more: Any) -> tuple[int, Any]:
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with asyncio.timeout(25), self.session.post(path, **sent, **more) as response:
            return response.status, json.loads(await response.read())

    async def stream(self, body: Any = HELLO, path: str = CHAT) -> tuple[int, list[Any]]:
        """The status, and the data of the events; of a refusal, its body."""
        ask = self.session.post(path, json={**body, "stream": True})
        async with asyncio.timeout(25), ask as response:
            raw = await response.read()
            if response.content_type != "text/event-stream":
                return response.status, [json.loads(raw)]
            return response.status, events(raw)

    async def fails(self, *, stream: bool, body: Any = HELLO) -> str:
        """The message of the error that comes of it, whole or in the stream."""
        status, told = await (self.stream(body) if stream else self.post(body))
        if not stream:
            assert status >= 400, told
            return str(told["error"]["message"])
        errors = [one["error"]["message"] for one in told if "error" in one]
        assert errors, told
        return str(errors[0])

    async def other(self) -> Other:
        """A run of somebody else's, at its own door, before a provider that answers."""
        made = Other(self)
        await made.open()
        return made


class Other:
    """Asks on and on, and notes how long each answer took."""

    def __init__(self, hostile: Hostile) -> None:
        self.h = hostile
        self.took_s: list[float] = []
        self._over = False
        self._provider = Provider(whole(answer()))

    async def open(self) -> None:
        port = await self._provider.open()
        kernel = self.h.w.kernel
        manifest = AgentManifest(name="other", models={"default": model(port)})

        async def agent(run: Any) -> Any:
            return await self.h.w.end

        row = await kernel.start_embedded(
            manifest, (), {"agent:other": agent}, "other work", principal="bob"
        )
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        self._door = Door(kernel.gate, kernel.gate.live[row.id], None)
        await self._door.open(listener)
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}")
        self._asking = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        while not self._over:
            begun = time.perf_counter()
            body = {"messages": [{"role": "user", "content": f"turn {len(self.took_s)}"}]}
            async with self._session.post(CHAT, json=body) as response:
                assert response.status == 200, await response.text()
            self.took_s.append(time.perf_counter() - begun)
            await asyncio.sleep(0.02)

    async def close(self) -> list[float]:
        """How long its answers took: all came."""
        self._over = True
        await self._asking
        await self._session.close()
        await self._door.close()
        await self._provider.close()
        return self.took_s


def model(port: int, dialect: str = "chat") -> ModelConfig:
    return ModelConfig(
        provider=MAKERS[dialect],
        model="m",
        base_url=f"http://127.0.0.1:{port}/v1",
        price_in_microusd_per_mtok=0,
        price_out_microusd_per_mtok=0,
    )


@contextlib.asynccontextmanager
async def hostile(
    folder: Path, *answers: bytes | Answering, dialect: str = "chat", **fields: Any
) -> AsyncIterator[Hostile]:
    folder.mkdir(exist_ok=True)
    provider = Provider(*answers)
    port = await provider.open()
    tools = fields.pop("tools", {})
    manifest = AgentManifest(name="clerk", models={"default": model(port, dialect)}, tools=tools)
    async with doors(folder, manifest=manifest, **fields) as d:
        h = Hostile(d, provider)
        try:
            yield h
        finally:
            await h.session.close()
            await provider.close()


_PICTURE = "data:image/png;base64,AAAA"
_PAPER = "data:application/pdf;base64,AAAA"
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        CHAT,
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "s"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image_url", "image_url": {"url": _PICTURE}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                        {"type": "file", "file": {"file_data": _PAPER, "filename": "f"}},
                    ],
                },
                {"role": "assistant", "content": "", "tool_calls": [call("look")]},
                {"role": "tool", "tool_call_id": "c1", "content": "result"},
            ],
            "tools": [TOOL],
            "tool_choice": "auto",
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
            "max_tokens": 9,
            "top_p": 1,
            "stop": ["a"],
            "n": 1,
            "stream_options": {"include_usage": True},
            "reasoning_effort": "low",
        },
    ),
    "messages": (
        "/v1/messages",
        {
            "model": "m",
            "max_tokens": 9,
            "system": [{"type": "text", "text": "s"}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "x"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                        },
                        {
                            "type": "document",
                            "title": "t",
                            "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                        },
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "y"},
                        {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t1",
                            "content": [{"type": "text", "text": "r"}],
                            "is_error": True,
                        }
                    ],
                },
            ],
            "tools": [{"name": "look", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto"},
            "stop_sequences": ["x"],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        },
    ),
    "responses": (
        "/v1/responses",
        {
            "model": "m",
            "instructions": "i",
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "x"},
                        {"type": "input_image", "image_url": _PICTURE},
                        {"type": "input_file", "file_data": _PAPER, "filename": "f"},
                    ],
                },
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "r"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "cu", "input": "x"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": "r"},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]},
            ],
            "tools": [
                {"type": "function", "name": "look", "parameters": {}},
                {"type": "custom", "name": "cu", "format": {"type": "text"}},
            ],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "look"}],
            },
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
            "reasoning": {"effort": "low"},
            "include": ["reasoning.encrypted_content"],
            "max_output_tokens": 9,
        },
    ),
}
"""A question in each dialect with most of what it can have, and where it is asked."""
