"""The processes of `ring0 bench gateway`: a stub that answers at once, and a kernel with one run.

`python -m bench.gateway_sides stub`; `… kernel FOLDER STUB-PORT`. Each prints `port N` and works
until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from ring0.gateway.door import Door
from ring0.kernel.boot import open_kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.types import AgentManifest, Budget, ModelConfig

TEXT = "x" * 1_024
PIECES = 8
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
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _ready(runner.addresses[0][1])
    await asyncio.Event().wait()


async def _kernel(folder: Path, stub: int) -> None:
    async def agent(run: LiveRun) -> None:
        await asyncio.Event().wait()

    async def embed(run: LiveRun, function: Any) -> Any:
        return await function(run)

    kernel = await open_kernel(folder / "home", Runtime(), {}, embed=embed)
    model = ModelConfig(
        provider="openai",
        model="m",
        base_url=f"http://127.0.0.1:{stub}/v1",
        price_in_microusd_per_mtok=1,
        price_out_microusd_per_mtok=1,
    )
    budget = Budget(calls=10**6, tokens=10**9, cost_microusd=10**9, wall_s=3_600)
    manifest = AgentManifest(name="bench", models={"default": model}, budget=budget)
    row = await kernel.start_embedded(
        manifest, (), {"agent:bench": agent}, "ask", principal="bench"
    )
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    await Door(kernel.gate, kernel.gate.live[row.id], None).open(listener)
    _ready(listener.getsockname()[1])
    await asyncio.Event().wait()


def _ready(port: int) -> None:
    print("port", port, flush=True)


if __name__ == "__main__":
    uvloop.run(_stub() if sys.argv[1] == "stub" else _kernel(Path(sys.argv[2]), int(sys.argv[3])))
