"""What a server's answer becomes: one JSON value, bounded, checked against what was promised."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import ToolFailed
from ring0.tools import schemas
from ring0.tools.mcp.schema import Promise
from ring0.tools.mcp.session import Answer, Reached
from ring0.tools.mcp.wording import clean

_MIME: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}", re.IGNORECASE)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def value_of(name: str, answer: Answer, promised: Promise | None) -> Any:
    """The value of a call of the tool `name`: the structured one, or the text where there is
    nothing else, or `{"parts": […]}`. Raises ToolFailed."""
    if len(answer.parts) > limits.MCP_PARTS_MAX:
        raise ToolFailed(
            f"{name} answered in {len(answer.parts)} parts.",
            why=f"At most {limits.MCP_PARTS_MAX} are taken.",
            todo="Ask for less.",
        )
    parts = [_part(part) for part in answer.parts]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    if answer.failed:
        error = ToolFailed(
            f"{name} failed: {clean(_one_line(texts), limits.MCP_ERROR_CHARS_MAX)}",
            why="The MCP server's own words.",
            todo="Correct the arguments, or ask for something else.",
        )
        error.tells_of_data = True
        raise error
    rest = [part for part in parts if part["type"] != "text"]
    if promised is not None:
        _check_promise(name, answer.structured, promised)
    value: Any
    if answer.structured is not None:
        # One that looks like parts is told apart from them: whoever shows it must not be fooled.
        marked = rest or (isinstance(answer.structured, dict) and "parts" in answer.structured)
        value = {"value": answer.structured, "parts": rest} if marked else answer.structured
    elif not rest and len(texts) == 1:
        value = texts[0]
    else:
        value = {"parts": parts}
    _check_bounds(name, value)
    return value


def reached_value(name: str, reached: Reached) -> dict[str, Any]:
    """What came of a request of another kind: the result or the error as it came, and the notes.
    Raises ToolFailed where it can't be kept."""
    value: dict[str, Any] = {"notes": reached.notes} if reached.notes else {}
    if reached.error is not None:
        value["error"] = reached.error
    else:
        value["result"] = {k: v for k, v in reached.result.items() if k != "_meta"}
        _check_asks(name, reached.result)
    _check_bounds(name, value)
    return value


def reached_call(name: str, reached: Reached, promised: Promise | None) -> dict[str, Any]:
    """Likewise of a tool's call, checked against what was promised. Raises ToolFailed, also where
    the server says that it failed."""
    result = reached.result
    if reached.error is None and result.get("resultType") != "input_required":
        answer = Answer(
            parts=list(result.get("content") or ()),
            structured=result.get("structuredContent"),
            failed=bool(result.get("isError")),
        )
        value_of(name, answer, promised)
    return reached_value(name, reached)


_QUESTIONS: Final = frozenset({"sampling/createMessage", "elicitation/create", "roots/list"})


def _check_asks(name: str, result: dict[str, Any]) -> None:
    """What a server asks for in the middle is known, and not too much."""
    asks = result.get("inputRequests") or {}
    known = isinstance(asks, dict) and all(
        isinstance(one, dict) and one.get("method") in _QUESTIONS for one in asks.values()
    )
    if not known or len(asks) > limits.MCP_PARTS_MAX:
        raise ToolFailed(
            f"{name} asks for what no client gives.",
            why=f"Known are: {', '.join(sorted(_QUESTIONS))}.",
            todo="Ask for something else.",
        )


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """One part, in the few fields that it needs."""
    kind = str(part.get("type", ""))
    if kind == "text":
        return {"type": "text", "text": str(part.get("text", ""))}
    if kind in ("image", "audio"):
        return {"type": kind, **_data(part.get("mimeType"), part.get("data"))}
    if kind == "resource" and isinstance(inner := part.get("resource"), dict):
        uri = clean(str(inner.get("uri", "")), limits.MCP_ERROR_CHARS_MAX)
        if "text" in inner:
            return {"type": "resource", "uri": uri, "text": str(inner["text"])} | _mime(inner)
        return {"type": "resource", "uri": uri, **_data(inner.get("mimeType"), inner.get("blob"))}
    if kind == "resource_link":
        return {
            "type": kind,
            "uri": clean(str(part.get("uri", "")), limits.MCP_ERROR_CHARS_MAX),
            "name": clean(str(part.get("name", "")), limits.MCP_ERROR_CHARS_MAX),
        }
    return {"type": "unknown", "name": clean(kind, limits.MCP_NAME_CHARS_MAX)}


def _mime(inner: dict[str, Any]) -> dict[str, str]:
    mime = inner.get("mimeType")
    return {"mime_type": mime} if isinstance(mime, str) and _MIME.fullmatch(mime) else {}


def _data(mime: Any, data: Any) -> dict[str, str]:
    known = isinstance(mime, str) and _MIME.fullmatch(mime) is not None
    text = data if isinstance(data, str) and _BASE64.fullmatch(data) else ""
    return {"mime_type": mime if known else "application/octet-stream", "base64": text}


def _check_promise(name: str, value: Any, promised: Promise) -> None:
    if schemas.values(value) * promised.parts > limits.SCHEMA_CHECKS_MAX:
        raise ToolFailed(
            f"{name} answered with too many values to check them.",
            why="Its output schema has many parts.",
            todo="Ask for less.",
        )
    if promised.patterns.tries(value) > limits.SCHEMA_PATTERN_CHARS_MAX:
        raise ToolFailed(
            f"{name} answered with more text than the patterns of its output schema are tried on.",
            why=f"Letters times patterns are at most {limits.SCHEMA_PATTERN_CHARS_MAX}.",
            todo="Ask for less.",
        )
    error = next(iter(promised.validator.iter_errors(value)), None) if value is not None else None
    if value is None or error is not None:
        why = (
            "It holds no structured value."
            if error is None
            else clean(error.message, limits.WHY_CHARS_MAX)
        )
        raise ToolFailed(
            f"{name} answered with something else than its output schema promises.",
            why=why,
            todo="Update the server, and approve it again.",
        )


def _check_bounds(name: str, value: Any) -> None:
    try:
        _check_depth(value, 0)
        size_bytes = len(msgspec.json.encode(value))
    except (OverflowError, UnicodeEncodeError, ValueError) as error:
        raise ToolFailed(
            f"{name} answered with a value that can't be kept.",
            why=clean(str(error), 200),
            todo="Ask for something else.",
        ) from None
    if size_bytes > limits.RESULT_SIZE_BYTES_MAX:
        raise ToolFailed(
            f"{name} answered with {size_bytes} bytes.",
            why=f"At most {limits.RESULT_SIZE_BYTES_MAX} are taken.",
            todo="Ask for less, or let it write a file.",
        )


def _check_depth(value: Any, depth: int) -> None:
    if depth > limits.CALL_DEPTH_MAX:
        raise ValueError(f"it is nested deeper than {limits.CALL_DEPTH_MAX}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise OverflowError("an integer in it does not fit 64 bits")
    for inner in value.values() if isinstance(value, dict) else value if _is_list(value) else ():
        _check_depth(inner, depth + 1)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _one_line(texts: list[str]) -> str:
    return " ".join(" ".join(texts).split()) or "it does not say why"
