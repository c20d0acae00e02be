"""An MCP server is told of the span of the call that it carries out: `params._meta`, SEP-414."""

from __future__ import annotations

import json
from pathlib import Path

from kernel_world import world
from mcp_world import SERVER

from ring0.observability.telemetry import ids
from ring0.runtime import Runtime
from ring0.tools.mcp import Server, drivers, pins, settings

CONFIG = {"use": "mcp", "command": ["python", "server.py"], "wall_s": 20}
TELLS = SERVER.replace(
    'call(request, message["params"]["name"]',
    'text(request, json.dumps(message["params"].get("_meta", {}))); 0 and call(request, ""',
)


async def test_each_call_names_its_own_span_and_no_other_does(tmp_path: Path) -> None:
    assert TELLS != SERVER
    async with world(tmp_path / "home") as w:
        folder = tmp_path / "agent"
        folder.mkdir()
        (folder / "server.py").write_text(TELLS)
        server = Server("srv", settings.read("srv", CONFIG), folder, Runtime())
        pins.write(folder, {"srv": await server.inspect(w.kernel.sandboxes)})
        for driver in drivers("srv", CONFIG, folder, Runtime()):
            w.tool(driver)
        for number in (1, 2):
            outcome = await w.call("srv.echo", {"text": "x" * number})
            row = await w.row()
            told = json.loads(outcome.value)
            assert told["traceparent"] == ids.traceparent(row, f"{w.run.id}/0/{number}")
