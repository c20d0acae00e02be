"""A tool's arguments as policies see them: from JSON Schema to Cedar's types, from values to
Cedar's values.

Not for validating arguments: that is done before, by the tool's own schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from ring0 import limits
from ring0.types import Frozen

DECIMAL_PLACES: Final = 4
_DECIMAL_MAX: Final = Decimal(2**63 - 1).scaleb(-DECIMAL_PLACES)
LONG_MAX: Final = 2**63 - 1
RESERVED: Final = ("__entity", "__extn")
"""Keys that Cedar's JSON reads as an entity or as a call of an extension function."""
WHOLE: Final = "*"
"""Stands for all arguments where a policy looks at `context.args` as a whole."""

_SCALARS: Final = {
    "string": "String", "integer": "Long", "boolean": "Bool", "number": "decimal",
}  # fmt: skip

_canonical = msgspec.json.Encoder(order="sorted").encode


class Unheld(Exception):
    """A value that Cedar has no room for; says which and why."""


class Shape(Frozen, frozen=True):
    """One JSON value as Cedar holds it."""

    kind: Literal["String", "Long", "Bool", "decimal", "Set", "record", "json"]
    """`json`: a String that is the value's canonical JSON, for what has no type of Cedar's."""
    item: Shape | None = None
    fields: dict[str, tuple[Shape, bool]] = msgspec.field(default_factory=dict)
    """Of a record: each property's shape, and whether it is always there."""


_JSON: Final = Shape(kind="json")


def shape_of(schema: Mapping[str, Any]) -> Shape:
    """The record of a tool's arguments, by the JSON Schema of its manifest."""
    found, _ = _Reading(schema).shape(schema, 0)
    return found if found.kind == "record" else Shape(kind="record")


class _Reading:
    """One schema being read. It may come from an agent's code, and refer to itself many times over:
    what is too deep or too much is told as JSON."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self._whole = whole
        self._left = limits.POLICY_ARGS_PARTS_MAX

    def shape(self, schema: Any, depth: int) -> tuple[Shape, bool]:
        """Its shape, and whether it may be null."""
        self._left -= 1
        if (
            not isinstance(schema, Mapping)
            or self._left < 0
            or depth > limits.POLICY_ARGS_DEPTH_MAX
        ):
            return _JSON, True
        if "$ref" in schema:
            return self.shape(self._referred(schema["$ref"]), depth + 1)
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return self._one_of(choices, depth)
        kinds = schema.get("type", ())
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        nullable = "null" in kinds
        kinds = [kind for kind in kinds if kind != "null"]
        if not kinds and all(isinstance(one, str) for one in schema.get("enum", (0,))):
            return Shape(kind="String"), False
        if len(kinds) != 1:
            return _JSON, nullable or not kinds
        return self._of_kind(kinds[0], schema, depth), nullable

    def _of_kind(self, kind: Any, schema: Mapping[str, Any], depth: int) -> Shape:
        if scalar := _SCALARS.get(kind):
            return msgspec.convert({"kind": scalar}, Shape)
        if kind == "array" and "prefixItems" not in schema:
            item, empty = self.shape(schema.get("items"), depth + 1)
            # null has no place in a set; as JSON text it is a value like any other.
            return Shape(kind="Set", item=_JSON if empty else item)
        properties = schema.get("properties") or {}
        known = bool(properties) or depth == 0
        if kind == "object" and known and not set(RESERVED) & set(properties):
            return self._record(properties, frozenset(schema.get("required", ())), depth)
        return _JSON

    def _record(self, properties: Mapping[str, Any], needed: frozenset[str], depth: int) -> Shape:
        fields = {}
        for name, schema in properties.items():
            shape, nullable = self.shape(schema, depth + 1)
            fields[name] = (shape, name in needed and not nullable)
        return Shape(kind="record", fields=fields)

    def _one_of(self, choices: Any, depth: int) -> tuple[Shape, bool]:
        """`anyOf: [X, null]` is an X that may be null; any other union is told as JSON."""
        other = [choice for choice in choices if choice != {"type": "null"}]
        if len(other) != 1:
            return _JSON, True
        shape, nullable = self.shape(other[0], depth + 1)
        return shape, nullable or len(other) < len(choices)

    def _referred(self, reference: Any) -> Any:
        """What `#/$defs/Name` names; None: it names nothing here."""
        if reference == "#":
            return self._whole
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        found: Any = self._whole
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


# --- as Cedar writes it ----------------------------------------------------------------------


def quoted(text: str) -> str:
    """A Cedar string literal of any text."""
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    return letter if letter.isprintable() and letter.isascii() else f"\\u{{{ord(letter):x}}}"


def type_of(shape: Shape, only: frozenset[str] = frozenset({WHOLE})) -> str:
    """The type in Cedar's schema language; of a record, only the fields that `only` names."""
    if shape.kind == "json":
        return "String"
    if shape.kind == "Set":
        return f"Set<{type_of(shape.item or _JSON)}>"
    if shape.kind != "record":
        return shape.kind
    inside = ", ".join(
        f"{quoted(name)}{'' if always else '?'}: {type_of(field)}"
        for name, (field, always) in shape.fields.items()
        if WHOLE in only or name in only
    )
    return f"{{{inside}}}"


