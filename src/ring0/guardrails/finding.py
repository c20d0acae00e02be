"""Where the forms of known secrets stand in a text, or begin to: looked up, not tried one by one.

All forms are sorted: those that a text begins with, and those that begin with all of it, are
neighbours of it there. What a place costs grows with the logarithm of how many forms there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

_HEAD_CHARS_MAX: Final = 16


class Finder:
    """Of one set of forms."""

    __slots__ = ("_forms", "_longest", "_names", "_within", "begins", "head_chars", "heads")

    def __init__(self, names: Mapping[str, str]) -> None:
        """`names`: form to name. No form is empty."""
        self._names = dict(names)
        self._forms = sorted(self._names)
        self._longest = max(map(len, self._forms), default=0)
        self._within: list[int] = []
        """Of each form, the longest one that it begins with; -1: none."""
        open_: list[int] = []
        for place, form in enumerate(self._forms):
            while open_ and not form.startswith(self._forms[open_[-1]]):
                open_.pop()
            self._within.append(open_[-1] if open_ else -1)
            open_.append(place)
        shortest = min(map(len, self._forms), default=1)
        self.head_chars = min(shortest, _HEAD_CHARS_MAX)
        self.heads = frozenset(form[: self.head_chars] for form in self._forms)
        """A form can stand only where one of these does."""
        self.begins = frozenset(
            head[:chars] for head in self.heads for chars in range(1, self.head_chars)
        )
        """What is shorter than a head and could become one."""

    def __bool__(self) -> bool:
        return bool(self._forms)

    def is_open(self, text: str, start: int) -> bool:
        """All that there is from `start` on begins some form, and more has to come for it."""
        if len(text) - start >= self._longest:
            return False
        rest = text[start:]
        next_ = bisect_right(self._forms, rest)
        return next_ < len(self._forms) and self._forms[next_].startswith(rest)

    def at(self, text: str, start: int) -> list[tuple[int, str]]:
        """(end, name) of each form that stands at `start`, the shortest first."""
        rest = text[start : start + self._longest]
        place = bisect_right(self._forms, rest) - 1
        # Whatever `rest` begins with, the last form before it in order begins with too.
        while place >= 0 and not rest.startswith(self._forms[place]):
            place = self._within[place]
        found: list[tuple[int, str]] = []
        while place >= 0:
            form = self._forms[place]
            found.append((start + len(form), self._names[form]))
            place = self._within[place]
        return found[::-1]
