"""What the kernel puts into a run's window, from what is on record: goal, ledgers, working set,
directives, summary; and the marks that the rest of it stands between.

Not here: what of it fits (memory/assembly.py), the calls that ask for it (windows.py).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.guardrails.scanners.spotlight import spotlight
from ring0.kernel.lineage.reaching import is_out, quarantined
from ring0.memory import compaction, ledgers, window, working
from ring0.memory.ledgers import Act, Ledger
from ring0.store import Store
from ring0.tools.inferring import infer
from ring0.types import (
    Call,
    CallKind,
    CallState,
    Effect,
    MemoryKind,
    Outcome,
    Run,
    Scope,
    WorkingSet,
)

T = TypeVar("T")

_MARK: Final = b"ring0 window\0"
_MARK_HEX_DIGITS: Final = 24
_MARKS_TRIED: Final = 16
_DONE: Final = (CallState.OK, CallState.ERROR, CallState.UNKNOWN, CallState.INTENDED)
_decode_outcome = msgspec.json.Decoder(Outcome).decode


def marked(key: bytes, work: Callable[[window.Quote, str], T]) -> T:
    """`work`, given what puts a text between marks of the run's own, and what is said of them once.

    The same marks as long as no text holds them, so that what stands before stays as it was; a
    model that was made to repeat them gets others. Raises InvalidInput.
    """
    error: InvalidInput | None = None
    for attempt in range(_MARKS_TRIED):
        digest = hmac.digest(key, _MARK + bytes([attempt]), "sha512").hex()
        marker = digest[:_MARK_HEX_DIGITS]
        try:
            return work(_quoting(marker), spotlight("", marker).note)
        except InvalidInput as held:
            error = held
    assert error is not None
    raise error


def _quoting(marker: str) -> window.Quote:
    return lambda text: spotlight(text, marker).text


class Acts:
    """A run's own calls, as its ledgers tell them."""

    def __init__(self, store: Store, calls: Sequence[Call]) -> None:
        self._store = store
        self.calls = calls
        self.effects: list[Act] = []
        self.reads: list[Act] = []
        self._read: list[tuple[Call, Act]] = []
        self._args: dict[str, str] = {}

    @classmethod
    async def of(cls, store: Store, run: str) -> Acts:
        await store.flush()
        found = cls(store, await store.calls(run))
        for call in found.calls:
            await found._take(call)
        return found

    @property
    def distinct(self) -> frozenset[tuple[str, str, str]]:
        """Each different effect, with what became of it."""
        return ledgers.distinct(self.effects)

    def is_news(self, upto_seq: int) -> bool:
        """Whether something was read behind that seq that had not been read before it."""
        known: set[tuple[str, str, str]] = set()
        for call, act in self._read:
            seen = (act.tool, act.args, act.outcome)
            if call.seq > upto_seq and seen not in known:
                return True
            known.add(seen)
        return False

    async def ledgers(self) -> tuple[Ledger, Ledger]:
        """What was done to the world, and what was read; the newest with their arguments."""
        told = []
        for acts in (self.effects, self.reads):
            found = ledgers.ledger(acts)
            shown = [await self._shown(line.args) for line in found.lines]
            told.append(ledgers.with_arguments(found, shown))
        return told[0], told[1]

    async def _take(self, call: Call) -> None:
        if call.state not in _DONE or call.kind not in _LEDGERED:
            return
        act = Act(
            tool=_NAMES.get(call.kind, "{name}").format(name=call.name or call.kind),
            args=call.args,
            outcome=call.outcome,
            state=call.state,
            undone=bool(call.undone_by),
        )
        effect = call.effect
        if call.kind is CallKind.OBSERVED:
            effect = infer(call.name, "", {}).effect
            act = await self._observed(call, act)
        if effect is not Effect.PURE:
            self.effects.append(act)
        elif call.state is CallState.OK:
            self.reads.append(act)
            self._read.append((call, act))

    async def _observed(self, call: Call, act: Act) -> Act:
        """What the agent carried out itself: its arguments lie beside what it says came of it."""
        given: dict[str, Any] = msgspec.json.decode(await self._store.blob(call.args))
        args = msgspec.json.encode(given.get("args", {}), order="sorted")
        digest, came = (hashlib.sha256(one).hexdigest() for one in (args, given["result"].encode()))
        self._args[digest] = args.decode("utf-8", "replace")
        state = CallState.ERROR if given.get("failed") else CallState.OK
        return msgspec.structs.replace(act, args=digest, outcome=came, state=state)

    async def _shown(self, args: str) -> str:
        if args not in self._args:
            raw = await self._store.blob(args)
            self._args[args] = raw[: 4 * limits.LEDGER_ARGS_CHARS_MAX].decode("utf-8", "replace")
        return self._args[args]


