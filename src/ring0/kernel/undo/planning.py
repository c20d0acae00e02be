"""What an undo would do, call by call, and what it leaves as it is: found out from the record.

It claims only what it can do. Not here: doing it (undoing.py), how a tool's call is taken back by
another tool (compensating.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from ring0 import limits
from ring0.errors import LimitReached, UndoRefused
from ring0.kernel.trees import beneath
from ring0.store import Store
from ring0.store import events as ev
from ring0.types import (
    COMPENSABLE,
    ENDED,
    Call,
    CallKind,
    CallState,
    Effect,
    Run,
    UndoLeft,
    UndoPlan,
    UndoStep,
)

if TYPE_CHECKING:
    from ring0.tools.registry import Tool

AGENT: Final = "ring0.undo"
"""The agent of a run that takes back what another did."""

ToolsOf = Callable[[], Awaitable[Mapping[str, "Tool"]]]
"""The tools of the tree that is taken back. Raises Ring0Error where they can't be had here."""


class _Question(msgspec.Struct):
    mutates: bool = False


class _Shown(msgspec.Struct):
    reversal: str = ""


class _Evidence(msgspec.Struct):
    question: _Question
    shown: _Shown


_decode_evidence = msgspec.json.Decoder(_Evidence).decode


async def plan(store: Store, row: Run, tools: ToolsOf, only: str = "") -> UndoPlan:
    """Of the run and all beneath it, or of one call of them: what ended last comes first.

    Raises UndoRefused for the run of an undo; LimitReached where it is too much for one.
    """
    if row.agent == AGENT:
        raise UndoRefused(
            f"{row.id} is an undo, and an undo is not taken back.",
            why="What it took back was put as it was; to do it again is a decision of its own.",
            todo="Start a new run that does it again.",
        )
    found: list[tuple[int, UndoStep | UndoLeft]] = []
    for run in await beneath(store, row):
        places, said = await _ends(store, run.id)
        for call in await store.calls(run.id):
            if call.kind is not CallKind.TOOL or (only and call.id != only):
                continue
            one = await look(store, call, run, tools, said)
            if one is not None:
                found.append((places.get(call.id, -1), one))
    if len(found) > limits.UNDO_CALLS_MAX:
        raise LimitReached(
            f"{len(found)} calls are too many for one undo.",
            why=f"It takes back at most {limits.UNDO_CALLS_MAX}.",
            todo="Undo the children first, one by one: `ring0 ps --all` lists them.",
        )
    found.sort(key=lambda pair: pair[0], reverse=True)
    return UndoPlan(
        run=row.id,
        steps=tuple(one for _, one in found if isinstance(one, UndoStep)),
        left=tuple(one for _, one in found if isinstance(one, UndoLeft)),
    )


async def _ends(store: Store, run: str) -> tuple[dict[str, int], frozenset[str]]:
    """Where in the log each call of the run ended, or was cut off; and which were settled."""
    places: dict[str, int] = {}
    said = set()
    async for place, entry in store.placed(run):
        if isinstance(entry.body, ev.CallEnded | ev.CallCutOff):
            places[entry.body.call] = place
        elif isinstance(entry.body, ev.CallSettled):
            said.add(entry.body.call)
    return places, frozenset(said)


async def settled(store: Store, run: str) -> frozenset[str]:
    """The calls of a run whose outcome is what a person said."""
    _, said = await _ends(store, run)
    return said


async def compensated_by(store: Store, call: Call) -> str:
    """The tool that takes a call back, as the call was shown before it was done."""
    way, _, other = (await _reversal(store, call) or "").partition(":")
    return other if way == COMPENSABLE else ""


async def look(
    store: Store, call: Call, run: Run, tools: ToolsOf | None, said: frozenset[str]
) -> UndoStep | UndoLeft | None:
    """How one call is taken back, or why not; None: there is nothing to take back.

    Without `tools`: as the record alone says it. `said`: calls whose outcome a person said.
    """
    if call.state is CallState.REFUSED:
        return None
    if call.undone_by:
        return await _undone(store, call)
    if call.state is CallState.OK and call.undo:
        files = evidence_of(await store.blob(call.undo)) == "file"
        return UndoStep(call=call.id, name=call.name, how="files" if files else "rows")
    reversal = await _reversal(store, call)
    if reversal is None:
        return None
    way, _, other = reversal.partition(":")
    if call.state is not CallState.OK:
        why = _why_unsure(call, run)
        if why and way == COMPENSABLE and call.state is CallState.UNKNOWN:
            return UndoStep(call=call.id, name=call.name, how="call", tool=other, refused=why)
        return UndoLeft(call=call.id, name=call.name, why=why) if why else None
    if way != COMPENSABLE:
        return UndoLeft(call=call.id, name=call.name, why=_irreversible(reversal))
    if tools is None:
        return UndoStep(call=call.id, name=call.name, how="call", tool=other)
    from ring0.kernel.undo import compensating

    return await compensating.step(store, call, other, tools, told=call.id not in said)


async def _undone(store: Store, call: Call) -> UndoStep | None:
    """Taken back before; or somebody began to, and it is not over: no step beyond it is taken."""
    by = await store.call(call.undone_by)
    if by is None or by.state is CallState.OK:
        return None
    why = f"{by.id} is taking it back."
    if by.state is CallState.UNKNOWN:
        why = f"{by.id} was cut off while it took it back: {_settle(by)}"
    return UndoStep(call=call.id, name=call.name, how="call", tool=by.name, refused=why)


async def _reversal(store: Store, call: Call) -> str | None:
    """What was shown of the way back; None: the call changed nothing outside of its run."""
    if call.effect is Effect.PURE or not call.decision:
        return None
    evidence = _decode_evidence(await store.blob(call.decision))
    return (evidence.shown.reversal or "irreversible") if evidence.question.mutates else None


def _why_unsure(call: Call, run: Run) -> str:
    """Of a call that did not end well: why it may have done something. Empty: it has not."""
    if call.state is CallState.UNKNOWN:
        return f"Nobody knows whether it happened: {_settle(call)}"
    if call.state is CallState.INTENDED:
        ended = run.state in ENDED
        return "It was cut off, and may have happened." if ended else "It is under way."
    # A `once` effect that fails says by that that nothing was done; others promise no such thing.
    return "" if call.effect is Effect.ONCE else "It failed, and may have done a part of it."


def _settle(call: Call) -> str:
    return f"say so first, with `ring0 settle {call.id} happened` or `did-not-happen`."


def _irreversible(reversal: str) -> str:
    _, _, why = reversal.partition(": ")
    return f"It is irreversible: {why}" if why else "It is irreversible."


def evidence_of(evidence: bytes) -> str:
    """What kind of evidence a call left: `file` or `rows`."""
    return "file" if "path" in msgspec.msgpack.decode(evidence) else "rows"


def check(found: UndoPlan, only: str = "") -> None:
    """Nothing is taken back where it is known before that one of the steps can't be.
    Raises UndoRefused."""
    if not found.steps:
        left = next(iter(found.left), None) if only else None
        raise UndoRefused(
            f"There is nothing to take back in {only or found.run}.",
            why=left.why
            if left
            else "No call of it left anything that takes it back, or that was done already.",
            todo=f"`ring0 undo {found.run} --dry-run` says of each call how it can be.",
        )
    for step in found.steps:
        if step.refused:
            raise UndoRefused(
                f"{step.call} can't be taken back, and so nothing was.",
                why=step.refused,
                todo="Take it back by hand; `--call` takes back others, one by one.",
            )
