"""Forgetting: planned, shown, done, and proved again by its receipt.

A run's calls and results hold what it wrote and recalled, under the run's key: where that has to go
too, the run is erased as `audit erase` does it. Not here: which records are meant and what came of
them (memory/forgetting.py); copies that somebody made (archives, back-ups, exports).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput, NotFound
from ring0.kernel import values
from ring0.kernel.lineage.reaching import matches
from ring0.kernel.memory.manager import Memory, scope_of
from ring0.kernel.operating import erasing
from ring0.memory import forgetting
from ring0.memory.forgetting import Reach, Selector
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.types import ENDED, Frozen, MemoryKind, Record, RecordState, Run

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

_RECEIPT: Final = "f"
_OF_RUNS: Final = (MemoryKind.FACT, MemoryKind.PROCEDURE)


class Plan(Frozen, frozen=True, kw_only=True):
    """What would be gone, and what stands in the way."""

    selector: Selector
    found: Reach
    runs: tuple[str, ...] = ()
    """Ended runs whose calls hold the text: they are erased with it."""
    erased: tuple[str, ...] = ()
    """Likewise, erased before."""
    blocked: tuple[tuple[str, str, str], ...] = ()
    """(run, why, what to do): nothing is forgotten as long as there is one."""

    def as_dict(self) -> dict[str, Any]:
        shown = limits.FORGET_PLAN_SHOWN_MAX

        def told(rows: Iterable[Record]) -> list[dict[str, Any]]:
            return [
                {"id": one.id, "kind": str(one.kind), "role": one.role, "text": one.text[:240]}
                for one in list(rows)[:shown]
            ]

        return {
            "records": len(self.found.chosen),
            "made": len(self.found.made),
            "seen": len(self.found.seen),
            "chosen": told(self.found.chosen),
            "made_of_them": told(self.found.made),
            "written_after": told(self.found.seen),
            "runs": list(self.runs),
            "blocked": [{"run": run, "why": why, "todo": todo} for run, why, todo in self.blocked],
        }


class Receipt(Frozen, frozen=True, kw_only=True):
    """What is on record of something forgotten."""

    id: str
    records: int
    derived: int
    runs: tuple[str, ...]
    by: str
    note: str
    at_us: int
    selector: str
    """Digest of what was asked for."""
    digest: str
    """Of the ids of all that is gone."""
    left: tuple[str, ...] = ()
    """What a check found of it; empty: nothing is left."""
    checked: bool = False

    def as_dict(self) -> dict[str, Any]:
        """With all of its fields, empty ones too."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


async def plan(kernel: Kernel, selector: Selector, *, only_made: bool = False) -> Plan:
    """`only_made`: not what was written after one of them was recalled, but made of none.
    Raises InvalidInput, NotFound, LimitReached."""
    store = kernel.store
    await store.flush()
    meant = await forgetting.chosen(store, selector, matches)
    found = await forgetting.reach(store, selector.scope, meant, deep=not only_made)
    holders = await _holders(store, found)
    runs, erased, blocked = [], [], []
    for name in holders:
        row = await store.run(name)
        if row is None or row.erased:
            erased += [name] if row else []
        elif row.state not in ENDED:
            why = f"it goes on: it is {row.state}, and its calls hold the text"
            blocked.append((name, why, f"Wait for its end, or `ring0 kill {name}`."))
        else:
            runs.append(name)
    blocked += [(run, *why) for run, why in await erasing.kept_back(kernel, runs)]
    return Plan(
        selector=selector,
        found=found,
        runs=tuple(runs),
        erased=tuple(erased),
        blocked=tuple(blocked),
    )


async def forget(
    kernel: Kernel, selector: Selector, *, by: str, note: str = "", only_made: bool = False
) -> Receipt:
    """All of it, or nothing where something stands in the way. Raises InvalidInput, NotFound,
    LimitReached, StoreFailed."""
    found = await plan(kernel, selector, only_made=only_made)
    if found.blocked:
        run, why, todo = found.blocked[0]
        raise InvalidInput(
            f"It can't be forgotten: {run} stands in the way.", why=f"{why}.", todo=todo
        )
    ids = found.found.ids
    if not ids:
        raise NotFound(
            "Nothing is remembered that this selects.",
            todo="`ring0 memory search` and `ring0 memory documents` print what there is.",
        )
    receipt = kernel.runtime.new_id(_RECEIPT)
    # The records first, with the names of the runs: whatever stops this half-way, the receipt
    # still says what is left to do, and `finish` does it.
    async with kernel.memory.forgetting([selector.scope.owner]):
        await _write(
            kernel.store,
            receipt,
            selector.digest(await kernel.store.scope_key(selector.scope.owner)),
            ids,
            derived=len(ids) - len(found.found.chosen),
            runs=(*found.runs, *found.erased),
            by=by,
            note=note,
        )
    return await finish(kernel, receipt, by=by)


async def finish(kernel: Kernel, receipt: str, *, by: str) -> Receipt:
    """Erases what a crash left of it, and proves that nothing is there any more. Raises NotFound,
    InvalidInput, StoreFailed."""
    said = await find(kernel.store, receipt)
    left = []
    for name in said.runs:
        row = await kernel.store.run(name)
        if row is not None and not row.erased:
            left.append(name)
    if left:
        await erasing.erase(kernel, left, by=by, note=f"forgotten: {receipt}")
    await kernel.store.wiped()
    return await check(kernel.store, receipt)


