"""A compensation of an isolated agent: in a sandbox of its own, by the code of then, with its
manifest's egress and credentials; and that of an MCP server.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from egress_world import Server
from reaching_world import at_work, reachable

from ring0.errors import ManifestInvalid
from ring0.identity import Vault
from ring0.kernel.kernel import Kernel
from ring0.runtime import Runtime
from ring0.tools.mcp import Server as McpServer
from ring0.tools.mcp import pins, settings
from ring0.types import AgentManifest, CallKind, CallState, Grant, Run, RunState

CANARY = "canary-of-the-undo-77x"
AGENT = """
import json, urllib.request
from ring0 import Context, agent, tool

def ask(path, **said):
    body = json.dumps(said).encode()
    with urllib.request.urlopen("https://localhost:PORT" + path, data=body, timeout=20) as answer:
        return json.loads(answer.read())

@tool(effect="once", reversal="compensable:refund", egress=["POST https://localhost:PORT/*"],
      secrets=["api"])
def charge(order: str, amount: int) -> dict:
    "Charges."
    return ask("/v1/charge", order=order, amount=amount)

@tool(effect="once", egress=["POST https://localhost:PORT/*"], secrets=["api"])
def refund(order: str, receipt: str) -> dict:
    "Refunds."
    return ask("/v1/refund", order=order, receipt=receipt)

@agent(tools=[charge, refund])
async def clerk(ctx: Context, task: str) -> str:
    return (await ctx.tool("charge", order="a", amount=1))["receipt"]
"""

SERVER = """
import json, sys, urllib.request

def schema(*names):
    return {"type": "object", "properties": {n: {"type": "string"} for n in names},
            "required": list(names), "additionalProperties": False}

TOOLS = [
    {"name": "pay", "description": "Pays.", "inputSchema": schema("order"),
     "outputSchema": schema("receipt")},
    {"name": "unpay", "description": "Pays back.", "inputSchema": schema("order", "receipt")},
    {"name": "unknowable", "description": "No.", "inputSchema": schema("order", "ticket")},
]

def answer(method, params):
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "bank", "version": "1"}}
    if method == "tools/list":
        return {"tools": TOOLS}
    body = json.dumps(params["arguments"]).encode()
    url = "https://localhost:PORT/v1/" + params["name"]
    with urllib.request.urlopen(url, data=body, timeout=20) as said:
        told = json.loads(said.read())
    return {"content": [{"type": "text", "text": json.dumps(told)}], "structuredContent": told}

for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        told = {"jsonrpc": "2.0", "id": asked["id"]}
        if asked["method"] in ("initialize", "tools/list", "tools/call"):
            told["result"] = answer(asked["method"], asked.get("params", {}))
        else:
            told["error"] = {"code": -32601, "message": "no such method"}
        print(json.dumps(told), flush=True)
"""


@contextlib.asynccontextmanager
async def bank(folder: Path) -> AsyncIterator[tuple[Kernel, Server, AgentManifest]]:
    """A kernel, a bank outside, and an agent with what it needs to reach it."""
    body = b'{"receipt": "R-1"}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    config = """
