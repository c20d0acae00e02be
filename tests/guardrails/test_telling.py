"""Findings in words, for whoever is asked."""

from __future__ import annotations

import re
from pathlib import Path

import ring0.guardrails.scanners as scanners
from ring0.guardrails import telling
from ring0.guardrails.scanners import scan

IBAN = "GB82 WEST 1234 5698 7654 32"


def test_a_finding_is_told_in_words_and_with_its_rule() -> None:
    (found,) = [each for each in scan(f"Pay to {IBAN}").findings if "iban" in each.rule]
    said = telling.line("body", found.rule, found.shown)
    assert said == "body holds a bank account's number (IBAN): 27 characters [personal/iban]"
    assert "WEST" not in said


def test_what_is_shown_of_it_stays_as_it_is_where_it_says_more() -> None:
    said = telling.line("", "secret/aws-access-key", "AKIA… (20 characters)")
    form = "what has the form of a secret"
    assert said == f"it holds {form}: AKIA… (20 characters) [secret/aws-access-key]"


def test_what_a_run_has_read_is_told_likewise() -> None:
    said = telling.read_line("inbox@1", "injection/ignore", "ignore all")
    assert said == (
        "the run has read, in inbox@1, what reads like an order to a model: ignore all"
        " [injection/ignore]"
    )


def test_every_kind_of_rule_that_scanners_have_has_words() -> None:
    folder = Path(scanners.__file__).parent
    text = "".join(file.read_text() for file in folder.glob("*.py"))
    kinds = set(re.findall(r"f?\"([a-z]+)/(?:\{|[a-z])", text))
    known = {"secret", "personal", "profanity", "injection", "link", "hidden", "classifier"}
    assert known <= kinds
    for kind in known:
        assert telling.what(f"{kind}/x") != f"{kind}/x"
