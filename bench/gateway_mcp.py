"""`ring0 bench gateway`, the MCP door: what it adds to a `tools/call`, in both eras.

The same server is asked directly and through the door in turn, a kilobyte each way; the tool reads
alone, so nobody is asked and nothing is written that waits for the disk.
"""

from __future__ import annotations

import time
from typing import Any

from bench.gateway_line import Headers, Line, added
from bench.rows import Row

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
CALLS = 1_000
WARM = 100
TEXT = "y" * 1_000
DIRECT, AT_DOOR = "echo", "stub__echo"
_META = "io.modelcontextprotocol/"
_ACCEPT = {"Accept": "application/json, text/event-stream"}


async def tools_call(stub: int, kernel: int) -> list[Row]:
    """Rows of both eras."""
    rows: list[Row] = []
    for era, version in (("stateless", MODERN), ("session", LEGACY)):
        times: dict[str, list[float]] = {"direct": [], "ring0": []}
        direct, own = await Line.open(stub), await Line.open(kernel)
        session = {} if version == MODERN else await _begun(own)
        for number in range(WARM + CALLS):
            found = {"direct": await _timed(direct, DIRECT, version, number, {})}
            found["ring0"] = await _timed(own, AT_DOOR, version, number, session)
            if number >= WARM:
                for name, took in found.items():
                    times[name].append(took)
        direct.close()
        own.close()
        rows += added(f"mcp.tools-call.{era}", times)
    return rows


async def _timed(line: Line, tool: str, version: str, number: int, session: Headers) -> float:
    # Each is a new one: what is asked again and again is a loop, and refused.
    params: dict[str, Any] = {"name": tool, "arguments": {"text": f"{version} {number} {TEXT}"}}
    headers = {**_ACCEPT, "Mcp-Protocol-Version": version, **session}
    if version == MODERN:
        params["_meta"] = {_META + "protocolVersion": version, _META + "clientCapabilities": {}}
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": tool}
    body = {"jsonrpc": "2.0", "id": number + 1, "method": "tools/call", "params": params}
    began = time.perf_counter()
    status, _, answer = await line.post("/mcp", body, headers)
    took = time.perf_counter() - began
    if status != 200 or b'"text":' not in answer or b'"isError":true' in answer:
        raise RuntimeError(f"the tool was not called: {status} {answer[:400]!r}")
    return took


async def _begun(line: Line) -> Headers:
    """A session at the door, and the header that names it."""
    told = {"protocolVersion": LEGACY, "capabilities": {}}
    told["clientInfo"] = {"name": "bench", "version": "1"}
    body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": told}
    status, headers, answer = await line.post("/mcp", body, _ACCEPT)
    if status != 200:
        raise RuntimeError(f"no session: {status} {answer[:400]!r}")
    return {"Mcp-Session-Id": headers["mcp-session-id"]}
