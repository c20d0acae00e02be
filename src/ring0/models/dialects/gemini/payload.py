"""A request of ours as Gemini's. Whoever asked, asked in another dialect: all of it is translated.

`parallel` has no word here: several calls may be proposed at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ring0.models.base import Message, ModelRequest, Part, ToolCall
from ring0.models.dialects.gemini import schema
from ring0.models.names import NameMap
from ring0.models.wire import refused

_BEFORE_SIGNATURES: Final = ("gemini-1", "gemini-2", "gemma-", "learnlm-")
"""Models that take a call in a conversation without its thought's signature."""
_UNSIGNED: Final = "skip_thought_signature_validator"
"""Google's word for a call whose thought is not at hand: clients of other dialects have no place
for its signature. https://ai.google.dev/gemini-api/docs/thought-signatures"""
_BUDGETS: Final = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 24_576,
}
"""Tokens to think with, as Google's own translation of OpenAI's words has them."""
_LEVELS: Final = {
    "none": "LOW",
    "minimal": "LOW",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
}


def write(asked: ModelRequest, model: str, names: NameMap) -> dict[str, Any]:
    """Raises CallInvalid for what the dialect has no place for."""
    if asked.features:
        raise refused(asked.features[0], "a provider of the dialect gemini is not asked for it")
    lead, rest = _split(asked.messages)
    body: dict[str, Any] = {"contents": _contents(rest, model, names)}
    if lead:
        body["systemInstruction"] = {"parts": [{"text": "\n\n".join(lead)}]}
    if asked.tools:
        body["tools"] = [{"functionDeclarations": _declared(asked, names)}]
        body["toolConfig"] = {"functionCallingConfig": _choice(asked, names)}
    body["generationConfig"] = _config(asked, model)
    return body


def _split(messages: tuple[Message, ...]) -> tuple[list[str], tuple[Message, ...]]:
    """What the operator says before all else, and the conversation: never none."""
    first = next((n for n, one in enumerate(messages) if one.role != "system"), 0)
    return [one.content for one in messages[:first] if one.content], messages[first:]


def _declared(asked: ModelRequest, names: NameMap) -> list[dict[str, Any]]:
    found = []
    for tool in asked.tools:
        one: dict[str, Any] = {"name": names.there(tool.name), "description": tool.description}
        # Of a function that takes nothing nothing is said: an object without properties is none.
        taken = schema.taken(tool.schema) if tool.schema else {}
        if taken.get("properties") or taken.get("anyOf"):
            one["parameters"] = taken
        found.append(one)
    return found


def _choice(asked: ModelRequest, names: NameMap) -> dict[str, Any]:
    if asked.tool_choice.startswith("tool:"):
        name = names.there(asked.tool_choice.removeprefix("tool:"))
        return {"mode": "ANY", "allowedFunctionNames": [name]}
    return {"mode": {"none": "NONE", "required": "ANY"}.get(asked.tool_choice, "AUTO")}


def _config(asked: ModelRequest, model: str) -> dict[str, Any]:
    found: dict[str, Any] = {"maxOutputTokens": asked.max_tokens, "candidateCount": 1}
    if asked.answer_schema is not None:
        found["responseMimeType"] = "application/json"
        if asked.answer_schema:
            found["responseSchema"] = schema.taken(asked.answer_schema)
    if asked.effort:
        found["thinkingConfig"] = (
            {"thinkingBudget": _BUDGETS.get(asked.effort, -1)}
            if model.startswith(_BEFORE_SIGNATURES)
            else {"thinkingLevel": _LEVELS.get(asked.effort, "HIGH")}
        )
    plain = {
        "temperature": asked.temperature,
        "topP": asked.top_p,
        "stopSequences": list(asked.stop) or None,
    }
    return found | {key: value for key, value in plain.items() if value is not None}


# --- the conversation ------------------------------------------------------------------------


def _contents(messages: Iterable[Message], model: str, names: NameMap) -> list[dict[str, Any]]:
    """Turns of user and model: neighbours of one role are one turn."""
    turns: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for message in messages:
        called.update((call.id, names.there(call.name)) for call in message.tool_calls)
        role = "model" if message.role == "assistant" else "user"
        parts = (
            _said(message, model, names)
            if role == "model"
            else _returned(message, called)
            if message.role == "tool"
            else _shown(message)
        )
        if not parts:
            continue  # The dialect has no empty turn.
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def _said(message: Message, model: str, names: NameMap) -> list[dict[str, Any]]:
    """Text and calls in their order. What another dialect's model thought says nothing here."""
    calls = {call.id: call for call in message.tool_calls}
    ordered = [part for part in message.parts if part.kind in ("text", "call")] or [
        Part(kind="text", text=message.content)
    ]
    named = {part.text for part in ordered if part.kind == "call"}
    ordered += [Part(kind="call", text=call) for call in calls if call not in named]
    signed = model.startswith(_BEFORE_SIGNATURES)
    found: list[dict[str, Any]] = []
    for part in ordered:
        if part.kind == "text":
            found += [{"text": part.text}] if part.text else []
        elif (call := calls.get(part.text)) is not None:
            found.append(_call(call, names) | ({} if signed else {"thoughtSignature": _UNSIGNED}))
            signed = True  # Of those that are proposed at once the first has it.
    return found


def _call(call: ToolCall, names: NameMap) -> dict[str, Any]:
    return {"functionCall": {"id": call.id, "name": names.there(call.name), "args": call.args}}


def _returned(message: Message, called: dict[str, str]) -> list[dict[str, Any]]:
    """What a tool returned, then what of it is no text."""
    response = {
        "id": message.tool_call_id,
        "name": called.get(message.tool_call_id, ""),
        "response": {"error" if message.is_error else "output": message.content},
    }
    beside = [_data(part) for part in message.parts if part.kind not in ("text", "call", "opaque")]
    return [{"functionResponse": response}, *beside]


def _shown(message: Message) -> list[dict[str, Any]]:
    parts = [part for part in message.parts if part.kind not in ("call", "opaque")]
    found = []
    for part in parts or [Part(kind="text", text=message.content)]:
        if part.kind != "text":
            found.append(_data(part))
        elif part.text:
            found.append({"text": part.text})
    return found


def _data(part: Part) -> dict[str, Any]:
    if not part.data or not part.media_type:
        raise refused(part.kind, "a provider of the dialect gemini takes its data, no address")
    return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
