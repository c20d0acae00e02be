"""`scan`: all scanners over all views of one text, within a budget. Says what it saw and what it
did not get to; labels, risk and verdicts are for others to draw from it.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from ring0 import limits
from ring0.guardrails.scanners import (
    classifier,
    hidden,
    injection,
    links,
    personal,
    profanity,
    secrets,
)
from ring0.guardrails.scanners.budget import Budget
from ring0.guardrails.scanners.findings import NOT_SCANNED, Confidence, Finding, Hit, Severity
from ring0.guardrails.scanners.forms import FORMS
from ring0.guardrails.scanners.normal import Normaliser
from ring0.guardrails.scanners.reading import Reading
from ring0.guardrails.scanners.views import View

_ENGLISH: Final = frozenset(
    re.findall(
        "[a-z]+",
        "the and you your with this that from have will please ignore disregard forget previous "
        "instructions system prompt password secret token send forward reveal delete https http",
    )
)
"""Words of which one shows that a text was turned by rot13."""
_PARTS: Final = (
    "ignoreprevious", "ignoreall", "instruction", "password",
    *(
        anchor
        for form in FORMS
        for anchor in form.anchors
        if len(anchor) >= 4 and anchor != codecs.encode(anchor, "rot13") and anchor.strip(":/.")
    ),
)  # fmt: skip
NORMALISER: Final = Normaliser(
    _ENGLISH | {word for word in profanity.ALL if len(word) >= 4}, _PARTS
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Which scanners look, and with what."""

    secrets: bool = True
    personal: bool = True
    profanity: bool = True
    injection: bool = True
    links: bool = True
    hidden: bool = True
    normalise: bool = True
    """Off: only the text as it is."""
    hosts: frozenset[str] = frozenset()
    """What may carry data to, with all names beneath them."""
    classifier: classifier.Classifier | None = None
    classifier_threshold: float = 0.5


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    findings: tuple[Finding, ...]
    """By their place. Of one rule at one place, that of the least changed view."""
    views: tuple[View, ...]
    """All that was looked at, the text itself first."""
    exhausted: bool
    """Not all was looked at: to be taken as untrusted, and asked about."""

    @property
    def severity(self) -> int:
        """The worst; 0: nothing was found."""
        return max((finding.severity for finding in self.findings), default=0)


def scan(text: str, *, budget: Budget | None = None, rules: Rules | None = None) -> Scan:
    """Looks at `text` and at what is hidden and encoded in it. Linear in its length."""
    return _Scanning(budget or Budget(), rules or Rules()).over(text)


class _Scanning:
    def __init__(self, budget: Budget, rules: Rules) -> None:
        self._budget = budget
        self._rules = rules
        self._findings: list[Finding] = []
        self._covered: dict[str, list[tuple[int, int, Severity]]] = {}
        self._views: list[View] = []
        self._seen: set[str] = set()
        self._cut = 0
        """From here on the text itself was not scanned."""
        self._exhausted = False

    def over(self, text: str) -> Scan:
        taken = text[: self._budget.left]
        self._cut = len(taken)
        queue = deque([View(taken)])
        while queue and not self._exhausted:
            view = queue.popleft()
            if len(self._views) >= limits.SCAN_VIEWS_MAX or not self._budget.spend(len(view.text)):
                self._exhausted = True
                break
            self._views.append(view)
            reading = Reading(view)
            self._look(reading)
            if self._rules.normalise:
                queue.extend(self._new(NORMALISER.below(reading)))
        exhausted = self._exhausted or len(taken) < len(text)
        if exhausted:
            self._budget.exhausted = True
            self._findings.append(self._left_over(len(text)))
        self._findings.sort(key=lambda finding: (finding.start, finding.end, finding.rule))
        return Scan(
            findings=tuple(self._findings),
            views=tuple(self._views),
            exhausted=exhausted or any(each.rule == NOT_SCANNED for each in self._findings),
        )

    def _new(self, views: Iterable[View]) -> Iterator[View]:
        """Those whose text nobody has come to on another way."""
        for view in views:
            if view.text not in self._seen:
                self._seen.add(view.text)
                yield view

    def _left_over(self, chars: int) -> Finding:
        start = self._cut if self._cut < chars else 0
        return Finding(
            rule=NOT_SCANNED,
            severity=Severity.MEDIUM,
            confidence=Confidence.HIGH,
            start=start,
            end=chars,
            shown=f"({chars - start} characters, or what is encoded in them)",
            exact=False,
        )

    def _look(self, reading: Reading) -> None:
        view = reading.view
        for hit in self._hits(reading):
            start, end, exact = view.origin(hit.start, hit.end)
            covered = self._covered.setdefault(hit.rule, [])
            if any(
                start < other_end and other_start < end and worst >= hit.severity
                for other_start, other_end, worst in covered
            ):
                continue  # seen already, in a view that is nearer to the text
            if len(self._findings) >= limits.SCAN_FINDINGS_MAX:
                self._exhausted = True
                return
            covered.append((start, end, hit.severity))
            self._findings.append(
                Finding(
                    rule=hit.rule,
                    severity=hit.severity,
                    confidence=hit.confidence,
                    start=start,
                    end=end,
                    shown=hit.shown,
                    view=view.how,
                    exact=exact,
                )
            )

    def _hits(self, reading: Reading) -> Iterator[Hit]:
        rules, text, lower = self._rules, reading.text, reading.lower
        how = reading.view.how
        if rules.hidden:
            yield from hidden.find(text)
        if rules.secrets:
            yield from secrets.find(reading)
        if rules.personal:
            yield from personal.find(text)
        if rules.links:
            yield from links.find(text, lower, rules.hosts)
        if rules.injection:
            yield from injection.find(text, lower)
        if rules.profanity:
            yield from profanity.find(text, lower, "spaced" in how[-2:])
        if rules.classifier is not None and not how:
            yield from classifier.find(text, rules.classifier, rules.classifier_threshold)
