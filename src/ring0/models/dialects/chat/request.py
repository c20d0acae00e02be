"""A client's chat completion request as ours, and ours as a provider's."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ring0 import errors, limits
from ring0.models.base import Message, ModelRequest, Native, Part, ToolCall, ToolOffer
from ring0.models.dialects import Asked
from ring0.models.dialects.fields import Table
from ring0.models.names import NameMap
from ring0.models.wire import arguments, refused

TABLE: Final = Table("chat")
ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
DATA_URL: Final = re.compile(r"data:([a-z]+/[A-Za-z0-9.+-]+);base64,([A-Za-z0-9+/=]*)")
_CARRIED: Final = ("model", "stream", "stream_options")
"""How an answer is to come, and from whom: no part of what is asked."""
EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh")


# --- from a client ---------------------------------------------------------------------------


def asked(body: Any) -> Asked:
    """Raises CallInvalid."""
    found, _ = TABLE.rebuild(body)
    model = found.get("model", "")
    options = found.get("stream_options", {})
    return Asked(
        model=model,
        stream=found.get("stream", False),
        usage=options.get("include_usage", False),
        body={key: value for key, value in found.items() if key not in _CARRIED},
    )


def read(body: dict[str, Any]) -> ModelRequest:
    """Raises CallInvalid. What is asked of the provider as features is told, not judged."""
    found, features = TABLE.rebuild(body)
    messages, remote = [], False
    for number, one in enumerate(found.get("messages", ())):
        message, far = _message(one, f"messages[{number}]")
        messages.append(message)
        remote = remote or far
    return ModelRequest(
        messages=tuple(messages),
        tools=tuple(_tool(one.get("function", {})) for one in found.get("tools", ())),
        max_tokens=found.get("max_completion_tokens")
        or found.get("max_tokens")
        or limits.MODEL_ANSWER_TOKENS_DEFAULT,
        tool_choice=_choice(found.get("tool_choice", "auto")),
        parallel=found.get("parallel_tool_calls", True),
        answer_schema=_schema(found.get("response_format", {})),
        temperature=found.get("temperature"),
        top_p=found.get("top_p"),
        stop=_stop(found.get("stop")),
        effort=_effort(found.get("reasoning_effort", "")),
        answers=found.get("n", 1),
        features=(*features, *(("remote_image",) if remote else ())),
        native=Native(dialect="chat", body=found),
    )


def _message(one: dict[str, Any], place: str) -> tuple[Message, bool]:
    """The message, and whether it names something that the provider would have to fetch."""
    role = ROLES.get(one.get("role", ""))
    if role is None:
        raise refused(f"{place}.role", f"it is one of {', '.join(ROLES)}")
    parts, remote = _parts(one.get("content") or "", f"{place}.content")
    text = "".join(part.text for part in parts if part.kind == "text")
    message = Message(
        role=role,  # type: ignore[arg-type]
        content=text or one.get("refusal") or "",
        parts=parts if any(part.kind != "text" for part in parts) else (),
        tool_calls=tuple(
            _call(call, f"{place}.tool_calls[{number}]")
            for number, call in enumerate(one.get("tool_calls", ()))
        ),
        tool_call_id=one.get("tool_call_id", ""),
    )
    return message, remote


def _parts(content: Any, place: str) -> tuple[tuple[Part, ...], bool]:
    if isinstance(content, str):
        return ((Part(kind="text", text=content),) if content else ()), False
    parts, remote = [], False
    for number, one in enumerate(content):
        part, far = _part(one, f"{place}[{number}]")
        parts.append(part)
        remote = remote or far
    return tuple(parts), remote


def _part(one: dict[str, Any], place: str) -> tuple[Part, bool]:
    match one["type"]:
        case "text" | "refusal":
            return Part(kind="text", text=one.get(one["type"]) or ""), False
        case "image_url":
            url = one.get("image_url", {}).get("url", "")
            if found := DATA_URL.fullmatch(url):
                return Part(kind="image", media_type=found[1], data=found[2]), False
            if not url.startswith(("https://", "http://")):
                raise refused(f"{place}.image_url.url", "it is a data: URL or an address")
            return Part(kind="image", text=url), True
        case "input_audio":
            sound = one.get("input_audio", {})
            kind = f"audio/{sound.get('format', '')}"
            return Part(kind="audio", media_type=kind, data=sound.get("data", "")), False
    file = one.get("file", {})
    found = DATA_URL.fullmatch(file.get("file_data", ""))
    kind, data = (found[1], found[2]) if found else ("", "")
    return Part(kind="file", media_type=kind, data=data, name=file.get("filename", "")), False


def _call(call: dict[str, Any], place: str) -> ToolCall:
    function = call.get("function", {})
    name = function.get("name", "")
    try:
        args = arguments(function.get("arguments"), name)
    except errors.ModelFailed as odd:  # What a model wrote comes back with the history.
        raise refused(f"{place}.function.arguments", odd.why) from None
    return ToolCall(id=call.get("id", ""), name=name, args=args)


def _tool(function: dict[str, Any]) -> ToolOffer:
    return ToolOffer(
        name=function.get("name", ""),
        description=function.get("description", ""),
        schema=function.get("parameters", {}),
    )


def _choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return f"tool:{choice.get('function', {}).get('name', '')}"
    if choice not in ("auto", "none", "required"):
        raise refused("tool_choice", "it is auto, none, required, or names a function")
    return str(choice)


def _schema(form: dict[str, Any]) -> dict[str, Any] | None:
    match form.get("type", "text"):
        case "json_schema":
            return dict(form.get("json_schema", {}).get("schema", {}))
        case "json_object":
            return {}
    return None


def _stop(stop: Any) -> tuple[str, ...]:
    found = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else ()
    if not all(isinstance(one, str) for one in found) or (stop is not None and not found):
        raise refused("stop", "it is a text, or a list of texts")
    return found


def _effort(effort: str) -> str:
    if effort and effort not in EFFORTS:
        raise refused("reasoning_effort", f"it is one of {', '.join(EFFORTS)}")
    return effort


# --- to a provider ---------------------------------------------------------------------------


def write(
    asked: ModelRequest, model: str, names: NameMap, *, official: bool, stream: bool
) -> dict[str, Any]:
    """`official`: OpenAI's own newer field names, which others lack."""
    native = asked.native
    if native is not None and native.dialect == "chat":
        body = _as_it_came(asked, native.body)
    else:
        body = _translated(asked, names)
    limit = "max_completion_tokens" if official else "max_tokens"
    body.pop("max_tokens", None)
    body.pop("max_completion_tokens", None)
    body = {"model": model, **body, limit: asked.max_tokens, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if official and "store" not in body:
        body["store"] = False
    return body


def _as_it_came(asked: ModelRequest, body: dict[str, Any]) -> dict[str, Any]:
    """With what the kernel has said since at its end."""
    said = len(body.get("messages", ()))
    added = [{"role": one.role, "content": one.content} for one in asked.messages[said:]]
    return {**body, "messages": [*body.get("messages", ()), *added]}


def _translated(asked: ModelRequest, names: NameMap) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [_as_message(one, names) for one in asked.messages]}
    if asked.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": names.there(tool.name),
                    "description": tool.description,
                    "parameters": tool.schema or {"type": "object", "properties": {}},
                },
            }
            for tool in asked.tools
        ]
        if asked.tool_choice.startswith("tool:"):
            name = names.there(asked.tool_choice.removeprefix("tool:"))
            body["tool_choice"] = {"type": "function", "function": {"name": name}}
        elif asked.tool_choice != "auto":
            body["tool_choice"] = asked.tool_choice
        if not asked.parallel:
            body["parallel_tool_calls"] = False
    if asked.answer_schema is not None:
        schema = {"name": "answer", "schema": asked.answer_schema}
        body["response_format"] = (
            {"type": "json_schema", "json_schema": schema}
            if asked.answer_schema
            else {"type": "json_object"}
        )
    plain = {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "stop": list(asked.stop) or None,
        "reasoning_effort": asked.effort or None,
    }
    return body | {key: value for key, value in plain.items() if value is not None}


def _as_message(message: Message, names: NameMap) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    shown = [part for part in message.parts if part.kind not in ("call", "opaque")]
    if any(part.kind != "text" for part in shown):
        body["content"] = [_as_part(part) for part in shown]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["tool_calls"] = [as_call(call, names.there(call.name)) for call in message.tool_calls]
    return body


def _as_part(part: Part) -> dict[str, Any]:
    address = f"data:{part.media_type};base64,{part.data}"
    match part.kind:
        case "image":
            return {"type": "image_url", "image_url": {"url": address if part.data else part.text}}
        case "audio":
            form = part.media_type.partition("/")[2]
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}}
        case "file":
            return {"type": "file", "file": {"file_data": address, "filename": part.name}}
    return {"type": "text", "text": part.text}


def as_call(call: ToolCall, name: str) -> dict[str, Any]:
    """A tool call as the dialect has it, serialised anew."""
    arguments = msgspec.json.encode(call.args).decode()
    return {"id": call.id, "type": "function", "function": {"name": name, "arguments": arguments}}
