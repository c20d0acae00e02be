"""A client's request for a response as ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ring0 import errors, limits
from ring0.models.base import Message, ModelRequest, Native, Part, ToolCall, ToolOffer
from ring0.models.dialects import Asked
from ring0.models.dialects.chat.request import DATA_URL, EFFORTS, ROLES
from ring0.models.dialects.fields import Table
from ring0.models.wire import arguments, refused

NAME: Final = "responses"
TABLE: Final = Table(NAME)
INPUT: Final = "input"
"""The one argument of a custom tool's call, where it has to be one with named arguments."""
_CARRIED: Final = ("model", "stream", "stream_options", "previous_response_id")
"""How an answer is to come, from whom, and from where it goes on: no part of what is asked."""
_INCLUDED: Final = frozenset(
    {
        "reasoning.encrypted_content",
        "message.output_text.logprobs",
        "message.input_image.image_url",
        "web_search_call.action.sources",
        "web_search_call.results",
        "file_search_call.results",
        "code_interpreter_call.outputs",
    }
)
_SAID: Final = frozenset(
    {
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
        "item_reference",
    }
)
ELSEWHERE: Final = frozenset(
    name.removeprefix("item.")
    for name in TABLE.shapes()
    if name.startswith("item.") and name.removeprefix("item.") not in _SAID
)
"""Types of items that tell what the provider itself has done."""


def asked(body: Any) -> Asked:
    """Raises CallInvalid."""
    found, _ = TABLE.rebuild(_typed(body))
    return Asked(
        model=found.get("model", ""),
        stream=found.get("stream", False),
        previous=found.get("previous_response_id", ""),
        body={key: value for key, value in found.items() if key not in _CARRIED},
    )


def _typed(body: Any) -> Any:
    """Messages may leave out that they are some."""
    if not isinstance(body, dict) or not isinstance(body.get("input"), list):
        return body
    items = [
        {**one, "type": "message"} if isinstance(one, dict) and one.get("type") is None else one
        for one in body["input"]
    ]
    return {**body, "input": items}


