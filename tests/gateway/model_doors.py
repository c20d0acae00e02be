"""A run's model doors, asked as clients ask them, before a provider that says what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from gateway_world import Doors, doors

from ring0.models import Delta, ModelAnswer, ModelRequest, ToolCall
from ring0.models.base import Part
from ring0.types import AgentManifest, CallKind, MemorySettings, ModelConfig

FREE = ModelConfig(
    provider="openai",
    model="m",
    base_url="http://127.0.0.1:9/v1",
    price_in_microusd_per_mtok=0,
    price_out_microusd_per_mtok=0,
)


def said(text: str = "", *calls: ToolCall, **more: Any) -> ModelAnswer:
    stop = "tools" if calls else "end"
    fields = {"tokens_in": 3, "tokens_out": 4, "model": "m-1", "stop": stop, **more}
    return ModelAnswer(text=text, tool_calls=calls, **fields)


def proposes(name: str, call: str = "c1", **args: Any) -> ToolCall:
    return ToolCall(id=call, name=name, args=args)


class Model:
    """A provider that answers in turn; a text comes in pieces where somebody takes them."""

    def __init__(self, *turns: ModelAnswer | Exception) -> None:
        self.turns = list(turns)
        self.asked: list[ModelRequest] = []
        self.go: asyncio.Event | None = None
        """It waits for this before it ends an answer."""
        self.breaks: Exception | None = None
        """In the middle of an answer."""

    async def answer(
        self, request: ModelRequest, key: str, again: Any = None, sink: Any = None
    ) -> ModelAnswer:
        self.asked.append(request)
        turn = self.turns.pop(0)
        if sink is not None and isinstance(turn, ModelAnswer):
            for delta in in_pieces(turn):
                await sink(delta)
                await asyncio.sleep(0)
        if self.go is not None:
            await self.go.wait()
        if self.breaks is not None:
            raise self.breaks
        if isinstance(turn, Exception):
            raise turn
        return turn

    async def close(self) -> None:
        pass


def in_pieces(answer: ModelAnswer) -> list[Delta]:
    """As a provider tells it: parts in their order up to the first call, texts bit by bit."""
    found: list[Delta] = []
    for part in answer.parts or (Part(kind="text", text=answer.text),):
        if part.kind == "call":
            break
        text = part.text if part.kind == "text" else ""
        if answer.parts:
            begins = Part(kind="text") if part.kind == "text" else part
            found.append(Delta(kind="part", part=begins))
        found += [Delta(text=text[start : start + 5]) for start in range(0, len(text), 5)]
    return found


class Asked:
    """Doors with a model behind them."""

    def __init__(self, d: Doors, model: Model) -> None:
        self.d = d
        self.w = d.w
        self.model = model
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{d.port}")

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        async with self.session.post(path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def stream(self, path: str, body: Any) -> list[Any]:
        """The data of its events, parsed; a name goes before."""
        async with self.session.post(path, json=body) as response:
            assert response.content_type == "text/event-stream", await response.text()
            return events(await response.read())


def events(raw: bytes) -> list[Any]:
    found = []
    for block in raw.decode().split("\n\n"):
        data = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
        if data:
            found.append("[DONE]" if data == ["[DONE]"] else json.loads("".join(data)))
    return found


@contextlib.asynccontextmanager
async def asked(
    folder: Path, *turns: ModelAnswer | Exception, **fields: Any
) -> AsyncIterator[Asked]:
    folder.mkdir(exist_ok=True)
    tools, memory = fields.pop("tools", {}), fields.pop("memory", MemorySettings())
    manifest = AgentManifest(name="clerk", models={"default": FREE}, tools=tools, memory=memory)
    async with doors(folder, manifest=manifest, **fields) as d:
        model = Model(*turns)
        driver: Any = d.w.kernel.gate.kinds[CallKind.MODEL].driver
        driver._ports.provider = lambda run, name: model
        a = Asked(d, model)
        try:
            yield a
        finally:
            await a.session.close()
