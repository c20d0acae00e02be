"""Profane words, whole, with severity: also as `sh1t`, `f*ck`, `fuuuck` and `f-u-c-k`.

Looks words up, and no parts of words: Scunthorpe, assess and cockpit are none. Names and animals
are left alone where their neighbours show them. Insults without such a word are not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from ring0 import limits
from ring0.guardrails.scanners.findings import Confidence, Hit, Severity
from ring0.guardrails.scanners.fold import FOLDS
from ring0.guardrails.scanners.reading import small
from ring0.guardrails.scanners.words import (
    BETWEEN,
    COMPANIONS,
    ENDINGS,
    ENGLISH,
    OTHERS,
)

WORD_PUNCTUATION: Final = "@$!|+*#-_.~^'’"
"""Signs that may stand within one word, in place of a letter or between letters."""
_GRADES: Final = (Severity.LOW, Severity.MEDIUM, Severity.HIGH)
_LEET: Final = str.maketrans(
    {
        "0": "o", "1": "i", "l": "i", "!": "i", "|": "i", "3": "e", "4": "a", "@": "a", "5": "s",
        "$": "s", "7": "t", "+": "t", "8": "b", "9": "g", "6": "g", "2": "z", "#": "h", "€": "e",
    }
)  # fmt: skip
_BETWEEN: Final = {ord(sign): None for sign in "-_.~^'’"}
_LETTERS_MIN: Final = 4
"""A shorter word is not looked for in disguise: a road is called A55."""
_ANY_LETTER: Final = "*"
_TRIPLED: Final = re.compile(r"([^\W\d_])\1\1+")
_TRIPLES: Final = tuple(letter * 3 for letter in "abcdefghijklmnopqrstuvxyz")
_EDGES: Final = "-_.~^'’!|+*#"
_EDGES_BUT_ANY: Final = _EDGES.replace(_ANY_LETTER, "")
_NEIGHBOUR_CHARS: Final = 40
_WORD_BEFORE: Final = re.compile(r"([^\W\d_]+)['’]?s?\.?[ \-]{1,2}\Z")
_WORD_AFTER: Final = re.compile(r"[ \-]{1,2}([^\W\d_]+)")


_Place = tuple[int, int, str]


class Known(NamedTuple):
    severity: Severity
    is_ambiguous: bool
    before: frozenset[str]
    after: frozenset[str]


def _bare(word: str) -> str:
    """Without accents: so is what is looked at."""
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(char for char in plain if not unicodedata.combining(char))


def _neighbours() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    found = {}
    for line in BETWEEN.replace("\n  ", " ").strip().split("\n"):
        word, _, around = line.partition(":")
        before, _, after = around.partition("|")
        found[word] = frozenset(before.split()), frozenset(after.split())
    return found


def _known() -> dict[str, Known]:
    found: dict[str, Known] = {}
    neighbours = _neighbours()
    for line in (ENGLISH + OTHERS).split("\n"):
        grade, *words = line.split() or [""]
        for entry in words:
            word = _bare(entry.rstrip("+?"))
            around = neighbours.get(word, (frozenset(), frozenset()))
            known = Known(_GRADES[int(grade) - 1], entry.endswith("?"), *around)
            for ending in ENDINGS if entry.endswith("+") else ("",):
                found.setdefault(word + ending, known)
    return found


WORDS: Final = _known()
ALL: Final = frozenset(WORDS)
_FIRM: Final = {
    word: known
    for word, known in WORDS.items()
    if known.severity >= Severity.MEDIUM and len(word) >= _LETTERS_MIN
}
_UNFOLDED: Final = {word.translate(_LEET): word for word in WORDS if len(word) >= _LETTERS_MIN}
_CENSORED: Final = {
    word[:first] + _ANY_LETTER * (last - first) + word[last:]: word
    for word in _FIRM
    for first in range(1, len(word))
    for last in range(first + 1, len(word) + 1)
}
"""`f*ck`, `f**k`, `f***`."""
_GLUED: Final = {
    whole: word
    for word in _FIRM
    for rest in COMPANIONS.split()
    for whole in (word + rest, rest + word)
}
"""`fuckyou`, where no spaces are left."""
_SYMBOLS: Final = str.maketrans("@$", "as")

_SPLITS_WORDS: Final = [chr(code) for code in range(128) if not chr(code).isalnum()]
_SPLITS_TOKENS: Final = [sign for sign in _SPLITS_WORDS if sign not in WORD_PUNCTUATION]
_TO_WORDS: Final = {ord(sign): " " for sign in _SPLITS_WORDS}
_TO_TOKENS: Final = {ord(sign): " " for sign in _SPLITS_TOKENS}
_PUNCTUATION: Final = "\u2010-\u2018\u201a-\u2027\u2030-\u205e\u3001-\u303f«»¡¿"
"""Beyond ASCII, but for the apostrophe."""
_WORD: Final = re.compile(rf"[^\s{re.escape(''.join(_SPLITS_WORDS))}{_PUNCTUATION}’]+")
_TOKEN_PART: Final = re.compile(
    rf"[^\s{re.escape(''.join(_SPLITS_TOKENS))}{_PUNCTUATION}]{{1,256}}+"
)
_TOKEN: Final = re.compile(rf"[^\s{re.escape(''.join(_SPLITS_TOKENS))}{_PUNCTUATION}]+")


def words(lower: str) -> set[str]:
    """All words of a text in small letters."""
    if lower.isascii():
        return set(lower.translate(_TO_WORDS).split())
    return set(_WORD.findall(lower))  # `translate` is slow where there is more than ASCII


def _tokens(lower: str) -> set[str]:
    """Words with the signs that may stand in them."""
    if lower.isascii():
        return set(lower.translate(_TO_TOKENS).split())
    return set(_TOKEN.findall(lower))


def find(text: str, lower: str, is_spaced: bool) -> Iterator[Hit]:
    """`lower`: the text in small letters, place for place. `is_spaced`: spaces were taken out of
    it, so words may be glued."""
    seen = words(lower)
    wanted = {word: word for word in seen & ALL}
    for start, end, word in _places(_WORD, lower, wanted):
        if not _is_other(text, lower, start, end, word):
            yield _hit(word, start, end, Confidence.HIGH)
    odd = {
        token: word
        for token in _tokens(lower) - seen
        if 3 <= len(token) <= limits.PROFANE_WORD_CHARS_MAX and (word := disguised(token))
    }
    odd |= {
        token: word
        for token in seen
        if not token.isalpha() and len(token) < limits.PROFANE_WORD_CHARS_MAX
        if (word := disguised(token))
    }
    for start, end, word in _places(_TOKEN, lower, odd):
        yield _hit(word, start, end, Confidence.MEDIUM)
    drawn: dict[str, str] = {}
    if any(triple in lower for triple in _TRIPLES):
        drawn = {word: known for word in seen if (known := _drawn_out(word))}
    if is_spaced:
        drawn |= {word: _GLUED[word] for word in seen & _GLUED.keys()}
    for start, end, word in _places(_WORD, lower, drawn):
        yield _hit(word, start, end, Confidence.MEDIUM)


def tokens(text: str, first: int) -> Iterator[re.Match[str]]:
    """The words of text[first:] with the signs in them, in parts of at most 256 characters."""
    return _TOKEN_PART.finditer(text, first)


def in_token(text: str, start: int, end: int, severity: Severity) -> Iterator[tuple[int, int]]:
    """The words of text[start:end], one token, that are no less; in a disguise: all of it."""
    token = text[start:end]
    seen = token if token.isascii() else token.translate(FOLDS)
    lower = small(seen)
    is_found = False
    for found in _WORD.finditer(lower):
        word = found.group()
        meant = (
            word
            if word in WORDS
            else _drawn_out(word) or (disguised(word) if not word.isalpha() else "")
        )
        if severity_of(meant) < severity:
            continue
        if seen != token:
            if meant != word or not _is_other(seen, lower, *found.span(), word):
                yield start, end
                return
        elif meant != word or not _is_other_in(text, start, found, word):
            is_found = True
            yield start + found.start(), start + found.end()
    if not is_found and len(token) <= limits.PROFANE_WORD_CHARS_MAX:
        word = disguised(lower)
        if word and severity_of(word) >= severity:
            yield start, end


def _is_other_in(text: str, start: int, found: re.Match[str], word: str) -> bool:
    """Only what stands around it is looked at, however long the text."""
    begin = max(0, start + found.start() - _NEIGHBOUR_CHARS - 1)
    near = text[begin : start + found.end() + _NEIGHBOUR_CHARS + 1]
    place = start + found.start() - begin
    return _is_other(near, small(near), place, place + len(word), word)


def meant(word: str) -> str:
    """The word that `word` is, where spaces were taken out of it; or nothing."""
    return word if word in WORDS else _GLUED.get(word, "") or _drawn_out(word)


def severity_of(word: str) -> int:
    """0: it is none."""
    return WORDS[word].severity if word in WORDS else 0


def _places(pattern: re.Pattern[str], lower: str, wanted: dict[str, str]) -> Iterator[_Place]:
    """Each place of what is wanted, in one pass: there may be many of them."""
    if wanted:
        for found in pattern.finditer(lower):
            if word := wanted.get(found.group()):
                yield *found.span(), word


def disguised(token: str) -> str:
    """The word that `token` (in small letters) stands for, or nothing."""
    if _ANY_LETTER in token and (word := _CENSORED.get(token.strip(_EDGES_BUT_ANY))):
        return word
    bare = token.strip(_EDGES)
    if bare.isalpha():
        return ""  # a word like all others
    joined = bare.translate(_BETWEEN)
    if joined in _FIRM:
        return joined
    word = _UNFOLDED.get(joined.translate(_LEET), "")
    if word and sum(map(str.isalpha, joined)) * 2 >= len(joined) and not joined.isalpha():
        return word
    word = joined.translate(_SYMBOLS)
    return word if word != joined and word in WORDS else ""


def _drawn_out(word: str) -> str:
    """The word that is meant by `fuuuck`."""
    if _TRIPLED.search(word):
        for times in ("\\1", "\\1\\1"):
            if (single := _TRIPLED.sub(times, word)) in WORDS:
                return single
    return ""


def _is_other(text: str, lower: str, start: int, end: int, word: str) -> bool:
    """A name, an animal, a tool: by the words around it, or by the capital that it shares."""
    known = WORDS[word]
    if not known.is_ambiguous:
        return False
    before = _WORD_BEFORE.search(lower, max(0, start - _NEIGHBOUR_CHARS), start)
    after = _WORD_AFTER.match(lower, end, end + _NEIGHBOUR_CHARS)
    if before is not None and before.group(1) in known.before:
        return True
    if after is not None and after.group(1) in known.after:
        return True
    if not text[start].isupper() or text[start:end].isupper():
        return False
    is_named_after = after is not None and text[after.start(1)].isupper()
    is_named_before = before is not None and text[before.start(1)].isupper()
    return is_named_after or is_named_before


def _hit(word: str, start: int, end: int, confidence: Confidence) -> Hit:
    known = WORDS[word]
    if known.is_ambiguous:
        confidence = Confidence.LOW
    shown = f"{word[0]}{'*' * (len(word) - 1)}"
    return Hit("profanity/word", known.severity, confidence, start, end, shown)
