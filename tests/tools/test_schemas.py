"""A schema that would keep the kernel busy for ever is refused before anything is checked."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from ring0 import limits
from ring0.errors import CallInvalid, ManifestInvalid, ToolFailed
from ring0.tools import registry, schemas
from ring0.tools.mcp import schema as mcp_schema
from ring0.tools.mcp.results import value_of
from ring0.tools.mcp.session import Answer
from ring0.types import Effect, ToolManifest


def doubling(steps: int, ref: str = "#/$defs/d{}") -> dict[str, Any]:
    """A kilobyte that is 2**steps parts."""
    defs: dict[str, Any] = {
        f"d{i}": {"allOf": [{"$ref": ref.format(i + 1)}] * 2} for i in range(steps)
    }
    defs[f"d{steps}"] = {"type": "string"}
    return {"type": "object", "properties": {"x": {"$ref": ref.format(0)}}, "$defs": defs}


def nested(steps: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object"}
    for _ in range(steps):
        found = {"allOf": [found], "unevaluatedProperties": {"type": "string"}}
    return found


ENDLESS = {
    "doubling": doubling(40),
    "doubling, by other words": doubling(40, "#/%24defs/d{}"),
    "unevaluated": nested(22),
    "a recursion that branches": {
        "anyOf": [{"properties": {"n": {"$ref": "#"}}}, {"properties": {"n": {"$ref": "#"}}}]
    },
    "by any name": {
        "anyOf": [{"properties": {"n": {"$ref": "#"}}}, {"additionalProperties": {"$ref": "#"}}]
    },
    "one step and two": {
        "properties": {"n": {"allOf": [{"$ref": "#"}, {"properties": {"n": {"$ref": "#"}}}]}}
    },
    "a recursion without a step": {"allOf": [{"$ref": "#"}]},
    "through another": {
        "$ref": "#/$defs/a",
        "$defs": {
            "a": {"properties": {"x": {"$ref": "#/$defs/b"}}},
            "b": {"anyOf": [{"properties": {"y": {"$ref": "#/$defs/a"}}}] * 2},
        },
    },
    "in many places": {"properties": {f"p{n}": {"$ref": "#"} for n in range(200)}},
    "an anchor": {"$ref": "#here", "$defs": {"a": {"$anchor": "here"}}},
    "elsewhere": {"properties": {"a": {"$ref": "http://a.example/b"}}},
    "a document within": {"$defs": {"a": {"$id": "x:y"}}, "$ref": "#/$defs/a"},
}
PLAIN = {
    "arguments": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"items": {}}}},
    "a tree": {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
    "any JSON": {
        "$defs": {
            "json": {
                "anyOf": [
                    {"type": ["string", "number", "boolean", "null"]},
                    {"type": "array", "items": {"$ref": "#/$defs/json"}},
                    {"type": "object", "additionalProperties": {"$ref": "#/$defs/json"}},
                ]
            }
        },
        "properties": {"one": {"$ref": "#/$defs/json"}, "two": {"$ref": "#/$defs/json"}},
    },
    "properties with the names of keywords": {
        "properties": {"$ref": {"type": "string"}, "items": {"$ref": "#/$defs/a/b"}},
        "$defs": {"a/b": {}, "a": {"b": {"enum": [{"$ref": "nowhere"}]}}},
    },
}


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS)
def test_a_schema_that_never_ends_checking_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(schemas.Endless):
        schemas.parts(schema)
    with pytest.raises(mcp_schema.Unusable):
        mcp_schema.checked(schema)
    with pytest.raises(mcp_schema.Unusable):
        mcp_schema.validator(schema)
    with pytest.raises(ManifestInvalid):
        registry.Tool(Driver(schema))


@pytest.mark.parametrize("schema", PLAIN.values(), ids=PLAIN)
def test_what_people_write_is_taken(schema: dict[str, Any]) -> None:
    assert schemas.parts(schema) < 20
    jsonschema_rs.validator_for(schema)


def test_many_values_for_a_schema_of_many_parts_are_refused() -> None:
    schema = {"properties": {"x": {"items": {"anyOf": [{"const": n} for n in range(2_000)]}}}}
    with pytest.raises(CallInvalid, match="too many values"):
        registry.Tool(Driver(schema)).validate({"x": [1] * 100_000})
    assert registry.Tool(Driver(schema)).validate({"x": [1] * 1_000})
    answer = Answer(parts=[], structured={"x": [1] * 100_000})
    with pytest.raises(ToolFailed, match="too many values"):
        value_of("t", answer, mcp_schema.validator(schema))


class Driver:
    def __init__(self, schema: dict[str, Any]) -> None:
        self.manifest = ToolManifest(name="t", description="", schema=schema, effect=Effect.PURE)

    async def prepare(self, args: Any, context: Any) -> Any: ...

    async def execute(self, args: Any, prepared: Any, context: Any) -> Any: ...


# --- patterns -----------------------------------------------------------------------------------


def tool(schema: dict[str, Any]) -> registry.Tool:
    class Driver:
        manifest = ToolManifest(
            name="t", description="", effect=Effect.PURE, schema={"type": "object", **schema}
        )

    return registry.Tool(Driver())  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["(?=(a+)+b)c", r"(a)\1", "(a{1,50}){1,50}b"])
def test_a_pattern_that_could_be_tried_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(ManifestInvalid):
        tool({"properties": {"x": {"type": "string", "pattern": pattern}}})
    with pytest.raises(mcp_schema.Unusable):
        mcp_schema.validator({"type": "object", "properties": {"x": {"pattern": pattern}}})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"type": "string", "pattern": "[ab]*a[ab]{1000}c"}}},
        {"properties": {"x": {"$ref": "#/$defs/p"}}, "$defs": {"p": {"pattern": "^a"}}},
        {"properties": {"x": {}}, "additionalProperties": {"pattern": "^a"}},
        {"properties": {"x": {}}, "allOf": [{"properties": {"x": {"pattern": "^a"}}}]},
        {"properties": {"x": {}}, "patternProperties": {"^a": {}}},
    ],
)
def test_patterns_are_tried_on_so_much_text_and_no_more(schema: dict[str, Any]) -> None:
    found = tool(schema)
    with pytest.raises(CallInvalid, match="more text than its patterns"):
        found.validate({"x": "a" * (limits.SCHEMA_PATTERN_CHARS_MAX + 1)})


def test_one_pattern_that_is_referred_to_a_thousand_times_counts_a_thousand_times() -> None:
    often = [{"$ref": "#/$defs/p"}] * 1_000
    found = tool({"properties": {"x": {"allOf": often}}, "$defs": {"p": {"pattern": "^a"}}})
    assert found.validate({"x": "a"}) == {"x": "a"}
    with pytest.raises(CallInvalid, match="more text than its patterns"):
        found.validate({"x": "a" * 1_000})


def test_a_long_text_beside_a_pattern_is_no_text_for_it() -> None:
    found = tool({"properties": {"id": {"pattern": "^[a-z]+$"}, "text": {}, "pattern": {}}})
    long = "a" * 1_000_000
    assert found.validate({"id": "abc", "text": long, "pattern": long})["text"] == long
