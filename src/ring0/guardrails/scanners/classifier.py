"""The place for a classifier of injected text, for who has one. None comes with ring0, and none is
asked unless `Rules` names it. Like every scanner it may raise a label or a risk, and never decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Protocol

from ring0 import limits
from ring0.guardrails.scanners.findings import NOT_SCANNED, Confidence, Hit, Severity

_OVERLAP_CHARS: Final = 512
"""Two parts of a long text share so much: nothing is cut in two unseen."""


class Classifier(Protocol):
    """Says how much a text reads like an order to a model."""

    @property
    def name(self) -> str:
        """Short, for the finding."""

    def score(self, text: str) -> float:
        """From 0 (data) to 1 (an order). Of at most CLASSIFIER_CHARS_MAX characters."""


def find(text: str, classifier: Classifier, threshold: float) -> Iterator[Hit]:
    """One hit for each part that scores `threshold` or more. One that fails has not scanned."""
    most = limits.CLASSIFIER_CHARS_MAX
    for start in range(0, max(1, len(text) - _OVERLAP_CHARS), most - _OVERLAP_CHARS):
        part = text[start : start + most]
        try:
            score = float(classifier.score(part))
        except Exception as error:  # whatever another's model does, the text was not judged
            yield _failed(start, part, type(error).__name__)
            continue
        if not 0 <= score <= 1 or math.isnan(score):
            yield _failed(start, part, "no number from 0 to 1")
        elif score >= threshold:
            shown = f"scored {score:.2f}"
            rule = f"classifier/{classifier.name}"
            yield Hit(rule, Severity.MEDIUM, Confidence.LOW, start, start + len(part), shown)


def _failed(start: int, part: str, why: str) -> Hit:
    shown = f"the classifier failed: {why}"
    end = start + len(part)
    return Hit(NOT_SCANNED, Severity.MEDIUM, Confidence.HIGH, start, end, shown)
