"""Profane words are found whole, in disguise too; words that only hold one are left alone."""

import pytest

from ring0.guardrails.scanners import Severity, scan


def profane(text: str) -> list[str]:
    return [text[each.start : each.end] for each in scan(text).findings if "profanity" in each.rule]


@pytest.mark.parametrize(
    "word",
    ["fuck", "FUCKING", "sh1t", "5h1t", "$hit", "b!tch", "f*ck", "f**k", "f***", "a$$", "@ss",
     "fuuuuck", "f-u-c-k", "fu_ck", "fu.ck", "a55h0le", "scheiße", "enculé", "cabrón", "Arschloch",
     "mother-fucker", "c*nt", "“fuck”"],
)  # fmt: skip
def test_a_profane_word_is_found(word: str) -> None:
    assert profane(f"well, {word} that")


@pytest.mark.parametrize("text", ["f u c k", "f u c k y o u", "F.U.C.K", "s h i t  h a p p e n s"])
def test_a_word_with_space_between_its_letters_is_found(text: str) -> None:
    assert profane(f"so {text} there")


@pytest.mark.parametrize(
    "text",
    [
        "Dick Cheney",
        "kill the process",
        "Scunthorpe",
        "assess the class",
        "the cockpit",
        "Moby Dick",
        "a great tit and a blue tit",
        "take the A55 at noon",
        "455 of them",
        "spic and span",
        "a chink in the armour",
        "shiitake",
        "Penistone",
        "arsenal of arsenic",
        "a s s e s s",
        "2*x*y",
        "**bold** and *soft*",
    ],
)
def test_a_word_that_only_looks_like_one_is_left_alone(text: str) -> None:
    assert profane(f"so {text} it is") == []


def test_a_name_is_known_by_its_neighbours_and_a_word_is_not_excused_by_them() -> None:
    assert profane("Dick Tracy was a dick to Ann") == ["dick"]
    assert profane("Dick Zimmer and Ann Dick met") == []
    assert profane("he is a DICK") == ["DICK"]


@pytest.mark.parametrize(
    ("word", "severity"),
    [("damn", Severity.LOW), ("shit", Severity.MEDIUM), ("faggot", Severity.HIGH)],
)
def test_words_differ_in_severity(word: str, severity: Severity) -> None:
    found = scan(f"what a {word} thing").findings
    assert [each.severity for each in found] == [severity]
    assert word not in found[0].shown
