"""How a call of each kind is told as a span: its name, its kind, what the conventions ask of it.

Values in, values out. Not here: what is said of every call, times, parents (projecting.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ring0 import limits
from ring0.observability.telemetry import conventions as names
from ring0.observability.telemetry.spans import SpanKind, Value
from ring0.types import AgentManifest, Call, CallKind, Frozen, ModelConfig, Outcome


class Told(msgspec.Struct, kw_only=True):
    """A call with what it was asked with and what it came to, where these may be said."""

    call: Call
    outcome: Outcome | None
    args: Any = None


class About(Frozen, frozen=True, kw_only=True):
    """What is special about one call's span."""

    name: str
    kind: SpanKind = SpanKind.INTERNAL
    attributes: dict[str, Value] = msgspec.field(default_factory=dict)


def told(
    told: Told, manifest: AgentManifest, models: Mapping[str, ModelConfig], content: bool
) -> About:
    """`models`: those of ring0.toml; `content`: with what was written."""
    call = told.call
    if call.kind is CallKind.MODEL:
        return _model(told, {**models, **manifest.models}.get(call.name), content)
    if call.kind is CallKind.TOOL:
        return _tool(told, manifest, content)
    if (made := _OTHERS.get(call.kind)) is not None:
        return made(call)
    return About(name=f"{call.kind} {call.name}".strip())


# --- models -------------------------------------------------------------------------------------


def _model(told: Told, config: ModelConfig | None, content: bool) -> About:
    call = told.call
    answer = told.outcome.value if told.outcome is not None else None
    answer = answer if isinstance(answer, dict) else {}
    native = _dict(_dict(answer.get("native")).get("body"))
    operation = names.EMBEDDINGS if "vectors" in native else names.CHAT
    asked = config.model if config is not None and config.model not in ("", "*") else call.name
    found: dict[str, Value] = {names.OPERATION: operation, names.REQUEST_MODEL: asked}
    if config is not None:
        found[names.PROVIDER] = names.PROVIDERS.get(config.provider, config.provider)
        parts = urlsplit(config.base_url)
        if parts.hostname:
            found[names.SERVER_ADDRESS] = parts.hostname
            if parts.port:
                found[names.SERVER_PORT] = parts.port
    if answer:
        found |= _answered(answer, native)
        if content:
            found[names.OUTPUT_MESSAGES] = _json([_output(answer)])
    if content and told.args is not None:
        found[names.INPUT_MESSAGES] = _json(_input(told.args))
    return About(name=f"{operation} {asked}", kind=SpanKind.CLIENT, attributes=found)


def _answered(answer: dict[str, Any], native: dict[str, Any]) -> dict[str, Value]:
    """The model that answered, why it ended, and its tokens. Those of the cache are part of what
    was read, those of its thoughts of what it said, as the conventions have it."""
    found: dict[str, Value] = {
        names.RESPONSE_MODEL: str(answer.get("model", "")),
        names.INPUT_TOKENS: _count(answer.get("tokens_in")),
        names.OUTPUT_TOKENS: _count(answer.get("tokens_out")),
        names.FINISH_REASONS: (names.FINISHED.get(str(answer.get("stop", "end")), "stop"),),
    }
    if cached := _count(answer.get("tokens_cached")):
        found[names.CACHE_READ_TOKENS] = cached
    if reasoning := _count(answer.get("tokens_reasoning")):
        found[names.REASONING_TOKENS] = reasoning
    if written := _count(native.get("cache_creation_input_tokens")):
        found |= dict.fromkeys(names.CACHE_WRITE_TOKENS, written)
    if answer.get("estimated"):
        found[names.ESTIMATED] = True
    return found


