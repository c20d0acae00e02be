"""Which of the values in an answer belong together, and which of them could be a name or a target.

Only shapes: what a record is worth, records.py says.
"""

from __future__ import annotations

import re
from typing import Final

from ring0 import limits
from ring0.guardrails import naming, tokens
from ring0.guardrails.echoes import key_of
from ring0.guardrails.fields import Scalar, Steps
from ring0.guardrails.words import parts

Leaf = tuple[str, Scalar, bool]
"""The name of a field, its value, and whether a manifest vouches for it."""

_NUMBER_CHARS_MIN: Final = 7
"""A number that is so long is one of its kind."""
_NUMBERED: Final = frozenset({"id", "key", "no", "number", "ref", "reference", "code", "year"})
VALUE: Final = "value"
"""The one field of a record that has only a name and a value."""
FIELD_NAME: Final = re.compile(r"[A-Za-z_$][\w$]*\Z|\d*\Z")


def split_tables(found: dict[Steps, list[Leaf]]) -> None:
    """`{"Red team": 4, "Blue team": 7}` is a list of two records rather than one. Only numbers: who
    fills in a form (`{"E-mail": …}`) names nothing by it."""
    for steps, leaves in list(found.items()):
        are_numbers = not any(isinstance(value, str) for _, value, _ in leaves)
        are_names = not all(FIELD_NAME.match(name) for name, _, _ in leaves)
        if len(leaves) < 2 or not are_numbers or not are_names:
            continue
        del found[steps]
        for name, value, trusted in leaves:
            found[*steps, name] = [("name", name, False), (VALUE, value, trusted)]


def called(name: str, value: Scalar) -> str:
    """What a user may call a thing by, as far as this field of it tells; empty: it does not. That
    its size is a number which the user typed is chance: only its number or its code names it, and
    an amount where it is written as one."""
    if isinstance(value, str) and len(value) > limits.FLOW_NAMING_CHARS_MAX:
        return ""
    number = key_of(value)
    if not number.startswith("#") or not naming.NUMBER.match(number):
        return value if isinstance(value, str) else ""
    if len(number) > _NUMBER_CHARS_MIN or set(parts(name)[-1:]) & _NUMBERED:
        return value if isinstance(value, str) else number
    return naming.AMOUNT + number


def is_label(value: Scalar) -> bool:
    return isinstance(value, str) and (
        len(value) <= limits.FLOW_NAMING_CHARS_MAX
        and value.count(" ") < limits.FLOW_PARTLY_WORDS_MAX
    )


def is_plain(value: Scalar, key: str) -> bool:
    """A number, a time, or one word or address: no text that could say anything."""
    return not isinstance(value, str) or (
        len(key) <= limits.FLOW_NAMING_CHARS_MAX
        and (tokens.is_key(key) or bool(naming.DAY.match(key)))
    )


def owner(steps: Steps) -> tuple[Steps, str]:
    """The object that a leaf is a field of, and the field's name."""
    end = len(steps)
    while end and isinstance(steps[end - 1], int):
        end -= 1
    if end == 0:  # rows of plain values, in lists
        return (steps[:-1], str(steps[-1])) if len(steps) > 1 else ((), "")
    if len(steps) - end > 1:
        return steps[:-1], str(steps[-1])
    return steps[: end - 1], str(steps[end - 1])
