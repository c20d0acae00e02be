"""Field tables: a request is rebuilt from what its dialect's table lists, never passed on as it is.

A table is TOML; each object that has a shape of its own is a table in it, each field one word:

    "any" | "text" | "number" | "integer" | "true-or-false" | "list" | "object"
                       taken, if it has that type; null counts as absent
    "= VALUE"          taken only with this value (JSON), and then left out
    "drop"             known, and left out
    "feature NAME"     taken, and asks of the provider what the policy has to allow; null and false
                       ask nothing
    "[] SHAPE"         a list of objects of that shape; "{} SHAPE": one; "text|[] SHAPE": either
    "refused WHY"      an error that says why

A shape `x.TYPE` is chosen by the object's `type`; `x.`, where there is one, if it has none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "any": (object,),
    "text": (str,),
    "number": (int, float),
    "integer": (int,),
    "true-or-false": (bool,),
    "list": (list,),
    "object": (dict,),
}


class Table:
    """The shapes of one dialect."""

    def __init__(self, dialect: str) -> None:
        """Reads `DIALECT/table.toml` of this package."""
        place = resources.files("ring0.models.dialects").joinpath(dialect, "table.toml")
        self._dialect = dialect
        self._shapes: dict[str, dict[str, str]] = tomllib.loads(place.read_text("utf-8"))

    def rebuild(self, body: Any, shape: str = "request") -> tuple[dict[str, Any], tuple[str, ...]]:
        """`body` as far as the table takes it, and the features that it asks for. Raises
        CallInvalid, naming the field."""
        features: dict[str, None] = {}
        return self._object(body, shape, "", features), tuple(features)

    def shapes(self) -> Mapping[str, Mapping[str, str]]:
        """By name, what is taken of each."""
        return self._shapes

    def _object(
        self, body: Any, shape: str, place: str, features: dict[str, None]
    ) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise self._refused(place or "the request", "it is an object")
        if shape not in self._shapes:
            shape = self._by_type(body, shape, place)
        fields = self._shapes[shape]
        found: dict[str, Any] = {}
        for key, value in body.items():
            where = f"{place}.{key[: limits.MODEL_FIELD_CHARS_MAX]}" if place else key
            rule = fields.get(key)
            if rule is None:
                raise self._unknown(where[-4 * limits.MODEL_FIELD_CHARS_MAX :], fields)
            taken = self._field(value, rule, where, features)
            if taken is not _LEFT_OUT:
                found[key] = taken
        return found

    def _by_type(self, body: Mapping[str, Any], shape: str, place: str) -> str:
        kind = "" if body.get("type") is None else body["type"]
        named = f"{shape}.{kind}"
        if not isinstance(kind, str) or named not in self._shapes:
            known = [name.removeprefix(f"{shape}.") for name in self._shapes]
            types = ", ".join(
                name for name, full in zip(known, self._shapes, strict=True) if name != full
            )
            raise CallInvalid(
                f"{place}: there is no type {str(kind)[: limits.MODEL_FIELD_CHARS_MAX]!r} here.",
                why=f"ring0 takes of {self._dialect}: {types}.",
                todo="Leave it out.",
            )
        return named

    def _field(self, value: Any, rule: str, where: str, features: dict[str, None]) -> Any:
        word, _, rest = rule.partition(" ")
        if word == "refused":
            raise self._refused(where, rest)
        if word == "drop":
            return _LEFT_OUT
        if word == "=":
            if value is not None and value != msgspec.json.decode(rest):
                raise self._refused(where, f"only {rest} is taken")
            return _LEFT_OUT
        if value is None:
            return _LEFT_OUT
        if word == "feature":
            if value is False:
                return _LEFT_OUT
            features[rest] = None
            return value
        if word.startswith("text|"):
            if isinstance(value, str):
                return value
            word = word.removeprefix("text|")
        if word == "{}":
            return self._object(value, rest, where, features)
        if word == "[]":
            if not isinstance(value, list):
                raise self._refused(where, "it is a list")
            if len(value) > limits.MODEL_LIST_ITEMS_MAX:
                raise self._refused(
                    where, f"more than {limits.MODEL_LIST_ITEMS_MAX:,} are too many"
                )
            return [
                self._object(one, rest, f"{where}[{number}]", features)
                for number, one in enumerate(value)
            ]
        if not _has_type(value, word):
            raise self._refused(where, f"it is {word}")
        return value

    def _unknown(self, where: str, fields: Mapping[str, str]) -> CallInvalid:
        taken = ", ".join(key for key, rule in fields.items() if not rule.startswith("refused"))
        return CallInvalid(
            f"ring0 does not take {where!r} in a request of {self._dialect}.",
            why=f"Only fields that its table lists go on. Here: {taken}.",
            todo="Leave it out; where a client needs it, it is added to the dialect's table.",
        )

    def _refused(self, where: str, why: str) -> CallInvalid:
        return CallInvalid(
            f"{where[-4 * limits.MODEL_FIELD_CHARS_MAX :]} can't be taken.",
            why=f"{why[:1].upper()}{why[1:]}.",
            todo="Correct it, or leave it out.",
        )


def _has_type(value: Any, word: str) -> bool:
    if isinstance(value, bool):  # Python takes it for a number.
        return word in ("any", "true-or-false")
    return isinstance(value, _TYPES[word])


_LEFT_OUT: Final = object()
