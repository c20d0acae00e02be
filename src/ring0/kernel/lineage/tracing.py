"""The way of a value: from an argument to the outcomes and sources that it came from, and further
back, told from the journal alone: of a run that goes on as of one that ended long ago.

What a call was judged by is on record with it; of its other arguments the origins are found again,
by what the run had seen until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ring0 import limits
from ring0.errors import NotFound
from ring0.guardrails import Seen
from ring0.kernel.steps import labelling
from ring0.store import Store
from ring0.store import events as ev
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallKind,
    CallState,
    Frozen,
    Integrity,
    Label,
    Origin,
    Outcome,
    Run,
    Shown,
)

_decode = msgspec.json.Decoder(Outcome).decode


class Declassified(Frozen, frozen=True, kw_only=True):
    """On record with a call."""

    what: str
    values: int
    before: Integrity
    after: Integrity
    by: str


class Traced(Frozen, frozen=True, kw_only=True):
    """A call with where its arguments came from and the label of what it came to."""

    call: str
    seq: int
    kind: CallKind
    name: str
    state: CallState | ApprovalState
    """Of an approval: it is held, and waits for an answer (`pending`), or that came to no call."""
    origins: tuple[Origin, ...]
    label: Label
    fields: dict[str, str] = msgspec.field(default_factory=dict)
    """By path of a field: its own label, where it has one."""
    remembered: tuple[str, ...] = ()
    """Of a recall: the runs that had noted what came back, with how far down it was."""
    declassified: tuple[Declassified, ...] = ()
    edited: dict[str, str] = msgspec.field(default_factory=dict)
    """Arguments that people changed, and who changed each."""


class Step(Frozen, frozen=True, kw_only=True):
    """One place on the way, and what lies behind it."""

    what: str
    """The name of a source; or `to = bob@acme.com`."""
    kind: str
    """`argument`, `call`, `run`, `memory`, `source`."""
    integrity: str = ""
    call: str = ""
    behind: tuple[Step, ...] = ()
    told: bool = False
    """It stands elsewhere in the tree already, or lies too far back."""


class Trace:
    """What one run did."""

    def __init__(self, run: Run, calls: dict[str, Traced]) -> None:
        self.run = run
        self.calls = calls


class Traces:
    """Those of runs that lie on the way, each read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, Trace] = {}

    async def of(self, run: str) -> Trace:
        """Raises NotFound."""
        if run not in self._read:
            row = await self._store.run(run)
            if row is None:
                raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps --all`")
            self._read[run] = Trace(row, await _Reader(self._store, row).calls())
        return self._read[run]

    async def way(self, call: str) -> Step:
        """The whole way back from a call. Raises NotFound."""
        return await _Way(self).of_call(call, 0)


class _Reader:
    """Goes through a run's journal as the run went: what it had seen grows with it."""

    def __init__(self, store: Store, run: Run) -> None:
        self._store = store
        self._run = run
        self._seen = Seen()
        self._open: dict[str, tuple[Call, Any, tuple[Origin, ...]]] = {}
        self._found: dict[str, Traced] = {}
        self._declassified: dict[str, list[Declassified]] = {}
        self._asked: dict[str, str] = {}
        """By approval: the call that it is about."""

    async def calls(self) -> dict[str, Traced]:
        async for entry in self._store.entries(self._run.id):
            match entry.body:
                case ev.RunQueued(run=began):
                    await self._begun(began)
                case ev.ApprovalAsked(approval=approval):
                    await self._held(approval, entry.seq)
                case ev.ApprovalAnswered(approval=name, state=state):
                    self._answered(name, state)
                case ev.CallIntended(call=call):
                    self._found.pop(call.id, None)
                    self._open[call.id] = await self._opened(call, entry.seq)
                case ev.CallRefused(call=call):
                    opened = await self._opened(call, entry.seq)
                    await self._ended(*opened, call.outcome, call.state)
                case ev.CallEnded(call=name, outcome=outcome, state=state):
                    if (known := self._open.pop(name, None)) is not None:
                        await self._ended(*known, outcome, state)
                case ev.Declassified() as said:
                    self._declassify(said)
                case _:
                    pass
        return self._found

    async def _begun(self, began: Run) -> None:
        label = began.label
        if began.parent:
            label = label.join(Label(integrity=Integrity.UNTRUSTED, sources=(began.parent,)))
        self._seen.add("task", label, (await self._store.blob(began.task)).decode())

    async def _held(self, approval: Approval, seq: int) -> None:
        """Whoever is to answer looks where it came from now, before anything is done."""
        shown = msgspec.json.decode(await self._store.blob(approval.shown), type=Shown)
        self._asked[approval.id] = approval.call
        self._found[approval.call] = Traced(
            call=approval.call,
            seq=seq,
            kind=approval.kind,
            name=shown.tool,
            state=ApprovalState.PENDING,
            origins=shown.origins,
            label=Label(integrity=Integrity.SYSTEM),
            edited=shown.edited,
        )

    def _answered(self, approval: str, state: ApprovalState) -> None:
        known = self._found.get(self._asked.get(approval, ""))
        one_yes = state is ApprovalState.APPROVED  # of several, it may be
        if known is not None and known.state is ApprovalState.PENDING and not one_yes:
            self._found[known.call] = msgspec.structs.replace(known, state=state)

    async def _opened(self, call: Call, seq: int) -> tuple[Call, Any, tuple[Origin, ...]]:
        args = msgspec.json.decode(await self._store.blob(call.args))
        origins: tuple[Origin, ...] = ()
        if call.decision:
            evidence = msgspec.json.decode(await self._store.blob(call.decision))
            judged = evidence.get("shown", {}).get("origins", ())
            origins = msgspec.convert(judged, tuple[Origin, ...])
        if isinstance(args, dict):
            known = {origin.argument for origin in origins}
            beside = self._seen.origins(args, list(args))
            origins += tuple(origin for origin in beside if origin.argument not in known)
        return msgspec.structs.replace(call, seq=seq), args, origins

    async def _ended(
        self, call: Call, args: Any, origins: tuple[Origin, ...], where: str, state: CallState
    ) -> None:
        outcome = _decode(await self._store.blob(where)) if where else None
        label = outcome.label if outcome else Label(integrity=Integrity.SYSTEM)
        self._found[call.id] = Traced(
            call=call.id,
            seq=call.seq,
            kind=call.kind,
            name=call.name,
            state=state,
            origins=origins,
            label=label,
            fields={} if outcome is None else _told_fields(outcome),
            remembered=_remembered(call, outcome),
            declassified=tuple(self._declassified.get(call.id, ())),
            edited=call.edited,
        )
        if outcome is not None:
            self._learn(call, args, outcome)

    def _learn(self, call: Call, args: Any, outcome: Outcome) -> None:
        given: Mapping[str, Any] = args if isinstance(args, dict) else {}
        label = labelling.founds(call.kind, given, outcome)
        if label is None:
            return
        value = given.get("result") if call.kind is CallKind.OBSERVED else outcome.value
        fields = outcome.fields if call.kind is CallKind.TOOL else ()
        self._seen.add(f"{call.name or call.kind}@{call.id}", label, value, fields)

    def _declassify(self, said: ev.Declassified) -> None:
        one = Declassified(
            what=said.what, values=said.values, before=said.before, after=said.after, by=said.by
        )
        self._declassified.setdefault(said.call, []).append(one)
        if (known := self._found.get(said.call)) is not None:
            both = (*known.declassified, one)
            self._found[said.call] = msgspec.structs.replace(known, declassified=both)


def _told_fields(outcome: Outcome) -> dict[str, str]:
    found: dict[str, str] = {}
    for rule in outcome.fields:
        words = [str(part) for part in (rule.integrity, rule.confidentiality) if part is not None]
        how = f" if {rule.sanitiser}" if rule.sanitiser else ""
        found.setdefault(rule.path, (" ".join(words) or "as the whole") + how)
    return found


def _remembered(call: Call, outcome: Outcome | None) -> tuple[str, ...]:
    if call.kind is not CallKind.MEMORY_RECALL or outcome is None:
        return ()
    rows = outcome.value if isinstance(outcome.value, list) else []
    found = [f"{row['run']} ({row['role']}, {row['integrity']})" for row in rows]
    return tuple(dict.fromkeys(found))


class _Way:
    """The way back from one call: bounded, and each call's own way told once."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self._nodes = 0
        self._told: set[str] = set()

    async def of_call(self, call: str, depth: int) -> Step:
        """Raises NotFound."""
        trace = await self._traces.of(call.partition("/")[0])
        found = trace.calls.get(call)
        if found is None:
            raise NotFound(f"There is no call {call[:80]!r} on record.", todo="`ring0 show RUN`")
        again = call in self._told or self._is_over(depth)
        self._told.add(call)
        behind: list[Step] = []
        if not again:
            behind += [await self._argument(origin, depth + 1) for origin in found.origins]
            own = f"{found.name or found.kind}@{call}"
            for source in found.label.sources:
                if source != own:
                    behind.append(await self._source(source, depth + 1))
            behind += [Step(what=f"noted by {one}", kind="memory") for one in found.remembered]
        return Step(
            what=f"{found.name or found.kind}",
            kind="call",
            integrity=str(found.label.integrity),
            call=call,
            behind=tuple(behind),
            told=again,
        )

    async def _argument(self, origin: Origin, depth: int) -> Step:
        over = self._is_over(depth)
        sources = () if over else origin.sources
        behind = [await self._source(source, depth + 1) for source in sources]
        return Step(
            what=f"{origin.argument} = {origin.value}",
            kind="argument",
            integrity=str(origin.integrity) if origin.sources else "from nowhere",
            behind=tuple(behind),
            told=over,
        )

    async def _source(self, source: str, depth: int) -> Step:
        _, _, call = source.partition("@")
        if call.startswith("r-") and "/" in call:
            try:
                return await self.of_call(call, depth)
            except NotFound:
                return Step(what=source, kind="source")
        if source.startswith("run r-"):
            return await self._run(source.removeprefix("run "), depth)
        return Step(what=source, kind="source", told=self._is_over(depth))

    async def _run(self, run: str, depth: int) -> Step:
        """Another run of the tree: what it had read when it ended, or told."""
        again = run in self._told or self._is_over(depth)
        self._told.add(run)
        try:
            trace = await self._traces.of(run)
        except NotFound:
            return Step(what=run, kind="run")
        read = [one for one in trace.calls.values() if _was_read(one)]
        behind = [] if again else [await self.of_call(one.call, depth + 1) for one in read]
        return Step(
            what=run,
            kind="run",
            integrity=str(trace.run.label.integrity),
            behind=tuple(behind),
            told=again,
        )

    def _is_over(self, depth: int) -> bool:
        self._nodes += 1
        return depth > limits.LABELS_DEPTH_MAX or self._nodes > limits.LABELS_NODES_MAX


def _was_read(call: Traced) -> bool:
    """It brought something into the run from outside of it."""
    within = (CallKind.MODEL, CallKind.EGRESS, CallKind.PROPOSAL)
    return call.kind not in within and call.label.integrity is not Integrity.SYSTEM
