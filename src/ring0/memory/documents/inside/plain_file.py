"""Plain text by its blank lines, and reStructuredText by its underlines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ring0 import limits
from ring0.memory.documents.inside.said import Block, text_of

_LINE: Final = re.compile(r"([!-/:-@\[-`{-~])\1{2,}")
"""What adorns a heading: one character of punctuation, again and again."""


def plain(data: bytes) -> Iterator[Block]:
    yield from paragraphs(text_of(data).split("\n"), 0)


def paragraphs(lines: list[str], before: int) -> Iterator[Block]:
    """What blank lines part; `before`: how many lines of the file stand before these."""
    start = 0
    for number in range(len(lines) + 1):
        if number < len(lines) and lines[number].strip():
            continue
        if number > start:
            text = "\n".join(lines[start:number]).rstrip()
            yield Block("paragraph", text, 0, 0, before + start + 1, before + number)
        start = number + 1


def rst(data: bytes) -> Iterator[Block]:
    """A heading's level is how many other adornments came before its own."""
    lines = text_of(data).split("\n")
    levels: list[tuple[str, bool]] = []
    start = number = 0
    while number < len(lines):
        over = _is_line(lines, number) and _is_title(lines, number + 1, number + 2)
        title = number + over
        if not over and not _is_title(lines, title, title + 1):
            number += 1
            continue
        yield from paragraphs(lines[start:number], start)
        style = (lines[title + 1].strip()[0], over)
        if style not in levels:
            levels.append(style)
        level = levels.index(style) + 1
        yield Block("heading", lines[title].strip(), level, 0, title + 1, title + 1)
        start = number = title + 2
    yield from paragraphs(lines[start:], start)


def _is_line(lines: list[str], number: int) -> bool:
    return number < len(lines) and _LINE.fullmatch(lines[number].rstrip()) is not None


def _is_title(lines: list[str], number: int, under: int) -> bool:
    """A line of text above one that is at least as long. In a table both are of such lines."""
    if under >= len(lines) or not _is_line(lines, under) or _is_line(lines, number):
        return False
    text = lines[number].rstrip()
    if (
        not text
        or len(text) > limits.DOCUMENT_TITLE_CHARS_MAX
        or len(lines[under].rstrip()) < len(text)
    ):
        return False
    follows = number > 0 and bool(lines[number - 1].strip())
    return text[0] not in "|+ \t" and (not follows or _is_line(lines, number - 1))