def items(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What stands as `input`, as items. A text is what the user says."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}] if given else []
    return given


def read(body: dict[str, Any]) -> ModelRequest:
    """Raises CallInvalid. What is asked of the provider as features is told, not judged."""
    found, features = TABLE.rebuild(body)
    for one in found.get("include", ()):
        if not isinstance(one, str) or one not in _INCLUDED:
            raise refused("include", f"it names some of {', '.join(sorted(_INCLUDED))}")
    told = _Conversation(found.get("instructions", ""))
    for number, item in enumerate(items(found.get("input", ""))):
        told.take(item, f"input[{number}]")
    messages = told.end()
    tools, choice = _tools(found.get("tools", ())), found.get("tool_choice", "auto")
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        allowed = {one.get("name") for one in choice.get("tools", ())}
        tools = tuple(tool for tool in tools if tool.name in allowed)
        choice = choice.get("mode", "auto")
    form = found.get("text", {})
    return ModelRequest(
        messages=messages,
        tools=tools,
        max_tokens=found.get("max_output_tokens") or limits.MODEL_ANSWER_TOKENS_DEFAULT,
        tool_choice=_choice(choice),
        parallel=found.get("parallel_tool_calls", True),
        answer_schema=_schema(form.get("format", {})),
        temperature=found.get("temperature"),
        top_p=found.get("top_p"),
        effort=_effort(found.get("reasoning", {}).get("effort", "")),
        features=(*features, *(("remote_image",) if told.remote else ())),
        native=Native(dialect=NAME, body=found, messages=len(messages)),
    )


class _Conversation:
    """Puts items together to messages: what an assistant says, thinks and calls in a row is one."""

    def __init__(self, instructions: str) -> None:
        self.remote = False
        """It names something that the provider would have to fetch."""
        self._messages: list[Message] = []
        self._parts: list[Part] = []
        self._calls: list[ToolCall] = []
        if instructions:
            self._messages.append(Message(role="system", content=instructions))

    def take(self, item: dict[str, Any], place: str) -> None:
        """Raises CallInvalid."""
        match item["type"]:
            case "message":
                self._message(item, place)
            case "function_call" | "custom_tool_call":
                call = _call(item, place)
                self._calls.append(call)
                self._parts.append(Part(kind="call", text=call.id))
            case "function_call_output" | "custom_tool_call_output":
                parts = self._content(item.get("output", ""), f"{place}.output")
                self._say("tool", parts, tool_call_id=item.get("call_id", ""))
            case "reasoning":
                if item.get("encrypted_content"):  # Else it is words, and nobody's secret.
                    self._parts.append(reasoning(item))
            case _:
                self._parts.append(Part(kind="opaque", name=NAME, native=item))

    def end(self) -> tuple[Message, ...]:
        self._close()
        return tuple(self._messages)

    def _message(self, item: dict[str, Any], place: str) -> None:
        role = ROLES.get(item.get("role", ""))
        if role is None or role == "tool":
            names = ", ".join(name for name in ROLES if name != "tool")
            raise refused(f"{place}.role", f"it is one of {names}")
        parts = self._content(item.get("content", ""), f"{place}.content")
        if role == "assistant":
            self._parts += parts
        else:
            self._say(role, parts)

    def _content(self, content: Any, place: str) -> list[Part]:
        if isinstance(content, str):
            return [Part(kind="text", text=content)] if content else []
        return [self._part(one, f"{place}[{number}]") for number, one in enumerate(content)]

    def _part(self, one: dict[str, Any], place: str) -> Part:
        match one["type"]:
            case "input_image":
                url = one.get("image_url", "")
                if found := DATA_URL.fullmatch(url):
                    return Part(kind="image", media_type=found[1], data=found[2])
                if url and not url.startswith(("https://", "http://")):
                    raise refused(f"{place}.image_url", "it is a data: URL or an address")
                self.remote = self.remote or bool(url)
                return Part(kind="image", text=url)
            case "input_audio":
                sound = one.get("input_audio", {})
                kind = f"audio/{sound.get('format', '')}"
                return Part(kind="audio", media_type=kind, data=sound.get("data", ""))
            case "input_file":
                found = DATA_URL.fullmatch(one.get("file_data", ""))
                kind, data = (found[1], found[2]) if found else ("", "")
                name = one.get("filename", "")
                return Part(kind="file", media_type=kind, data=data, name=name)
            case "refusal":
                return Part(kind="text", text=one.get("refusal", ""))
        return Part(kind="text", text=one.get("text", ""))

    def _say(self, role: str, parts: list[Part], *, tool_call_id: str = "") -> None:
        self._close()
        self._messages.append(_made(role, parts, tool_call_id=tool_call_id))

    def _close(self) -> None:
        if self._parts:
            self._messages.append(_made("assistant", self._parts, calls=self._calls))
        self._parts, self._calls = [], []


def _made(
    role: str, parts: list[Part], *, calls: list[ToolCall] | None = None, tool_call_id: str = ""
) -> Message:
    kinds = [part.kind for part in parts]
    return Message(
        role=role,  # type: ignore[arg-type]
        content="".join(part.text for part in parts if part.kind == "text"),
        parts=() if _is_plain(kinds) else tuple(parts),
        tool_calls=tuple(calls or ()),
        tool_call_id=tool_call_id,
    )


def _is_plain(kinds: Sequence[str]) -> bool:
    """Texts, then calls: that needs no parts."""
    return list(kinds) == sorted(kinds, reverse=True) and set(kinds) <= {"text", "call"}


def reasoning(item: dict[str, Any]) -> Part:
    """What a model thought: in words for people, and as only its provider can read it."""
    native = {"type": "reasoning", "summary": item.get("summary", [])}
    if item.get("content"):
        native["content"] = item["content"]
    blob = item.get("encrypted_content", "")
    return Part(kind="opaque", name=NAME, native=native, blob=blob)


def _call(item: dict[str, Any], place: str) -> ToolCall:
    name = item.get("name", "")
    if item["type"] == "custom_tool_call":
        return ToolCall(id=item.get("call_id", ""), name=name, args={INPUT: item.get("input", "")})
    try:
        args = arguments(item.get("arguments"), name)
    except errors.ModelFailed as odd:  # What a model wrote comes back with the history.
        raise refused(f"{place}.arguments", odd.why) from None
    return ToolCall(id=item.get("call_id", ""), name=name, args=args)


def _tools(tools: Any) -> tuple[ToolOffer, ...]:
    """Those that the agent would carry out."""
    return tuple(
        ToolOffer(
            name=one.get("name", ""),
            description=one.get("description", ""),
            schema=one.get("parameters", {}) if one["type"] == "function" else _FREE,
        )
        for one in tools
        if one["type"] in ("function", "custom")
    )


_FREE: Final = {
    "type": "object",
    "properties": {INPUT: {"type": "string"}},
    "required": [INPUT],
    "additionalProperties": False,
}


def customs(body: dict[str, Any]) -> frozenset[str]:
    """Names of its tools that take a text as it is."""
    return frozenset(
        one.get("name", "") for one in body.get("tools", ()) if one["type"] == "custom"
    )


def _choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return f"tool:{choice.get('name', '')}"
    if choice not in ("auto", "none", "required"):
        raise refused("tool_choice", "it is auto, none, required, or names a tool of the agent's")
    return str(choice)


def _schema(form: dict[str, Any]) -> dict[str, Any] | None:
    match form.get("type", "text"):
        case "json_schema":
            return dict(form.get("schema", {}))
        case "json_object":
            return {}
    return None


def _effort(effort: str) -> str:
    if effort and effort not in EFFORTS:
        raise refused("reasoning.effort", f"it is one of {', '.join(EFFORTS)}")
    return effort
