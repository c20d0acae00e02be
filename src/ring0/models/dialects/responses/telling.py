"""Our answer as the events of a client's stream, in the dialect's order.

Each event is numbered. What is told at the end is exactly what came before it in pieces.
"""

from __future__ import annotations

from typing import Any

from ring0.errors import Ring0Error
from ring0.models import sse
from ring0.models.base import Delta, ModelAnswer, Part, ToolCall
from ring0.models.dialects import About
from ring0.models.dialects.responses import answer as whole
from ring0.models.dialects.responses.request import customs


class ResponsesWriter:
    """Tells a client."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._customs = customs(about.asked.body)
        self._number = 0
        self._output: list[dict[str, Any]] = []
        """Items that are done."""
        self._text: list[str] | None = None
        """Of the message that is open; None: none is."""
        self._native: dict[str, Any] = {}
        """What is said beside the text of the message that is open, or opens next."""
        self._sent_chars = 0
        self._sent_parts = 0
        """Opaque ones."""

    def begin(self) -> bytes:
        head = whole.response(self._about, [], None)
        return self._event("response.created", response=head) + self._event(
            "response.in_progress", response=head
        )

    def delta(self, delta: Delta) -> bytes:
        if delta.kind == "text" and delta.text:
            self._sent_chars += len(delta.text)
            return self._say(delta.text)
        part = delta.part
        if part is None:
            return b""
        if part.kind == "text":
            found, self._native = self._close("completed"), {}
            if whole.is_ours(part):
                self._native = part.native
            return found
        if not whole.is_ours(part):
            return b""
        self._sent_parts += 1
        return self._opaque(part)

    def ping(self) -> bytes:
        return sse.PING

    def end(self, answer: ModelAnswer) -> bytes:
        found, state = b"", whole.status(answer)
        chars, parts = 0, 0
        for part, call in whole.pieces(answer):
            if part.kind == "text":
                said = max(0, self._sent_chars - chars)
                chars += len(part.text)
                found += self._rest(part, said)
            elif call is not None:
                found += self._close("completed") + self._call(part, call)
            else:
                parts += 1
                found += self._opaque(part) if parts > self._sent_parts else b""
        found += self._close(state)
        full = whole.response(self._about, self._output, answer)
        return found + self._event(f"response.{state}", response=full)

    def error(self, error: Ring0Error) -> bytes:
        failed = whole.response(self._about, self._output, None, "failed")
        failed["error"] = {"code": "server_error", "message": error.as_line()}
        return self._event("response.failed", response=failed)

    # --- messages -----------------------------------------------------------------------------

    def _rest(self, part: Part, said: int) -> bytes:
        """What of a text has not been told; `said` of its characters have."""
        if 0 < len(part.text) <= said:
            self._native = part.native if self._text is not None else self._native
            return b""
        found = b""
        if not said:
            found, self._native = self._close("completed"), part.native
        elif self._text is not None:
            self._native = part.native
        return found + self._say(part.text[said:])

    def _say(self, text: str) -> bytes:
        found = self._open() if self._text is None else b""
        assert self._text is not None
        self._text.append(text)
        if not text:
            return found
        where, kind = self._where(), "output_text"
        more: dict[str, Any] = {"logprobs": []}
        if self._native.get("refused"):
            kind, more = "refusal", {}
        return found + self._event(f"response.{kind}.delta", **where, delta=text, **more)

    def _open(self) -> bytes:
        self._text = []
        item = {**self._message("in_progress"), "content": []}
        return self._added(item) + self._event(
            "response.content_part.added",
            **self._where(),
            part=whole.content("", {**self._native, "annotations": []}),
        )

    def _close(self, state: str) -> bytes:
        if self._text is None:
            return b""
        item, where, text = self._message(state), self._where(), "".join(self._text)
        refused = self._native.get("refused")
        done = (
            self._event("response.refusal.done", **where, refusal=text)
            if refused
            else self._event("response.output_text.done", **where, text=text, logprobs=[])
        )
        found = done + self._event(
            "response.content_part.done", **where, part=whole.content(text, self._native)
        )
        self._text, self._native = None, {}
        return found + self._done(item)

    def _message(self, state: str) -> dict[str, Any]:
        part = Part(kind="text", text="".join(self._text or ()), native=self._native)
        return whole.item(part, None, self._customs, self._id(), state)

    # --- what comes whole ---------------------------------------------------------------------

    def _opaque(self, part: Part) -> bytes:
        found = self._close("completed")
        item = whole.item(part, None, self._customs, self._id(), "completed")
        bare = {**item, "summary": []} if item["type"] == "reasoning" else item
        found += self._added(bare)
        for number, one in enumerate(item["summary"] if item["type"] == "reasoning" else ()):
            found += self._summary(item["id"], number, one)
        return found + self._done(item)

    def _summary(self, item: str, number: int, one: dict[str, Any]) -> bytes:
        where = {"item_id": item, "output_index": len(self._output), "summary_index": number}
        name, text = "response.reasoning_summary", one.get("text", "")
        return (
            self._event(f"{name}_part.added", **where, part={**one, "text": ""})
            + self._event(f"{name}_text.delta", **where, delta=text)
            + self._event(f"{name}_text.done", **where, text=text)
            + self._event(f"{name}_part.done", **where, part=one)
        )

    def _call(self, part: Part, call: ToolCall) -> bytes:
        item = whole.item(part, call, self._customs, self._id(), "completed")
        where = {"item_id": item["id"], "output_index": len(self._output)}
        field, name, more = "arguments", "function_call_arguments", {"name": call.name}
        if item["type"] == "custom_tool_call":
            field, name, more = "input", "custom_tool_call_input", {}
        done = {field: item[field], **more}
        return (
            self._added({**item, field: "", "status": "in_progress"})
            + self._event(f"response.{name}.delta", **where, delta=item[field])
            + self._event(f"response.{name}.done", **where, **done)
            + self._done(item)
        )

    def _added(self, item: dict[str, Any]) -> bytes:
        return self._event("response.output_item.added", output_index=len(self._output), item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        self._output.append(item)
        index = len(self._output) - 1
        return self._event("response.output_item.done", output_index=index, item=item)

    # --- events -------------------------------------------------------------------------------

    def _id(self) -> str:
        return f"{self._about.id}_{len(self._output)}"

    def _where(self) -> dict[str, Any]:
        """The piece of content of the message that is open."""
        index = len(self._output)
        return {"item_id": f"msg_{self._id()}", "output_index": index, "content_index": 0}

    def _event(self, name: str, /, **data: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return sse.event({"type": name, "sequence_number": number, **data}, name)
