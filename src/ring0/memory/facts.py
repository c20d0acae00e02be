"""Facts: what holds of a subject, since when, and by what was known when.

Two times: a fact is *valid* from when to when what it tells of held, and *recorded* until
*superseded* is when that was known here. Nothing is overwritten: both can be asked for later.
Not here: where facts lie and which supersedes which (store/remembering.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.types import INTEGRITY_RANK, Label, Record

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def moment_us(text: str, *, what: str = "The time") -> int:
    """ISO 8601 (a date, or a date and a time; UTC where nothing else is said) as microseconds since
    1970; empty: 0. Raises CallInvalid."""
    if not text:
        return 0
    try:
        if len(text) <= len("2026-01-31"):
            found = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        else:
            found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        at_us = (found - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise CallInvalid(
            f"{what} {text[:40]!r} is no time.",
            why="It is read as ISO 8601.",
            todo="Write `2026-03-31`, or `2026-03-31T12:00:00Z`.",
        ) from None
    # 0 stands for "open"; what was at that very moment was a microsecond later.
    return at_us or 1


def written(at_us: int) -> str:
    """The other way round; empty: open."""
    return (_EPOCH + at_us * _MICROSECOND).isoformat().replace("+00:00", "Z") if at_us else ""


def name(text: str, *, what: str) -> str:
    """A subject or a predicate as it is compared: without space around it, and single spaces in it.
    Raises CallInvalid."""
    found = " ".join(text.split())
    if not found or len(found) > limits.MEMORY_SUBJECT_CHARS_MAX or "\0" in found:
        raise CallInvalid(
            f"That is no {what} of a fact.",
            why=f"It has 1 to {limits.MEMORY_SUBJECT_CHARS_MAX} letters.",
            todo='As in: subject "invoice 4711", predicate "paid on", value "2026-03-31".',
        )
    return found


def holds(fact: Record, as_of_us: int) -> bool:
    """Whether it was known at that time, and told of that time. 0: now, by what is known now."""
    if not as_of_us:
        return not fact.superseded_us
    known = fact.at_us <= as_of_us and not 0 < fact.superseded_us <= as_of_us
    begun = not fact.valid_from_us or fact.valid_from_us <= as_of_us
    # That it ended became known with what superseded it.
    ended = 0 < fact.valid_to_us <= as_of_us and not fact.superseded_us
    return known and begun and not ended


def disputed(fact: Record, others: Iterable[Record]) -> bool:
    """Whether another value stands beside it that it could not supersede, nor the other it."""
    if fact.many or fact.superseded_us:
        return False
    return any(
        other.id != fact.id
        and not other.many
        and not other.superseded_us
        and (other.subject, other.predicate) == (fact.subject, fact.predicate)
        and other.text != fact.text
        and not (_over_before(fact, other) or _over_before(other, fact))
        for other in others
    )


def _over_before(one: Record, other: Record) -> bool:
    """What ended before the other began is its history, and disputes nothing."""
    return 0 < one.valid_to_us <= other.valid_from_us


def may_supersede(new: Label, old: Label) -> bool:
    """Only what is no worse takes the place of something: else a stranger's word would."""
    return INTEGRITY_RANK[new.integrity] <= INTEGRITY_RANK[old.integrity]
