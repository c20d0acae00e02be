"""A request of ours as a provider's body. (A client's as ours: request.py.)"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ring0.models.base import Message, ModelRequest, Part
from ring0.models.dialects.messages.request import BETAS
from ring0.models.names import NameMap
from ring0.models.wire import refused

_EFFORTS: Final = {"none": "low", "minimal": "low"}
"""Of other dialects, as this one has them."""
_JSON: Final = "Answer with one JSON object and nothing else."
"""For who wants an object without saying which: the dialect has no word for it."""
_EMPTY: Final = {"type": "object", "properties": {}}


def headers(asked: ModelRequest) -> dict[str, str]:
    """The extensions that the client spoke."""
    native = asked.native
    betas = native.body.get("betas", {}) if native and native.dialect == "messages" else {}
    spoken = ",".join(name for name, on in betas.items() if on)
    return {BETAS: spoken} if spoken else {}


def write(asked: ModelRequest, model: str, names: NameMap, *, stream: bool) -> dict[str, Any]:
    """Raises CallInvalid for what the dialect has no word for."""
    native = asked.native
    if native is not None and native.dialect == "messages":
        body = {key: value for key, value in native.body.items() if key != "betas"}
        added = [one.content for one in asked.messages[native.messages :]]
        body["messages"] = _told(body.get("messages", []), added)
    else:
        body = _translated(asked, names)
    return {**body, "model": model, "max_tokens": asked.max_tokens, "stream": stream}


def _told(messages: list[dict[str, Any]], added: list[str]) -> list[dict[str, Any]]:
    """With what the kernel has said since at its end, as a user would."""
    if not added:
        return messages
    blocks = [{"type": "text", "text": text} for text in added]
    if not messages or messages[-1].get("role") != "user":
        return [*messages, {"role": "user", "content": blocks}]
    last = messages[-1]
    content = last.get("content", "")
    before = [{"type": "text", "text": content}] if isinstance(content, str) else content
    before = [one for one in before if one != {"type": "text", "text": ""}]
    return [*messages[:-1], {**last, "content": [*before, *blocks]}]


def _translated(asked: ModelRequest, names: NameMap) -> dict[str, Any]:
    lead, rest = _split(asked.messages)
    if asked.answer_schema == {}:
        lead = [*lead, _JSON]
    body: dict[str, Any] = {"messages": _conversation(rest, names)}
    if lead:
        body["system"] = "\n\n".join(lead)
    if asked.tools:
        body["tools"] = [
            {
                "name": names.there(tool.name),
                "description": tool.description,
                "input_schema": tool.schema or _EMPTY,
            }
            for tool in asked.tools
        ]
        if choice := _choice(asked, names):
            body["tool_choice"] = choice
    if config := _output(asked):
        body["output_config"] = config
    plain = {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "stop_sequences": list(asked.stop) or None,
    }
    return body | {key: value for key, value in plain.items() if value is not None}


def _split(messages: tuple[Message, ...]) -> tuple[list[str], tuple[Message, ...]]:
    """What the operator says before all else, and the conversation."""
    first = next((n for n, one in enumerate(messages) if one.role != "system"), len(messages))
    return [one.content for one in messages[:first] if one.content], messages[first:]


def _choice(asked: ModelRequest, names: NameMap) -> dict[str, Any]:
    alone = {} if asked.parallel else {"disable_parallel_tool_use": True}
    if asked.tool_choice.startswith("tool:"):
        name = names.there(asked.tool_choice.removeprefix("tool:"))
        return {"type": "tool", "name": name, **alone}
    match asked.tool_choice:
        case "none":
            return {"type": "none"}
        case "required":
            return {"type": "any", **alone}
    return {"type": "auto", **alone} if alone else {}


def _output(asked: ModelRequest) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if asked.effort:
        found["effort"] = _EFFORTS.get(asked.effort, asked.effort)
    if asked.answer_schema:
        found["format"] = {"type": "json_schema", "schema": asked.answer_schema}
    return found


# --- the conversation ------------------------------------------------------------------------


def _conversation(messages: Iterable[Message], names: NameMap) -> list[dict[str, Any]]:
    """Turns of user and assistant: neighbours of one role are one message, and what tools returned
    comes before what is said."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message, names)
        if not blocks:
            continue  # The dialect has no empty message.
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message, names: NameMap) -> list[dict[str, Any]]:
    if message.role == "tool":
        content = _shown(message)
        return [
            {
                "type": "tool_result",
                "tool_use_id": message.tool_call_id,
                "content": content,
                **({"is_error": True} if message.is_error else {}),
            }
        ]
    found = _shown(message)
    if message.role != "assistant":
        return found
    calls = {
        call.id: {
            "type": "tool_use",
            "id": call.id,
            "name": names.there(call.name),
            "input": call.args,
        }
        for call in message.tool_calls
    }
    if not any(part.kind == "call" for part in message.parts):
        return [*found, *calls.values()]
    found = []
    for part in message.parts:
        if part.kind == "call" and part.text in calls:
            found.append(calls[part.text])
        elif part.kind not in ("call", "opaque"):
            found += _part(part)  # What is opaque goes on only as it came.
    return found


def _shown(message: Message) -> list[dict[str, Any]]:
    shown = [part for part in message.parts if part.kind not in ("call", "opaque")]
    if not shown:
        shown = [Part(kind="text", text=message.content)]
    return [block for part in shown for block in _part(part)]


def _part(part: Part) -> list[dict[str, Any]]:
    match part.kind:
        case "text":
            return [{"type": "text", "text": part.text}] if part.text else []
        case "image" if part.data:
            return [{"type": "image", "source": _data(part)}]
        case "image":
            return [{"type": "image", "source": {"type": "url", "url": part.text}}]
        case "file" if part.data:
            title = {"title": part.name} if part.name else {}
            return [{"type": "document", "source": _data(part), **title}]
    raise refused(part.kind, "a model of the dialect messages takes no such part")


def _data(part: Part) -> dict[str, str]:
    return {"type": "base64", "media_type": part.media_type, "data": part.data}
