"""Enemies of the MCP door: bytes that are no message, headers that lie, sessions of others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gateway_world import doors
from kernel_world import Doing
from mcp_doors import LEGACY, META, MODERN, spoken

from ring0 import limits
from ring0.identity.narrowing import Narrowed


def message(method: str = "ping", number: Any = 1, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, **more}


BAD = [
    b"",
    b"{",
    b"null",
    b"7",
    b'"tools/list"',
    b"[]",
    b'{"jsonrpc": "2.0"}',
    b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": NaN, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": null, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": true, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": 7}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "trick": 1}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "\\ud800"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "ping\xff"}',
    b'{"jsonrpc": "2.0", "id": 99999999999999999999999, "method": "ping"}',
    b"[" * 100_000,
    json.dumps(message(number="x" * 300)).encode(),
    json.dumps([message(), message()]).encode(),
]


@pytest.mark.parametrize("raw", BAD, ids=range(len(BAD)))
async def test_what_is_no_message_is_an_error_and_the_door_goes_on(
    tmp_path: Path, raw: bytes
) -> None:
    async with spoken(tmp_path) as s:
        session = await s.session()
        for headers in (
            {},
            {"Mcp-Session-Id": session.name},
            {"Mcp-Protocol-Version": MODERN, "Mcp-Method": "ping"},
        ):
            status, _, answer = await s.post(raw, **headers)
            assert status == 400 and answer["error"]["code"] in (-32700, -32600), answer
            assert "Traceback" not in answer["error"]["message"]
        assert await session.ask("ping") == {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Mcp-Method": "tools/list"}, -32020),
        ({"Mcp-Name": "other"}, -32020),
        ({"Mcp-Name": "=?base64?eA?="}, -32020),
        ({"Mcp-Name": "=?base64?///?="}, -32020),
        ({"Mcp-Protocol-Version": "2027-01-01"}, -32020),
        ({"Mcp-Protocol-Version": ""}, -32020),
        ({"Mcp-Protocol-Version": LEGACY}, -32600),
    ],
)
async def test_headers_that_say_something_else_than_the_body_are_refused(
    tmp_path: Path, headers: dict[str, str], code: int
) -> None:
    async with spoken(tmp_path) as s:
        tool = s.w.tool(Doing("pay"))
        status, answer = await s.modern("tools/call", {"name": "pay"}, **headers)
        assert (status, answer["error"]["code"]) == (400, code), answer
        status, answer = await s.modern(
            "tools/call", {"name": "pay", "_meta": {META + "protocolVersion": "2031-01-01"}}
        )
        assert (status, answer["error"]["code"]) == (400, -32020)
        assert tool.done == 0 and not await s.w.calls()


async def test_a_header_that_stands_twice_is_refused(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        tool = d.w.tool(Doing("pay"))
        meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
        body = message("tools/call", params={"name": "pay", "_meta": meta})
        extra = (
            f"Content-Type: application/json\r\nMcp-Protocol-Version: {MODERN}\r\n"
            "Mcp-Method: tools/call\r\nMcp-Name: pay\r\n"
        )
        fine = await d.ask("/mcp", body, extra=extra)
        assert fine.status == 200 and tool.done == 1
        for twice in ("Mcp-Name: other\r\n", "mcp-method: tools/list\r\n"):
            bad = await d.ask("/mcp", body, extra=extra + twice)
            assert bad.status == 400 and bad.json["error"]["code"] == -32020
        assert tool.done == 1


async def test_a_version_that_nobody_speaks_is_told_with_those_that_are(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        meta = {META + "protocolVersion": "v999"}
        headers = {"Mcp-Protocol-Version": "v999"}
        status, answer = await s.modern("server/discover", {"_meta": meta}, **headers)
        assert status == 400 and answer["error"]["data"] == {
            "supported": [MODERN],
            "requested": "v999",
        }
        for asked, told in (("2025-06-18", "2025-06-18"), ("2025-03-26",) * 2, ("v999", LEGACY)):
            assert (await s.session(asked)).told["protocolVersion"] == told


async def test_web_pages_and_other_hosts_are_kept_out(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        body = message("initialize", params={"protocolVersion": LEGACY, "capabilities": {}})
        kind = "Content-Type: application/json\r\n"

        async def ask(host: str, extra: str = "") -> int:
            line = await d.tcp()
            raw = json.dumps(body).encode()
            head = f"POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(raw)}\r\n"
            await line.send((head + kind + extra + "\r\n").encode() + raw)
            answer = await line.answer()
            await line.close()
            return answer.status

        for host in ("localhost", "127.0.0.1:7420", "LOCALHOST:1", "[::1]:7420"):
            assert await ask(host) == 200, host
            assert await ask(host, f"Origin: http://{host}\r\n") == 200
        for host in ("evil.example.com", "localhost.evil.com", "127.0.0.1.evil.com", "127.0.0.2"):
            assert await ask(host) == 403, host
            assert await ask("localhost", f"Origin: http://{host}\r\n") == 403
        for origin in ("null", "", "file://", "http://localhost@evil.com", "http://evil/localhost"):
            assert await ask("localhost", f"Origin: {origin}\r\n") == 403, origin


async def test_a_body_that_a_form_could_send_is_refused(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        tool = s.w.tool(Doing("pay"))
        call = {"name": "pay"}
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            status, answer = await s.modern("tools/call", call, **{"Content-Type": kind})
            assert (status, answer["error"]["code"]) == (400, -32600), answer
        assert tool.done == 0
        assert (await s.modern("tools/call", call))[0] == 200


async def test_a_session_is_of_one_run_and_ends_with_a_word(tmp_path: Path) -> None:
    async with spoken(tmp_path / "a") as a, spoken(tmp_path / "b") as b:
        session = await a.session()
        assert (await b.session()).name != session.name
        body = message("tools/list")
        status, _, _ = await b.post(body, **{"Mcp-Session-Id": session.name})
        assert status == 404
        assert (await a.post(body))[0] == 400  # Without one.
        async with a.http.delete(a.url, headers={"Mcp-Session-Id": session.name}) as ended:
            assert ended.status == 200
        assert (await session.send(body))[0] == 404
        async with a.http.delete(a.url, headers={"Mcp-Session-Id": session.name}) as again:
            assert again.status == 404


async def test_sessions_without_end_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_DOOR_SESSIONS_MAX", 3)
    async with spoken(tmp_path) as s:
        slow = s.w.tool(Doing("slow"))
        go = slow.hold()
        first = await s.session()
        busy = asyncio.ensure_future(first.ask("tools/call", {"name": "slow"}))
        await slow.begun.wait()
        others = [await s.session() for _ in range(5)]
        assert [(await o.send(message()))[0] for o in others] == [404, 404, 404, 200, 200]
        go.set()
        assert (await busy)["result"]["structuredContent"] == {"done": 1}


async def test_a_dead_run_is_told_nothing(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        s.w.tool(Doing("look"))
        session = await s.session()
        s.w.kernel.gate.handles.kill(s.w.run.id)
        for method in ("tools/list", "ping", "tools/call"):
            answer = await session.ask(method, {"name": "look"})
            assert answer["error"]["data"]["ring0"]["code"] == "run_dead"
        status, _, answer = await s.post(message("initialize"))
        assert status == 400 and answer["error"]["data"]["ring0"]["code"] == "run_dead"
        _, answer = await s.modern("server/discover")
        assert answer["error"]["data"]["ring0"]["code"] == "run_dead"


async def test_the_list_of_tools_is_what_the_run_may_use_in_stable_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_DOOR_PAGE_ITEMS_MAX", 4)
    async with spoken(tmp_path) as s:
        s.w.run.narrowed = Narrowed([("tool:t.*",)])
        for number in (7, 1, 9, 3, 5, 2, 8, 4, 6):
            s.w.tool(Doing(f"t.n{number}"))
        s.w.tool(Doing("secret"))
        session = await s.session()
        pages, cursor = [], None
        while True:
            result = (await session.ask("tools/list", {"cursor": cursor} if cursor else {}))[
                "result"
            ]
            pages.append([tool["name"] for tool in result["tools"]])
            cursor = result.get("nextCursor")
            if not cursor:
                break
            del s.w.run.tools[f"t.n{len(pages)}"]  # What was told already goes away.
        assert pages == [[f"t__n{n}" for n in some] for some in ((1, 2, 3, 4), (5, 6, 7, 8), (9,))]
        for bad in ("!", "é", 7, "x" * 9):
            answer = await session.ask("tools/list", {"cursor": bad})
            assert answer["error"]["code"] == -32602
        answer = await session.ask("tools/call", {"name": "secret"})
        assert answer["error"]["code"] == -32602
        (call,) = await s.w.calls()
        assert (call.name, call.state) == ("secret", "refused")


async def test_names_that_nobody_gave_reach_no_tool(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        tool = s.w.tool(Doing("crm.query"))
        session = await s.session()
        for name in ("crm", "crm__Query", "mcp__ring0__crm__query", "crm__query\0", " crm__query"):
            answer = await session.ask("tools/call", {"name": name})
            assert answer["error"]["code"] == -32602, name
        for params in ({}, {"name": 7}, {"name": "crm__query", "arguments": []}):
            assert (await session.ask("tools/call", params))["error"]["code"] == -32602
        assert tool.done == 0
        # Its own name is as good as the door's.
        assert "result" in await session.ask("tools/call", {"name": "crm.query"})


async def test_arguments_that_do_not_fit_are_told_to_the_model(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        s.w.tool(Doing("look"))
        session = await s.session()
        answer = await session.ask("tools/call", {"name": "look", "arguments": {"nope": 1}})
        assert answer["result"]["isError"] and "nope" in answer["result"]["content"][0]["text"]


async def test_one_stream_a_session_and_none_without(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        session = await s.session()
        stream = {"Accept": "text/event-stream", "Mcp-Session-Id": session.name}
        async with s.http.get(s.url, headers=stream) as first:
            assert first.status == 200 and first.content_type == "text/event-stream"
            assert (await first.content.readline()).startswith(b":")
            async with s.http.get(s.url, headers=stream) as second:
                assert second.status == 409
            await s.http.delete(s.url, headers={"Mcp-Session-Id": session.name})
            async with asyncio.timeout(5):
                await first.content.read()  # It ends with the session.
        for headers, status in (
            ({"Accept": "text/event-stream"}, 405),
            ({"Accept": "text/event-stream", "Mcp-Session-Id": "x"}, 404),
        ):
            async with s.http.get(s.url, headers=headers) as answer:
                assert answer.status == status
