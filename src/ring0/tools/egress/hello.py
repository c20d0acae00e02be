"""The first message of TLS, read strictly: which host it names, and whether it hides another one.

Source: RFC 8446 (4.1.2), RFC 6066 (3), and the extension of encrypted hellos (ECH, 0xfe0d).
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from ring0 import limits
from ring0.tools.egress.refusals import malformed
from ring0.tools.egress.wire import Messages

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME = 0
_HIDDEN: Final = frozenset({0xFE0D, 0xFFCE, 0xFE08, 0xFE09, 0xFE0A, 0xFE0B, 0xFE0C, 0xFD00})
"""Encrypted hellos, in all the drafts that were ever shipped, and their outer extensions."""


class Hello(msgspec.Struct, frozen=True):
    """What a ClientHello says of where it is going."""

    name: str
    """The server's name as it was sent, in lower case; empty for none."""
    hides: bool
    """It holds an encrypted hello: the name may not be the real one."""
    raw: bytes
    """The records as they came: they are fed to TLS, or sent on."""


async def read_hello(messages: Messages) -> Hello:
    """Reads one ClientHello. Raises CallInvalid where it is none, Closed."""
    raw, message = b"", b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        header = await messages.take(5)
        kind, major, _, size = struct.unpack(">BBBH", header)
        if kind != _HANDSHAKE or major != 3 or not 0 < size <= limits.EGRESS_HELLO_SIZE_BYTES_MAX:
            raise malformed("What follows CONNECT is not TLS.")
        fragment = await messages.take(size)
        raw, message = raw + header + fragment, message + fragment
        if message[0] != _CLIENT_HELLO or len(raw) > limits.EGRESS_HELLO_SIZE_BYTES_MAX:
            raise malformed("What follows CONNECT is not a ClientHello.")
    if len(message) != 4 + int.from_bytes(message[1:4], "big"):
        raise malformed("Something is hidden behind the ClientHello.")
    name, hides = parse_hello(message[4:])
    return Hello(name, hides, raw)


def parse_hello(body: bytes) -> tuple[str, bool]:
    """The server's name and whether another is hidden, of a ClientHello without its header."""
    cursor = _Cursor(body)
    cursor.skip(2 + 32)
    cursor.vector(1)
    cursor.vector(2)
    cursor.vector(1)
    if cursor.at_end():
        return "", False
    extensions = _Cursor(cursor.vector(2))
    if not cursor.at_end():
        raise malformed("Its ClientHello is longer than it says.")
    name, hides, seen = "", False, set()
    while not extensions.at_end():
        kind = extensions.number(2)
        value = extensions.vector(2)
        if kind in seen:
            raise malformed("Its ClientHello says the same thing twice.")
        seen.add(kind)
        hides = hides or kind in _HIDDEN
        if kind == _SERVER_NAME:
            name = _server_name(value)
    return name, hides


def _server_name(value: bytes) -> str:
    names = _Cursor(value)
    entries = _Cursor(names.vector(2))
    if entries.number(1) != 0:
        raise malformed("Its ClientHello names a server in an unknown way.")
    name = entries.vector(2)
    if not entries.at_end() or not names.at_end():
        raise malformed("Its ClientHello names two servers.")
    if not name or not all(0x21 <= byte <= 0x7E for byte in name):
        raise malformed("Its ClientHello names a server with bytes that no name has.")
    return name.decode("ascii").lower()


class _Cursor:
    """Reads numbers and vectors of TLS. Raises CallInvalid at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def at_end(self) -> bool:
        return self._at == len(self._data)

    def skip(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise malformed("Its ClientHello is cut short.")
        self._at += count
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.skip(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes after their own length."""
        return self.skip(self.number(size))
