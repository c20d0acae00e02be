"""What of a tool's JSON Schema Gemini is sent, and that no schema keeps us busy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ring0.errors import CallInvalid
from ring0.models.dialects.gemini import schema


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"type": "string", "format": "email", "minLength": 2}, {"type": "STRING", "minLength": 2}),
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        (
            {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "d"},
            {"type": "INTEGER", "nullable": True, "description": "d"},
        ),
        (
            {"oneOf": [{"type": "integer"}, {"type": "string"}]},
            {"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}]},
        ),
        ({"enum": ["a", "b"]}, {"type": "STRING", "enum": ["a", "b"]}),
        ({"type": "integer", "enum": [1, 2]}, {"type": "INTEGER"}),
        ({"type": "array"}, {"type": "ARRAY", "items": {"type": "STRING"}}),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "number", "exclusiveMinimum": 0}},
                "required": ["a", "gone"],
                "additionalProperties": False,
                "$schema": "x",
            },
            {"type": "OBJECT", "properties": {"a": {"type": "NUMBER"}}, "required": ["a"]},
        ),
        (
            {"$ref": "#/$defs/p", "$defs": {"p": {"type": "boolean"}}},
            {"type": "BOOLEAN"},
        ),
        (
            {"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {}]},
            {
                "type": "OBJECT",
                "properties": {"a": {"type": "STRING"}},
                "required": ["a"],
            },
        ),
        ({"type": 7, "description": 8, "properties": 9}, {"type": "STRING"}),
    ],
)
def test_a_schema_goes_on_as_far_as_it_is_taken(given: Any, taken: Any) -> None:
    before = json.dumps(given)
    assert schema.taken(given) == taken
    assert json.dumps(given) == before  # Ours stays as it is: proposals are held against it.


def test_a_schema_that_stands_in_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}, "v": {"type": "string"}}}
    found = schema.taken(node)
    assert found["properties"]["v"] == {"type": "STRING"}
    assert found["properties"]["next"]["properties"]["next"] == {"type": "OBJECT"}
    deep: dict[str, Any] = {"type": "array"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    assert len(json.dumps(schema.taken(deep))) < 10_000


def test_a_schema_that_unfolds_without_end_is_refused() -> None:
    defs: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, 30):
        ref = {"$ref": f"#/$defs/d{n - 1}"}
        defs[f"d{n}"] = {"type": "object", "properties": {"a": ref, "b": ref}}
    with pytest.raises(CallInvalid, match="unfolded"):
        schema.taken({"$ref": "#/$defs/d29", "$defs": defs})