[credentials.api]
secret = "API"
use_for = "POST https://localhost:PORT/v1/*"
"""
    async with reachable(
        folder,
        lambda authority: Server(
            lambda _: answer % len(body) + body, authority.server(["localhost"])
        ),
        config,
    ) as (home, server):
        Vault(home).set("API", CANARY, 1)
        (folder / "agent.py").write_text(AGENT.replace("PORT", str(server.port)))
        grant = Grant(egress=(f"POST https://localhost:{server.port}/*",), secrets=("api",))
        manifest = AgentManifest(
            name="clerk",
            entry="agent.py:clerk",
            folder=str(folder),
            grants={"charge": grant, "refund": grant},
        )
        async with at_work(home) as kernel:
            yield kernel, server, manifest


async def test_a_function_of_an_isolated_agent_takes_back_in_a_sandbox_with_its_own_egress(
    tmp_path: Path,
) -> None:
    async with bank(tmp_path) as (kernel, server, manifest):
        row = await kernel.start(await kernel.describe(manifest), "order a 1", principal="alice")
        ended = await kernel.runs.wait(row.id)
        assert ended.state is RunState.DONE, await kernel.store.blob(ended.result)
        # What the file says now is another program: undo runs what ran then.
        (tmp_path / "agent.py").write_text("raise SystemExit('not this one')")
        (step,) = (await kernel.plan_undo(row.id)).steps
        assert step.args == {"order": "a", "receipt": "R-1"}
        undone = await kernel.undo(row.id, by="bob")
        assert undone.state is RunState.DONE, await kernel.store.blob(undone.result)
        heard = [request for request in server.heard if b"POST /v1/refund" in request]
        assert len(server.heard) == 2 and len(heard) == 1
        assert b'"receipt": "R-1"' in heard[0] and CANARY.encode() in heard[0]
        calls = await kernel.store.calls(undone.id)
        assert [(call.kind, call.state) for call in calls] == [
            (CallKind.TOOL, CallState.OK),
            (CallKind.EGRESS, CallState.OK),
        ]


async def start_paying(kernel: Kernel, server: Server, folder: Path, reversal: str) -> Run:
    """An agent that pays by an MCP server: it has ended."""
    (folder / "server.py").write_text(SERVER.replace("PORT", str(server.port)))
    config: dict[str, Any] = {
        "use": "mcp",
        "command": ["python", "server.py"],
        "egress": [f"POST https://localhost:{server.port}/*"],
        "secrets": ["api"],
        "operations": {"pay": {"reversal": reversal}},
    }
    apart = McpServer(
        "bank", settings.read("bank", config), folder, Runtime(), reach=kernel.runs.means.reach
    )
    pins.write(folder, {"bank": await apart.inspect(kernel.sandboxes)})
    (folder / "payer.py").write_text(PAYER)
    manifest = AgentManifest(
        name="payer", entry="payer.py:payer", folder=str(folder), tools={"bank": config}
    )
    row = await kernel.start(await kernel.describe(manifest), "order a", principal="alice")
    ended = await kernel.runs.wait(row.id)
    assert ended.state is RunState.DONE, await kernel.store.blob(ended.result)
    return ended


PAYER = """
from ring0 import Context, agent

@agent()
async def payer(ctx: Context, task: str) -> str:
    return (await ctx.tool("bank.pay", order="a"))["receipt"]
"""


async def test_a_call_of_an_mcp_server_is_taken_back_by_another_tool_of_it(tmp_path: Path) -> None:
    async with bank(tmp_path) as (kernel, server, _):
        row = await start_paying(kernel, server, tmp_path, "compensable:bank.unpay")
        (call,) = [c for c in await kernel.store.calls(row.id) if c.kind is CallKind.TOOL]
        assert b'"reversal":"compensable:bank.unpay"' in await kernel.store.blob(call.decision)
        undone = await kernel.undo(row.id, by="bob")
        assert undone.state is RunState.DONE, await kernel.store.blob(undone.result)
        heard = [request for request in server.heard if b"POST /v1/unpay" in request]
        assert len(heard) == 1 and b'{"order": "a", "receipt": "R-1"}' in heard[0]
        assert CANARY.encode() in heard[0]


async def test_an_mcp_servers_promise_of_its_results_tells_before_that_a_way_back_is_none(
    tmp_path: Path,
) -> None:
    async with bank(tmp_path) as (kernel, server, _):
        with pytest.raises(ManifestInvalid) as refused:
            await start_paying(kernel, server, tmp_path, "compensable:bank.unknowable")
        assert "ticket" in refused.value.why
        with pytest.raises(ManifestInvalid) as refused:
            await start_paying(kernel, server, tmp_path, "reversible")
        assert "nothing to put back" in refused.value.why
