"""Whether a tool's schema, which a stranger wrote, may be used to check arguments with.

Refused is what reaches beyond itself (a reference to another document would be fetched by the
kernel) and what has no end.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import jsonschema_rs
import msgspec

from ring0 import limits
from ring0.tools import schemas
from ring0.tools.mcp.wording import cleaned, hidden

_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_BASE: Final = "$id"
_WORDS: Final = ("title", "description", "$comment", "examples", "default")
_DIALECTS: Final = (
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)


class Unusable(Exception):
    """A schema or a name that no tool can be made of; the message says why."""


def checked(schema: Any) -> dict[str, Any]:
    """A copy for the arguments of a tool. Raises Unusable."""
    usable = _copy(schema)
    if usable.get("type", "object") != "object":
        raise Unusable("its arguments are no object")
    usable["type"] = "object"
    properties = usable.setdefault("properties", {})
    if not isinstance(properties, dict):
        raise Unusable("`properties` is no object")
    for name in properties:
        if any(hidden(letter) for letter in name) or not name.isprintable():
            raise Unusable("an argument's name holds a character that nobody sees")
    return usable


class Promise(NamedTuple):
    """What a tool promises of its structured results."""

    validator: jsonschema_rs.Validator
    parts: int
    """How much work it is to check one value."""
    patterns: schemas.Patterns


def validator(schema: Any) -> Promise | None:
    """What checks structured results; None where the tool promises nothing. Raises Unusable."""
    if schema is None:
        return None
    usable = _copy(schema)
    return Promise(_compiled(usable), schemas.parts(usable), schemas.Patterns(usable))


def _copy(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise Unusable("its schema is no object")
    _check(schema, 0)
    try:
        if len(msgspec.json.encode(schema)) > limits.MCP_SCHEMA_SIZE_BYTES_MAX:
            raise Unusable(f"its schema has more than {limits.MCP_SCHEMA_SIZE_BYTES_MAX} bytes")
    except (UnicodeEncodeError, OverflowError):
        raise Unusable("its schema is not JSON") from None
    usable: dict[str, Any] = _readable({k: v for k, v in schema.items() if k != _BASE})
    _compiled(usable)
    return usable


def _readable(value: Any) -> Any:
    """A copy whose words for readers are cleaned; what decides stays as it is."""
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {
            key: cleaned(item) if key in _WORDS and not isinstance(item, dict) else _readable(item)
            for key, item in value.items()
        }
    return value


def _compiled(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    try:
        schemas.parts(schema)
        return schemas.validator(schema)
    except schemas.Endless as error:
        raise Unusable(f"its schema takes too long to check anything: {error}") from None
    except (jsonschema_rs.ValidationError, ValueError, RecursionError) as error:
        raise Unusable(f"its schema is not JSON Schema: {str(error)[:200]}") from None


def _check(value: Any, depth: int) -> None:
    if depth > limits.MCP_SCHEMA_DEPTH_MAX:
        raise Unusable(f"its schema is nested deeper than {limits.MCP_SCHEMA_DEPTH_MAX}")
    if isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            # A property may have such a name: then what it holds is a schema, never a text.
            if key in _REFERENCES and isinstance(item, str) and not item.startswith("#"):
                raise Unusable(f"its schema refers to another document: {item[:80]!r}")
            if key == _BASE and depth > 0 and isinstance(item, str):
                raise Unusable("a part of its schema calls itself a document of its own")
            if key == "$schema" and isinstance(item, str) and item.rstrip("#") not in _DIALECTS:
                raise Unusable(f"its schema is of an unknown kind: {item[:80]!r}")
            too_long = isinstance(item, str) and len(item) > limits.MCP_PATTERN_CHARS_MAX
            if key == "pattern" and too_long:
                raise Unusable("a pattern in its schema is too long")
            _check(item, depth + 1)
