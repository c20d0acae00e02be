"""Two contents of a file, compared for people: a unified diff of texts, sizes of all else.

Bounded: a hostile pair of texts costs no more time than any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from ring0 import limits

CONTEXT_LINES: Final = 3
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\xa0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f"
    "\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ud800-\uf8ff\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufffb\ufffe\uffff\U000e0000-\U0010ffff]"
)
"""Control characters, what has no width or turns the direction, what is seen as a blank and is
none, and what no font has: in a diff they are what one looks for."""


@dataclass(frozen=True)
class Compared:
    """What became of one file."""

    path: str
    before_bytes: int | None
    """None: it was not there."""
    after_bytes: int | None
    lines: tuple[str, ...] = ()
    """A unified diff from the first `@@`; every unseen character is escaped."""
    note: str = ""
    """Why there are no lines."""


def visible(text: str, most: int = limits.DIFF_LINE_CHARS_MAX) -> str:
    """A line from outside with every character that one would not see written out."""
    cut = text[:most]
    shown = _UNSEEN.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass")
                        .decode(), cut)  # fmt: skip
    return shown if len(cut) == len(text) else f"{shown}… ({len(text)} characters)"


def compare(path: str, before: bytes | None, after: bytes | None) -> Compared:
    """One file before and after; None: it was not there."""
    sizes = (
        None if before is None else len(before),
        None if after is None else len(after),
    )
    old, new = _lines(before), _lines(after)
    if old is None or new is None:
        return Compared(path, *sizes, note="no text, or too long to show")
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    most = max(len(old), len(new)) - head - tail
    if most > limits.DIFF_LINES_MAX:
        return Compared(path, *sizes, note=f"{most} lines in a row differ: too many to show")
    skipped = max(0, head - CONTEXT_LINES)
    tail = max(0, tail - CONTEXT_LINES)
    shown = _hunks(old[skipped : len(old) - tail], new[skipped : len(new) - tail], skipped)
    return Compared(path, *sizes, lines=tuple(shown))


def _lines(content: bytes | None) -> list[str] | None:
    """None where that is no text, or too much of it."""
    if not content:
        return []
    if len(content) > limits.DIFF_SIZE_BYTES_MAX or b"\0" in content:
        return None
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    if lines[-1] == "":
        return [line + "\n" for line in lines[:-1]]
    return [line + "\n" for line in lines[:-1]] + lines[-1:]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines both begin with."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return number
    return min(len(one), len(other))


def _hunks(old: list[str], new: list[str], skipped: int) -> Iterator[str]:
    for group in SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT_LINES):
        first, last = group[0], group[-1]
        yield (f"@@ -{_range(first[1], last[2], skipped)} +{_range(first[3], last[4], skipped)} @@")
        for kind, a, b, c, d in group:
            if kind == "equal":
                yield from _marked(" ", old[a:b])
            else:
                yield from _marked("-", old[a:b])
                yield from _marked("+", new[c:d])


def _range(start: int, stop: int, skipped: int) -> str:
    """As `diff -u` writes it: an empty range is named by the line before it."""
    count = stop - start
    return f"{start + skipped + (1 if count else 0)},{count}"


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield mark + visible(line.removesuffix("\n"))
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"
