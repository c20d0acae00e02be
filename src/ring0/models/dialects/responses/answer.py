"""A provider's response as our answer, and our answer as a client's response.

Everything from the provider is hostile: read strictly, bounded, never trusted to be what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.models.base import ModelAnswer, ModelRequest, Native, Part, ToolCall
from ring0.models.dialects import About
from ring0.models.dialects.responses.request import (
    ELSEWHERE,
    INPUT,
    NAME,
    TABLE,
    customs,
    reasoning,
)
from ring0.models.names import NameMap
from ring0.models.wire import (
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

ID_PREFIX: Final = "resp_"
"""Of what a response is called: clients go on from it by that."""
_ENDS: Final = {"max_output_tokens": "length", "content_filter": "filter"}
_ENDS_THERE: Final = {there: why for why, there in _ENDS.items()}
_REPEATED: Final[dict[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
}
"""What a response says again of its request, and what it says where that was left out."""


class _Content(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""
    annotations: list[dict[str, Any]] = []


class _Message(msgspec.Struct):
    content: list[_Content]
    phase: str | None = None


class _Called(msgspec.Struct):
    name: str
    call_id: str = ""
    arguments: str | None = None
    input: str = ""
    status: str | None = None


class _Thought(msgspec.Struct):
    text: str
    type: str


class _Reasoning(msgspec.Struct):
    summary: list[_Thought] = []
    content: list[_Thought] | None = None
    encrypted_content: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Reasoned(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Reasoned | None = None


class _Why(msgspec.Struct):
    reason: str = ""


class Body(msgspec.Struct):
    """A response, as far as it is read."""

    status: str = "completed"
    output: list[dict[str, Any]] = []
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None
    incomplete_details: _Why | None = None


_decode = msgspec.json.Decoder(Body).decode


def read(body: bytes, request: ModelRequest, model: str, names: NameMap) -> ModelAnswer:
    """Raises `ModelFailed` for what is not one."""
    parsed = decoded(_decode, body)
    return made(parsed, parsed.output, request, model, names)


def made(
    body: Body, output: list[dict[str, Any]], request: ModelRequest, model: str, names: NameMap
) -> ModelAnswer:
    """The answer of these items, however they came. Raises ModelFailed."""
    if body.error is not None or body.status not in ("completed", "incomplete"):
        raise unreadable(f"its status is {body.status}: {said_error(body.error)}")
    gathered = _Gathered(names, call_ids(request), body.status == "incomplete")
    for number, item in enumerate(output):
        gathered.take(item, number)
    parts, calls = gathered.parts, gathered.calls
    text = "".join(part.text for part in parts if part.kind == "text")
    usage = body.usage or _Usage()
    tokens_in, guessed_in = count(usage.input_tokens, request)
    tokens_out, guessed_out = count(usage.output_tokens, len(text) + gathered.chars)
    cached = (usage.input_tokens_details or _Cached()).cached_tokens
    reasoned = (usage.output_tokens_details or _Reasoned()).reasoning_tokens
    ended = _ENDS.get((body.incomplete_details or _Why()).reason, "length")
    stop = "tools" if calls else "end" if body.status == "completed" else ended
    return ModelAnswer(
        text=text,
        tool_calls=tuple(calls),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        model=one_line(body.model or model, limits.CALL_NAME_CHARS_MAX),
        estimated=guessed_in or guessed_out,
        parts=() if _is_plain(parts) else tuple(parts),
        stop=stop,  # type: ignore[arg-type]
        tokens_cached=part_of(cached, tokens_in),
        tokens_reasoning=part_of(reasoned, tokens_out),
        native=Native(dialect=NAME, body={"refused": True}) if gathered.refused else None,
    )


def said_error(error: Any) -> str:
    """The provider's words about what went wrong."""
    message = error.get("message") if isinstance(error, dict) else error
    return one_line(message) if isinstance(message, str) else "it does not say why"