_LEDGERED: Final = (CallKind.TOOL, CallKind.OBSERVED, CallKind.SPAWN, CallKind.SEND)
_NAMES: Final = {CallKind.SPAWN: "spawn {name}", CallKind.SEND: "send"}


async def frame_of(store: Store, run: Run, acts: Acts | None = None) -> window.Frame:
    """All that stands in the run's window whatever it asks for."""
    acts = acts or await Acts.of(store, run.id)
    effects, reads = await acts.ledgers()
    goal = (await store.blob(run.task)).decode("utf-8", "replace")
    return window.Frame(
        goal=goal,
        label=run.label,
        directives=await directives_of(store, run),
        summary=await summary_of(store, run),
        working=await working_of(store, run),
        effects=effects,
        reads=reads,
    )


async def directives_of(store: Store, run: Run) -> tuple[window.Directive, ...]:
    """What people say always holds, the oldest first; nothing that is quarantined."""
    scope = Scope(tenant=run.tenant, principal=run.principal, agent=run.agent, run=None)
    found = await store.records(
        scope, kinds=(MemoryKind.DIRECTIVE,), most=limits.ASSEMBLY_DIRECTIVES_MAX
    )
    out = quarantined(run.tenant, await store.quarantines())
    return tuple(
        window.Directive(record=one.id, text=one.text)
        for one in reversed(found)
        if not is_out(one.id, out)
    )


async def summary_of(store: Store, run: Run) -> window.Summary | None:
    """The newest; None: the window was never compacted, or the summary was forgotten, or what it
    may have come of is quarantined."""
    found = await store.window(run.id)
    if found is None or not found.summary:
        return None
    record = await store.record(found.summary)
    if record is None or is_out(record.id, quarantined(run.tenant, await store.quarantines())):
        return None
    return window.Summary(record=record.id, text=record.text, label=record.label)


async def working_of(store: Store, run: Run) -> WorkingSet:
    """But for what the run wrote after it had seen what is quarantined."""
    found = await store.working(run.id)
    if found is None:
        return WorkingSet()
    begins = quarantined(run.tenant, await store.quarantines()).get(run.id)
    return found[0] if begins is None else working.before(found[0], begins)


async def turns_of(store: Store, calls: Sequence[Call]) -> list[compaction.Turn]:
    """What was said and what came of it, as far as a summary tells it; of calls in their order."""
    told = []
    talked = [call for call in calls if call.kind in _TALK and call.outcome]
    for call in talked[-limits.COMPACTION_TURNS_MAX :]:
        outcome = _decode_outcome(await store.blob(call.outcome))
        if call.kind is CallKind.MODEL:
            value = outcome.value if isinstance(outcome.value, dict) else {}
            told.append(compaction.Turn(who="model", text=str(value.get("text") or "")))
        elif call.kind is CallKind.OBSERVED:
            given = msgspec.json.decode(await store.blob(call.args))
            told.append(compaction.Turn(who=call.name, text=str(given["result"])))
        else:
            raw = outcome.value if outcome.error is None else outcome.error
            text = raw if isinstance(raw, str) else msgspec.json.encode(raw).decode()
            told.append(compaction.Turn(who=call.name, text=text))
    return told


_TALK: Final = (CallKind.MODEL, CallKind.TOOL, CallKind.OBSERVED)


def snapshot(frame: window.Frame) -> bytes:
    """L1 as bytes: equal before and after a compaction and a crash, or something was lost."""
    told = {
        "goal": frame.goal,
        "working": working.as_value(frame.working),
        "labels": [
            one.label
            for some in (frame.working.plan, frame.working.constraints, frame.working.questions)
            for one in some
        ],
        "effects": ledgers.told(frame.effects),
        "reads": ledgers.told(frame.reads, reads=True),
    }
    return msgspec.json.encode(told, order="sorted")
