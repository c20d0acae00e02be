"""Streams of a server elsewhere: what ends before its answer is gone on with, and what is asked in
the midst of one is refused, or answered as the operator says."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from egress_world import World as EgressWorld
from egress_world import answer as raw_answer
from hypothesis import given
from hypothesis import strategies as st
from mcp_world import World, world

from ring0 import limits
from ring0.errors import EffectUnknown, ToolFailed
from ring0.tools.egress import canonical, parse_rule, split_url
from ring0.tools.mcp.events import Stream, whole
from ring0.tools.mcp.http import HttpAnswer

CONFIG: dict[str, Any] = {"use": "mcp", "url": "https://mcp.example.com/mcp", "wall_s": 5}
EVENTS = {"content-type": "text/event-stream"}
TOOL = {"name": "act", "inputSchema": {"type": "object"}}
FORM = {
    "type": "object",
    "properties": {"name": {"type": "string", "default": "Ada"}, "age": {"type": "integer"}},
}


class Far:
    """A server of 2025-11-25 whose answers to a call are pieces of streams."""

    def __init__(self) -> None:
        self.streams: list[tuple[bytes, ...]] = []
        """One for the call, then one for each time that it is gone on with."""
        self.lost = False
        """The call's connection breaks when its pieces are over."""
        self.gone_on: list[tuple[str, float]] = []
        """(Last-Event-ID, when)."""
        self.began = 0.0
        self.capabilities: dict[str, Any] = {}
        self.told: list[dict[str, Any]] = []
        """Answers of the client's."""
        self.call_id: Any = None
        self.calls: list[str] = []
        """In which call of a run each call of the tool came."""
        self.go_on = asyncio.Event()

    async def __call__(
        self, method: str, url: str, headers: dict[str, str], body: bytes, *,
        by: Any = None, hear: Callable[[bytes], bool] | None = None,
    ) -> HttpAnswer:  # fmt: skip
        if method == "GET":
            if "last-event-id" not in headers:
                return HttpAnswer(status=405, headers={}, body=b"")
            self.gone_on.append((headers["last-event-id"], asyncio.get_running_loop().time()))
            return await self._stream(hear) if self.streams else _status(404)
        if method == "DELETE":
            return _status(200)
        value = json.loads(body)
        if "method" not in value:
            self.told.append(value)
            self.go_on.set()
            return _status(202)
        said = {"capabilities": {"tools": {}}, "serverInfo": {"name": "far", "version": "1"}}
        if value["method"] == "initialize":
            self.capabilities = value["params"]["capabilities"]
            return _plain(value, {"protocolVersion": "2025-11-25", **said})
        if value["method"] == "tools/list":
            return _plain(value, {"tools": [TOOL]})
        if value["method"] == "tools/call":
            self.calls.append(by.call)
            self.call_id, self.began = value["id"], asyncio.get_running_loop().time()
            answer = await self._stream(hear)
            if self.lost:
                raise EffectUnknown("The connection was lost.")
            return answer
        return _status(202 if "id" not in value else 400)

    async def _stream(self, hear: Callable[[bytes], bool] | None) -> HttpAnswer:
        assert hear is not None
        body = b""
        for piece in self.streams.pop(0):
            piece = piece.replace(b"CALL", json.dumps(self.call_id).encode())
            body += piece
            if hear(piece):
                break
            if b"elicitation/create" in piece:
                await asyncio.wait_for(self.go_on.wait(), 2)
        return HttpAnswer(status=200, headers=EVENTS, body=body)


DONE = b'data: {"jsonrpc":"2.0","id":CALL,"result":{"content":[{"type":"text","text":"done"}]}}\n\n'
PRIMED = b"id: e1\nretry: 200\ndata: \n\n"


def _status(status: int) -> HttpAnswer:
    return HttpAnswer(status=status, headers={}, body=b"")


def _plain(value: dict[str, Any], result: dict[str, Any]) -> HttpAnswer:
    body = json.dumps({"jsonrpc": "2.0", "id": value["id"], "result": result}).encode()
    return HttpAnswer(status=200, headers={"content-type": "application/json"}, body=body)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_an_answer_whose_stream_ended_is_gone_on_with_when_the_server_says(
    here: World,
) -> None:
    far = Far()
    await here.approve(CONFIG, send=far)
    far.streams = [(PRIMED,), (b"id: e2\ndata: \n\n",), (DONE,)]
    assert await here.value("act") == "done"
    assert [name for name, _ in far.gone_on] == ["e1", "e2"]
    waits = [when for _, when in far.gone_on]
    assert waits[0] - far.began >= 0.2 and waits[1] - waits[0] >= 0.2


async def test_an_effect_whose_connection_broke_is_known_when_its_answer_comes_after_all(
    here: World,
) -> None:
    far = Far()
    await here.approve(CONFIG, send=far)
    far.streams, far.lost = [(PRIMED,), (DONE,)], True
    assert await here.value("act") == "done"
    assert far.gone_on[0][0] == "e1"


@pytest.mark.parametrize(
    ("first", "asked"),
    [
        (b"data: \n\n", 0),  # It can't be gone on with.
        (b"id: e1\nretry: 999999999\ndata: \n\n", 0),
        (b"id: e\x1b[2J\ndata: \n\n", 0),
        (b"id: e1\nretry: 1\ndata: \n", 0),  # The event is not whole.
        (b"id: e1\nretry: 1\ndata: \n\n", 1),
    ],
)
async def test_what_can_not_be_gone_on_with_is_cut_off(
    here: World, first: bytes, asked: int
) -> None:
    far = Far()
    await here.approve(CONFIG, send=far)
    far.streams = [(first,)]
    with pytest.raises(EffectUnknown):
        await here.call("act")
    assert len(far.gone_on) == asked


