"""Chat completions that come in pieces: a provider's read, a client's written."""

from __future__ import annotations

import io
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.models import sse
from ring0.models.base import Delta, ModelAnswer, ModelRequest
from ring0.models.dialects import About
from ring0.models.dialects.chat import answer as whole
from ring0.models.dialects.chat.answer import Function, Proposed, Usage
from ring0.models.dialects.chat.request import as_call
from ring0.models.names import NameMap
from ring0.models.wire import Size, decoded, native_of, one_line, unreadable

DONE: Final = b"[DONE]"


class _FunctionPiece(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallPiece(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _FunctionPiece | None = None


class _Piece(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallPiece] | None = None


class _Choice(msgspec.Struct):
    delta: _Piece | None = None
    finish_reason: str | None = None
    index: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    model: str | None = None
    usage: Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class _Call:
    """One that comes in pieces, as many as there may be."""

    def __init__(self) -> None:
        self.id = ""
        self.name = io.StringIO()
        self.arguments = io.StringIO()

    def whole(self) -> Proposed:
        function = Function(name=self.name.getvalue(), arguments=self.arguments.getvalue())
        return Proposed(function=function, id=self.id)


class ChatReader:
    """Puts a provider's pieces together."""

    def __init__(self, request: ModelRequest, model: str, names: NameMap) -> None:
        self._request, self._model, self._names = request, model, names
        self._events = sse.Events()
        self._text = io.StringIO()
        self._refusal = io.StringIO()
        self._calls: dict[tuple[int, int], _Call] = {}
        """By place, and in the order in which they came: some servers give each the first place."""
        self._newest: dict[int, tuple[int, int]] = {}
        self._finish = ""
        self._usage: Usage | None = None
        self._size = Size()
        self._done = False

    def feed(self, chunk: bytes) -> list[Delta]:
        found: list[Delta] = []
        for event in self._events.feed(chunk):
            if self._done:
                continue  # After its end a stream says nothing more.
            if event.data.strip() == DONE:
                self._done = True
                continue
            found += self._take(event.data)
        return found

    def end(self) -> ModelAnswer:
        if not (self._done or self._finish):
            raise unreadable("its stream was cut short")
        return whole.made(
            self._text.getvalue(),
            self._refusal.getvalue(),
            [self._calls[place].whole() for place in sorted(self._calls)],
            self._finish,
            None,
            self._usage,
            self._model,
            self._request,
            self._names,
        )

    def _take(self, data: bytes) -> list[Delta]:
        chunk = decoded(_decode, data)
        if chunk.error is not None:
            raise unreadable(f"its stream says: {one_line(str(chunk.error))}")
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        found: list[Delta] = []
        for choice in chunk.choices:
            if choice.index:
                raise unreadable("it has several choices, one was asked for")
            self._finish = choice.finish_reason or self._finish
            if choice.delta is not None:
                found += self._piece(choice.delta)
        return found

    def _piece(self, piece: _Piece) -> list[Delta]:
        self._size.grow(len(piece.content or "") + len(piece.refusal or ""))
        for call in piece.tool_calls or ():
            self._call(call)
        if piece.refusal:
            self._refusal.write(piece.refusal)
        if piece.content:
            self._text.write(piece.content)
            return [Delta(text=piece.content)]
        return []

    def _call(self, piece: _CallPiece) -> None:
        place = self._newest.get(piece.index)
        if place is None or (piece.id and self._calls[place].id not in ("", piece.id)):
            if len(self._calls) >= limits.MODEL_TOOL_CALLS_MAX:
                raise unreadable(f"it proposes more than {limits.MODEL_TOOL_CALLS_MAX} calls")
            place = self._newest[piece.index] = (piece.index, len(self._calls))
            self._calls[place] = _Call()
        call, function = self._calls[place], piece.function or _FunctionPiece()
        self._size.grow(len(function.name or "") + len(function.arguments or ""))
        call.id = piece.id or call.id
        call.name.write(function.name or "")
        call.arguments.write(function.arguments or "")


class ChatWriter:
    """Tells a client."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._head = {
            "id": f"chatcmpl-{about.id}",
            "object": "chat.completion.chunk",
            "created": about.created_s,
            "model": about.model,
        }
        self._sent = 0

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def delta(self, delta: Delta) -> bytes:
        if delta.kind != "text":
            return b""  # The dialect has no place for it.
        self._sent += len(delta.text)
        return self._chunk({"content": delta.text})

    def ping(self) -> bytes:
        return sse.PING

    def end(self, answer: ModelAnswer) -> bytes:
        found = b""
        if refusal := native_of(answer, "chat").get("refusal"):
            found += self._chunk({"refusal": refusal})
        elif rest := answer.text[self._sent :]:
            found += self._chunk({"content": rest})
        for index, call in enumerate(answer.tool_calls):
            found += self._chunk({"tool_calls": [{"index": index, **as_call(call, call.name)}]})
        found += self._chunk({}, whole.finish(answer))
        if self._about.asked.usage:
            found += sse.event({**self._head, "choices": [], "usage": whole.usage(answer)})
        return found + sse.event(DONE)

    def error(self, error: Ring0Error) -> bytes:
        return sse.event(whole.error(error, 500)) + sse.event(DONE)

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse.event({**self._head, "choices": [choice]})
