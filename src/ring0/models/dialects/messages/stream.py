"""A provider's stream of one message, put together. (A client's is written in telling.py.)"""

from __future__ import annotations

import io
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import ModelFailed
from ring0.models import sse
from ring0.models.base import Delta, ModelAnswer, ModelRequest, Part
from ring0.models.dialects.messages import answer as whole
from ring0.models.dialects.messages.answer import Block, Ending, Usage
from ring0.models.dialects.messages.request import opaque_part
from ring0.models.names import NameMap
from ring0.models.wire import Size, one_line, unreadable

_JOINED: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}
"""Pieces that are put one behind the other, and the field that has them."""


class _Begun(msgspec.Struct):
    model: str | None = None
    usage: Usage | None = None


class _Event(msgspec.Struct):
    type: str
    message: _Begun | None = None
    index: int = -1
    content_block: msgspec.Raw = msgspec.Raw(b"")
    delta: dict[str, Any] = {}
    usage: Usage | None = None
    context_management: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class MessagesReader:
    """Puts a provider's pieces together: one block after the other."""

    def __init__(self, request: ModelRequest, model: str, names: NameMap) -> None:
        self._request, self._model, self._names = request, model, names
        self._events = sse.Events()
        self._blocks: list[Block] = []
        self._open: Block | None = None
        self._pieces: dict[str, io.StringIO] = {}
        """Of the open block, by field."""
        self._usage = Usage()
        self._ending = Ending()
        self._edits: dict[str, Any] | None = None
        self._size = Size()
        self._called = False
        """A tool call has begun: what follows it comes with the whole answer."""
        self._done = False

    def feed(self, chunk: bytes) -> list[Delta]:
        found: list[Delta] = []
        for event in self._events.feed(chunk):
            if not self._done:  # After its end a stream says nothing more.
                deltas = self._take(event.data)
                found += [] if self._called else deltas
        return found

    def end(self) -> ModelAnswer:
        if not self._done or self._open is not None:
            raise unreadable("its stream was cut short")
        return whole.made(
            self._blocks,
            self._ending,
            self._usage,
            self._edits,
            self._model,
            self._request,
            self._names,
        )

    def _take(self, data: bytes) -> list[Delta]:
        try:
            event = _decode(data)
            match event.type:
                case "message_start":
                    begun = event.message or _Begun()
                    self._model = begun.model or self._model
                    self._count(begun.usage)
                case "content_block_start":
                    return self._begin(event)
                case "content_block_delta":
                    return self._piece(event)
                case "content_block_stop":
                    return self._close(event)
                case "message_delta":
                    self._ending = msgspec.convert(event.delta, Ending)
                    self._edits = event.context_management or self._edits
                    self._count(event.usage)
                case "message_stop":
                    self._done = True
                case "error":
                    raise _broken(event.error)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise unreadable(str(error)) from None
        return []  # `ping`, and events of days to come.

    def _begin(self, event: _Event) -> list[Delta]:
        if self._open is not None or event.index != len(self._blocks):
            raise unreadable("its blocks do not come one after the other")
        if event.index >= limits.ANSWER_BLOCKS_MAX:
            raise unreadable(f"it has more than {limits.ANSWER_BLOCKS_MAX} blocks")
        self._size.grow(len(event.content_block))
        self._open, self._pieces = whole.block(event.content_block), {}
        self._called = self._called or self._open.type == "tool_use"
        if self._open.type != "text":
            return []
        begins = Delta(kind="part", part=Part(kind="text"))
        text = self._open.fields.get("text")
        return [begins, Delta(text=text)] if text and isinstance(text, str) else [begins]

    def _piece(self, event: _Event) -> list[Delta]:
        if self._open is None or event.index != len(self._blocks):
            raise unreadable("a piece belongs to no block")
        kind = event.delta.get("type")
        if kind == "citations_delta":
            self._size.grow(len(msgspec.json.encode(event.delta)))
            cited = self._open.fields.get("citations")
            if not isinstance(cited, list):
                cited = self._open.fields["citations"] = []
            cited.append(event.delta.get("citation"))
            return []
        field = _JOINED.get(kind) if isinstance(kind, str) else None
        if field is None:
            raise unreadable(f"it has a piece of the type {str(kind)[:80]!r}")
        piece = event.delta.get(field)
        if not isinstance(piece, str):
            raise unreadable(f"a {kind} has no {field}")
        self._size.grow(len(piece))
        self._pieces.setdefault(field, io.StringIO()).write(piece)
        if field == "text" and self._open.type == "text" and piece:
            return [Delta(text=piece)]
        return []

    def _close(self, event: _Event) -> list[Delta]:
        block = self._open
        if block is None or event.index != len(self._blocks):
            raise unreadable("a block ends that did not begin")
        for field, pieces in self._pieces.items():
            joined = pieces.getvalue()
            if field == "partial_json":
                _call_with(block, joined)
            else:
                before = block.fields.get(field)
                block.fields[field] = (before if isinstance(before, str) else "") + joined
        self._blocks.append(block)
        self._open = None
        if block.type in ("text", "tool_use"):
            return []
        return [Delta(kind="part", part=opaque_part(block.fields))]

    def _count(self, usage: Usage | None) -> None:
        """Counts are of all so far; what is not said again stays."""
        for name in Usage.__struct_fields__ if usage else ():
            if (said := getattr(usage, name)) is not None:
                setattr(self._usage, name, said)


def _call_with(block: Block, joined: str) -> None:
    """A tool's arguments; a tool of the provider's has them among its fields."""
    if block.type == "tool_use":
        block.input = joined or block.input
    elif joined:
        block.fields["input"] = msgspec.json.decode(joined, type=dict[str, Any])


def _broken(error: Any) -> ModelFailed:
    said = error if isinstance(error, dict) else {}
    what = ": ".join(str(said[key]) for key in ("type", "message") if said.get(key))
    return ModelFailed(
        "The model broke off its answer.",
        why=one_line(what) or "It does not say why.",
        todo="ask again; see the provider's status",
    )
