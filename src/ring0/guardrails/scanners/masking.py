"""What the streaming filter takes out, one masker a kind. Each says up to where it is decided what
begins where, and what begins there: so it comes to the same however the text is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import msgspec

from ring0 import limits
from ring0.guardrails.scanners import forms, links, profanity, secrets
from ring0.guardrails.scanners.findings import Severity
from ring0.guardrails.scanners.fold import FOLDS
from ring0.guardrails.scanners.reading import small


class Masking(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken out of a text on its way."""

    secrets: bool = True
    links: bool = True
    link_severity: Severity = Severity.MEDIUM
    """Links that are no less."""
    hosts: frozenset[str] = frozenset()
    """What may carry data to, with all names beneath them."""
    profanity: Severity | None = None
    """Words that are no less; None: all may stand."""


class Span(NamedTuple):
    """A part of the text, counted from its beginning, and what goes on in its place."""

    start: int
    end: int
    mark: str


class Masker(Protocol):
    """Takes out one kind of thing. Asked in order, each place once."""

    def open(self, text: str, first: int, base: int) -> int:
        """From where in text[first:] on it depends on what comes next. `base`: where in the whole
        `text` begins."""

    def spans(self, text: str, first: int, last: int, base: int) -> Iterator[Span]:
        """What begins in text[first:last]."""


def maskers(masking: Masking) -> tuple[Masker, ...]:
    found: list[Masker] = []
    if masking.secrets:
        found.append(_Secrets())
    if masking.links:
        found.append(_Links(masking.link_severity, masking.hosts))
    if masking.profanity is not None:
        found += [_Words(masking.profanity), _SpacedWords(masking.profanity)]
    return tuple(found)


_RUN: Final = "".join(forms.RUN)
_NAMED_CHARS_MAX: Final = secrets.KEYWORD_CHARS_MAX + limits.SECRET_VALUE_CHARS_MAX


class _Secrets:
    def __init__(self) -> None:
        self._next = [0] * len(forms.FORMS)
        """Of each form, the end of the last one that was found."""
        self._next_key = 0

    def open(self, text: str, first: int, base: int) -> int:
        end = len(text)
        run = len(text.rstrip(_RUN))
        until = max(first, run, end - limits.SECRET_RUN_CHARS_MAX)
        begun = secrets.open_private_key(text, max(first, end - limits.PRIVATE_KEY_CHARS_MAX))
        named = secrets.open_named(text, max(first, end - _NAMED_CHARS_MAX))
        return min(until, begun, named)

    def spans(self, text: str, first: int, last: int, base: int) -> Iterator[Span]:
        for number, form in enumerate(forms.FORMS):
            if all(text.find(anchor, first) < 0 for anchor in form.anchors):
                continue
            begin = max(first, self._next[number] - base)
            for start, end in forms.matches(form, text, begin, last):
                self._next[number] = base + end
                yield Span(base + start, base + end, f"«secret:{form.name}»")
        begin = max(first, self._next_key - base)
        for start, end in secrets.private_keys(text, begin, last):
            self._next_key = base + end
            yield Span(base + start, base + end, "«secret:private-key»")
        for start, end in secrets.named(text, small(text), first, last):
            yield Span(base + start, base + end, "«secret:named»")


class _Links:
    def __init__(self, severity: Severity, hosts: frozenset[str]) -> None:
        self._severity = severity
        self._hosts = hosts
        self._next = 0

    def open(self, text: str, first: int, base: int) -> int:
        return links.open_from(text, max(first, self._next - base))

    def spans(self, text: str, first: int, last: int, base: int) -> Iterator[Span]:
        for start, end in links.places(text, max(first, self._next - base), last):
            self._next = base + end
            hit = links.look(text, start, end, self._hosts)
            if hit is not None and hit.severity >= self._severity:
                yield Span(base + start, base + end, "«link removed»")


_TOKEN_CHARS_MAX: Final = 256
_NEXT_WORD_CHARS: Final = 40


class _Words:
    """Whole words, and words in disguise, between spaces and what else parts words."""

    def __init__(self, severity: Severity) -> None:
        self._severity = severity
        self._next = 0

    def open(self, text: str, first: int, base: int) -> int:
        end = len(text)
        for found in profanity.tokens(text, max(first, self._next - base)):
            is_whole = found.end() < end or len(found.group()) == _TOKEN_CHARS_MAX
            rest = text[found.end() : found.end() + _NEXT_WORD_CHARS]
            is_next_open = len(rest) < _NEXT_WORD_CHARS and _WORD_BEGUN.fullmatch(rest)
            if not is_whole or is_next_open:
                return found.start()
        return end

    def spans(self, text: str, first: int, last: int, base: int) -> Iterator[Span]:
        for found in profanity.tokens(text, max(first, self._next - base)):
            if found.start() >= last:
                return
            self._next = base + found.end()
            for start, end in profanity.in_token(text, *found.span(), self._severity):
                yield Span(base + start, base + end, _stars(end - start))


_WORD_BEGUN: Final = re.compile(r"[ \-]{0,2}[^\W\d_]*")
_SPACED: Final = re.compile(r"(?<!\S)[^\W_](?: [^\W_](?!\S)){2,63}+")
_SPACED_BEGUN: Final = re.compile(r"(?<!\S)[^\W_](?: [^\W_](?!\S)){0,63}+(?: |(?: [^\W_]))?\Z")
_SPACED_CHARS_MAX: Final = 130


class _SpacedWords:
    """`b a d`."""

    def __init__(self, severity: Severity) -> None:
        self._severity = severity
        self._next = 0

    def open(self, text: str, first: int, base: int) -> int:
        begin = max(first, self._next - base, len(text) - _SPACED_CHARS_MAX)
        found = _SPACED_BEGUN.search(text, begin)
        return found.start() if found else len(text)

    def spans(self, text: str, first: int, last: int, base: int) -> Iterator[Span]:
        found = _SPACED.search(text, max(first, self._next - base))
        while found is not None and found.start() < last:
            self._next = base + found.end()
            word = found.group()[::2].translate(FOLDS).lower()
            if profanity.severity_of(profanity.meant(word)) >= self._severity:
                yield Span(base + found.start(), base + found.end(), _stars(len(word)))
            found = _SPACED.search(text, found.end())


def _stars(chars: int) -> str:
    return "*" * min(chars, limits.PROFANE_WORD_CHARS_MAX)