# --- values ----------------------------------------------------------------------------------


def value_of(shape: Shape, value: Any, only: frozenset[str] = frozenset({WHOLE})) -> Any:
    """The value as Cedar's JSON. Raises Unheld: what Cedar can't hold is never left out, or a
    number with a fifth decimal place would slip past a rule about amounts."""
    match shape.kind:
        case "json":
            return _canonical(_whole(value)).decode()
        case "decimal":
            return _decimal(value)
        case "Long":
            return _long(value)
        case "Set":
            item = shape.item or _JSON
            return [value_of(item, each) for each in _are(value, list | tuple)]
        case "record":
            found = _are(value, Mapping)
            return {
                name: _named(name, field, found[name])
                for name, (field, _) in shape.fields.items()
                if (WHOLE in only or name in only) and found.get(name) is not None
            }
        case "Bool":
            return _are(value, bool)
        case "String":
            return _are(value, str)


def _named(name: str, shape: Shape, value: Any) -> Any:
    try:
        return value_of(shape, value)
    except Unheld as error:
        raise Unheld(f"{name}: {error}" if ":" not in str(error) else f"{name}.{error}") from None


def _are(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise Unheld(f"it is {type(value).__name__}, which its schema does not say")
    return value


def _whole(value: Any) -> Any:
    """JSON Schema takes 1.0 for an integer, and so a rule about the text "1" has to."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= LONG_MAX:
        return int(value)
    if isinstance(value, Mapping):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(each) for each in value]
    return value


def _long(value: Any) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise Unheld("it is no whole number")
    if not -LONG_MAX - 1 <= value <= LONG_MAX:
        raise Unheld("a whole number beyond 64 bits")
    return int(value)


def _decimal(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unheld("it is no number")
    exact = Decimal(repr(value))
    if not exact.is_finite() or abs(exact) > _DECIMAL_MAX:
        raise Unheld("a number beyond what a decimal of Cedar's holds")
    rounded = exact.quantize(Decimal(1).scaleb(-DECIMAL_PLACES))
    if rounded != exact:
        raise Unheld(f"a number with more than {DECIMAL_PLACES} decimal places")
    return f"{rounded:f}"


def reserved_key(value: Any) -> str:
    """The first key, at any depth, that Cedar would read as an entity; empty: there is none."""
    left = [value]
    while left:
        node = left.pop()
        if isinstance(node, Mapping):
            for key in RESERVED:
                if key in node:
                    return key
            left += node.values()
        elif isinstance(node, list | tuple):
            left += node
    return ""
