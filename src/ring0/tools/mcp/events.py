"""A stream of server-sent events, as it comes and when it is whole (WHATWG HTML, 9.2.6).

Only what MCP uses of it: data, and for going on where a stream ended, `id` and `retry`.
"""

from __future__ import annotations

import re
from typing import Final

from ring0 import limits

_ID: Final = re.compile(r"[\x20-\x7e]{0,256}")
_BOUNDARY: Final = re.compile(rb"\r\n|\n|\r")


class Stream:
    """What was heard of one stream so far. Bounded by whoever reads it."""

    def __init__(self, last_id: str = "", retry_ms: int = limits.MCP_RETRY_MS_DEFAULT) -> None:
        self.last_id = last_id
        """Of the last event that was whole; empty: it can't be gone on with."""
        self.retry_ms = retry_ms
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._id = last_id
        self._lines = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of each event that is whole now, empty ones left out. Raises ValueError for
        more lines than are looked at."""
        self._rest += piece
        found = []
        while (line := self._line()) is not None:
            self._lines += 1
            if self._lines > limits.MCP_STREAM_LINES_MAX:
                raise ValueError(f"a stream of more than {limits.MCP_STREAM_LINES_MAX:,} lines")
            if line:
                self._field(line)
                continue
            self.last_id = self._id
            data = b"\n".join(self._data)
            self._data.clear()
            if data.strip():
                found.append(data)
        return found

    def _line(self) -> bytes | None:
        end = _BOUNDARY.search(self._rest)
        # A carriage return at the very end: its line feed may be on its way.
        if end is None or (end.group() == b"\r" and end.end() == len(self._rest)):
            return None
        line = bytes(self._rest[: end.start()])
        del self._rest[: end.end()]
        return line

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"id" and _ID.fullmatch(text := value.decode("latin-1")):
            self._id = text
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_ms = int(value)


def whole(body: bytes) -> list[bytes]:
    """The data of each event of a finished stream, comments and empty ones left out. Raises
    ValueError."""
    found = Stream().feed(body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + b"\n\n")
    return found[: limits.MCP_NOTICES_PER_CALL_MAX + 1]
