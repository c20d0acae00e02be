"""Markdown by CommonMark's own blocks, each as it stands in the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from markdown_it import MarkdownIt

from ring0.memory.documents.inside.said import Block, text_of

_KINDS: Final = {
    "paragraph_open": "paragraph",
    "blockquote_open": "paragraph",
    "html_block": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
}
_FRONT: Final = "---"


def markdown(data: bytes) -> Iterator[Block]:
    text = text_of(data)
    lines = text.split("\n")
    front = _front(lines)
    if front:
        yield Block("code", "\n".join(lines[:front]), 0, 0, 1, front)
    # Only blocks: what is within a line is indexed as it is written.
    parser = MarkdownIt("commonmark").enable("table").disable(["inline"])
    tokens = parser.parse("\n".join(lines[front:]))
    for place, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        first, last = token.map[0] + front, token.map[1] + front
        if token.type == "heading_open":
            title = tokens[place + 1].content.replace("\n", " ").strip()
            yield Block("heading", title, int(token.tag[1:]), 0, first + 1, last)
        elif (kind := _KINDS.get(token.type)) is not None:
            while last > first and not lines[last - 1].strip():
                last -= 1
            yield Block(kind, "\n".join(lines[first:last]), 0, 0, first + 1, last)


def _front(lines: list[str]) -> int:
    """How many lines are its front matter."""
    if lines[0].rstrip() != _FRONT:
        return 0
    return next((n + 1 for n, line in enumerate(lines[1:], 1) if line.rstrip() == _FRONT), 0)
