"""The parser under hypothesis: any bytes are one message or none, never two."""

from __future__ import annotations

import asyncio

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0 import limits
from ring0.errors import CallInvalid, Ring0Error
from ring0.tools.egress.parse import (
    Framing,
    check_so_far,
    one,
    parse_answer,
    parse_request,
    request_framing,
)
from ring0.tools.egress.wire import Closed, Messages

PIECES = [
    b"GET", b"POST", b" ", b"/", b"http://a.test/", b" HTTP/1.1", b"\r\n", b"\n", b"\r", b"\x00",
    b"Host: a.test", b"Content-Length: 3", b"Content-Length: 4", b"Content-Length:", b"0", b"3",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"transfer-encoding: x", b":",
    b"\t", b"X: y", b"abc", b"0\r\n\r\n", b"3\r\nabc\r\n", b";a", b"\x0b", b"\x85", b"\xff", b",",
    b"GET http://b.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n",
]  # fmt: skip
HOSTILE = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=20)


class Bytes:
    """A wire that brings bytes in pieces of the given sizes, then ends."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = sizes or [65_536]

    async def receive(self) -> bytes:
        size = self._sizes[0] if len(self._sizes) == 1 else self._sizes.pop(0)
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    async def send(self, data: bytes) -> None: ...


def read_all(data: bytes, sizes: list[int]) -> list[tuple[object, bytes]]:
    """All requests up to the first that is refused or cut off, with their bodies."""

    async def reading() -> list[tuple[object, bytes]]:
        messages, found = Messages(Bytes(data, list(sizes))), []
        try:
            while await messages.begin():
                head = parse_request(await messages.head())
                if one(head.fields, "host") is None:
                    break  # As the proxy has it.
                body = await messages.body(
                    request_framing(head), limits.EGRESS_REQUEST_SIZE_BYTES_MAX
                )
                found.append((head, body))
        except (CallInvalid, Closed):
            pass
        return found

    return asyncio.run(reading())


@settings(max_examples=400)
@given(HOSTILE.map(b"".join))
def test_any_bytes_are_a_head_or_are_refused_in_words(data):
    for read in (parse_request, parse_answer):
        try:
            head = read(data)
        except Ring0Error as error:
            assert error.why and error.todo
            continue
        for name, value in head.fields:
            assert name and not set(name + value) & set("\x00\r\n\x7f\x0b")


@settings(max_examples=400, deadline=None)
@given(HOSTILE.map(b"".join), st.lists(st.integers(1, 9), max_size=9))
def test_how_the_bytes_arrive_changes_nothing(pieces, sizes):
    data = b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n" + pieces
    assert read_all(data, [65_536]) == read_all(data, [*sizes, 3])


@settings(max_examples=600, deadline=None)
@given(HOSTILE.map(b"".join))
def test_what_is_taken_another_strict_parser_takes_in_the_same_way(pieces):
    """Where we see requests, h11 sees the very same ones: no byte of a body begins a request."""
    data = b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n" + pieces
    ours = read_all(data, [65_536])
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    for head, body in ours:
        theirs = peer.next_event()
        assert isinstance(theirs, h11.Request)
        assert theirs.method.decode() == head.method and theirs.target.decode() == head.target
        got = b""
        while not isinstance(event := peer.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data), event
            got += event.data
        assert got == body
        if peer.their_state is not h11.DONE:
            break
        peer.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        peer.send(h11.EndOfMessage())
        if peer.our_state is not h11.DONE:
            break
        peer.start_next_cycle()


@given(st.binary(max_size=60))
def test_chunks_are_joined_as_they_were_cut(body):
    sizes = [7, 1, 20]
    cut, at = b"", 0
    while at < len(body):
        piece = body[at : at + sizes[at % 3]]
        cut += b"%x\r\n" % len(piece) + piece + b"\r\n"
        at += len(piece)

    async def read() -> bytes:
        messages = Messages(Bytes(cut + b"0\r\n\r\n" + b"rest", [3]))
        joined = await messages.body(Framing(chunked=True), 100)
        assert await messages.take(4) == b"rest"
        return joined

    assert asyncio.run(read()) == body


@given(st.binary(max_size=80))
def test_a_head_that_begins_badly_is_refused_at_once(data):
    """What may still become good never holds a NUL or a line's end that is none."""
    try:
        check_so_far(data)
    except CallInvalid:
        return
    assert b"\x00" not in data
    assert data.count(b"\n") == data.count(b"\r\n")


def test_one_field_is_one_field():
    fields = (("Host", "a"), ("host", "b"))
    try:
        one(fields, "host")
    except CallInvalid as error:
        assert "more than one" in error.why
    else:
        raise AssertionError
    assert one(fields[:1], "host") == "a" and one(fields, "expect") is None
