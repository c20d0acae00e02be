"""Programs: Python by its syntax tree, all else by what stands at the beginning of a line."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

from ring0.memory.documents.inside.said import Block, text_of


def python(data: bytes) -> Iterator[Block]:
    text = text_of(data)
    lines = text.split("\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from _by_lines(lines)
        return
    yield from _body(tree.body, lines, 1, 1, len(lines))


def _body(
    body: list[ast.stmt], lines: list[str], level: int, first: int, last: int
) -> Iterator[Block]:
    """The lines from `first` to `last`: what is defined there, and what stands between."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        begin = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        while begin > first and lines[begin - 2].strip().startswith("#"):
            begin -= 1
        yield from _code(lines, first, begin - 1, level)
        what = "class" if isinstance(node, ast.ClassDef) else "def"
        yield Block("heading", f"{what} {node.name}", level, 0, begin, begin)
        end = min(node.end_lineno or node.lineno, last)
        if isinstance(node, ast.ClassDef):
            yield from _body(node.body, lines, level + 1, begin, end)
        else:
            yield from _code(lines, begin, end, 0)
        first = end + 1
    yield from _code(lines, first, last, level)


def _code(lines: list[str], first: int, last: int, above: int) -> Iterator[Block]:
    """`above`: a heading of this level is ended by it; 0: none."""
    while first <= last and not lines[first - 1].strip():
        first += 1
    while last >= first and not lines[last - 1].strip():
        last -= 1
    if first > last:
        return
    if above:
        yield Block("heading", "", above, 0, first, first)
    yield Block("code", "\n".join(lines[first - 1 : last]), 0, 0, first, last)


def code(data: bytes) -> Iterator[Block]:
    yield from _by_lines(text_of(data).split("\n"))


def _by_lines(lines: list[str]) -> Iterator[Block]:
    """A new part begins at a blank line that is followed by one that is not indented."""
    start = 0
    for number in range(1, len(lines) + 1):
        if number < len(lines) and not (
            not lines[number - 1].strip()
            and lines[number].strip()
            and lines[number][0] not in " \t}])"
        ):
            continue
        yield from _code(lines, start + 1, number, 0)
        start = number
