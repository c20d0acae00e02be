"""An outcome of the gate as MCP tells it: parts, a structured value, or an error that the model
reads."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0.errors import Ring0Error

_ERROR: Final = "ring0/error"
_encode = msgspec.json.Encoder().encode


def result_of(value: Any, notice: str, *, parts_of: bool, stateless: bool) -> dict[str, Any]:
    """`parts_of`: the tool is one of an MCP server, whose answers may have parts."""
    structured: Any = value
    content: list[dict[str, Any]] = []
    if parts_of and isinstance(value, dict) and isinstance(value.get("parts"), list):
        structured = value.get("value")
        content = [_part(part) for part in value["parts"]]
    elif isinstance(value, str):
        structured = None
        content = [_text(value)]
    if structured is not None and (not content or "value" in value):
        content = [_text(_encode(structured).decode()), *content]
    if notice:
        content.append(_text(f"[ring0: {notice}]"))
    told: dict[str, Any] = {"content": content}
    # Before the stateless era it has to be an object.
    if isinstance(structured, dict) or (stateless and structured is not None):
        told["structuredContent"] = structured
    return told


def failure_of(error: Ring0Error, notice: str) -> dict[str, Any]:
    """For the model to read, and to do better."""
    content = [_text(error.as_line())]
    if notice:
        content.append(_text(f"[ring0: {notice}]"))
    return {"content": content, "isError": True, "_meta": {_ERROR: error.as_dict()}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """As `tools/mcp/results.py` kept it, back again."""
    kind = part.get("type")
    if kind in ("image", "audio"):
        return {"type": kind, "data": part["base64"], "mimeType": part["mime_type"]}
    if kind == "resource":
        inner = {"uri": part["uri"]}
        if "mime_type" in part:
            inner["mimeType"] = part["mime_type"]
        inner.update({"text": part["text"]} if "text" in part else {"blob": part["base64"]})
        return {"type": "resource", "resource": inner}
    if kind == "resource_link":
        return {"type": kind, "uri": part["uri"], "name": part["name"]}
    return _text(str(part.get("text", "")))
