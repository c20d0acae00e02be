"""Server-sent events, read and written (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Read strictly and bounded; comments and unknown fields are skipped, `id` and `retry` mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from ring0 import limits
from ring0.models.wire import unreadable

PING: Final = b": ring0\n\n"


class Event(msgspec.Struct, frozen=True):
    """One event."""

    name: str
    """Empty: `message`."""
    data: bytes


class Events:
    """Cuts a stream of bytes into events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """Of a line that has not ended: each byte is looked at once, however it trickles in."""
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._total = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that have become whole. Raises ModelFailed for one without end."""
        self._total += len(chunk)
        if self._total > limits.MODEL_STREAM_SIZE_BYTES_MAX:
            raise unreadable(
                f"its stream is longer than {limits.MODEL_STREAM_SIZE_BYTES_MAX} bytes"
            )
        first, *others = chunk.split(b"\n")
        self._rest += first
        if len(self._rest) > limits.MODEL_ANSWER_SIZE_BYTES_MAX:
            raise unreadable("a line of its stream has no end")
        for follows in others:
            line, self._rest = bytes(self._rest).rstrip(b"\r"), bytearray(follows)
            if (event := self._line(line)) is not None:
                yield event

    @property
    def cut(self) -> bool:
        """The stream ended in the middle of an event."""
        return bool(self._rest or self._data)

    def _line(self, line: bytes) -> Event | None:
        if not line:
            if not self._data:
                self._name = ""
                return None
            event = Event(self._name, b"\n".join(self._data))
            self._name, self._data, self._size = "", [], 0
            return event
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > limits.MODEL_ANSWER_SIZE_BYTES_MAX:
                raise unreadable("an event of its stream is too large")
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None


def event(data: object, name: str = "") -> bytes:
    """One event whose data is JSON (or bytes, as they are)."""
    body = data if isinstance(data, bytes) else msgspec.json.encode(data)
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + body + b"\n\n"
