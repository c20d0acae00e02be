"""Whatever bytes a server sends, the wire takes them apart or breaks; nothing else is raised."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0.tools.mcp import wording
from ring0.tools.mcp.wire import Broken, Judge, Pipes

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)
_FIELDS = ("jsonrpc", "id", "method", "params", "result", "error")
_MESSAGE = st.dictionaries(
    st.sampled_from(_FIELDS),
    _JSON | st.sampled_from(["2.0", "tools/call", "notifications/message", "ping", 1]),
).map(lambda fields: {"jsonrpc": "2.0", **fields})


def asked() -> Judge:
    judge = Judge()
    judge.sent({"jsonrpc": "2.0", "id": 1, "method": "tools/call"})
    return judge


def check(line: bytes) -> None:
    judge = asked()
    try:
        message = judge.line(line)
    except Broken as broken:
        assert judge.broken == str(broken)
        assert not any(wording.hidden(letter) for letter in str(broken)), str(broken)
    else:
        assert message is None or not judge.broken


@given(st.binary(max_size=200))
def test_any_bytes(line: bytes) -> None:
    check(line)


@settings(max_examples=300)
@given(_MESSAGE)
def test_any_message(message: dict[str, Any]) -> None:
    check(json.dumps(message).encode())


@given(st.text())
def test_cleaned_text_holds_nothing_hidden(text: str) -> None:
    cleaned = wording.clean(text)
    assert not any(wording.hidden(letter) for letter in cleaned)
    assert wording.clean(cleaned) == cleaned


@given(st.text(max_size=80))
def test_every_name_becomes_one_that_ring0_can_use(text: str) -> None:
    assert wording.operation_name(text).isidentifier()


def test_an_answer_is_taken_once() -> None:
    judge = asked()
    line = b'{"jsonrpc": "2.0", "id": 1, "result": {}}'
    assert judge.line(line) is not None
    with pytest.raises(Broken):
        judge.line(line)


async def test_lines_are_the_same_however_they_are_cut() -> None:
    note = b'{"jsonrpc": "2.0", "method": "ping", "id": 7}\n'
    stream = b"noise\n" + note + b"\r\n" + note
    for size in (1, 2, 7, len(stream)):
        out = asyncio.StreamReader()
        for at in range(0, len(stream), size):
            out.feed_data(stream[at : at + size])
        out.feed_eof()
        pipes = Pipes(None, out, asyncio.StreamReader())  # type: ignore[arg-type]
        found = [await pipes._next() for _ in range(3)]
        assert [message is not None for message in found] == [True, True, False]


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{}] * 200_000},
        {"content": [1] * 200_000},
        {"content": [{"type": "text", "text": "", "annotations": {"audience": [{}] * 200_000}}]},
        {"tools": [{"name": "a", "inputSchema": {}, "icons": [{}] * 200_000}]},
    ],
)
def test_a_message_of_many_values_never_reaches_the_library(result: dict[str, Any]) -> None:
    # A message of 2 MiB would stop the kernel for 14 s, and take 3 GB of memory.
    judge = asked()
    with pytest.raises(Broken, match="more than 16384 values"):
        judge.line(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())


def test_a_large_structured_value_is_no_such_message() -> None:
    result = {"content": [], "structuredContent": {"rows": [[1, 2, 3]] * 50_000}}
    assert asked().line(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())
