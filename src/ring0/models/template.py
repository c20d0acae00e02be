"""The references of a rule file: `{group}`, `{result.COLUMN}`, `{step.COLUMN}` in texts.

A text that is one reference and nothing else becomes the value itself (a number stays a number);
otherwise values are written into the text. `{{` and `}}` are braces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*(?:\.[\w -]+)*)\}|[{}]")


class Unresolved(Exception):
    """A reference to what an earlier result does not hold."""


class Template:
    """Anything of a TOML file with the references in its texts found."""

    def __init__(self, source: Any) -> None:
        """Raises `ValueError` for a brace that begins or ends no reference."""
        self._source = source
        self.names = frozenset(_names(source))
        """The first words of all references: groups, `result`, steps."""

    def render(self, scope: Mapping[str, Any]) -> Any:
        """The value with each reference filled in. Raises `Unresolved`."""
        return _render(self._source, scope)


def _names(source: Any) -> list[str]:
    if isinstance(source, str):
        found = []
        for token in _TOKEN.finditer(source):
            if token[0] in "{}":
                raise ValueError(f"a lone {token[0]!r}: write it twice, or a name as in {{name}}")
            if token[1]:
                found.append(token[1].partition(".")[0])
        return found
    if isinstance(source, dict):
        source = list(source.values())
    return [name for one in source for name in _names(one)] if isinstance(source, list) else []


def _render(source: Any, scope: Mapping[str, Any]) -> Any:
    if isinstance(source, dict):
        return {key: _render(one, scope) for key, one in source.items()}
    if isinstance(source, list):
        return [_render(one, scope) for one in source]
    if not isinstance(source, str):
        return source
    whole = _TOKEN.fullmatch(source)
    if whole is not None and whole[1]:
        return _look_up(whole[1], scope)
    return _TOKEN.sub(
        lambda token: as_text(_look_up(token[1], scope)) if token[1] else token[0][0], source
    )


def _look_up(reference: str, scope: Mapping[str, Any]) -> Any:
    first, *rest = reference.split(".")
    value = scope.get(first)
    if value is None:
        raise Unresolved(reference)
    for name in rest:
        value = _field(value, name, reference)
    return value


def _field(value: Any, name: str, reference: str) -> Any:
    """A field; of a table, the first row's: `{"columns", "rows"}`, `{"rows": […]}`, `[{…}]`."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        columns, rows = value.get("columns"), value.get("rows")
        if isinstance(rows, list) and rows:
            if isinstance(columns, list) and isinstance(rows[0], list) and name in columns:
                place = columns.index(name)
                if place < len(rows[0]):
                    return rows[0][place]
            elif isinstance(rows[0], dict):
                return _field(rows[0], name, reference)
    elif isinstance(value, list):
        if name.isascii() and name.isdigit() and int(name) < len(value):
            return value[int(name)]
        if value and isinstance(value[0], dict):
            return _field(value[0], name, reference)
    raise Unresolved(reference)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def parse_result(content: str) -> Any:
    """A tool result's text as the JSON that it is, or as the object (or list of objects) that
    stands in it, after a spotlight's heading; else the text itself."""
    whole = parse_whole(content)
    if whole is not content:
        return whole
    for begin in sorted(place for mark in "{[" if (place := content.find(mark)) >= 0):
        try:
            found = json.JSONDecoder().raw_decode(content, begin)[0]
        except (ValueError, RecursionError):
            continue
        rows = found if isinstance(found, list) else [found]
        if rows and all(isinstance(row, dict) for row in rows):
            return found
    return content


def parse_whole(content: str) -> Any:
    """The JSON that `content` is from end to end; else `content` itself."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content


def all_texts(value: Any) -> list[str]:
    """All texts within a JSON value, in order: what a reader of it reads."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in value.values() for text in all_texts(one)]
    return [text for one in value for text in all_texts(one)] if isinstance(value, list) else []