def _is_plain(parts: list[Part]) -> bool:
    """One text, then calls: it needs no parts."""
    first, *rest = parts or [Part(kind="text")]
    return not first.name and first.kind in ("text", "call") and _are_calls(rest)


def _are_calls(parts: list[Part]) -> bool:
    return all(part.kind == "call" for part in parts)


class _Gathered:
    """The items of one response as parts and calls. Raises ModelFailed."""

    def __init__(self, names: NameMap, taken: set[str], incomplete: bool) -> None:
        """`incomplete`: a call without arguments is one that was cut short."""
        self._incomplete = incomplete
        self.parts: list[Part] = []
        self.calls: list[ToolCall] = []
        self.chars = 0
        """Of its calls."""
        self.refused = False
        self._names = names
        self._taken = taken

    def take(self, item: dict[str, Any], number: int) -> None:
        kind = item.get("type")
        kind = kind if isinstance(kind, str) else ""
        if kind == "message":
            self._message(_as(item, _Message, number))
        elif kind in ("function_call", "custom_tool_call"):
            self._call(_as(item, _Called, number), custom=kind == "custom_tool_call")
        elif kind == "reasoning":
            self.parts.append(thought(item, number))
        elif kind in ELSEWHERE:
            known = TABLE.shapes()[f"item.{kind}"]
            native = {
                key: value for key, value in item.items() if key in known and value is not None
            }
            self.parts.append(Part(kind="opaque", name=NAME, native=native))
        else:
            raise unreadable(f"it holds a {one_line(str(kind), 40)!r}, which nobody asked for")

    def _message(self, item: _Message) -> None:
        texts = [one.text for one in item.content if one.type == "output_text"]
        refusals = [one.refusal for one in item.content if one.type == "refusal"]
        native: dict[str, Any] = {"phase": item.phase} if item.phase else {}
        if found := [note for one in item.content for note in one.annotations]:
            native["annotations"] = found
        if refusals and not any(texts):
            native["refused"] = self.refused = True
        text, name = "".join(texts or refusals), NAME if native else ""
        self.parts.append(Part(kind="text", text=text, name=name, native=native))

    def _call(self, item: _Called, *, custom: bool) -> None:
        if len(self.calls) >= limits.MODEL_TOOL_CALLS_MAX:
            raise unreadable(f"it proposes more than {limits.MODEL_TOOL_CALLS_MAX} calls")
        name = tool_name(self._names.back(item.name), f"its call {len(self.calls) + 1}")
        none = not (item.arguments or item.input).strip()
        if item.status == "incomplete" or (none and self._incomplete):
            raise unreadable(f"its call of {one_line(name)} was cut short")
        args = {INPUT: item.input} if custom else arguments(item.arguments, name)
        call = ToolCall(id=call_id(item.call_id, self._taken), name=name, args=args)
        self._taken.add(call.id)
        self.calls.append(call)
        self.parts.append(Part(kind="call", text=call.id))
        self.chars += len(item.name) + len(item.arguments or item.input)


def thought(item: dict[str, Any], number: int) -> Part:
    """An item of the type reasoning. Raises ModelFailed."""
    found = msgspec.to_builtins(_as(item, _Reasoning, number))
    return reasoning({**found, "encrypted_content": found["encrypted_content"] or ""})


def _as(item: dict[str, Any], kind: type[Any], number: int) -> Any:
    try:
        return msgspec.convert(item, kind)
    except msgspec.ValidationError as error:
        raise unreadable(f"its item {number}: {error}") from None


# --- to a client -----------------------------------------------------------------------------


def write(answer: ModelAnswer, about: About) -> dict[str, Any]:
    return response(about, items(answer, about), answer)


def items(answer: ModelAnswer, about: About) -> list[dict[str, Any]]:
    """What the model said, in order, each piece with an id of ours."""
    custom = customs(about.asked.body)
    found: list[dict[str, Any]] = []
    for part, call in pieces(answer):
        found.append(item(part, call, custom, f"{about.id}_{len(found)}", status(answer)))
    return found


