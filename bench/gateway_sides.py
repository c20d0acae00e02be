"""The processes of `ring0 bench gateway`: a stub that answers at once, a model and an MCP server in
both eras; and a kernel with one run.

`python -m bench.gateway_sides stub`; `… kernel FOLDER STUB-PORT`, with `mcp` behind it for a run
that may use the server too. Each prints `port N` and works until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop
from aiohttp import web

from bench.gateway_mcp import MODERN
from ring0.gateway.door import Door
from ring0.kernel.boot import open_kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.types import AgentManifest, Budget, ModelConfig

TEXT = "x" * 1_024
PIECES = 8
ECHO: Final = {
    "name": "echo",
    "description": "Says the same each time.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}
FOR_NOW: Final = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
_USAGE = {"prompt_tokens": 256, "completion_tokens": 256, "total_tokens": 512}
_HEAD = {"id": "c", "created": 0, "model": "m"}


async def _stub() -> None:
    whole = json.dumps(
        {
            **_HEAD,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": TEXT},
                }
            ],
            "usage": _USAGE,
        }
    ).encode()

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}
        return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"

    size = len(TEXT) // PIECES
    pieces = [event({"role": "assistant", "content": ""})]
    pieces += [event({"content": TEXT[:size]}) for _ in range(PIECES)]
    pieces += [event({}, "stop"), b"data: [DONE]\n\n"]

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("stream"):
            return web.Response(body=whole, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_post("/mcp", _mcp)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _ready(runner.addresses[0][1])
    await asyncio.Event().wait()


async def _mcp(request: web.Request) -> web.Response:
    """A server without sessions: what it is asked it answers, and forgets."""
    asked = await request.json()
    if "id" not in asked:
        return web.Response(status=202)
    method = asked["method"]
    result: dict[str, Any] = {
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "stub", "version": "1"},
    }
    if method == "initialize":
        result["protocolVersion"] = asked["params"]["protocolVersion"]
    elif method == "server/discover":
        result |= {"supportedVersions": [MODERN], **FOR_NOW}
    elif method == "tools/list":
        result = {"tools": [ECHO], **FOR_NOW}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": TEXT}], "resultType": "complete"}
    body = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
    return web.json_response(body)


async def _kernel(folder: Path, stub: int, *, mcp: bool = False) -> None:
    async def agent(run: LiveRun) -> None:
        await asyncio.Event().wait()

    async def embed(run: LiveRun, function: Any) -> Any:
        return await function(run)

    home = folder / "home"
    home.mkdir()
    (home / "ring0.toml").write_text('[network]\nallow_private = ["127.0.0.0/8"]\n')
    kernel = await open_kernel(home, Runtime(), {}, embed=embed)
    model = ModelConfig(
        provider="openai",
        model="m",
        base_url=f"http://127.0.0.1:{stub}/v1",
        price_in_microusd_per_mtok=1,
        price_out_microusd_per_mtok=1,
    )
    budget = Budget(calls=10**6, tokens=10**9, cost_microusd=10**9, wall_s=3_600)
    tools = await _server(folder, stub, kernel.sandboxes) if mcp else {}
    manifest = AgentManifest(
        name="bench",
        models={"default": model},
        budget=budget,
        tools=tools,
        folder=str(folder),
    )
    row = await kernel.start_embedded(
        manifest, (), {"agent:bench": agent}, "ask", principal="bench"
    )
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    await Door(kernel.gate, kernel.gate.live[row.id], None).open(listener)
    _ready(listener.getsockname()[1])
    await asyncio.Event().wait()


async def _server(folder: Path, stub: int, sandboxes: Any) -> dict[str, Any]:
    """The stub as a server of the run's, approved (as `ring0 tools approve` does, without the
    kernel's rules of where one may reach)."""
    from ring0.tools.mcp import Server, pins, settings  # Much: a kernel without has none of it.
    from ring0.tools.mcp.http import HttpAnswer

    url = f"http://127.0.0.1:{stub}/mcp"
    config = {"use": "mcp", "url": url, "operations": {"echo": {"reads": True}}}
    async with aiohttp.ClientSession() as session:

        async def send(
            method: str, url: str, headers: dict[str, str], body: bytes, **_: object
        ) -> HttpAnswer:
            async with session.request(method, url, headers=headers, data=body) as answer:
                named = {name.lower(): value for name, value in answer.headers.items()}
                return HttpAnswer(status=answer.status, headers=named, body=await answer.read())

        there = Server("stub", settings.read("stub", config), folder, Runtime(), send=send)
        pins.write(folder, {"stub": await there.inspect(sandboxes)})
    return {"stub": config}


def _ready(port: int) -> None:
    print("port", port, flush=True)


if __name__ == "__main__":
    what, *more = sys.argv[1:]
    if what == "stub":
        uvloop.run(_stub())
    else:
        uvloop.run(_kernel(Path(more[0]), int(more[1]), mcp="mcp" in more[2:]))
