"""A provider's message as our answer, and our answer as a client's message.

Everything from the provider is hostile: read strictly, bounded, never trusted to be what it says.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.models.base import ModelAnswer, ModelRequest, Native, Part, ToolCall
from ring0.models.dialects import About
from ring0.models.dialects.messages.request import ThreadRefused, opaque_part, text_part
from ring0.models.names import NameMap
from ring0.models.wire import (
    arguments,
    call_id,
    call_ids,
    count,
    native_of,
    one_line,
    part_of,
    tool_name,
    unreadable,
)

STOPS: Final = {
    "end_turn": "end",
    "pause_turn": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop",
    "tool_use": "tools",
    "refusal": "filter",
}
_STOPS_THERE: Final = {
    "end": "end_turn",
    "length": "max_tokens",
    "stop": "stop_sequence",
    "tools": "tool_use",
    "filter": "refusal",
}
_OPAQUE: Final = frozenset(
    {
        "thinking",
        "redacted_thinking",
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
        "container_upload",
    }
)
_ERRORS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}


class Written(msgspec.Struct):
    """What was kept for later."""

    ephemeral_1h_input_tokens: int | None = None


class Reasoned(msgspec.Struct):
    thinking_tokens: int | None = None


class Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: Written | None = None
    output_tokens_details: Reasoned | None = None


class Ending(msgspec.Struct):
    """How it ended."""

    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    content: list[msgspec.Raw]
    type: str = "message"
    model: str | None = None
    usage: Usage | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    context_management: dict[str, Any] | None = None


class _Use(msgspec.Struct):
    id: str
    name: str
    input: msgspec.Raw = msgspec.Raw(b"{}")


class Block(msgspec.Struct):
    """One block of an answer, whole."""

    type: str
    fields: dict[str, Any]
    """Of a tool call, without its `input`."""
    input: str = ""
    """Of a tool call: its JSON, as the model wrote it."""


def read(body: bytes, request: ModelRequest, model: str, names: NameMap) -> ModelAnswer:
    """Raises `ModelFailed` for what is not one."""
    try:
        found = msgspec.json.decode(body, type=_Body)
        blocks = [block(raw) for raw in found.content]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(str(error)) from None
    if found.type != "message":
        raise unreadable(f"it is of the type {found.type!r}")
    ending = Ending(found.stop_reason, found.stop_sequence, found.stop_details)
    return made(
        blocks,
        ending,
        found.usage or Usage(),
        found.context_management,
        found.model or model,
        request,
        names,
    )


def block(raw: msgspec.Raw) -> Block:
    """Raises msgspec's errors."""
    fields = msgspec.json.decode(raw, type=dict[str, Any])
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise msgspec.ValidationError("a block has no type")
    if kind != "tool_use":
        return Block(kind, fields)
    use = msgspec.json.decode(raw, type=_Use)
    return Block(kind, {"id": use.id, "name": use.name}, bytes(use.input).decode())


def made(
    blocks: list[Block],
    ending: Ending,
    usage: Usage,
    edits: dict[str, Any] | None,
    model: str,
    request: ModelRequest,
    names: NameMap,
) -> ModelAnswer:
    """The answer of these blocks, however they came. Raises ModelFailed."""
    parts, calls = _parts(blocks, request, names)
    last = blocks[-1].input.strip() if blocks and blocks[-1].type == "tool_use" else "whole"
    if last in ("", "{}") and STOPS.get(ending.stop_reason or "") == "length":
        raise unreadable("its last call was cut short")  # Not one without arguments.
    chars = sum(len(part.text) for part in parts) + sum(len(one.input) for one in blocks)
    read_before, kept = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    said_in = None if usage.input_tokens is None else usage.input_tokens + read_before + kept
    tokens_in, guessed_in = count(said_in, request)
    tokens_out, guessed_out = count(usage.output_tokens, chars)
    reason = ending.stop_reason or ""
    stop = "tools" if calls else STOPS.get(reason, "end")
    details = usage.output_tokens_details or Reasoned()
    native = {
        "stop_reason": reason,
        "stop_sequence": ending.stop_sequence,
        "stop_details": ending.stop_details,
        "context_management": edits,
        "cache_creation_input_tokens": part_of(kept, tokens_in),
    }
    return ModelAnswer(
        text="".join(part.text for part in parts if part.kind == "text"),
        tool_calls=tuple(calls),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        model=one_line(model, limits.CALL_NAME_CHARS_MAX),
        estimated=guessed_in or guessed_out,
        parts=tuple(parts),
        stop=stop,  # type: ignore[arg-type]
        tokens_cached=part_of(read_before, tokens_in),
        tokens_extra=_extra(usage, part_of(kept, tokens_in)),
        tokens_reasoning=part_of(details.thinking_tokens, tokens_out),
        native=Native(dialect="messages", body={k: v for k, v in native.items() if v}),
    )


