"""What a local model is given, and how what it writes becomes an answer.

Small models don't keep to the form of a tool call by themselves: where tools are offered, a grammar
made of their schemas lets it write nothing else. What it has called and what came of it stands in
the conversation as text.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0 import errors, limits
from ring0.models.base import Message, ModelAnswer, ModelRequest, ToolCall, ToolOffer
from ring0.models.names import NameMap
from ring0.models.wire import arguments, call_id, call_ids, unreadable

_TOOL: Final = "tool"
_ARGUMENTS: Final = "arguments"
_ANSWER: Final = "answer"


def payload(request: ModelRequest, names: NameMap) -> dict[str, Any]:
    """A chat completion as llama.cpp takes it. Raises ModelFailed for what is no text."""
    messages = [_message(one, names) for one in request.messages]
    if offered := _offered(request):
        messages.insert(0, {"role": "system", "content": _told(offered, names)})
    body: dict[str, Any] = {
        "messages": messages,
        "max_tokens": min(request.max_tokens, limits.LOCAL_MODEL_ANSWER_TOKENS_MAX),
        "temperature": request.temperature or 0.0,
        "seed": 0,  # The same question has the same answer.
    }
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    schema = form(request, names)
    if schema is not None:
        wanted = {"name": "answer", "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    return body


def form(request: ModelRequest, names: NameMap) -> dict[str, Any] | None:
    """The JSON Schema that it has to write in; None: as it likes."""
    offered = _offered(request)
    if not offered:
        return request.answer_schema
    choices = [
        _object({_TOOL: {"const": names.there(tool.name)}, _ARGUMENTS: _bounded(_schema(tool))})
        for tool in offered
    ]
    if request.tool_choice == "auto":
        choices.append(_object({_ANSWER: _bounded(request.answer_schema or {"type": "string"})}))
    return {"anyOf": choices} if len(choices) > 1 else choices[0]


def read(answer: ModelAnswer, request: ModelRequest, names: NameMap) -> ModelAnswer:
    """What it wrote in that form, as an answer. Raises ModelFailed."""
    if not _offered(request):
        return answer
    said = arguments(answer.text, "the model") if answer.stop != "length" else {}
    if isinstance(said.get(_ANSWER), str):
        return msgspec.structs.replace(answer, text=said[_ANSWER])
    if _ANSWER in said:
        return msgspec.structs.replace(answer, text=msgspec.json.encode(said[_ANSWER]).decode())
    name, args = said.get(_TOOL), said.get(_ARGUMENTS)
    if not isinstance(name, str) or not isinstance(args, dict):
        raise unreadable("it was cut short: raise max_tokens")
    call = ToolCall(id=call_id("", call_ids(request)), name=names.back(name), args=args)
    return msgspec.structs.replace(answer, text="", tool_calls=(call,), stop="tools")


def _offered(request: ModelRequest) -> tuple[ToolOffer, ...]:
    """The tools of which it may choose."""
    if request.tool_choice == "none":
        return ()
    wanted = request.tool_choice.removeprefix("tool:")
    if wanted != request.tool_choice:
        return tuple(tool for tool in request.tools if tool.name == wanted)
    return request.tools


def _told(tools: tuple[ToolOffer, ...], names: NameMap) -> str:
    lines = [
        f"- {names.there(tool.name)}: {tool.description} Arguments:"
        f" {msgspec.json.encode(_schema(tool)).decode()}"
        for tool in tools
    ]
    return (
        'You answer in JSON. To use a tool write {"tool": NAME, "arguments": {...}}; to answer the'
        ' user write {"answer": TEXT}. The tools:\n' + "\n".join(lines)
    )


def _message(message: Message, names: NameMap) -> dict[str, str]:
    if any(part.kind not in ("text", "call", "opaque") for part in message.parts):
        raise errors.ModelFailed(
            "The local model reads text only.",
            why="The conversation holds an image, a sound or a file.",
            todo="Leave it out, or configure another model.",
        )
    content = message.content
    for call in message.tool_calls:
        written = {_TOOL: names.there(call.name), _ARGUMENTS: call.args}
        content += msgspec.json.encode(written).decode()
    if message.role == "tool":
        return {"role": "user", "content": f"The tool returned: {content}"}
    return {"role": message.role, "content": content}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _schema(tool: ToolOffer) -> dict[str, Any]:
    return tool.schema or _object({})


def _bounded(schema: Any) -> Any:
    """The schema with an end to each of its texts: a small model seldom comes to one by itself."""
    if isinstance(schema, list):
        return [_bounded(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _bounded(value) for key, value in schema.items()}
    if schema.get("type") == "string" and not {"maxLength", "enum", "pattern"} & schema.keys():
        found["maxLength"] = limits.LOCAL_MODEL_TEXT_CHARS_MAX
    return found
