"""What assembly is given, and what it gives: a frame, turns, what stands where, and why.

Not here: how it is put together (assembly.py), which records compete (selecting.py).
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from ring0.memory.ledgers import Ledger
from ring0.types import Frozen, Label, WorkingSet

Quote = Callable[[str], str]
"""Puts a text between marks that it can't hold."""


class Directive(Frozen, frozen=True, kw_only=True):
    record: str
    text: str


class Summary(Frozen, frozen=True, kw_only=True):
    record: str
    text: str
    label: Label


class Turn(Frozen, frozen=True, kw_only=True):
    """Messages of the caller's own that stand or fall together; only counted here."""

    key: str
    tokens: int
    floor: bool = False
    """One of the last: it stays."""


class Frame(Frozen, frozen=True, kw_only=True):
    """All that stands in the window whatever is asked."""

    goal: str
    label: Label
    """Of the run: the ledgers hold arguments that it made."""
    directives: tuple[Directive, ...] = ()
    summary: Summary | None = None
    working: WorkingSet = WorkingSet()
    effects: Ledger = Ledger()
    reads: Ledger = Ledger()


class Entry(Frozen, frozen=True, kw_only=True):
    """One item of the manifest."""

    block: str
    item: str
    """A record's id, `step 3`, `turn 12`; of what has no name of its own, what it is."""
    tokens: int
    taken: bool
    why: str
    """`floor`, `score`, `neighbour`, `recent`; `duplicate`, `over budget`, `below min integrity`,
    `quarantined`, `not shown one by one`; of directives, which are not in the text, `in every
    question`."""
    score: float = 0.0


class Assembled(Frozen, frozen=True, kw_only=True):
    head: str
    """Goal, summary, working set and ledgers."""
    recalled: str
    """What memory holds of it besides; empty: nothing. It changes more often than the head."""
    turns: tuple[str, ...]
    """Keys of the turns that stay, in their order."""
    tokens: int
    """With the directives, which stand in the question beside it."""
    label: Label
    """The worst of all that is in it."""
    records: tuple[str, ...]
    """Records that it quotes."""
    manifest: tuple[Entry, ...]


class Block(enum.StrEnum):
    SUMMARY = "summary"
    CONSTRAINTS = "constraints"
    PLAN = "plan"
    QUESTIONS = "questions"
    EFFECTS = "effects"
    READS = "reads"
