"""A text as it looks after something was undone, and where each part of it stands in the original.

Knows places only; what is undone, and when, is `normal.py`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

APART: Final = "\n\n"
"""Between parts of a view that do not belong together: no rule looks across it."""


class Piece(NamedTuple):
    """So much of a view's text stands for so much of its parent's."""

    text: str
    start: int
    end: int
    """In the parent's text."""
    ratio: int = 0
    """Characters there for each one here; 0: the piece stands for the whole of it."""


class View:
    """One text, how it was reached, and its way back."""

    __slots__ = ("_lazy", "_parent", "_pieces", "_starts", "depth", "how", "text")

    def __init__(
        self,
        text: str,
        how: tuple[str, ...] = (),
        *,
        parent: View | None = None,
        depth: int = 0,
        pieces: Callable[[], Sequence[Piece]] | None = None,
    ) -> None:
        """`pieces`: made when a place is first asked for. None: place for place the parent's."""
        self.text = text
        self.how = how
        self.depth = depth
        self._parent = parent
        self._lazy = pieces
        self._pieces: Sequence[Piece] = ()
        self._starts: list[int] = []

    def origin(self, start: int, end: int) -> tuple[int, int, bool]:
        """Where text[start:end] stands in the original, and whether that is exact."""
        view: View = self
        exact = True
        while view._parent is not None:
            start, end, is_exact = view._above(start, end)
            exact = exact and is_exact
            view = view._parent
        return start, end, exact

    def _above(self, start: int, end: int) -> tuple[int, int, bool]:
        if self._lazy is None:
            return start, end, True
        if not self._starts:
            self._pieces = self._lazy()
            place = 0
            for piece in self._pieces:
                self._starts.append(place)
                place += len(piece.text)
        first = self._at(start)
        last = self._at(max(start, end - 1))
        begin, exact_begin = self._begin(first, start)
        finish, exact_end = self._finish(last, max(end, start))
        return begin, max(begin, finish), exact_begin and exact_end

    def _at(self, place: int) -> int:
        """The piece with text at `place`: not an empty one, which stands for what was removed."""
        return max(0, bisect_right(self._starts, place) - 1)

    def _begin(self, number: int, place: int) -> tuple[int, bool]:
        piece, within = self._pieces[number], place - self._starts[number]
        if piece.ratio:
            return piece.start + within * piece.ratio, True
        return piece.start, within == 0

    def _finish(self, number: int, place: int) -> tuple[int, bool]:
        piece, within = self._pieces[number], place - self._starts[number]
        if piece.ratio:
            return min(piece.end, piece.start + within * piece.ratio), True
        return piece.end, within == len(piece.text)


def joined(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def around(text: str, edits: Sequence[Piece], reach: int) -> list[Piece]:
    """The text with its edits, but only what is within `reach` of one.

    The rest is the same as in the parent, where it was looked at already.
    """
    found: list[Piece] = []
    done = 0
    for number, edit in enumerate(edits):
        begin = max(done, edit.start - reach)
        if found and begin > done:
            found.append(Piece(APART, done, begin))
        if edit.start > begin:
            found.append(Piece(text[begin : edit.start], begin, edit.start, 1))
        found.append(edit)
        following = edits[number + 1].start if number + 1 < len(edits) else len(text)
        done = min(following, edit.end + reach)
        if done > edit.end:
            found.append(Piece(text[edit.end : done], edit.end, done, 1))
    return found
