"""Bytes in and out of one connection, plain or with TLS ended here, and messages read from it.

Bounded in size by its callers' limits and in time by theirs: nothing here waits for a clock.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from ring0 import limits
from ring0.tools.egress.parse import (
    END_OF_HEAD,
    Framing,
    TooLarge,
    check_so_far,
    parse_chunk_size,
)
from ring0.tools.egress.refusals import malformed

_PIECE: Final = limits.EGRESS_PIECE_SIZE_BYTES


class Closed(ConnectionError):
    """The peer ended the connection where more was to come."""


class Wire(Protocol):
    """Bytes, whatever is beneath."""

    async def receive(self) -> bytes:
        """The next bytes; empty at the end."""
        ...

    async def send(self, data: bytes) -> None: ...


class PlainWire:
    """A stream of asyncio's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes:
        return await self._reader.read(_PIECE)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


class TlsWire:
    """The server's side of TLS over another wire, in memory: its first bytes were read already."""

    def __init__(self, beneath: Wire, context: ssl.SSLContext, first: bytes) -> None:
        self._beneath = beneath
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._in.write(first)

    async def handshake(self) -> None:
        """Raises ssl.SSLError, Closed."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    raise Closed("the handshake was cut off") from None
            except ssl.SSLError:
                await self._flush()  # The alert: so that the other side hears why.
                raise
        await self._flush()

    async def receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(_PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    return b""
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE):
            self._tls.write(data[at : at + _PIECE])
            await self._flush()

    async def end(self) -> None:
        """Says goodbye, so that the peer can tell an end from a cut."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # It waits for the peer's goodbye; ours is written.
        await self._flush()

    async def _flush(self) -> None:
        if data := self._out.read():
            await self._beneath.send(data)

    async def _feed(self) -> bool:
        data = await self._beneath.receive()
        if data:
            self._in.write(data)
        return bool(data)


class Messages:
    """Reads heads and bodies from a wire; what was read too far stays for the next one."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._buffer = bytearray()

    async def begin(self) -> bool:
        """Waits for the first byte of a message; False where there is none."""
        return bool(self._buffer) or await self._more()

    async def head(self) -> bytes:
        """A head without its empty line. Raises CallInvalid, Closed."""
        while (end := self._buffer.find(END_OF_HEAD)) < 0:
            check_so_far(bytes(self._buffer))
            if not await self._more():
                raise Closed("the head was cut off")
        head = bytes(self._buffer[:end])
        del self._buffer[: end + len(END_OF_HEAD)]
        return head

    async def body(self, framing: Framing, most: int, *, trailers: bool = False) -> bytes:
        """A body of at most `most` bytes. Raises CallInvalid, Closed.

        `trailers`: fields after the last chunk are read and dropped; otherwise they are refused.
        """
        if framing.chunked:
            return await self._chunks(most, trailers)
        if framing.until_close:
            while await self._more():
                if len(self._buffer) > most:
                    raise TooLarge(most)
            return self._take(len(self._buffer), most)
        return await self._exactly(framing.length, most)

    async def stream(self, framing: Framing, most: int, hear: Callable[[bytes], bool]) -> bytes:
        """A body as it comes: `hear` is given each piece, and says whether it has heard enough.
        Raises CallInvalid, Closed."""
        body = bytearray()
        async for piece in self._pieces(framing):
            body += piece
            if len(body) > most:
                raise TooLarge(most)
            if hear(piece):
                break
        return bytes(body)

    async def _pieces(self, framing: Framing) -> AsyncIterator[bytes]:
        if framing.chunked:
            while count := parse_chunk_size(await self._line()):
                if count > limits.EGRESS_BODY_SIZE_BYTES_MAX:
                    raise TooLarge(limits.EGRESS_BODY_SIZE_BYTES_MAX)
                yield await self._exactly(count, count)
                if await self._exactly(2, 2) != b"\r\n":
                    raise malformed("A chunk does not end where it says.")
            return  # Fields after the last chunk are nobody's.
        left = framing.length
        while left or framing.until_close:
            if not self._buffer and not await self._more():
                if framing.until_close:
                    return
                raise Closed("the body was cut off")
            count = len(self._buffer) if framing.until_close else min(left, len(self._buffer))
            left -= 0 if framing.until_close else count
            yield self._take(count, count)

    async def take(self, count: int) -> bytes:
        """Exactly `count` bytes, which the caller has bounded. Raises Closed."""
        return await self._exactly(count, count)

    def rest(self) -> bytes:
        """What was read and not yet used."""
        return self._take(len(self._buffer), len(self._buffer))

    async def _chunks(self, most: int, trailers: bool) -> bytes:
        body = bytearray()
        while count := parse_chunk_size(await self._line()):
            if len(body) + count > most:
                raise TooLarge(most)
            body += await self._exactly(count, count)
            if await self._exactly(2, 2) != b"\r\n":
                raise malformed("A chunk does not end where it says.")
        for _ in range(limits.EGRESS_HEADERS_MAX):
            if not await self._line():
                return bytes(body)
            if not trailers:
                break
        raise malformed("Fields stand after its last chunk.")

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > limits.EGRESS_LINE_SIZE_BYTES_MAX:
                raise malformed("A line is too long.")
            if not await self._more():
                raise Closed("the body was cut off")
        line = self._take(end + 1, limits.EGRESS_LINE_SIZE_BYTES_MAX + _PIECE)
        if not line.endswith(b"\r\n"):
            raise malformed("A line ends without a carriage return.")
        return line[:-2]

    async def _exactly(self, count: int, most: int) -> bytes:
        if count > most:
            raise TooLarge(most)
        while len(self._buffer) < count:
            if not await self._more():
                raise Closed("the body was cut off")
        return self._take(count, most)

    def _take(self, count: int, most: int) -> bytes:
        if count > most:
            raise TooLarge(most)
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> bool:
        data = await self._wire.receive()
        self._buffer += data
        return bool(data)