def _parts(
    blocks: list[Block], request: ModelRequest, names: NameMap
) -> tuple[list[Part], list[ToolCall]]:
    if len(blocks) > limits.ANSWER_BLOCKS_MAX:
        raise unreadable(f"it has more than {limits.ANSWER_BLOCKS_MAX} blocks")
    parts: list[Part] = []
    calls: list[ToolCall] = []
    taken = call_ids(request)
    for one in blocks:
        if one.type == "text":
            if not isinstance(one.fields.get("text"), str):
                raise unreadable("a text block has no text")
            parts.append(text_part(one.fields))
        elif one.type == "tool_use":
            calls.append(_call(one, len(calls) + 1, names, taken))
            taken.add(calls[-1].id)
            parts.append(Part(kind="call", text=calls[-1].id))
        elif one.type in _OPAQUE:
            parts.append(opaque_part(one.fields))
        else:
            raise unreadable(f"it has a block of the type {one.type!r}")
    return parts, calls


def _call(one: Block, place: int, names: NameMap, taken: set[str]) -> ToolCall:
    if place > limits.MODEL_TOOL_CALLS_MAX:
        raise unreadable(f"it proposes more than {limits.MODEL_TOOL_CALLS_MAX} calls")
    name = tool_name(names.back(one.fields["name"]), f"its call {place}")
    return ToolCall(id=call_id(one.fields["id"], taken), name=name, args=arguments(one.input, name))


def _extra(usage: Usage, kept: int) -> int:
    """What is kept for five minutes costs a quarter more, for an hour as much again."""
    hour = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else 0
    hour = part_of(hour, kept)
    return -(-(kept - hour) // 4) + hour


# --- to a client -----------------------------------------------------------------------------


def write(answer: ModelAnswer, about: About) -> dict[str, Any]:
    return {
        **head(answer.model, about),
        "content": [written(part, answer) for part in shown(answer)],
        **ended(answer),
        "usage": told_usage(answer),
        **edits(answer),
    }


def head(model: str, about: About) -> dict[str, Any]:
    return {"id": f"msg_{about.id}", "type": "message", "role": "assistant", "model": model}


def shown(answer: ModelAnswer) -> list[Part]:
    """Its parts in their order, as far as the dialect has a word for them. A client's message is
    never empty where something was said."""
    parts = answer.parts or (
        Part(kind="text", text=answer.text),
        *(Part(kind="call", text=call.id) for call in answer.tool_calls),
    )
    return [
        part
        for part in parts
        if (part.kind == "text" and part.text)
        or part.kind == "call"
        or (part.kind == "opaque" and part.name == "messages")
    ]


def written(part: Part, answer: ModelAnswer) -> dict[str, Any]:
    """One block. A call is serialised anew."""
    if part.kind == "opaque":
        return part.native
    if part.kind == "call":
        call = next(one for one in answer.tool_calls if one.id == part.text)
        return {"type": "tool_use", "id": call.id, "name": call.name, "input": call.args}
    cited = part.native.get("citations") if part.name == "messages" else None
    return {"type": "text", "text": part.text, "citations": cited}


def ended(answer: ModelAnswer) -> dict[str, Any]:
    said = native_of(answer, "messages")
    reason = said.get("stop_reason", "")
    if STOPS.get(reason) != answer.stop:  # Calls of it may have been taken out since.
        reason = _STOPS_THERE[answer.stop]
    return {
        "stop_reason": reason,
        "stop_sequence": said.get("stop_sequence"),
        "stop_details": said.get("stop_details"),
    }


def edits(answer: ModelAnswer) -> dict[str, Any]:
    done = native_of(answer, "messages").get("context_management")
    return {"context_management": done} if done else {}


def told_usage(answer: ModelAnswer) -> dict[str, Any]:
    kept = part_of(
        native_of(answer, "messages").get("cache_creation_input_tokens"), answer.tokens_in
    )
    before = min(answer.tokens_cached, answer.tokens_in - kept)
    return {
        "input_tokens": answer.tokens_in - kept - before,
        "cache_creation_input_tokens": kept,
        "cache_read_input_tokens": before,
        "output_tokens": answer.tokens_out,
        "output_tokens_details": {"thinking_tokens": answer.tokens_reasoning},
    }


def error(failed: Ring0Error, status: int) -> dict[str, Any]:
    """As Anthropic's clients read it: the message has to say it all."""
    kind = _ERRORS.get(status, "invalid_request_error" if status < 500 else "api_error")
    body: dict[str, Any] = {"type": kind, "message": failed.as_line()}
    if isinstance(failed, ThreadRefused):  # Clients that hear this go on without one.
        body["details"] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return {"type": "error", "error": body}
