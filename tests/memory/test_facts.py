"""Facts: two times, names that are compared, and what may take the place of what."""

from __future__ import annotations

import pytest

from ring0.errors import CallInvalid
from ring0.memory import facts
from ring0.types import Integrity, Label, MemoryKind, Record


def fact(text: str = "DE-1", **more: object) -> Record:
    given = {"id": f"r-1#{text}", "subject": "supplier", "predicate": "account", "at_us": 10}
    return Record(
        kind=MemoryKind.FACT, tenant="t", principal="p", agent="a", act="r-1", seq=1, role="fact",
        text=text, label=Label(integrity=Integrity.USER), **(given | more),
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("", 0),
        ("1970-01-02", 86_400_000_000),
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T01:00:01+01:00", 1_000_000),
        ("1970-01-01T00:00:01", 1_000_000),
        ("1970-01-01", 1),
    ],
)
def test_a_time_is_iso_8601_and_utc_where_nothing_else_is_said(text: str, at_us: int) -> None:
    assert facts.moment_us(text) == at_us


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "9" * 40, "2026-02-30", "٢٠٢٦-01-01x"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(CallInvalid, match="is no time"):
        facts.moment_us(text)


def test_what_was_known_then_and_what_held_then_are_two_questions() -> None:
    late = fact(at_us=100, valid_from_us=20)
    assert not facts.holds(late, 50), "it held, and nobody here knew it"
    assert facts.holds(late, 150) and facts.holds(late, 0)
    ended = fact(at_us=10, valid_from_us=20, valid_to_us=30)
    assert not facts.holds(ended, 15), "it was known, and did not hold yet"
    assert facts.holds(ended, 25) and not facts.holds(ended, 30)
    corrected = fact(at_us=10, superseded_us=40, superseded_by="r-1#9")
    assert facts.holds(corrected, 39) and not facts.holds(corrected, 40)
    assert not facts.holds(corrected, 0)


def test_values_that_stand_beside_each_other_are_disputed() -> None:
    one, other = fact("DE-1"), fact("DE-2")
    assert facts.disputed(one, [one, other])
    assert not facts.disputed(one, [one, fact("DE-1", id="r-2#1")])
    assert not facts.disputed(one, [one, fact("DE-2", superseded_us=5)])
    assert not facts.disputed(one, [one, fact("DE-2", predicate="phone")])
    assert not facts.disputed(fact("DE-1", many=True), [other])


def test_names_are_compared_without_their_space() -> None:
    assert facts.name("  the\n supplier ", what="subject") == "the supplier"
    for bad in (" ", "x" * 300, "a\0b"):
        with pytest.raises(CallInvalid):
            facts.name(bad, what="subject")


def test_what_is_worse_takes_the_place_of_nothing_better() -> None:
    stranger, user = Label(integrity=Integrity.UNTRUSTED), Label(integrity=Integrity.USER)
    assert facts.may_supersede(user, stranger) and facts.may_supersede(user, user)
    assert not facts.may_supersede(stranger, user)
