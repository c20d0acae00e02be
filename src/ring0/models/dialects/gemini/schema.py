"""JSON Schema as far as Gemini takes it: a copy of a tool's schema without what it refuses.

What is left out here is not gone: what a tool of ours is called with is held against all of it.
https://ai.google.dev/api/caching#Schema
"""

from __future__ import annotations

from typing import Any, Final

from ring0 import limits
from ring0.models.wire import refused

_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "array", "object"})
_PLAIN: Final[dict[str, type[Any] | tuple[type[Any], ...]]] = {
    "title": str,
    "description": str,
    "pattern": str,
    "minLength": int,
    "maxLength": int,
    "minItems": int,
    "maxItems": int,
    "minProperties": int,
    "maxProperties": int,
    "minimum": (int, float),
    "maximum": (int, float),
}
"""What is taken as it is, if it has that type."""
_FORMATS: Final = {
    "STRING": ("date-time",),
    "INTEGER": ("int32", "int64"),
    "NUMBER": ("float", "double"),
}
_ANYTHING: Final = {"type": "STRING"}
"""For what the schema leaves open: Gemini wants a type."""


def taken(schema: dict[str, Any]) -> dict[str, Any]:
    """The copy. Raises CallInvalid where its references unfold without end."""
    return _Copy(schema).of(schema, (), 0)


class _Copy:
    """Made from one schema, whose definitions it unfolds."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._places = 0

    def of(self, schema: Any, within: tuple[str, ...], depth: int) -> dict[str, Any]:
        """`within`: the references that it stands in."""
        self._places += 1
        if self._places > limits.GEMINI_SCHEMA_PLACES_MAX:
            raise refused("a tool's schema", "with its references unfolded it has too many places")
        if not isinstance(schema, dict) or depth > limits.GEMINI_SCHEMA_DEPTH_MAX:
            return dict(_ANYTHING)
        if (ref := schema.get("$ref")) is not None:
            there = self._there(ref)
            if there is None or ref in within:
                return {"type": "OBJECT"}  # It stands in itself, and has no end.
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return self.of({**there, **beside}, (*within, ref), depth + 1)
        if parts := _schemas(schema.get("allOf")):
            beside = {key: value for key, value in schema.items() if key != "allOf"}
            return self._joined([beside, *parts], within, depth + 1)
        if choices := _schemas(schema.get("anyOf")) or _schemas(schema.get("oneOf")):
            return self._any_of(schema, choices, within, depth + 1)
        return self._typed(schema, within, depth)

    def _there(self, ref: Any) -> dict[str, Any] | None:
        if not isinstance(ref, str) or not ref.startswith("#"):
            return None
        found: Any = self._root
        for step in ref[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else None

    def _joined(
        self, parts: list[dict[str, Any]], within: tuple[str, ...], depth: int
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in [self.of(part, within, depth) for part in parts if part]:
            properties = {**found.get("properties", {}), **one.get("properties", {})}
            required = [*found.get("required", ()), *one.get("required", ())]
            found |= one
            if properties:
                found |= {"type": "OBJECT", "properties": properties}
            if required:
                found["required"] = list(dict.fromkeys(required))
        return found or dict(_ANYTHING)

    def _any_of(
        self,
        schema: dict[str, Any],
        choices: list[dict[str, Any]],
        within: tuple[str, ...],
        depth: int,
    ) -> dict[str, Any]:
        """Beside `anyOf` Gemini takes nothing: what is said of all of them is said of each."""
        real = [one for one in choices if one.get("type") != "null"]
        said = {key: schema[key] for key in ("title", "description") if key in schema}
        found = [self.of({**said, **one}, within, depth) for one in real]
        if len(real) < len(choices):
            found = [{**one, "nullable": True} for one in found]
        if not found:
            return dict(_ANYTHING)
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _typed(self, schema: dict[str, Any], within: tuple[str, ...], depth: int) -> dict[str, Any]:
        kinds, nullable = _kinds(schema)
        if len(kinds) > 1:
            choices = [{**schema, "type": kind} for kind in kinds]
            choices += [{"type": "null"}] if nullable else []
            return self._any_of({}, choices, within, depth + 1)
        found: dict[str, Any] = {"type": kinds[0].upper()} if kinds else dict(_ANYTHING)
        for key, kind in _PLAIN.items():
            value = schema.get(key)
            if isinstance(value, kind) and not isinstance(value, bool):
                found[key] = value
        if nullable:
            found["nullable"] = True
        if schema.get("format") in _FORMATS.get(found["type"], ()):
            found["format"] = schema["format"]
        match found["type"]:
            case "STRING":
                if words := _words(schema):
                    found["enum"] = words
            case "ARRAY":
                found["items"] = self.of(schema.get("items"), within, depth + 1)
            case "OBJECT":
                found |= self._object(schema, within, depth)
        return found

    def _object(
        self, schema: dict[str, Any], within: tuple[str, ...], depth: int
    ) -> dict[str, Any]:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            return {}
        found: dict[str, Any] = {
            "properties": {
                name: self.of(one, within, depth + 1) for name, one in properties.items()
            }
        }
        asked = schema.get("required")
        required = [
            one
            for one in (asked if isinstance(asked, list) else ())
            if isinstance(one, str) and one in properties
        ]
        return found | ({"required": required} if required else {})


def _schemas(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _kinds(schema: dict[str, Any]) -> tuple[list[str], bool]:
    """The types that it may have, and whether it may be null."""
    said = schema.get("type")
    named = said if isinstance(said, list) else [said]
    kinds = [kind for kind in named if isinstance(kind, str) and kind in _TYPES]
    if not kinds and isinstance(schema.get("properties"), dict):
        kinds = ["object"]
    elif not kinds and "items" in schema:
        kinds = ["array"]
    return list(dict.fromkeys(kinds)), "null" in named or schema.get("nullable") is True


def _words(schema: dict[str, Any]) -> list[str]:
    """The values that it may have, where all are words: of other types Gemini takes no list."""
    said = [schema["const"]] if "const" in schema else schema.get("enum")
    words = [one for one in said if one is not None] if isinstance(said, list) else []
    return words if all(isinstance(one, str) and one for one in words) else []
