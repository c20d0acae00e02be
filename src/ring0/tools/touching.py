"""What a call touches, by templates such as `ticket:{id}`: filled from its validated arguments.

A function's author (or an operator, for a server's tool) says by them what a lock of another run
keeps the call away from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ring0 import limits
from ring0.errors import CallInvalid

_FIELD: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def why_not(template: object, schema: Mapping[str, Any]) -> str:
    """Why a template is none for a tool with these arguments; empty: it is one."""
    if not isinstance(template, str) or not template or not template.isprintable():
        return f"{template!r} names no resource"
    if len(template) > limits.LOCK_NAME_CHARS_MAX:
        return f"{template[:40]!r}… has more than {limits.LOCK_NAME_CHARS_MAX} characters"
    if set("{}") & set(_FIELD.sub("", template)):
        return f"{template!r} has braces that hold no argument's name"
    for name in _FIELD.findall(template):
        if name not in schema.get("required", ()):
            return f"{template!r} names {name!r}, which is no argument that every call has"
    return ""


def fill(templates: Sequence[str], args: Mapping[str, Any]) -> tuple[str, ...]:
    """The resources that a call touches. Raises CallInvalid: what can't be named can't be kept
    from others, so the call is not made."""
    return tuple(_fill(template, args) for template in templates)


def _fill(template: str, args: Mapping[str, Any]) -> str:
    def value_of(field: re.Match[str]) -> str:
        value = args.get(field[1])
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise CallInvalid(
            f"The call says with {field[1]!r} which resource it touches, and that is no name.",
            why=f"A name is a text or a whole number; it is {type(value).__name__}.",
            todo=f"Give {field[1]!r} as the tool's schema says.",
        )

    name = _FIELD.sub(value_of, template)
    if len(name) > limits.LOCK_NAME_CHARS_MAX or not name.isprintable():
        raise CallInvalid(
            f"The call would touch {name[:40]!r}…, which is no name of a resource.",
            why=f"A name has at most {limits.LOCK_NAME_CHARS_MAX} characters that can be printed.",
            todo="Shorten the argument that it is made of.",
        )
    return name


__all__ = ["fill", "why_not"]
