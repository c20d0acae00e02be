"""Hostile servers elsewhere: what they answer harms their call and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp_world import World, world

from ring0.errors import CallDenied, EffectUnknown, ManifestInvalid, ToolFailed
from ring0.tools.mcp.http import HttpAnswer

URL = "https://mcp.example.com/mcp"
CONFIG: dict[str, Any] = {"use": "mcp", "url": URL, "wall_s": 5}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


Behave = Callable[[dict[str, Any]], HttpAnswer | None]


class Fake:
    """A server that answers as a test says; a handshake-era one otherwise."""

    def __init__(self, behave: Behave | None = None) -> None:
        self.behave = behave
        self.sent: list[tuple[str, dict[str, str], Any]] = []

    async def __call__(
        self, method: str, url: str, headers: dict[str, str], body: bytes, **_: object
    ) -> HttpAnswer:
        value = json.loads(body) if body else {}
        self.sent.append((method, headers, value))
        if self.behave is not None and (said := self.behave(value)) is not None:
            return said
        match value.get("method"):
            case "initialize":
                result: Any = {
                    "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fake", "version": "1"},
                }  # fmt: skip
            case "tools/list":
                result = {"tools": [{"name": "act", "inputSchema": {"type": "object"}}]}
            case "tools/call":
                result = {"content": [{"type": "text", "text": "done"}]}
            case "ping":
                result = {}
            case _:
                return HttpAnswer(status=404 if "id" in value else 202, headers={}, body=b"")
        return answer({"jsonrpc": "2.0", "id": value["id"], "result": result})


def answer(value: Any, **headers: str) -> HttpAnswer:
    return HttpAnswer(
        status=200,
        headers={"content-type": "application/json", **headers},
        body=json.dumps(value).encode(),
    )


def calls(said: Callable[[dict[str, Any]], HttpAnswer]) -> Behave:
    return lambda value: said(value) if value.get("method") == "tools/call" else None


@pytest.mark.parametrize(
    "said",
    [
        calls(lambda v: HttpAnswer(status=500, headers={}, body=b"")),
        calls(lambda v: HttpAnswer(status=200, headers={"content-type": "text/html"}, body=b"<")),
        calls(lambda v: answer({"jsonrpc": "2.0", "id": 999, "result": {}})),
        calls(lambda v: answer([1, 2])),
        calls(lambda v: answer({"jsonrpc": "2.0", "id": v["id"], "result": {"content": 7}})),
        calls(
            lambda v: HttpAnswer(
                status=200, headers={"content-type": "text/event-stream"}, body=b"data: {\n\n" * 99
            )
        ),
        calls(lambda v: HttpAnswer(status=200, headers={"content-type": "application/json"},
                                   body=b"[" * 100_000)),
    ],
)  # fmt: skip
async def test_a_once_effect_without_a_usable_answer_is_unknown_and_the_next_call_works(
    here: World, said: Behave
) -> None:
    fake = Fake()
    await here.approve(CONFIG, send=fake)
    fake.behave = said
    with pytest.raises(EffectUnknown):
        await here.call("act")
    fake.behave = None
    assert await here.value("act") == "done"


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (401, {}, "credential"),
        (403, {}, "credential"),
        (307, {"location": "https://evil.example/\x1b[2J"}, "redirect is not followed"),
        (429, {}, "too often"),
    ],
)
async def test_a_refusal_by_http_is_a_clean_failure(
    here: World, status: int, headers: dict[str, str], why: str
) -> None:
    fake = Fake()
    await here.approve(CONFIG, send=fake)
    fake.behave = calls(lambda v: HttpAnswer(status=status, headers=headers, body=b""))
    with pytest.raises(ToolFailed, match=why) as refused:
        await here.call("act")
    assert "\x1b" not in str(refused.value)
    assert len({value.get("id") for _, _, value in fake.sent}) > 1


async def test_a_refusal_by_the_egress_is_a_clean_failure(here: World) -> None:
    fake = Fake()
    await here.approve(CONFIG, send=fake)

    def deny(value: dict[str, Any]) -> HttpAnswer:
        raise CallDenied("The address is private.", todo="Nothing.")

    def cut(value: dict[str, Any]) -> HttpAnswer:
        raise ToolFailed("The connection was lost.")

    fake.behave = calls(deny)
    with pytest.raises(ToolFailed, match="address is private"):
        await here.call("act")
    fake.behave = calls(cut)
    with pytest.raises(EffectUnknown, match="connection was lost"):
        await here.call("act")


async def test_a_session_that_the_server_forgot_begins_anew_for_the_next_call(here: World) -> None:
    fake = Fake()

    def named(value: dict[str, Any]) -> HttpAnswer | None:
        if value.get("method") != "initialize":
            return None
        fake.behave = None
        result = {"protocolVersion": "2025-11-25", "capabilities": {},
                  "serverInfo": {"name": "fake", "version": "1"}}  # fmt: skip
        return answer({"jsonrpc": "2.0", "id": value["id"], "result": result},
                      **{"mcp-session-id": "one"})  # fmt: skip

    await here.approve(CONFIG, send=fake)
    fake.behave = named
    assert await here.value("act") == "done"
    assert fake.sent[-1][1]["mcp-session-id"] == "one"
    fake.behave = calls(lambda v: HttpAnswer(status=404, headers={}, body=b""))
    with pytest.raises(EffectUnknown):
        await here.call("act")
    fake.behave = None
    assert await here.value("act") == "done"
    assert "mcp-session-id" not in fake.sent[-1][1]


async def test_a_session_name_cannot_smuggle_a_header(here: World) -> None:
    def named(value: dict[str, Any]) -> HttpAnswer | None:
        if value.get("method") != "initialize":
            return None
        return answer({"jsonrpc": "2.0", "id": value["id"], "result": {}},
                      **{"mcp-session-id": "x\r\nauthorization: y"})  # fmt: skip

    fake = Fake(named)
    with pytest.raises(ToolFailed, match="can't be used"):
        await here.inspect(CONFIG, send=fake)
    assert not any("authorization" in str(headers) for _, headers, _ in fake.sent)


async def test_without_egress_a_server_elsewhere_is_refused(here: World) -> None:
    await here.approve(CONFIG, send=Fake())
    with pytest.raises(ManifestInvalid, match="needs the network"):
        here.load(CONFIG)


async def test_many_events_before_the_answer_are_bounded(here: World) -> None:
    fake = Fake()
    await here.approve(CONFIG, send=fake)

    def events(count: int) -> Behave:
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}

        def said(value: dict[str, Any]) -> HttpAnswer:
            last = {"jsonrpc": "2.0", "id": value["id"],
                    "result": {"content": [{"type": "text", "text": "at last"}]}}  # fmt: skip
            body = b"".join(
                b"id: 1\r\ndata: " + json.dumps(m).encode() + b"\r\n\r\n"
                for m in [*[note] * count, last]
            )
            return HttpAnswer(
                status=200, headers={"content-type": "text/event-stream; x=y"}, body=body
            )

        return calls(said)

    fake.behave = events(100)
    assert await here.value("act") == "at last"
    fake.behave = events(5_000)
    with pytest.raises(EffectUnknown):
        await here.call("act")
