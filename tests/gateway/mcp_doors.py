"""A run's MCP door, spoken to by the library's own client and by bytes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from gateway_world import Doors, doors

from mcp import Client

META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
LEGACY = "2025-11-25"


class Spoken:
    """One run's door."""

    def __init__(self, d: Doors) -> None:
        self.d = d
        self.w = d.w
        self.url = f"http://127.0.0.1:{d.port}/mcp"
        self.http = aiohttp.ClientSession()

    def client(self, mode: str = "auto", **more: Any) -> Client:
        return Client(self.url, mode=mode, cache=None, **more)

    async def post(self, body: Any, **headers: str) -> tuple[int, Any, Any]:
        """Status, headers, and the body: JSON, the messages of a stream, or None."""
        accept = {"Accept": "application/json, text/event-stream"}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **accept, **headers}
        async with self.http.post(self.url, data=raw, headers=sent) as answer:
            whole = await answer.read()
            if answer.content_type == "text/event-stream":
                return answer.status, answer.headers, events(whole)
            return answer.status, answer.headers, json.loads(whole) if whole else None

    async def modern(
        self, method: str, params: dict[str, Any] | None = None, *, number: Any = 1, **headers: str
    ) -> tuple[int, Any]:
        """A request of the stateless era, as a client makes it."""
        params = params or {}
        meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
        meta.update(params.get("_meta", {}))
        body = {
            "jsonrpc": "2.0",
            "id": number,
            "method": method,
            "params": {**params, "_meta": meta},
        }
        sent = {"Mcp-Protocol-Version": MODERN, "Mcp-Method": method, **headers}
        if (name := params.get("name") or params.get("uri")) and "Mcp-Name" not in headers:
            sent["Mcp-Name"] = name
        status, _, answer = await self.post(body, **sent)
        return status, answer

    async def session(self, version: str = LEGACY, **capabilities: Any) -> Session:
        params = {
            "protocolVersion": version,
            "capabilities": capabilities,
            "clientInfo": {"name": "a test", "version": "1"},
        }
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        status, headers, answer = await self.post(body)
        assert status == 200, answer
        return Session(self, headers["Mcp-Session-Id"], answer["result"])


class Session:
    """One of the handshake era."""

    def __init__(self, spoken: Spoken, name: str, told: Any) -> None:
        self.spoken = spoken
        self.name = name
        self.told = told

    async def ask(self, method: str, params: Any = None, number: Any = 1) -> Any:
        body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}
        _, _, answer = await self.send(body)
        return answer

    async def send(self, body: Any) -> tuple[int, Any, Any]:
        version = self.told["protocolVersion"]
        headers = {"Mcp-Session-Id": self.name, "Mcp-Protocol-Version": version}
        return await self.spoken.post(body, **headers)


def events(raw: bytes) -> list[Any]:
    found = []
    for block in raw.decode().split("\n\n"):
        data = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
        if data:
            found.append(json.loads("".join(data)))
    return found


@contextlib.asynccontextmanager
async def spoken(folder: Path, **fields: Any) -> AsyncIterator[Spoken]:
    folder.mkdir(exist_ok=True)
    async with doors(folder, **fields) as d:
        s = Spoken(d)
        try:
            yield s
        finally:
            await s.http.close()
