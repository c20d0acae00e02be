"""A provider's response that comes in pieces, put together."""

from __future__ import annotations

import io
from typing import Any, Final

import msgspec

from ring0.models import sse
from ring0.models.base import Delta, ModelAnswer, ModelRequest, Part
from ring0.models.dialects.responses import answer as whole
from ring0.models.dialects.responses.answer import Body
from ring0.models.names import NameMap
from ring0.models.wire import Size, decoded, unreadable

_DONE: Final = b"[DONE]"


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    item: dict[str, Any] | None = None
    output_index: int = 0
    response: Body | None = None
    error: Any = None
    message: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class ResponsesReader:
    """Reads its events. What counts is each item as it is when it is done, and the end."""

    def __init__(self, request: ModelRequest, model: str, names: NameMap) -> None:
        self._request, self._model, self._names = request, model, names
        self._events = sse.Events()
        self._told = io.StringIO()
        self._items: dict[int, dict[str, Any]] = {}
        self._end: Body | None = None
        self._size = Size()

    def feed(self, chunk: bytes) -> list[Delta]:
        found: list[Delta] = []
        for event in self._events.feed(chunk):
            if self._end is None and event.data.strip() != _DONE:
                found += self._take(event.data)
        return found

    def end(self) -> ModelAnswer:
        if self._end is None:
            raise unreadable("its stream was cut short")
        items = [self._items[index] for index in sorted(self._items)] or self._end.output
        answer = whole.made(self._end, items, self._request, self._model, self._names)
        if not answer.text.startswith(self._told.getvalue()):
            raise unreadable("its pieces are not those of its text")
        return answer

    def _take(self, data: bytes) -> list[Delta]:
        event = decoded(_decode, data)
        match event.type:
            case "response.output_text.delta":
                return self._text(event.delta)
            case "response.output_item.added":
                return self._begun(event)
            case "response.output_item.done":
                return self._done(event, len(data))
            case "response.completed" | "response.incomplete" | "response.failed":
                self._end = event.response or Body(status="failed")
            case "error":
                said = event.message or event.error
                raise unreadable(f"its stream says: {whole.said_error(said)}")
        return []

    def _text(self, delta: Any) -> list[Delta]:
        if not isinstance(delta, str):
            raise unreadable("a piece of its text is none")
        if not delta:
            return []
        self._size.grow(len(delta))
        self._told.write(delta)
        return [Delta(text=delta)]

    def _begun(self, event: _Event) -> list[Delta]:
        item = event.item or {}
        if item.get("type") != "message":
            return []
        phase = item.get("phase")
        native = {"phase": phase} if isinstance(phase, str) else {}
        return [Delta(kind="part", part=Part(kind="text", native=native))]

    def _done(self, event: _Event, size: int) -> list[Delta]:
        item = event.item or {}
        self._size.grow(size)
        if self._items.setdefault(event.output_index, item) is not item:
            raise unreadable(f"its item {event.output_index} is done twice")
        if item.get("type") != "reasoning":
            return []
        return [Delta(kind="part", part=whole.thought(item, event.output_index))]
