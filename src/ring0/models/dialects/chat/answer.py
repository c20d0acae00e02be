"""A provider's chat completion as our answer, and our answer as a client's chat completion.

Everything from the provider is hostile: read strictly, bounded, never trusted to be what it says.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.models.base import ModelAnswer, ModelRequest, Native, ToolCall
from ring0.models.dialects import About
from ring0.models.dialects.chat.request import as_call
from ring0.models.names import NameMap
from ring0.models.wire import (
    arguments,
    call_id,
    call_ids,
    count,
    decoded,
    native_of,
    one_line,
    part_of,
    tool_name,
    unreadable,
)

STOPS: Final = {
    "stop": "end",
    "length": "length",
    "tool_calls": "tools",
    "function_call": "tools",
    "content_filter": "filter",
}
_STOPS_THERE: Final = {
    "end": "stop",
    "stop": "stop",
    "length": "length",
    "tools": "tool_calls",
    "filter": "content_filter",
}


class Function(msgspec.Struct):
    name: str
    arguments: str | None = None


class Proposed(msgspec.Struct):
    function: Function
    id: str = ""
    type: str = "function"


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Proposed] | None = None


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Reasoned(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoned | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: Usage | None = None


_decode = msgspec.json.Decoder(_Body).decode


def read(body: bytes, request: ModelRequest, model: str, names: NameMap) -> ModelAnswer:
    """Raises `ModelFailed` for what is not one."""
    parsed = decoded(_decode, body)
    if len(parsed.choices) != 1:
        raise unreadable(f"it has {len(parsed.choices)} choices, one was asked for")
    choice = parsed.choices[0]
    said = choice.message
    return made(
        said.content or "",
        said.refusal or "",
        said.tool_calls or [],
        choice.finish_reason or "",
        choice.logprobs,
        parsed.usage,
        parsed.model or model,
        request,
        names,
    )


def made(
    content: str,
    refusal: str,
    proposed: list[Proposed],
    finish: str,
    logprobs: dict[str, Any] | None,
    usage: Usage | None,
    model: str,
    request: ModelRequest,
    names: NameMap,
) -> ModelAnswer:
    """The answer of these pieces, however they came. Raises ModelFailed."""
    if len(proposed) > limits.MODEL_TOOL_CALLS_MAX:
        raise unreadable(f"it proposes more than {limits.MODEL_TOOL_CALLS_MAX} calls")
    if finish == "length" and proposed and not (proposed[-1].function.arguments or "").strip():
        raise unreadable("its last call was cut short")  # Not one without arguments.
    taken = call_ids(request)
    calls: list[ToolCall] = []
    for one in proposed:
        calls.append(_call(one, len(calls) + 1, names, taken))
        taken.add(calls[-1].id)
    text = content or refusal
    usage = usage or Usage()
    chars = len(text) + sum(_length(one) for one in proposed)
    tokens_in, guessed_in = count(usage.prompt_tokens, request)
    tokens_out, guessed_out = count(usage.completion_tokens, chars)
    cached = usage.prompt_tokens_details or _Cached()
    reasoned = usage.completion_tokens_details or _Reasoned()
    extra: dict[str, Any] = {"refusal": refusal} if refusal else {}
    extra |= {"logprobs": logprobs} if logprobs else {}
    return ModelAnswer(
        text=text,
        tool_calls=tuple(calls),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        model=one_line(model, limits.CALL_NAME_CHARS_MAX),
        estimated=guessed_in or guessed_out,
        stop="tools" if calls else STOPS.get(finish, "end"),  # type: ignore[arg-type]
        tokens_cached=part_of(cached.cached_tokens, tokens_in),
        tokens_reasoning=part_of(reasoned.reasoning_tokens, tokens_out),
        native=Native(dialect="chat", body=extra) if extra else None,
    )


def _call(call: Proposed, place: int, names: NameMap, taken: set[str]) -> ToolCall:
    if call.type != "function":
        raise unreadable(f"its call {place} is of the type {call.type!r}")
    name = tool_name(names.back(call.function.name), f"its call {place}")
    args = arguments(call.function.arguments, name)
    return ToolCall(id=call_id(call.id, taken), name=name, args=args)


def _length(call: Proposed) -> int:
    return len(call.function.name) + len(call.function.arguments or "")


# --- to a client -----------------------------------------------------------------------------


def write(answer: ModelAnswer, about: About) -> dict[str, Any]:
    native = native_of(answer, "chat")
    refusal = native.get("refusal")
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refusal or (answer.tool_calls and not answer.text) else answer.text,
        "refusal": refusal,
    }
    if answer.tool_calls:
        message["tool_calls"] = [as_call(call, call.name) for call in answer.tool_calls]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": native.get("logprobs"),
        "finish_reason": _STOPS_THERE[answer.stop],
    }
    return {
        "id": f"chatcmpl-{about.id}",
        "object": "chat.completion",
        "created": about.created_s,
        "model": answer.model,
        "choices": [choice],
        "usage": usage(answer),
    }


def usage(answer: ModelAnswer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.tokens_in,
        "completion_tokens": answer.tokens_out,
        "total_tokens": answer.tokens_in + answer.tokens_out,
        "prompt_tokens_details": {"cached_tokens": answer.tokens_cached},
        "completion_tokens_details": {"reasoning_tokens": answer.tokens_reasoning},
    }


def finish(answer: ModelAnswer) -> str:
    return _STOPS_THERE[answer.stop]


def error(failed: Ring0Error, status: int) -> dict[str, Any]:
    """As OpenAI's clients read it: the message has to say it all."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {
        "error": {"message": failed.as_line(), "type": kind, "param": None, "code": failed.code}
    }
