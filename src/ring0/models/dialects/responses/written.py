"""Our request as the body that a provider of responses is sent. Nothing is kept there."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0 import errors
from ring0.models.base import Message, ModelRequest, Part
from ring0.models.dialects.responses.request import NAME, items
from ring0.models.names import NameMap

_ENCRYPTED: Final = "reasoning.encrypted_content"
_OURS: Final = ("metadata",)
"""What only the client is told again."""


def payload(asked: ModelRequest, model: str, names: NameMap, *, stream: bool) -> dict[str, Any]:
    """Raises ModelFailed for what can't be asked in this dialect."""
    native = asked.native
    if native is not None and native.dialect == NAME:
        body = _as_it_came(asked, native.body, native.messages)
    else:
        body = _translated(asked, names)
    if "reasoning" in body and _ENCRYPTED not in body.get("include", ()):
        # What a model thought is nowhere else: nothing is kept there.
        body["include"] = [*body.get("include", ()), _ENCRYPTED]
    limit = asked.max_tokens
    return {"model": model, **body, "max_output_tokens": limit, "store": False, "stream": stream}


def _as_it_came(asked: ModelRequest, body: dict[str, Any], said: int) -> dict[str, Any]:
    """With what the kernel has said since at its end."""
    kept = [one for one in items(body.get("input", "")) if _can_be_read(one)]
    added = [_message(one.role, one.content) for one in asked.messages[said:]]
    rest = {key: value for key, value in body.items() if key not in _OURS}
    return {**rest, "input": [*kept, *added]}


def _can_be_read(item: dict[str, Any]) -> bool:
    """A thought without what is encrypted is only a name of what a provider would have kept."""
    return item["type"] != "reasoning" or bool(item.get("encrypted_content") or item.get("content"))


def _message(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


def _translated(asked: ModelRequest, names: NameMap) -> dict[str, Any]:
    if asked.stop:
        failed = errors.ModelFailed(
            "The model was not asked.",
            why="The request names texts at which its answer has to stop, and a provider of the"
            " dialect `responses` takes none.",
            todo='Leave `stop` out, or configure the model with provider = "openai".',
        )
        failed.unspent = True
        raise failed
    body: dict[str, Any] = {
        "input": [item for one in asked.messages for item in _items(one, names)],
        **_offered(asked, names),
    }
    if asked.answer_schema is not None:
        body["text"] = {"format": _format(asked.answer_schema)}
    if asked.effort:
        body["reasoning"] = {"effort": asked.effort}
    plain = {"temperature": asked.temperature, "top_p": asked.top_p}
    return body | {key: value for key, value in plain.items() if value is not None}


def _offered(asked: ModelRequest, names: NameMap) -> dict[str, Any]:
    if not asked.tools:
        return {}
    offered: dict[str, Any] = {
        "tools": [
            {
                "type": "function",
                "name": names.there(tool.name),
                "description": tool.description,
                "parameters": tool.schema or {"type": "object", "properties": {}},
                "strict": False,  # It is true where it isn't said, and few schemas are fit for it.
            }
            for tool in asked.tools
        ]
    }
    if asked.tool_choice.startswith("tool:"):
        name = names.there(asked.tool_choice.removeprefix("tool:"))
        offered["tool_choice"] = {"type": "function", "name": name}
    elif asked.tool_choice != "auto":
        offered["tool_choice"] = asked.tool_choice
    if not asked.parallel:
        offered["parallel_tool_calls"] = False
    return offered


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    if not schema:
        return {"type": "json_object"}
    return {"type": "json_schema", "name": "answer", "schema": schema, "strict": False}


def _items(message: Message, names: NameMap) -> list[dict[str, Any]]:
    if message.role == "tool":
        shown = [part for part in message.parts if part.kind != "opaque"]
        output = [_part(part) for part in shown] if shown else message.content
        call = message.tool_call_id
        return [{"type": "function_call_output", "call_id": call, "output": output}]
    if message.role != "assistant":
        content: Any = [_part(part) for part in message.parts if part.kind != "opaque"]
        return [
            {"type": "message", "role": message.role, "content": content or message.content},
        ]
    return _assistant(message, names)


def _assistant(message: Message, names: NameMap) -> list[dict[str, Any]]:
    """Text and calls in their order. What another dialect's model thought says nothing here."""
    calls = {call.id: call for call in message.tool_calls}
    parts = message.parts or (
        Part(kind="text", text=message.content),
        *(Part(kind="call", text=call) for call in calls),
    )
    found: list[dict[str, Any]] = []
    for part in parts:
        if part.kind == "text" and part.text:
            found.append(_message("assistant", part.text))
        elif part.kind == "call" and (call := calls.pop(part.text, None)) is not None:
            found.append(
                {
                    "type": "function_call",
                    "call_id": call.id,
                    "name": names.there(call.name),
                    "arguments": msgspec.json.encode(call.args).decode(),
                }
            )
    return found


def _part(part: Part) -> dict[str, Any]:
    address = f"data:{part.media_type};base64,{part.data}"
    match part.kind:
        case "image":
            return {"type": "input_image", "image_url": address if part.data else part.text}
        case "audio":
            form = part.media_type.partition("/")[2]
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}}
        case "file":
            return {"type": "input_file", "file_data": address, "filename": part.name or "file"}
    return {"type": "input_text", "text": part.text}
