"""One view as all scanners read it: what more than one of them needs is made once."""

from __future__ import annotations

from typing import Final

from ring0.guardrails.scanners.views import View

LONG_CHARS_MIN: Final = 12
"""No secret with a form of its own, and no encoding of anything, has fewer characters in a row."""


class Reading:
    """A view's text, and its words between spaces."""

    __slots__ = ("chunks", "long", "lower", "text", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.text = view.text
        self.lower = small(view.text)
        """In small letters, place for place."""
        self.chunks = view.text.split()
        self.long = " ".join([each for each in self.chunks if len(each) >= LONG_CHARS_MIN])
        """Those that something long can stand in. Without their places."""


def small(text: str) -> str:
    """In small letters, place for place: `İ` has two of them, and stays."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(map(_small, text))


def _small(char: str) -> str:
    lower = char.lower()
    return lower if len(lower) == 1 else char
