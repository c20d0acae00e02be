"""Our answer as a client's stream of one message. (A provider's is read in stream.py.)

Blocks come in their order. A text comes as it is said; what a model thinks, and a tool call, come
whole in one piece.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ring0.errors import Ring0Error
from ring0.models import sse
from ring0.models.base import Delta, ModelAnswer, Part
from ring0.models.dialects import About
from ring0.models.dialects.messages import answer as whole

_NOTHING_YET = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}


class MessagesWriter:
    """Tells a client."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._told = 0
        """Blocks that have ended."""
        self._open = False
        """A text block is being told."""
        self._chars = 0
        """Of the open one."""

    def begin(self) -> bytes:
        head = whole.head(self._about.model, self._about)
        message = {
            **head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _NOTHING_YET,
        }
        return _event("message_start", message=message)

    def delta(self, delta: Delta) -> bytes:
        if delta.kind == "text" and delta.text:
            return self._text(delta.text)
        if delta.kind != "part" or delta.part is None:
            return b""
        ended = self._close()
        if delta.part.kind == "opaque" and delta.part.name == "messages":
            return ended + self._block(delta.part.native)
        return ended

    def ping(self) -> bytes:
        return _event("ping")

    def end(self, answer: ModelAnswer) -> bytes:
        found, skipped, told = b"", 0, self._told
        for part in whole.shown(answer):
            if part.kind == "call":  # None was told before: they come whole, and decided.
                found += self._close() + self._block(whole.written(part, answer))
            elif skipped < told:
                skipped += 1
            elif part.kind == "text":
                found += self._rest(part)
            else:
                found += self._close() + self._block(whole.written(part, answer))
        found += self._close()
        found += _event(
            "message_delta",
            delta=whole.ended(answer),
            usage=whole.told_usage(answer),
            **whole.edits(answer),
        )
        return found + _event("message_stop")

    def error(self, error: Ring0Error) -> bytes:
        return sse.event(whole.error(error, 500), "error")

    def _rest(self, part: Part) -> bytes:
        """What was not told of a text."""
        rest = part.text[self._chars :]
        return (self._text(rest) if rest else b"") + self._close()

    def _text(self, text: str) -> bytes:
        found = b""
        if not self._open:
            empty = {"type": "text", "text": ""}
            found = _event("content_block_start", index=self._told, content_block=empty)
            self._open = True
        self._chars += len(text)
        return found + self._piece({"type": "text_delta", "text": text})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        found = _event("content_block_stop", index=self._told)
        self._told, self._open, self._chars = self._told + 1, False, 0
        return found

    def _block(self, block: dict[str, Any]) -> bytes:
        """One that comes whole."""
        begins, pieces = _in_pieces(block)
        found = _event("content_block_start", index=self._told, content_block=begins)
        found += b"".join(map(self._piece, pieces))
        found += _event("content_block_stop", index=self._told)
        self._told += 1
        return found

    def _piece(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._told, delta=delta)


def _in_pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How it begins, and what follows: as clients put it together."""
    match block["type"]:
        case "thinking":
            pieces = [{"type": "thinking_delta", "thinking": block.get("thinking", "")}]
            if signature := block.get("signature"):
                pieces.append({"type": "signature_delta", "signature": signature})
            return {**block, "thinking": "", "signature": ""}, pieces
        case "tool_use":
            args = msgspec.json.encode(block["input"]).decode()
            pieces = [{"type": "input_json_delta", "partial_json": args}]
            return {**block, "input": {}}, pieces
    return block, []


def _event(name: str, **fields: Any) -> bytes:
    return sse.event({"type": name, **fields}, name)
