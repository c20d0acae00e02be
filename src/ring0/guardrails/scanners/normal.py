"""The normaliser: every view of a text that a model or a person might take, as a table of rules.

`visible` and `spaced` change how it looks and cost no depth; the others undo an encoding, at most
`SCAN_DEPTH_MAX` within each other. Makes views; judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from ring0 import limits
from ring0.guardrails.scanners import encodings
from ring0.guardrails.scanners.encodings import Undone
from ring0.guardrails.scanners.fold import REACH_CHARS, visible
from ring0.guardrails.scanners.reading import Reading
from ring0.guardrails.scanners.views import Piece, View, around

_SPACED: Final = re.compile(
    r"(?<!\S)\S(?: {1,4}\S(?!\S)){2,}+"
    r"|(?<![A-Za-z0-9])[A-Za-z0-9@$!](?:([.\-_*~|/])[A-Za-z0-9@$!])(?:\1[A-Za-z0-9@$!])++(?![A-Za-z0-9])"
)
_SIGNS_MIN: Final = 3
"""Letters and digits: the bars of a table are none."""
_GAP: Final = re.compile(r" +")


_SPACED_SHAPE: Final = bytes(
    ord("a")
    if chr(code).isalnum() or chr(code) in "@$!" or code > 127
    else ord("-")
    if chr(code) in ".-_*~|/"
    else 32
    for code in range(256)
)


def _may_be_spaced(reading: Reading) -> bool:
    """Three signs alone, somewhere, or three with signs between them."""
    if [*map(len, reading.chunks)].count(1) >= 3:
        return True
    shape = reading.text.encode("utf-8", "replace").translate(_SPACED_SHAPE)
    return b"a-a-a" in shape


class Rule(msgspec.Struct, frozen=True):
    """One way to undo something."""

    name: str
    undo: Callable[[str], Undone | None]
    deepens: bool = True
    worth: Callable[[Reading], bool] | None = None
    """Whether it is worth looking: far less work than to look."""
    once: bool = False
    """Twice is nothing new: all is undone at once, or done again."""
    of_hidden: bool = False
    """Undone in the text as it is, before what is not seen is taken out of it."""


def spaced(text: str) -> Undone | None:
    """`b a d` and `b.a.d` as `bad`; a wider gap parts words."""
    edits = [
        _closed(*found.span(), found.group())
        for found in _SPACED.finditer(text)
        if sum(map(str.isalnum, found.group())) >= _SIGNS_MIN
    ]
    if not edits:
        return None
    pieces = around(text, edits, REACH_CHARS)
    return "".join(piece.text for piece in pieces), lambda: pieces


def _closed(start: int, end: int, run: str) -> Piece:
    if " " not in run:
        return Piece(run[::2], start, end, 2)
    gaps = {len(gap) for gap in _GAP.findall(run)}
    wide = max(gaps) if len(gaps) > 1 else max(gaps) + 1
    word = _GAP.sub(lambda gap: " " if len(gap.group()) == wide else "", run)
    return Piece(word, start, end, 2 if len(word) * 2 - 1 == len(run) else 0)


class Normaliser:
    """Finds the views of a text, one layer at a time."""

    def __init__(self, words: frozenset[str], parts: tuple[str, ...]) -> None:
        """`words` and `parts`: what shows that text turned by rot13 has become text."""
        self.rules: Final = (
            Rule("tags", encodings.tags, of_hidden=True),
            Rule("variation-selectors", encodings.variations, of_hidden=True),
            Rule("spaced", spaced, deepens=False, once=True, worth=_may_be_spaced),
            Rule("percent", encodings.percent),
            Rule("entities", encodings.entities),
            Rule("backslashes", encodings.backslashes),
            Rule("base64", encodings.base64, worth=lambda reading: bool(reading.long)),
            Rule(
                "hex",
                encodings.hexadecimal,
                worth=lambda reading: encodings.may_be_hexadecimal(reading.text),
            ),
            Rule(
                "rot13",
                encodings.rot13,
                worth=encodings.Turned(words, parts),
                once=True,
                of_hidden=True,
            ),
        )

    def below(self, reading: Reading) -> Iterator[View]:
        """The views that one step leads to."""
        view = reading.view
        plain = None if view.how[-1:] == ("visible",) else visible(view)
        if plain is not None:
            yield plain
        is_seen = plain is None
        for rule in self.rules:
            if rule.deepens and view.depth >= limits.SCAN_DEPTH_MAX:
                continue
            if rule.once and rule.name in view.how:
                continue
            if not (is_seen or rule.of_hidden):
                continue  # it is looked for in what is seen of this
            if rule.worth is not None and not rule.worth(reading):
                continue
            if (undone := rule.undo(view.text)) is not None and undone[0] != view.text:
                yield View(
                    undone[0],
                    (*view.how, rule.name),
                    parent=view,
                    depth=view.depth + rule.deepens,
                    pieces=undone[1],
                )
