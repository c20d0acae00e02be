"""What a character looks like to a reader, in ASCII where it does: NFKD, without accents, invisible
characters and bidi controls; look-alikes as the Latin letter.

For matching only, never for storing. Character by character, so that places can be found again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from ring0 import limits
from ring0.guardrails.scanners.confusables import ALSO, LETTER_ROWS, LOOK_ALIKES
from ring0.guardrails.scanners.views import Piece, View, around, joined

REACH_CHARS: Final = 512
"""So far around something that was undone the text is read again."""

UNPLAIN: Final = re.compile(r"[^\t\n\r\x20-\x7e]+")
ESCAPES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]{0,4096}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]{0,4}[0-OQ-WYZ\\`-~]"
)
"""What a terminal obeys and does not show (ECMA-48)."""
_ESCAPE: Final = "\x1b"
_ESCAPES_AND_STRAY: Final = re.compile(f"{ESCAPES.pattern}|{_ESCAPE}")
ESCAPE_BEGINS: Final = re.compile(r"[\x1b\x90\x98\x9b\x9d-\x9f]")

_LOOKS: Final = {
    each: ascii_
    for table in (LOOK_ALIKES, ALSO)
    for ascii_, alike in table.items()
    for each in alike
}
ALIKE: Final = re.compile(f"[{''.join(_LOOKS)}]")
_LETTERS: Final = {
    chr(row + number): chr(ord("A") + number) for row in LETTER_ROWS for number in range(26)
}
_KEPT_SYMBOLS: Final = frozenset("™℠…")
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u2800\u3164\uffa0")
_KEPT_CONTROLS: Final = frozenset("\t\n\r\x1b")


def _is_mark(char: str) -> bool:
    """An accent or an overlay of Latin letters: those of other scripts are letters of them."""
    return (
        "\u0300" <= char <= "\u036f"
        or "\u0483" <= char <= "\u0489"
        or "\u1ab0" <= char <= "\u1aff"
        or "\u1dc0" <= char <= "\u1dff"
        or "\u20d0" <= char <= "\u20f0"
        or "\ufe20" <= char <= "\ufe2f"
    )


def is_variation(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def folded(char: str) -> str:
    """What stands for one character; empty: it is not seen."""
    if char in _LETTERS:
        return _LETTERS[char]
    category = unicodedata.category(char)
    if category in ("Cf", "Cc"):
        return char if char in _KEPT_CONTROLS else ""
    if char in _INVISIBLE or is_variation(char) or _is_mark(char):
        return ""
    if category == "Zs":
        return " "
    if category in ("Zl", "Zp"):
        return "\n"
    if "\uac00" <= char <= "\ud7a3":
        return char  # a syllable: NFKD would take it apart
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if char in _LOOKS:
        return _LOOKS[char]
    plain = unicodedata.normalize("NFKD", char)
    if category[0] in "PS" and not _is_form(char, plain):
        return char
    return "".join(_LOOKS.get(each, each) for each in plain if not _is_mark(each))


def _is_form(char: str, plain: str) -> bool:
    """A sign that is only a form of what is on every keyboard: fullwidth, circled."""
    return "\ufe50" <= char <= "\uffef" or (plain.isalnum() and char not in _KEPT_SYMBOLS)


class _Folds(dict[int, str]):
    """What is known of characters, for `str.translate`. Bounded: a text may hold a million."""

    def __missing__(self, code: int) -> str:
        found = folded(chr(code))
        if len(self) < limits.SCAN_FOLDS_KNOWN_MAX:
            self[code] = found
        return found


FOLDS: Final = _Folds()


def visible(view: View) -> View | None:
    """As a reader sees it: escapes obeyed, characters folded. None: it is so already."""
    if UNPLAIN.search(view.text) is None:
        return None
    found = view
    for step in (_obeyed, _seen, _obeyed_at_last):
        found = step(found, "" if found is not view else "visible") or found
    return found if found is not view else None


def _obeyed(base: View, name: str) -> View | None:
    return _without(base, name, ESCAPES) if ESCAPE_BEGINS.search(base.text) else None


def _obeyed_at_last(base: View, name: str) -> View | None:
    """What has become an escape since, and escapes that are none."""
    return _without(base, name, _ESCAPES_AND_STRAY) if _ESCAPE in base.text else None


def _without(base: View, name: str, pattern: re.Pattern[str]) -> View | None:
    edits = [Piece("", *found.span()) for found in pattern.finditer(base.text)]
    if not edits:
        return None
    pieces = around(base.text, edits, len(base.text))
    return _below(base, joined(pieces), lambda: pieces, name)


def _below(view: View, text: str, pieces: Callable[[], Sequence[Piece]], name: str) -> View:
    how = (*view.how, name) if name else view.how
    return View(text, how, parent=view, depth=view.depth, pieces=pieces)


def _seen(base: View, name: str) -> View | None:
    text = base.text
    runs = [found.span() for found in UNPLAIN.finditer(text)]
    if len(runs) * 4 * REACH_CHARS < len(text):
        edits = [
            Piece(changed, start, end)
            for start, end in runs
            if (changed := text[start:end].translate(FOLDS)) != text[start:end]
        ]
        if not edits:
            return None
        near = around(text, edits, REACH_CHARS)
        return _below(base, joined(near), lambda: near, name)
    whole = text.translate(FOLDS)
    return None if whole == text else _below(base, whole, lambda: _pieces(text), name)


def _pieces(text: str) -> list[Piece]:
    """Place by place, what stayed as it is in one."""
    found: list[Piece] = []
    place = 0
    for is_plain, group in groupby(text, lambda char: FOLDS[ord(char)] == char):
        run = "".join(group)
        if is_plain:
            found.append(Piece(run, place, place + len(run), 1))
        else:
            found.extend(
                Piece(FOLDS[ord(char)], place + number, place + number + 1)
                for number, char in enumerate(run)
            )
        place += len(run)
    return found