def _output(answer: dict[str, Any]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if text := answer.get("text"):
        parts.append({"type": "text", "content": str(text)})
    for one in answer.get("tool_calls") or ():
        call = _dict(one)
        parts.append({"type": "tool_call", "id": call.get("id"), "name": call.get("name"),
                      "arguments": call.get("args")})  # fmt: skip
    stop = names.FINISHED.get(str(answer.get("stop", "end")), "stop")
    return {"role": "assistant", "parts": parts, "finish_reason": stop}


def _input(args: Any) -> list[dict[str, Any]]:
    """The question's messages, by the SDK or at a door of whatever dialect: their texts, and of
    what is no text its kind."""
    asked = _dict(args)
    body = _dict(asked.get("body")) or asked
    said = body.get("messages") or body.get("input") or []
    said = said if isinstance(said, list) else [{"role": "user", "content": said}]
    return [_message(one) for one in said[-limits.SPAN_LIST_MAX :]]


def _message(message: Any) -> dict[str, Any]:
    one = _dict(message)
    content = one.get("content", one.get("output", ""))
    pieces = content if isinstance(content, list) else [{"type": "text", "text": content}]
    parts = []
    for piece in map(_dict, pieces):
        if isinstance(piece.get("text"), str):
            parts.append({"type": "text", "content": piece["text"]})
        else:
            parts.append({"type": str(piece.get("type", "?"))})
    return {"role": str(one.get("role") or one.get("type") or "user"), "parts": parts}


# --- tools --------------------------------------------------------------------------------------


def _tool(told: Told, manifest: AgentManifest, content: bool) -> About:
    call = told.call
    instance, _, operation = call.name.partition(".")
    use = manifest.tools.get(instance, {})
    is_mcp = use.get("use") == "mcp"
    found: dict[str, Value] = {
        names.OPERATION: names.EXECUTE_TOOL,
        names.TOOL_NAME: call.name,
        names.TOOL_CALL: call.id,
        names.TOOL_TYPE: "extension" if use else "function",
    }
    if is_mcp:
        found |= {names.MCP_METHOD: "tools/call", names.TOOL_NAME: operation or call.name}
        url = urlsplit(str(use.get("url", "")))
        found[names.NETWORK_TRANSPORT] = "tcp" if url.hostname else "pipe"
        if url.hostname:
            found[names.SERVER_ADDRESS] = url.hostname
    if content:
        if told.args is not None:
            found[names.TOOL_ARGUMENTS] = _json(told.args)
        if told.outcome is not None and told.outcome.error is None:
            found[names.TOOL_RESULT] = _json(told.outcome.value)
    kind = SpanKind.CLIENT if is_mcp else SpanKind.INTERNAL
    return About(name=f"{names.EXECUTE_TOOL} {call.name}", kind=kind, attributes=found)


# --- what the kernel carries out itself -----------------------------------------------------------


def _memory(operation: str) -> Callable[[Call], About]:
    return lambda call: About(name=operation, attributes={names.OPERATION: operation})


def _of_a_tool(verb: str) -> Callable[[Call], About]:
    return lambda call: About(name=f"{verb} {call.name}", attributes={names.TOOL_NAME: call.name})


_OTHERS: dict[CallKind, Callable[[Call], About]] = {
    CallKind.MEMORY_APPEND: _memory(names.UPSERT_MEMORY),
    CallKind.MEMORY_RECALL: _memory(names.SEARCH_MEMORY),
    CallKind.MEMORY_EXPLAIN: _memory(names.SEARCH_MEMORY),
    CallKind.MEMORY_REMEMBER: _memory(names.UPSERT_MEMORY),
    CallKind.MEMORY_SUPERSEDE: _memory(names.UPDATE_MEMORY),
    CallKind.MEMORY_FORGET: _memory(names.DELETE_MEMORY),
    CallKind.MEMORY_SET: _memory(names.UPSERT_MEMORY),
    CallKind.MEMORY_COMPACT: _memory(names.UPSERT_MEMORY),
    CallKind.MEMORY_ASSEMBLE: _memory(names.SEARCH_MEMORY),
    CallKind.PROPOSAL: _of_a_tool("propose"),
    CallKind.OBSERVED: _of_a_tool("observe"),
    CallKind.EGRESS: lambda call: About(
        name=f"egress {call.name}", kind=SpanKind.CLIENT, attributes={names.TOOL_NAME: call.name}
    ),
}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()[: limits.SPAN_TEXT_CHARS_MAX]
