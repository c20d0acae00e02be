"""How much work a JSON Schema makes, told before anything is checked against it.

A schema of one kilobyte can make a validator look at one value for ever: by references that double
at each step, or by a recursion that branches. Who writes schemas is a stranger (an MCP server, an
agent's code), and the kernel has one thread for all runs.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs

from ring0 import limits

_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_PLAIN: Final = frozenset({"enum", "const", "default", "examples", "required", "type"})
_NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
"""Their keys are names, and each holds a schema."""
_APART: Final = frozenset({"$defs", "definitions"})
"""Schemas that count where something refers to them."""
_MEMBERS: Final = frozenset(
    {"patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames"}
)
_REST: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_ITEMS: Final = frozenset(
    {"items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"}
)

_Place = tuple[tuple[str, str], ...]
"""From one value to a value within it: (`member`, its name) or (`item`, its number); "" is any."""


_MATCHING: Final = frozenset({"pattern", "patternProperties", *_REFERENCES})
_LINEAR: Final = jsonschema_rs.RegexOptions(size_limit=limits.SCHEMA_PATTERN_SIZE_BYTES_MAX)
"""Patterns are tried by an engine without backtracking. One that looks ahead or back is refused:
`(?=(a+)+b)c` takes minutes for a text of a hundred thousand letters."""


class Endless(ValueError):
    """A schema that takes too long to check anything with; the message says why."""


def validator(schema: Any) -> jsonschema_rs.Validator:
    """Raises ValueError, jsonschema_rs.ValidationError."""
    # A reference to elsewhere is an error: the kernel fetches nothing for a schema.
    return jsonschema_rs.validator_for(schema, pattern_options=_LINEAR, offline=True)


class Patterns:
    """How much text the patterns of a schema for an object are tried on."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises Endless."""
        own = schema.get("properties")
        own = own if isinstance(own, dict) else {}
        rest = {key: part for key, part in schema.items() if key != "properties"}
        looking = _Looking(schema)
        looking.look(schema, (), {})
        self._count = looking.patterns
        rest.pop("$defs", None)  # They count where something refers to them.
        self._all = _holds(rest, _MATCHING)
        """They may be for whatever is in the object; else only for what is in these."""
        self._keys = {key for key, part in own.items() if _holds(part, _MATCHING)}

    def tries(self, value: Any) -> int:
        """Letters times patterns."""
        if not self._count:
            return 0
        if self._all or not isinstance(value, dict):
            return self._count * letters(value)
        return self._count * sum(letters(value[key]) for key in self._keys & value.keys())


def whole_of(schema: Any) -> frozenset[str]:
    """The arguments that are integers."""
    own = schema.get("properties") if isinstance(schema, dict) else None
    parts = own.items() if isinstance(own, dict) else ()
    return frozenset(
        name for name, part in parts if isinstance(part, dict) and part.get("type") == "integer"
    )


def letters(value: Any) -> int:
    """How many letters there are in the texts of a value, the names of fields included."""
    count, waiting = 0, [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str):
            count += len(inner)
        elif isinstance(inner, dict):
            count += sum(map(len, inner))
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner
    return count


def _holds(schema: Any, words: Container[str]) -> bool:
    """Does one of the words stand in it, wherever that is?"""
    waiting = [schema]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            if any(key in words for key in inner):
                return True
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner
    return False


def parts(schema: Any) -> int:
    """How many schemas there are when each reference is replaced by what it refers to; a recursion
    counts once. Raises Endless."""
    try:
        return _Looking(schema).look(schema, (), {})
    except RecursionError:
        raise Endless("it is nested too deep") from None


def values(value: Any) -> int:
    """How many values there are in a value, itself included."""
    count, waiting = 1, [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict | list):
            count += len(inner)
            waiting += inner.values() if isinstance(inner, dict) else inner
    return count


class _Looking:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._count = 0
        self.patterns = 0
        """How many those parts hold."""
        self._returns: dict[str, list[_Place]] = {}
        """Of each reference that is being followed: where it comes back to itself."""

    def look(self, schema: Any, place: _Place, following: dict[str, _Place]) -> int:
        """`place`: of the value that it is about; `following`: the references that led here, and
        the place of each. Returns the count so far."""
        self._count += 1
        if self._count > limits.SCHEMA_PARTS_MAX or len(following) > limits.SCHEMA_DEPTH_MAX:
            raise Endless(f"it has more than {limits.SCHEMA_PARTS_MAX} parts, references included")
        if not isinstance(schema, dict):
            return self._count
        if schema is not self._root and isinstance(schema.get("$id"), str):
            raise Endless("a part of it calls itself a document of its own")
        self.patterns += isinstance(schema.get("pattern"), str)
        self.patterns += (
            len(named) if isinstance(named := schema.get("patternProperties"), dict) else 0
        )
        for key in _REFERENCES:
            if isinstance(name := schema.get(key), str):
                self._follow(name, place, following)
        # What is "unevaluated" is found out by looking at all the rest, and its parts, once more.
        for _ in range(3 if _REST & schema.keys() else 1):
            for step, inner in _inner(schema):
                self.look(inner, place + step, following)
        return self._count

    def _follow(self, name: str, place: _Place, following: dict[str, _Place]) -> None:
        if name in following:
            self._come_back(name, place[len(following[name]) :])
            return
        self.look(self._target(name), place, {**following, name: place})
        self._returns.pop(name, None)

    def _come_back(self, name: str, place: _Place) -> None:
        """A recursion is fine as long as each value within is looked at by it once."""
        others = self._returns.setdefault(name, [])
        if len(others) >= limits.SCHEMA_RETURNS_MAX:
            raise Endless(f"it refers to itself ({name[:80]!r}) in too many places")
        if not place or any(_meet(place, other) for other in others):
            raise Endless(f"it refers to itself ({name[:80]!r}) more than once for one value")
        others.append(place)

    def _target(self, name: str) -> Any:
        """What a JSON pointer leads to. Raises Endless for any other name: what it means, and how
        often, can't be told here."""
        target = self._root
        for part in unquote(name).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise _nowhere(name)
        if name.partition("/")[0] != "#":
            raise _nowhere(name)
        return target


def _nowhere(name: str) -> Endless:
    return Endless(f"it refers to {name[:80]!r}, which is no place in it")


def _inner(schema: dict[str, Any]) -> Iterator[tuple[_Place, Any]]:
    """The schemas within one, each with the step to the value that it is about."""
    for key, value in schema.items():
        if key in _PLAIN or key in _APART:
            continue
        step: _Place = ()
        if key in _MEMBERS:
            step = (("member", ""),)
        elif key in _ITEMS:
            step = (("item", ""),)
        if isinstance(value, list):
            for number, inner in enumerate(value):
                yield ((("item", str(number)),) if key in _ITEMS else step), inner
        elif isinstance(value, dict) and key in _NAMED:
            for name, inner in value.items():
                yield ((("member", name),) if key == "properties" else step), inner
        elif isinstance(value, dict):
            yield step, value


def _meet(one: _Place, other: _Place) -> bool:
    """Can they lead to the same value, or one through the other?"""
    return all(
        kind == kind2 and (name == name2 or "" in (name, name2))
        for (kind, name), (kind2, name2) in zip(one, other, strict=False)
    )
