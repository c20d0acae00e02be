"""A client's messages request as ours. (Ours as a provider's: payload.py.)

What a tool returned is a message of its own here, before the rest of the user's message that it
came with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.models.base import Message, ModelRequest, Native, Part, ToolCall, ToolOffer
from ring0.models.dialects import Asked
from ring0.models.dialects.fields import Table
from ring0.models.wire import refused

TABLE: Final = Table("messages")
BETAS: Final = "anthropic-beta"
_CARRIED: Final = ("model", "stream")
"""How an answer is to come, and from whom: no part of what is asked."""
_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_OF: Final = {
    "user": ("text", "image", "document", "search_result", "tool_result", "container_upload"),
    "system": ("text", "tool_addition", "tool_removal"),
}
"""Which blocks a message of a role has; an assistant's has all those that an answer has."""
_NEVER_SAID: Final = (*_OF["user"][1:5], *_OF["system"][1:])
_WHOLE_ONLY: Final = "what is cited is told only with an answer that comes whole"


class ThreadRefused(CallInvalid):
    """The client would have the provider keep its conversation."""


def asked(body: Any, headers: Mapping[str, str]) -> Asked:
    """Raises CallInvalid."""
    if isinstance(body, dict) and body.get("thread") is not None:
        raise ThreadRefused(
            "thread can't be taken.",
            why="The conversation is not kept at the provider.",
            todo="Send all of it; clients can go on without a thread.",
        )
    if isinstance(body, dict) and (betas := headers.get(BETAS)):
        named = [name.strip() for name in betas.split(",") if name.strip()]
        body = {**body, "betas": dict.fromkeys(named, True)}
    found, _ = TABLE.rebuild(body)
    if found.get("stream") and _cites(found):
        raise refused("citations", _WHOLE_ONLY)
    return Asked(
        model=found.get("model", ""),
        stream=found.get("stream", False),
        body={key: value for key, value in found.items() if key not in _CARRIED},
    )


def _cites(value: Any) -> bool:
    """Somewhere in it citations are switched on."""
    if isinstance(value, list):
        return any(map(_cites, value))
    if not isinstance(value, dict):
        return False
    citing = value.get("citations")
    if value.get("type") in ("document", "search_result") and isinstance(citing, dict):
        return bool(citing.get("enabled"))
    return any(_cites(value[key]) for key in ("messages", "content") if key in value)


def read(body: dict[str, Any]) -> ModelRequest:
    """Raises CallInvalid. What is asked of the provider as features is told, not judged."""
    found, features = TABLE.rebuild(body)
    messages = [*_system(found.get("system", ""))]
    for number, one in enumerate(found.get("messages", ())):
        messages += _messages(one, f"messages[{number}]")
    thinking = found.get("thinking", {})
    if not 0 <= thinking.get("budget_tokens", 0) <= limits.MODEL_ANSWER_SIZE_BYTES_MAX:
        raise refused("thinking.budget_tokens", "it is no number of tokens")
    choice = found.get("tool_choice", {})
    config = found.get("output_config", {})
    return ModelRequest(
        messages=tuple(messages),
        tools=_tools(found),
        max_tokens=found.get("max_tokens", limits.MODEL_ANSWER_TOKENS_DEFAULT),
        tool_choice=_choice(choice),
        parallel=not choice.get("disable_parallel_tool_use", False),
        answer_schema=config.get("format", {}).get("schema"),
        temperature=found.get("temperature"),
        top_p=found.get("top_p"),
        stop=_stop(found.get("stop_sequences", [])),
        effort=_effort(config.get("effort", "")),
        features=features,
        native=Native(dialect="messages", body=found, messages=len(messages)),
    )


# --- messages --------------------------------------------------------------------------------


def _system(content: Any) -> list[Message]:
    text = "\n\n".join(part.text for part in _parts(content, "system"))
    return [Message(role="system", content=text)] if text else []


def _messages(one: dict[str, Any], place: str) -> list[Message]:
    role, content = one.get("role"), one.get("content", "")
    if role not in ("user", "assistant", "system"):
        raise refused(f"{place}.role", "it is user, assistant or system")
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    for number, block in enumerate(blocks):
        known = _OF.get(role)
        if block["type"] not in known if known else block["type"] in _NEVER_SAID:
            raise refused(
                f"{place}.content[{number}]", f"a message of the role {role} has no {block['type']}"
            )
    if role == "system":
        text = "\n".join(block.get("text", "") for block in blocks if block["type"] == "text")
        return [Message(role="system", content=text)] if text else []
    if role == "assistant":
        return [_said(blocks)]
    results = [
        _result(block, f"{place}.content[{number}]")
        for number, block in enumerate(blocks)
        if block["type"] == "tool_result"
    ]
    rest = _parts([block for block in blocks if block["type"] != "tool_result"], place)
    return [*results, *([_message("user", rest)] if rest or not results else [])]


