"""What Gemini says, in one piece or many, as our answer.

Everything from the provider is hostile: read strictly, bounded, never trusted to be what it says.
"""

from __future__ import annotations

import io
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import ModelFailed
from ring0.models.base import Delta, ModelAnswer, ModelRequest, Native, ToolCall
from ring0.models.names import NameMap
from ring0.models.wire import (
    Size,
    arguments,
    call_id,
    call_ids,
    count,
    decoded,
    one_line,
    part_of,
    tool_name,
    unreadable,
)

STOPS: Final = {
    "STOP": "end",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "filter",
    "RECITATION": "filter",
    "LANGUAGE": "filter",
    "BLOCKLIST": "filter",
    "PROHIBITED_CONTENT": "filter",
    "SPII": "filter",
    "IMAGE_SAFETY": "filter",
    "IMAGE_PROHIBITED_CONTENT": "filter",
    "IMAGE_RECITATION": "filter",
    "ESCALATION": "filter",
    "MODEL_ARMOR": "filter",
}
_BROKEN: Final = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
        "PUP_LIMITED_DISABLED",
    }
)
"""What it wrote is no answer."""
_AUDIO_EXTRA: Final = (7, 3)
"""What is heard costs up to 10/3 of what is read; no answer says which price it was."""


class _Call(msgspec.Struct, rename="camel"):
    name: str = ""
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")
    will_continue: bool = False


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int = 0


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Modality(msgspec.Struct, rename="camel"):
    modality: str = ""
    token_count: int = 0


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    prompt_tokens_details: list[_Modality] | None = None


class _Body(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class Gathered:
    """One answer, as far as it has come."""

    def __init__(self, request: ModelRequest, model: str, names: NameMap) -> None:
        self._request, self._model, self._names = request, model, names
        self._text, self._thoughts = io.StringIO(), io.StringIO()
        self._signatures: dict[str, str] = {}
        """By the call that each belongs to; empty: the text."""
        self._calls: list[ToolCall] = []
        self._taken = call_ids(request)
        self._usage = _Usage()
        self._finish = self._message = self._blocked = ""
        self._size = Size()

    def take(self, data: bytes) -> list[Delta]:
        """What one body brings. Raises ModelFailed."""
        body = decoded(_decode, data)
        if body.error is not None:
            raise unreadable(f"it says: {one_line(str(body.error))}")
        self._model = body.model_version or self._model
        if body.usage_metadata is not None:  # Of all so far; what is not said again stays.
            for name in _Usage.__struct_fields__:
                if (said := getattr(body.usage_metadata, name)) is not None:
                    setattr(self._usage, name, said)
        if body.prompt_feedback is not None:
            self._blocked = body.prompt_feedback.block_reason or self._blocked
        found: list[Delta] = []
        for candidate in body.candidates or ():
            if candidate.index:
                raise unreadable("it has several candidates, one was asked for")
            self._finish = candidate.finish_reason or self._finish
            self._message = candidate.finish_message or self._message
            for part in (candidate.content.parts or ()) if candidate.content else ():
                found += self._part(part)
        return found

    def end(self) -> ModelAnswer:
        """All of it. Raises ModelFailed where it was cut short, or is none."""
        if not (self._finish or self._blocked):
            raise unreadable("its answer was cut short: it does not say why it ends")
        text = self._text.getvalue()
        if self._finish in _BROKEN:
            raise _broken(f"{self._finish} {self._message}")
        if not (text or self._calls or self._blocked) and self._finish not in STOPS:
            raise _broken(f"It ended without a word: {self._finish} {self._message}")
        stop = "filter" if self._blocked else STOPS.get(self._finish, "end")
        native = {
            "finish_reason": one_line(self._finish),
            "block_reason": one_line(self._blocked),
            "thoughts": self._thoughts.getvalue(),
            "signatures": self._signatures,
        }
        return ModelAnswer(
            text=text,
            tool_calls=tuple(self._calls),
            model=one_line(self._model, limits.CALL_NAME_CHARS_MAX),
            stop="tools" if self._calls else stop,  # type: ignore[arg-type]
            native=Native(dialect="gemini", body={k: v for k, v in native.items() if v}),
            **self._counted(),
        )

    def _part(self, part: _Part) -> list[Delta]:
        signature = part.thought_signature or ""
        self._size.grow(len(part.text or "") + len(signature))
        if part.function_call is not None:
            self._call(part.function_call, signature)
            return []
        if signature:
            self._signatures[""] = signature
        if part.text is None and not signature:
            raise unreadable("it has a part that is neither text nor a call")
        if not part.text:
            return []
        if part.thought:
            self._thoughts.write(part.text)
            return []
        self._text.write(part.text)
        return [Delta(text=part.text)]

    def _call(self, said: _Call, signature: str) -> None:
        place = len(self._calls) + 1
        if place > limits.MODEL_TOOL_CALLS_MAX:
            raise unreadable(f"it proposes more than {limits.MODEL_TOOL_CALLS_MAX} calls")
        name = tool_name(self._names.back(said.name), f"its call {place}")
        if said.will_continue:
            raise unreadable(f"its call {place} is not whole")
        self._size.grow(len(said.args) + len(name))
        try:
            args = bytes(said.args).decode()
        except UnicodeDecodeError as error:
            raise unreadable(str(error)) from None
        call = ToolCall(
            id=call_id(said.id or "", self._taken),
            name=name,
            args={} if args == "null" else arguments(args, name),
        )
        self._taken.add(call.id)
        self._calls.append(call)
        if signature:
            self._signatures[call.id] = signature

    def _counted(self) -> dict[str, Any]:
        usage = self._usage
        said_in, said_out = usage.prompt_token_count, usage.candidates_token_count
        if said_in is not None:
            said_in += usage.tool_use_prompt_token_count or 0
        thoughts = usage.thoughts_token_count or 0
        told = self._text.tell() or self._calls
        if said_out is not None or (said_in is not None and not told):
            said_out = (said_out or 0) + thoughts  # Zeros are left out.
        tokens_in, guessed_in = count(said_in, self._request)
        tokens_out, guessed_out = count(said_out, self._size.chars)
        heard = sum(
            one.token_count
            for one in usage.prompt_tokens_details or ()
            if one.modality == "AUDIO" and 0 < one.token_count <= tokens_in
        )
        more, of = _AUDIO_EXTRA
        return {
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
            "estimated": guessed_in or guessed_out,
            "tokens_cached": part_of(usage.cached_content_token_count, tokens_in),
            "tokens_extra": -(-min(heard, tokens_in) * more // of),
            "tokens_reasoning": part_of(thoughts, tokens_out),
        }


def _broken(why: str) -> ModelFailed:
    return ModelFailed(
        "The model broke off its answer.",
        why=one_line(why),
        todo="ask again; if it stays, ask for less at once, or with plainer tools",
    )