async def test_a_server_that_never_comes_to_its_answer_is_not_asked_for_ever(here: World) -> None:
    far = Far()
    await here.approve(CONFIG, send=far)
    far.streams = [(b"id: e1\nretry: 1\ndata: \n\n",)] * 100
    with pytest.raises(EffectUnknown):
        await here.call("act")
    assert len(far.gone_on) == limits.MCP_RETRIES_MAX


async def test_each_request_is_sent_for_the_call_that_it_is_in(here: World) -> None:
    """Whose token it gets, and whether that run is still somebody, is asked of that call."""
    far = Far()
    await here.approve(CONFIG, send=far)
    for call in ("r-1/0/1", "r-1/0/2"):
        far.streams = [(DONE,)]
        await here.call("act", call)
    assert far.calls == ["r-1/0/1", "r-1/0/2"]


ASKS = (
    b'data: {"jsonrpc":"2.0","id":"q1","method":"elicitation/create","params":'
    + json.dumps({"message": "Who?", "requestedSchema": FORM}).encode()
    + b"}\n\n"
)


async def test_what_a_server_asks_of_a_person_is_refused(here: World) -> None:
    far = Far()
    await here.approve(CONFIG, send=far)
    far.streams = [(ASKS.replace(b"elicitation/create", b"elicitation/creat\\u0065"), DONE)]
    assert await here.value("act") == "done"
    assert "elicitation" not in far.capabilities
    assert all("error" in said for said in far.told)


async def test_where_the_operator_says_so_it_is_answered_with_its_own_defaults(
    here: World,
) -> None:
    far = Far()
    await here.approve({**CONFIG, "answers": "defaults"}, send=far)
    far.streams = [(ASKS, DONE)]
    assert await here.value("act") == "done"
    assert "elicitation" in far.capabilities
    [said] = far.told
    assert said["id"] == "q1"
    assert said["result"] == {"action": "accept", "content": {"name": "Ada"}}


async def test_a_form_that_has_no_default_for_what_it_needs_is_declined(here: World) -> None:
    far = Far()
    await here.approve({**CONFIG, "answers": "defaults"}, send=far)
    needs = ASKS.replace(b'"type": "object"', b'"type": "object", "required": ["age"]')
    far.streams = [(needs, DONE)]
    assert await here.value("act") == "done"
    assert far.told[0]["result"]["action"] == "decline"


# --- events -------------------------------------------------------------------------------------


LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data: ", b"id: 1", b"id: 2", b"retry: 5", b"retry: x", b": c", b""]
)


@given(
    lines=st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=20),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_a_stream_says_the_same_however_it_is_cut(
    lines: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    body = b"".join(line + end for line, end in lines) + b"\n\n"
    at = sorted({0, *(min(cut, len(body)) for cut in cuts), len(body)})
    stream = Stream()
    heard = [event for a, b in itertools.pairwise(at) for event in stream.feed(body[a:b])]
    assert heard == whole(body)


def test_a_stream_of_nothing_but_lines_is_bounded() -> None:
    with pytest.raises(ValueError, match="lines"):
        whole(b"\n" * (limits.MCP_STREAM_LINES_MAX + 2))


async def test_a_flood_of_lines_breaks_the_call_alone(here: World) -> None:
    far = Far()
    await here.approve(CONFIG, send=far)
    far.streams = [(b"\n" * (limits.MCP_STREAM_LINES_MAX + 2),)]
    with pytest.raises((EffectUnknown, ToolFailed)):
        await here.call("act")
    far.streams = [(DONE,)]
    assert await here.value("act") == "done"


# --- the egress beneath -------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False], ids=["chunks", "until it closes"])
async def test_a_stream_is_read_until_enough_was_heard(chunked: bool) -> None:
    """The server keeps the connection open: nobody waits for its end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + framing + b"\r\n")
        for text in (b"data: 1\n\n", b"data: 2\n\n"):
            writer.write(b"%x\r\n%s\r\n" % (len(text), text) if chunked else text)
            await writer.drain()
            await asyncio.sleep(0.05)
        await reader.read()  # Until we go.
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/s"
    made = EgressWorld()
    heard: list[bytes] = []

    def hear(piece: bytes) -> bool:
        heard.append(piece)
        return b"2" in piece

    try:
        answer = await asyncio.wait_for(
            made.egress().send(
                canonical("GET", *split_url(url)), parse_rule(f"GET {url}", "test"), hear=hear
            ),
            5,
        )
        assert answer.body == b"".join(heard) == b"data: 1\n\ndata: 2\n\n"
    finally:
        server.close()
        await made.close()


async def test_what_is_no_stream_of_events_is_not_given_away_as_it_comes() -> None:
    made = EgressWorld()
    try:
        server = await made.server(raw_answer(b"secret", b"Content-Type: text/plain"), tls=False)
        url = f"http://127.0.0.1:{server.port}/"
        heard: list[bytes] = []
        answer = await made.egress().send(
            canonical("GET", *split_url(url)),
            parse_rule(f"GET {url}*", "test"),
            hear=lambda piece: bool(heard.append(piece)),
        )
        assert answer.body == b"secret" and not heard
    finally:
        await made.close()