def _said(blocks: list[dict[str, Any]]) -> Message:
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for block in blocks:
        match block["type"]:
            case "text":
                parts.append(text_part(block))
            case "tool_use":
                calls.append(
                    ToolCall(
                        id=block.get("id", ""),
                        name=block.get("name", ""),
                        args=block.get("input", {}),
                    )
                )
                parts.append(Part(kind="call", text=calls[-1].id))
            case _:
                parts.append(opaque_part(block))
    return Message(
        role="assistant",
        content="".join(part.text for part in parts if part.kind == "text"),
        parts=tuple(parts),
        tool_calls=tuple(calls),
    )


def _result(block: dict[str, Any], place: str) -> Message:
    parts = _parts(block.get("content", ""), place)
    return Message(
        role="tool",
        content="".join(part.text for part in parts if part.kind == "text"),
        parts=parts if any(part.kind != "text" or part.native for part in parts) else (),
        tool_call_id=block.get("tool_use_id", ""),
        is_error=block.get("is_error", False),
    )


def _message(role: str, parts: tuple[Part, ...]) -> Message:
    return Message(
        role=role,  # type: ignore[arg-type]
        content="".join(part.text for part in parts if part.kind == "text"),
        parts=parts if any(part.kind != "text" or part.native for part in parts) else (),
    )


# --- blocks ----------------------------------------------------------------------------------


def text_part(block: dict[str, Any]) -> Part:
    native = {"citations": block["citations"]} if block.get("citations") else {}
    name = "messages" if native else ""
    return Part(kind="text", text=block.get("text", ""), name=name, native=native)


def opaque_part(block: dict[str, Any]) -> Part:
    """What only its provider reads. The blob is what it signed, or all of it."""
    blob = block.get("signature") or (
        block.get("data", "") if block["type"] == "redacted_thinking" else ""
    )
    native = {key: value for key, value in block.items() if key != "cache_control"}
    return Part(kind="opaque", name="messages", native=native, blob=blob)


def _parts(content: Any, place: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Part(kind="text", text=content),) if content else ()
    found: list[Part] = []
    for number, block in enumerate(content):
        found += _plain(block, f"{place}[{number}]")
    return tuple(found)


def _plain(block: dict[str, Any], place: str) -> list[Part]:
    """A block of what a person, a tool or the operator says."""
    match block["type"]:
        case "text":
            return [text_part(block)]
        case "image":
            return [_source("image", block.get("source", {}), "")]
        case "document":
            source = block.get("source", {})
            if source.get("type") == "content":
                return list(_parts(source.get("content", ""), place))
            if source.get("type") == "text":
                return [Part(kind="text", text=source.get("data", ""))]
            return [_source("file", source, block.get("title", ""))]
        case "search_result":
            head = f"{block.get('title', '')} ({block.get('source', '')})\n"
            return [Part(kind="text", text=head), *_parts(block.get("content", []), place)]
        case "tool_reference":
            return [Part(kind="text", text=f"[{block.get('tool_name', '')}]")]
    return []  # A file of the provider's own: a feature, told as such.


def _source(kind: Any, source: dict[str, Any], name: str) -> Part:
    """Of an address, or of a file of the provider's: only the word for it."""
    return Part(
        kind=kind,
        text=source.get("url", ""),
        media_type=source.get("media_type", ""),
        data=source.get("data", ""),
        name=name,
    )


# --- what else -------------------------------------------------------------------------------


def _tools(found: dict[str, Any]) -> tuple[ToolOffer, ...]:
    """Those that the model may call; of those that are held back, the ones that came up since."""
    here = {"tools": found.get("tools", []), "messages": found.get("messages", [])}
    said, defined = _changed(here["messages"])
    offers: dict[str, ToolOffer] = {}
    for tool in (*here["tools"], *defined):
        name = tool.get("name", "")
        if tool.get("defer_loading") and name not in said:
            continue
        if name in offers:
            raise refused("tools", f"{name[: limits.CALL_NAME_CHARS_MAX]} is offered twice")
        offers[name] = ToolOffer(
            name=name,
            description=tool.get("description", ""),
            schema=tool.get("input_schema", {}),
        )
    return tuple(offers.values())


def _changed(messages: list[dict[str, Any]]) -> tuple[set[str], list[dict[str, Any]]]:
    """The tools that came up in the conversation by name, and those that are defined in it."""
    named: set[str] = set()
    defined: list[dict[str, Any]] = []
    for message in messages:
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            inner = block.get("content")
            for one in inner if isinstance(inner, list) else ():
                named.add(one.get("tool_name", ""))
            tool = block.get("tool", {}) if block["type"] == "tool_addition" else {}
            named.add(tool.get("name", ""))
            if "definition" in tool:
                defined.append(tool["definition"])
    return named, defined


def _choice(choice: dict[str, Any]) -> str:
    kind = choice.get("type", "auto")
    return f"tool:{choice.get('name', '')}" if kind == "tool" else _CHOICES[kind]


def _stop(stop: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(one, str) for one in stop):
        raise refused("stop_sequences", "it is a list of texts")
    return tuple(stop)


def _effort(effort: str) -> str:
    if effort and effort not in _EFFORTS:
        raise refused("output_config.effort", f"it is one of {', '.join(_EFFORTS)}")
    return effort