async def check(store: Store, receipt: str) -> Receipt:
    """The receipt, with all that a look at the rows finds of it. Raises NotFound."""
    await store.flush()
    said = await find(store, receipt)
    ids = await _ids(store, receipt)
    left: list[str] = []
    for page in _pages(ids):
        left += [f"record {one}" for one in await store.records_of(page)]
        left += [f"{child} is made of {parent}" for child, parent, how
                 in await store.children_of(page) if how == "parents"]  # fmt: skip
    for name in said.runs:
        row = await store.run(name)
        if row is not None and not row.erased:
            left.append(f"values of {name}")
    return Receipt(
        id=said.id,
        records=said.records,
        derived=said.derived,
        runs=said.runs,
        by=said.by,
        note=said.note,
        at_us=said.at_us,
        selector=said.selector,
        digest=said.digest,
        left=tuple(left[: limits.FORGET_PLAN_SHOWN_MAX]),
        checked=True,
    )


async def find(store: Store, receipt: str) -> Receipt:
    """As it stands on record. Raises NotFound."""
    first: ev.Forgotten | None = None
    # What a run forgets may be on record twice, after a crash: it is one and the same.
    at_us, ids, derived = 0, dict[str, None](), 0
    async for entry in store.entries(ev.KERNEL):
        if isinstance(entry.body, ev.Forgotten) and entry.body.receipt == receipt:
            first = first or entry.body
            at_us = at_us or entry.at_us
            ids |= dict.fromkeys(entry.body.records)
            derived += entry.body.derived
    if first is None:
        raise NotFound(
            f"There is no receipt {receipt[:40]!r}.",
            todo="`ring0 memory forget` printed it, and `ring0 logs` has the event.",
        )
    return Receipt(
        id=receipt,
        records=len(ids),
        derived=derived,
        runs=first.runs,
        by=first.by,
        note=first.note,
        at_us=at_us,
        selector=first.selector,
        digest=_digest(ids),
    )


# --- by a run ------------------------------------------------------------------------------------


async def of_a_run(memory: Memory, run: Run, meant: Sequence[Record]) -> tuple[Record, ...]:
    """What a run's `memory.forget` takes: its own agent's notes and facts, and what was made of
    them. Raises CallDenied."""
    for one in meant:
        own = one.kind in _OF_RUNS or (one.kind is MemoryKind.EPISODE and one.role == "note")
        proposed = one.kind is not MemoryKind.PROCEDURE or one.state is RecordState.PROPOSED
        if not (own and proposed and one.act.startswith("r-")):
            raise CallDenied(
                f"{one.id} can't be forgotten by a run.",
                why=f"It is a {one.role or one.kind} that no run wrote as a note or a fact.",
                todo="An operator forgets it: `ring0 memory forget`.",
            )
    found = await forgetting.reach(memory.store, scope_of(run), meant, deep=False)
    return (*found.chosen, *found.made)


async def by_a_run(memory: Memory, run: Run, call: str, ids: Sequence[str], why: str) -> str:
    """Takes them out of memory; what the calls of runs hold of them stays until these are erased.
    The receipt comes of the call: after a crash it is the same."""
    receipt = f"{_RECEIPT}-{hashlib.sha256(call.encode()).hexdigest()[:12]}"
    if ids:
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        by = f"{run.principal} by {run.id}"
        async with memory.forgetting([scope_of(run).owner]):
            await _write(memory.store, receipt, digest, ids, derived=0, runs=(), by=by, note="")
    return receipt


# --- what both share -----------------------------------------------------------------------------


async def _write(
    store: Store,
    receipt: str,
    selector: str,
    ids: Sequence[str],
    *,
    derived: int,
    runs: tuple[str, ...],
    by: str,
    note: str,
) -> None:
    """In pages; the derived come last, so that a page that was not written leaves what is found
    again by those that stand."""
    for number, page in enumerate(reversed(list(_pages(ids)))):
        event = ev.Forgotten(
            records=tuple(page),
            receipt=receipt,
            selector=selector,
            derived=derived if number == 0 else 0,
            runs=runs,
            by=by,
            note=values.note(note),
        )
        await store.append(Write(run=ev.KERNEL, events=[event], durable=True))


async def _holders(store: Store, found: Reach) -> list[str]:
    """Runs whose calls hold the text: those that wrote or recalled it, and all beneath them. A
    directive stands in no call's record: each question is given it on its way out."""
    runs: dict[str, None] = {}
    rows = [
        one
        for one in (*found.chosen, *found.made, *found.seen)
        if one.kind is not MemoryKind.DIRECTIVE
    ]
    for one in rows:
        if one.act.startswith("r-"):
            runs[one.act] = None
    for page in _pages([one.id for one in rows]):
        for run, _ in await store.recallers_of(page):
            runs[run] = None
    stack = list(runs)
    while stack:
        for child in await store.runs(parent=stack.pop(), most=limits.RUNS_LISTED_MAX):
            if child.id not in runs:
                runs[child.id] = None
                stack.append(child.id)
    return list(runs)


async def _ids(store: Store, receipt: str) -> list[str]:
    found: list[str] = []
    async for entry in store.entries(ev.KERNEL):
        if isinstance(entry.body, ev.Forgotten) and entry.body.receipt == receipt:
            found += entry.body.records
    return found


def _pages(ids: Sequence[str]) -> Iterable[list[str]]:
    step = limits.RECORDS_PER_EVENT_MAX
    return (list(ids[at : at + step]) for at in range(0, len(ids), step))


def _digest(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
