"""Benign texts that scanners trip over: written by hand, and made from templates. For
`ring0 bench scanners` and the tests."""

from __future__ import annotations

from itertools import product
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "tests" / "guardrails" / "data"


def benign() -> list[str]:
    """All of them."""
    return [*_lines("benign.txt"), *_made()]


def _lines(name: str) -> list[str]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines[1:] if line.strip()]


def _made() -> list[str]:
    found = []
    for line in _lines("templates.txt"):
        sentence, *choices = (part.strip() for part in line.split(" | "))
        words = [[word.strip() for word in choice.split(" ; ")] for choice in choices]
        found += [sentence.format(*each) for each in product(*words)]
    return found
