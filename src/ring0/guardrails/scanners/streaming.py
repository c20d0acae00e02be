"""The filter of a text that comes bit by bit: secrets by their form, links that carry data, and
profanity where the policy says so, are taken out of it, behind `guardrails/stream.py`.

What comes out is what `masked` makes of the whole, however the text is cut. Only what could still
become one of these is held back: a word, mostly. What is encoded is not found here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ring0 import limits
from ring0.guardrails.redact import Secrets
from ring0.guardrails.scanners.masking import Masker, Masking, Span, maskers
from ring0.guardrails.stream import StreamFilter

CONTEXT_CHARS: Final = limits.LINK_BEFORE_CHARS_MAX + 64
"""What is kept of the text that has gone on: rules look back so far."""
_LOOK_AT_ONCE_CHARS: Final = 64
"""So little is looked at again with every piece; of more, only when it has grown by an eighth."""


class _Merged(NamedTuple):
    start: int
    end: int
    marks: tuple[str, ...]


def merged(spans: list[Span]) -> Iterator[_Merged]:
    """Spans that overlap as one, with the marks of all."""
    start = end = -1
    marks: dict[str, None] = {}
    for span in sorted(spans):
        if span.start >= end:
            if marks:
                yield _Merged(start, end, tuple(marks))
            start, marks = span.start, {}
        marks[span.mark] = None
        end = max(end, span.end)
    if marks:
        yield _Merged(start, end, tuple(marks))


def masked(text: str, masking: Masking) -> str:
    """`text` without what `masking` names."""
    spans = [span for each in maskers(masking) for span in each.spans(text, 0, len(text), 0)]
    pieces: list[str] = []
    told = 0
    for one in merged(spans):
        pieces += [text[told : one.start], *one.marks]
        told = one.end
    return "".join([*pieces, text[told:]])


class PatternFilter:
    """One text on its way. Places are counted from the beginning of the text."""

    def __init__(self, masking: Masking) -> None:
        self._maskers: tuple[Masker, ...] = maskers(masking)
        self._text = ""
        """What has not gone on, and a little of what has."""
        self._base = 0
        """Where it begins."""
        self._looked = 0
        """Up to here it is known what begins where."""
        self._told = 0
        """Up to here it has gone on, or a mark for it."""
        self._spans: list[Span] = []
        """Found, and not told yet."""
        self._wait_chars = 0

    @property
    def holds(self) -> bool:
        """Something is kept back."""
        return self._told < self._base + len(self._text)

    def feed(self, text: str) -> str:
        """What may go on of all that has come so far and has not gone on."""
        if not self._maskers:
            return text
        self._text += text
        end = self._base + len(self._text)
        if end - self._looked < self._wait_chars:
            return ""
        first = self._looked - self._base
        until = min(each.open(self._text, first, self._base) for each in self._maskers)
        out = self._go_on(until)
        held = end - self._looked
        self._wait_chars = held + held // 8 if held > _LOOK_AT_ONCE_CHARS else 0
        return out

    def end(self) -> str:
        """What is left when nothing more comes."""
        return self._go_on(len(self._text)) if self._maskers else ""

    def _go_on(self, until: int) -> str:
        """All that begins before text[until:] is decided."""
        text, base, first = self._text, self._base, self._looked - self._base
        for each in self._maskers:
            self._spans.extend(each.spans(text, first, until, base))
        self._looked = base + until
        pieces: list[str] = []
        rest = self._looked
        for one in merged(self._spans):
            if one.end > self._looked:  # what begins later may overlap it
                rest = min(rest, one.start)
                break
            pieces += [text[self._told - base : one.start - base], *one.marks]
            self._told = one.end
        if rest > self._told:
            pieces.append(text[self._told - base : rest - base])
            self._told = rest
        self._spans = [span for span in self._spans if span.start >= self._told]
        self._drop()
        return "".join(pieces)

    def _drop(self) -> None:
        keep = max(self._base, min(self._told, self._looked - CONTEXT_CHARS))
        self._text = self._text[keep - self._base :]
        self._base = keep


class ContentFilter:
    """First the secrets that are known, by their values; then all that has the form of one, and
    the rest of `masking`."""

    def __init__(self, secrets: Secrets, masking: Masking) -> None:
        self._known = StreamFilter(secrets)
        self._patterns = PatternFilter(masking)

    @property
    def holds(self) -> bool:
        """Something is kept back."""
        return self._known.holds or self._patterns.holds

    def feed(self, text: str) -> str:
        """What may go on of all that has come so far and has not gone on."""
        return self._patterns.feed(self._known.feed(text))

    def end(self) -> str:
        """What is left when nothing more comes."""
        return self._patterns.feed(self._known.end()) + self._patterns.end()
