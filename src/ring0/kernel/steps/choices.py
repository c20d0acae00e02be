"""What the arguments of a tool take, in words, for whoever changes one: type, bounds, choices.

By the tool's schema, which may be hostile: everything is bounded. Not here: whether a value fits
(tools/registry.py), and what a change does (editing.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.kernel.live import Held
from ring0.kernel.steps import editing
from ring0.tools.registry import Tool
from ring0.types import Edit

_TYPES: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list, as JSON",
    "object": "an object, as JSON",
    "null": "null",
}
_BOUNDS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "{} letters or more",
    "maxLength": "at most {} letters",
}
_ANYTHING: Final = "anything: JSON, or text"


def of(held: Held) -> dict[str, str]:
    """By argument; nothing where nobody can change one."""
    if held.tool is None or held.kind not in editing.KINDS:
        return {}
    schema = held.tool.manifest.schema
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    names = list(properties)[: limits.EDIT_ARGUMENTS_SHOWN_MAX]
    return {name: takes(properties[name], schema) for name in names}


def takes(part: Any, schema: dict[str, Any], depth: int = 0) -> str:
    """What fits a part of a schema. `schema`: all of it, for what the part refers to."""
    part = _meant(part, schema)
    if part is None or depth > limits.EDIT_TAKES_DEPTH_MAX:
        return _ANYTHING
    if "const" in part:
        return _cut(f"only {_json(part['const'])}")
    if isinstance(part.get("enum"), list) and part["enum"]:
        return _one_of(part["enum"], text=part.get("type") == "string")
    for word in ("anyOf", "oneOf"):
        if isinstance(part.get(word), list) and part[word]:
            others = part[word][: limits.EDIT_CHOICES_SHOWN_MAX]
            said = dict.fromkeys(takes(one, schema, depth + 1) for one in others)
            return _cut(" or ".join(said))
    kinds = part.get("type")
    named = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    words = [_TYPES[kind] for kind in named if isinstance(kind, str) and kind in _TYPES]
    bounds = [
        how.format(part[word])
        for word, how in _BOUNDS.items()
        if isinstance(part.get(word), int | float) and not isinstance(part[word], bool)
    ]
    return _cut(", ".join([" or ".join(words) or _ANYTHING, *bounds]))


def explained(tool: Tool, edits: Iterable[Edit]) -> dict[str, Any]:
    """`editing.typed`; what can't be read says what it takes. Raises CallInvalid."""
    found: dict[str, Any] = {}
    for edit in edits:
        try:
            found |= editing.typed(tool, [edit])
        except CallInvalid as error:
            raise _with_choices(error, tool, [edit]) from None
    return found


def check(tool: Tool, args: dict[str, Any], edits: Iterable[Edit]) -> None:
    """`tool.validate`; what does not fit says what was to be there. Raises CallInvalid."""
    try:
        tool.validate(args)
    except CallInvalid as error:
        raise _with_choices(error, tool, edits) from None


def _with_choices(error: CallInvalid, tool: Tool, edits: Iterable[Edit]) -> CallInvalid:
    schema = tool.manifest.schema
    properties = schema.get("properties", {})
    said = [
        f"{edit.argument} takes {takes(properties[edit.argument], schema)}."
        for edit in edits
        if edit.argument in properties
    ]
    return CallInvalid(error.what, why=" ".join([error.why, *said]), todo=error.todo)


def _meant(part: Any, schema: dict[str, Any]) -> dict[str, Any] | None:
    """The part, or what it refers to within the schema; None: nothing is known of it."""
    for _ in range(limits.EDIT_TAKES_DEPTH_MAX):
        if not isinstance(part, dict):
            return None
        where = part.get("$ref")
        if where is None:
            return part
        if not isinstance(where, str) or not where.startswith("#/"):
            return None
        part = schema
        for step in where[2:].split("/"):
            part = part.get(step) if isinstance(part, dict) else None
    return None


def _one_of(choices: list[Any], *, text: bool) -> str:
    """Text is typed as it is; where other kinds fit too, as JSON."""
    shown = choices[: limits.EDIT_CHOICES_SHOWN_MAX]
    plain = text or all(isinstance(one, str) for one in choices)
    said = ", ".join(str(one) if plain else _json(one) for one in shown)
    left = len(choices) - len(shown)
    more = f" and {left} more" if left else ""
    return f"one of: {_cut(said)}{more}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _cut(said: str) -> str:
    most = limits.EDIT_TAKES_CHARS_MAX
    return said if len(said) <= most else said[: most - 1] + "…"
