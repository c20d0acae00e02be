"""Two runs side by side: which call of one is which of the other, and what of each is not the same.

Calls of the SDK are aligned by their path, those of processes that give none by what they ask, in
their order. What a run calls itself is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, Final, Literal

import msgspec

from ring0.errors import StoreDamaged
from ring0.store import Store
from ring0.types import Call, CallKind, Frozen, Outcome, Run

_RUN: Final = re.compile(rb"\br-[0-9a-z]{12}\b")
How = Literal["same", "differs", "first", "second"]
"""`first`, `second`: it is in that run alone."""


class Apart(Frozen, frozen=True, kw_only=True):
    """A call of both runs, or of one."""

    place: str
    """Its id without the run's."""
    kind: str
    name: str
    how: How
    what: tuple[str, ...] = ()
    """Of both, what differs: `asked`, `verdict`, `state`, `result`, `label`."""
    first: str = ""
    """Its id in the first run; empty: it is not there."""
    second: str = ""


class Compared(Frozen, frozen=True, kw_only=True):
    """Two runs."""

    first: str
    second: str
    same_code: bool
    same_task: bool
    same_result: bool
    calls: tuple[Apart, ...]
    """In the order of the first run; what is in the second alone, where it came there."""

    @property
    def apart(self) -> Apart | None:
        """Where they begin to ask for something else; None: they asked for the same."""
        return next(
            (one for one in self.calls if one.how in ("first", "second") or "asked" in one.what),
            None,
        )


class _Side:
    """One call, read."""

    def __init__(self, call: Call, args: bytes, outcome: Outcome | None) -> None:
        self.call = call
        self.asked = (str(call.kind), call.name, _RUN.sub(b"RUN", args))
        self.outcome = outcome

    @property
    def place(self) -> str:
        return self.call.id.partition("/")[2]

    def result(self) -> bytes:
        if self.outcome is None:
            return b""
        value = msgspec.json.encode([self.outcome.value, self.outcome.error], order="sorted")
        return _RUN.sub(b"RUN", value)


async def compare(one: Store, first: Run, other: Store, second: Run) -> Compared:
    """Raises StoreDamaged where what they were asked or told is gone."""
    ours = [await _read(one, call) for call in await one.calls(first.id)]
    theirs = [await _read(other, call) for call in await other.calls(second.id)]
    return Compared(
        first=first.id,
        second=second.id,
        same_code=first.agent_digest == second.agent_digest,
        same_task=await one.blob(first.task) == await other.blob(second.task),
        same_result=await _result(one, first) == await _result(other, second),
        calls=tuple(_apart(*pair) for pair in _aligned(ours, theirs)),
    )


async def _result(store: Store, row: Run) -> bytes:
    return _RUN.sub(b"RUN", await store.blob(row.result)) if row.result else b""


async def _read(store: Store, call: Call) -> _Side:
    outcome: Outcome | None = None
    if call.outcome:
        outcome = msgspec.json.decode(await store.blob(call.outcome), type=Outcome)
    try:
        args = await store.blob(call.asked or call.args)
    except StoreDamaged:
        args = b""  # Erased: then what is left to be told apart is its kind and its name.
    return _Side(call, args, outcome)


def _aligned(
    ours: Sequence[_Side], theirs: Sequence[_Side]
) -> list[tuple[_Side | None, _Side | None]]:
    there = {side.place: side for side in theirs if "~" not in side.place}
    pairs: list[tuple[_Side | None, _Side | None]] = []
    named = [side for side in ours if "~" not in side.place]
    pairs += [(side, there.pop(side.place, None)) for side in named]
    pairs += [(None, side) for side in there.values()]
    pairs += _by_question(
        [side for side in ours if "~" in side.place], [s for s in theirs if "~" in s.place]
    )
    return sorted(pairs, key=_order)


def _by_question(
    ours: Sequence[_Side], theirs: Sequence[_Side]
) -> list[tuple[_Side | None, _Side | None]]:
    """Without paths: the longest way on which both ask for the same, and between its stations what
    is of one kind and name, one after the other."""
    pairs: list[tuple[_Side | None, _Side | None]] = []
    matcher = SequenceMatcher(
        None, [side.asked for side in ours], [side.asked for side in theirs], autojunk=False
    )
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            pairs += zip(ours[a:b], theirs[c:d], strict=True)
            continue
        left = list(theirs[c:d])
        for side in ours[a:b]:
            same = next((one for one in left if one.asked[:2] == side.asked[:2]), None)
            if same is not None:
                left.remove(same)
            pairs.append((side, same))
        pairs += [(None, side) for side in left]
    return pairs


def _order(pair: tuple[_Side | None, _Side | None]) -> tuple[int, int]:
    side, other = pair
    return (side.call.seq, 0) if side is not None else (other.call.seq if other else 0, 1)


def _apart(one: _Side | None, other: _Side | None) -> Apart:
    side = one or other
    assert side is not None, "a pair of nothing"
    what: list[str] = []
    if one is not None and other is not None:
        what = [name for name, differs in _differences(one, other) if differs]
    how: How = "second" if one is None else "first" if other is None else "same"
    return Apart(
        place=side.place,
        kind=str(side.call.kind),
        name=side.call.name,
        how="differs" if what else how,
        what=tuple(what),
        first=one.call.id if one else "",
        second=other.call.id if other else "",
    )


def _differences(one: _Side, other: _Side) -> list[tuple[str, Any]]:
    labels = [side.outcome.label.bare if side.outcome else None for side in (one, other)]
    verdicts = [(side.call.verdict.kind, side.call.verdict.reasons) for side in (one, other)]
    if one.call.kind in (CallKind.NOW, CallKind.RANDOM):  # That they differ is what they are for.
        return [("asked", one.asked != other.asked)]
    return [
        ("asked", one.asked != other.asked),
        ("verdict", verdicts[0] != verdicts[1]),
        ("state", one.call.state != other.call.state),
        ("result", one.result() != other.result()),
        ("label", labels[0] != labels[1]),
    ]
