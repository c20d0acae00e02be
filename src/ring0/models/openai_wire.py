"""The chat completions dialect: our request as its JSON, its answer as ours. Bytes in, values out.

Everything from the provider is hostile: read strictly, bounded, never trusted to be what it says.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, Final

import msgspec

from ring0 import errors, limits
from ring0.models.base import (
    Message,
    ModelAnswer,
    ModelRequest,
    ToolCall,
    estimate_tokens,
)
from ring0.models.names import NameMap

TOOL_CALLS_MAX: Final = 64
ERROR_CHARS_MAX: Final = 300
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


# --- there -----------------------------------------------------------------------------------


def payload(request: ModelRequest, model: str, names: NameMap, *, official: bool) -> dict[str, Any]:
    """The body of the request. `official`: OpenAI's own newer field names, which others lack."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message, names) for message in request.messages],
        "max_completion_tokens" if official else "max_tokens": request.max_tokens,
        "stream": False,
    }
    if official:
        body["store"] = False
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": names.there(tool.name),
                    "description": tool.description,
                    "parameters": tool.schema or {"type": "object", "properties": {}},
                },
            }
            for tool in request.tools
        ]
    return body


def _message(message: Message, names: NameMap) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": names.there(call.name),
                    "arguments": msgspec.json.encode(call.args).decode(),
                },
            }
            for call in message.tool_calls
        ]
    return body


# --- back ------------------------------------------------------------------------------------


class _Function(msgspec.Struct):
    name: str
    arguments: str | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""
    type: str = "function"


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Said


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


def read_answer(body: bytes, request: ModelRequest, model: str, names: NameMap) -> ModelAnswer:
    """The provider's body as our answer. Raises `ModelFailed` for what is not one."""
    try:
        parsed = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(str(error)) from None
    if len(parsed.choices) != 1:
        raise _unreadable(f"it has {len(parsed.choices)} choices, one was asked for")
    said = parsed.choices[0].message
    found = said.tool_calls or []
    if len(found) > TOOL_CALLS_MAX:
        raise _unreadable(f"it proposes more than {TOOL_CALLS_MAX} calls")
    taken = {one.id for message in request.messages for one in message.tool_calls}
    calls: list[ToolCall] = []
    for call in found:
        calls.append(_call(call, len(calls) + 1, names, taken))
        taken.add(calls[-1].id)
    text = said.content or said.refusal or ""
    usage = parsed.usage or _Usage()
    counts = (usage.prompt_tokens, usage.completion_tokens)
    return ModelAnswer(
        text=text,
        tool_calls=tuple(calls),
        tokens_in=_count(usage.prompt_tokens, _chars(request)),
        tokens_out=_count(usage.completion_tokens, len(text) + sum(_length(c) for c in found)),
        model=one_line(parsed.model or model, limits.CALL_NAME_CHARS_MAX),
        estimated=any(_said(count) is None for count in counts),
    )


def _call(call: _Call, place: int, names: NameMap, taken: set[str]) -> ToolCall:
    name = names.back(call.function.name)
    if not name or len(name) > limits.CALL_NAME_CHARS_MAX or call.type != "function":
        raise _unreadable(f"its call {place} is not a named function")
    # Some servers leave ids out, or repeat them in each answer; results could not be told apart.
    fresh = (f"{call.id or 'call'}_{number}" for number in itertools.count(len(taken)))
    known = (
        call.id
        if call.id and call.id not in taken
        else next(one for one in fresh if one not in taken)
    )
    return ToolCall(id=known, name=name, args=_arguments(call.function.arguments, name))


def _arguments(text: str | None, name: str) -> dict[str, Any]:
    """A call's arguments, strictly: an object, no duplicate keys, no NaN. Nothing is none."""
    if text is None or not text.strip():
        return {}
    try:
        args = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(args, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        why = one_line(f"{type(error).__name__}: {error}")
        raise _unreadable(f"the arguments of its call of {one_line(name)}: {why}") from None
    if not isinstance(args, dict):
        raise _unreadable(f"the arguments of its call of {one_line(name)} are not an object")
    return args


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _length(call: _Call) -> int:
    return len(call.function.name) + len(call.function.arguments or "")


def _count(said: int | None, chars: int) -> int:
    """What the provider says it counted, if it can be true; else the estimate."""
    known = _said(said)
    return estimate_tokens(chars) if known is None else known


def _said(count: int | None) -> int | None:
    if count is None or not 0 <= count <= limits.MODEL_TOKENS_SAID_MAX:
        return None
    return count


def _chars(request: ModelRequest) -> int:
    return len(msgspec.json.encode(request))


# --- errors ----------------------------------------------------------------------------------


def error_text(body: bytes) -> str:
    """The provider's words about an error, on one bounded line: `error.message`, or the body."""
    try:
        found = msgspec.json.decode(body)
        error = found.get("error", found) if isinstance(found, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str):
            return one_line(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return one_line(body[: 4 * ERROR_CHARS_MAX].decode("utf-8", "replace"))


def one_line(text: str, chars_max: int = ERROR_CHARS_MAX) -> str:
    """Hostile text for an error: no control or direction characters, cut where it is long."""
    cleaned = _CONTROL.sub(" ", text[: 4 * chars_max]).strip()
    return cleaned if len(cleaned) <= chars_max else cleaned[: chars_max - 1] + "…"


def _unreadable(why: str) -> errors.ModelFailed:
    return errors.ModelFailed(
        "The model's answer can't be read.",
        why=one_line(why),
        todo="ask again; if it stays, the server does not speak chat completions",
    )