def pieces(answer: ModelAnswer) -> Iterator[tuple[Part, ToolCall | None]]:
    """Its parts that this dialect has a place for, each call with what it calls."""
    calls = {call.id: call for call in answer.tool_calls}
    parts = answer.parts or (
        *([Part(kind="text", text=answer.text)] if answer.text or not calls else ()),
        *(Part(kind="call", text=call) for call in calls),
    )
    for part in parts:
        if part.kind == "text" or (part.kind == "opaque" and is_ours(part)):
            yield (part if is_ours(part) else Part(kind="text", text=part.text)), None
        elif part.kind == "call" and part.text in calls:
            yield part, calls[part.text]


def is_ours(part: Part) -> bool:
    """What it has of its own is in the words of this dialect: another's say nothing here."""
    return part.name == NAME


def item(
    part: Part, call: ToolCall | None, custom: frozenset[str], id_: str, state: str
) -> dict[str, Any]:
    """`state`: of a message, whether all of it is there."""
    if call is not None:
        return _call_item(call, custom, id_)
    if part.kind == "opaque":
        blob = {"encrypted_content": part.blob} if part.blob else {}
        mark = {"id": f"rs_{id_}"} if part.native.get("type") == "reasoning" else {}
        return {**mark, **part.native, **blob}
    phase = {"phase": part.native["phase"]} if "phase" in part.native else {}
    return {
        "id": f"msg_{id_}",
        "type": "message",
        "role": "assistant",
        "status": state,
        "content": [content(part.text, part.native)],
        **phase,
    }


def content(text: str, native: dict[str, Any]) -> dict[str, Any]:
    """The one piece of content of a message."""
    if native.get("refused"):
        return {"type": "refusal", "refusal": text}
    notes = native.get("annotations", [])
    return {"type": "output_text", "text": text, "annotations": notes, "logprobs": []}


def _call_item(call: ToolCall, custom: frozenset[str], id_: str) -> dict[str, Any]:
    head = {"call_id": call.id, "name": call.name, "status": "completed"}
    if call.name in custom:
        text = call.args.get(INPUT)
        return {
            "id": f"ctc_{id_}",
            "type": "custom_tool_call",
            **head,
            "input": text if isinstance(text, str) else msgspec.json.encode(call.args).decode(),
        }
    body = msgspec.json.encode(call.args).decode()
    return {"id": f"fc_{id_}", "type": "function_call", **head, "arguments": body}


def status(answer: ModelAnswer) -> str:
    return "incomplete" if answer.stop in _ENDS_THERE else "completed"


def response(
    about: About, output: list[dict[str, Any]], answer: ModelAnswer | None, state: str = ""
) -> dict[str, Any]:
    """The object that a client gets; without an answer: as far as it has come."""
    asked = about.asked
    why = _ENDS_THERE.get(answer.stop) if answer else None
    return {
        "id": ID_PREFIX + about.id,
        "object": "response",
        "created_at": about.created_s,
        "status": state or (status(answer) if answer else "in_progress"),
        "background": False,
        "error": None,
        "incomplete_details": {"reason": why} if why else None,
        "model": answer.model if answer else about.model,
        "output": output,
        "previous_response_id": asked.previous or None,
        "store": True,  # By ring0, for the run.
        "usage": _usage(answer) if answer else None,
        **{key: asked.body.get(key, otherwise) for key, otherwise in _REPEATED.items()},
    }


def _usage(answer: ModelAnswer) -> dict[str, Any]:
    return {
        "input_tokens": answer.tokens_in,
        "input_tokens_details": {"cached_tokens": answer.tokens_cached},
        "output_tokens": answer.tokens_out,
        "output_tokens_details": {"reasoning_tokens": answer.tokens_reasoning},
        "total_tokens": answer.tokens_in + answer.tokens_out,
    }
