"""`ring0 mcp`: the MCP door for clients that start a program."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing
from mcp.client.stdio import StdioServerParameters
from mcp_doors import LEGACY, MODERN, spoken

from mcp import Client
from ring0 import limits
from ring0.types import Effect, Operator


def shim(path: Path) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "ring0.sdk.mcp"],
        env={"RING0_DOOR": str(path), "PYTHONPATH": ":".join(filter(None, sys.path))},
    )


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_of_standard_streams_gets_through_in_either_era(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_PING_S", 0.05)
    monkeypatch.setattr(limits, "MCP_DOOR_POLL_S", 0.2)
    async with spoken(tmp_path) as s:
        s.w.tool(Doing("crm.query", act=lambda args, _: {"rows": [args["text"]]}))
        s.w.tool(Doing("pay", effect=Effect.ONCE, mutates=True, own=False))
        async with Client(shim(s.d.path), mode=mode, cache=None) as client:
            assert client.protocol_version == (LEGACY if mode == "legacy" else MODERN)
            assert [t.name for t in (await client.list_tools()).tools] == ["crm__query", "pay"]
            words = "grüße\n\u2028 {}"
            answer = await client.call_tool("crm__query", {"text": words})
            assert answer.structured_content == {"rows": [words]}
            asking = asyncio.ensure_future(client.call_tool("pay", {}))
            approval = await s.w.pending()
            other = await client.call_tool("crm__query", {"text": "meanwhile"})
            assert other.structured_content == {"rows": ["meanwhile"]}
            await asyncio.sleep(0.3)
            await s.w.kernel.answer(approval.id, yes=True, by=Operator(name="ada"))
            assert (await asking).structured_content == {"done": 1}


async def test_what_is_no_message_is_told_and_what_follows_is_answered(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        given = shim(s.d.path)
        process = await asyncio.create_subprocess_exec(
            given.command, *given.args, env=given.env,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        ping = {"jsonrpc": "2.0", "id": 9, "method": "initialize",
                "params": {"protocolVersion": LEGACY, "capabilities": {}}}  # fmt: skip
        odd = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": [1]}
        broken, half = (
            {"jsonrpc": "2.0", "id": number, "method": "ping",
             "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": version}}}
            for number, version in ((8, "a\r\nb: c"), (7, "\ud800"))
        )  # fmt: skip
        lines = b"garbage\n[]\n\n\xff\xfe\n"
        lines += b"".join(json.dumps(one).encode() + b"\n" for one in (odd, broken, half, ping))
        out, _ = await asyncio.wait_for(process.communicate(lines), 20)
        said = [json.loads(line) for line in out.splitlines()]
        assert [one.get("id") for one in said[:3]] == [None, None, None]
        assert all("error" in one for one in said[:3])
        by_id = {one["id"]: one for one in said[3:]}
        assert "error" in by_id[8] and "error" in by_id[None] and "result" in by_id[9]


async def test_a_door_that_is_gone_is_an_error_and_no_silence(tmp_path: Path) -> None:
    given = shim(tmp_path / "nothing.sock")
    process = await asyncio.create_subprocess_exec(
        given.command, *given.args, env=given.env,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    ask = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    out, _ = await asyncio.wait_for(process.communicate(json.dumps(ask).encode() + b"\n"), 20)
    (answer,) = [json.loads(line) for line in out.splitlines()]
    assert answer["id"] == 1 and "does not answer" in answer["error"]["message"]


async def opened(path: Path) -> asyncio.subprocess.Process:
    """A shim whose session listens, as every client of the handshake era's does."""
    given = shim(path)
    process = await asyncio.create_subprocess_exec(
        given.command, *given.args, env=given.env,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    hello = {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    }
    await tell(process, {"id": 1, "method": "initialize", "params": hello})
    assert process.stdout is not None
    assert b"protocolVersion" in await asyncio.wait_for(process.stdout.readline(), 20)
    await tell(process, {"method": "notifications/initialized"})
    return process


async def tell(process: asyncio.subprocess.Process, message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    await process.stdin.drain()


async def test_it_ends_when_its_input_does_though_its_session_listens(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        process = await opened(s.d.path)
        await tell(process, {"id": 2, "method": "ping"})
        assert process.stdin is not None
        process.stdin.close()
        out = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0 and json.loads(out[0])["id"] == 2


async def test_a_call_that_waits_for_a_person_does_not_keep_it_and_goes_on(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        s.w.tool(Doing("pay", effect=Effect.ONCE, mutates=True, own=False))
        process = await opened(s.d.path)
        await tell(process, {"id": 2, "method": "tools/call", "params": {"name": "pay"}})
        approval = await s.w.pending()
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 20) == 0
        await s.w.kernel.answer(approval.id, yes=True, by=Operator(name="ada"))


async def test_it_ends_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        reads, writes = os.pipe()
        given = shim(s.d.path)
        process = await asyncio.create_subprocess_exec(
            given.command, *given.args, env=given.env, stdin=asyncio.subprocess.PIPE, stdout=writes
        )
        os.close(writes)
        os.close(reads)
        await tell(process, {"id": 2, "method": "ping"})
        await asyncio.wait_for(process.wait(), 20)


async def test_what_comes_from_a_file_is_answered(tmp_path: Path) -> None:
    (tmp_path / "asked").write_text('{"jsonrpc": "2.0", "id": 3, "method": "ping"}\n')
    async with spoken(tmp_path) as s:
        given = shim(s.d.path)
        with open(tmp_path / "asked") as asked:
            process = await asyncio.create_subprocess_exec(
                given.command, *given.args, env=given.env,
                stdin=asked, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 20)
        assert json.loads(out)["id"] == 3
