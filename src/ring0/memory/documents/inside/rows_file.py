"""Tables in files (CSV, TSV, JSON Lines): each row says its columns' names, so that it can stand
alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Final

from ring0 import limits
from ring0.memory.documents.inside.said import Block, Unreadable, text_of

_DELIMITERS: Final = ",;\t|"


def rows(data: bytes) -> Iterator[Block]:
    text = text_of(data)
    first = text.lstrip()[:1]
    yield from _json(text) if first in ("{", "[") else _table(text)


def _table(text: str) -> Iterator[Block]:
    csv.field_size_limit(limits.DOCUMENT_SIZE_BYTES_MAX)
    head, _, _ = text.partition("\n")
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
        if len(names) > limits.DOCUMENT_COLUMNS_MAX:
            raise Unreadable(
                f"it has {len(names):,} columns; {limits.DOCUMENT_COLUMNS_MAX:,} are taken"
            )
        before = reader.line_num
        for row in reader:
            said = _said(dict(zip(names, row, strict=False)) if len(names) > 1 else row)
            if said:
                yield Block("row", said, 0, 0, before + 1, reader.line_num)
            before = reader.line_num
    except csv.Error as error:
        raise Unreadable(f"line {reader.line_num} is no row of a table: {error}") from None


def _json(text: str) -> Iterator[Block]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            said = _said(json.loads(line))
        except ValueError:
            raise Unreadable(f"line {number} is no JSON: one value a line is taken") from None
        if said:
            yield Block("row", said, 0, 0, number, number)


def _said(row: Any) -> str:
    """`name: value`, what is empty left out."""
    if isinstance(row, dict):
        parts = [
            f"{name}: {_value(value)}" for name, value in row.items() if value not in ("", None)
        ]
        return "; ".join(parts)
    if isinstance(row, list):
        return "; ".join(_value(value) for value in row if value not in ("", None))
    return _value(row)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())
