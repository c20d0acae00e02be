"""The drivers of a run's window: `memory.set`, `memory.compact`, `memory.assemble`.

A compaction is one transaction: summary, range, cursor; it is named by its range, so that a crash
and a retry give the same. The working set is carried over as it is, byte for byte. Not here: what
is in a window (framing.py), what of it fits (memory/assembly.py).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.kernel.memory.calls import RECALLED_KINDS, Kind, schema
from ring0.kernel.memory.framing import Acts, frame_of, marked, summary_of, turns_of, working_of
from ring0.kernel.memory.manager import Memory, scope_of
from ring0.memory import assembly, compaction, selecting, working
from ring0.memory.window import Assembled, Frame, Quote, Summary, Turn
from ring0.store import address, records
from ring0.store import events as ev
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.registry import Tool
from ring0.types import (
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    MemoryKind,
    NewRecord,
    Record,
    Run,
    Scope,
    ToolManifest,
)

_SYSTEM: Final = Label(integrity=Integrity.SYSTEM)
_RECALLED_DEFAULT: Final = 8
_LAST_DEFAULT: Final = 4


class Turns:
    """One change of a run's window after another: each sees what the one before has written."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._last: dict[str, str] = {}

    async def mine(self, run: str, call: str) -> None:
        """Returns when the change before this one is on record, or has failed."""
        before = self._last.pop(run, "")
        self._last[run] = call
        if len(self._last) > limits.RUNS_LIVE_WINDOWS_MAX:
            del self._last[next(iter(self._last))]
        while before and before != call:
            await self._memory.store.flush()
            row = await self._memory.store.call(before)
            if row is None or row.state is not CallState.INTENDED:
                return
            await self._memory.runtime.sleep(limits.WINDOW_TURN_MS / 1_000)


class Change(Kind):
    """`memory.set`: the plan, a step's status, a constraint, an open question."""

    manifest = ToolManifest(
        name="memory.set",
        description="Keep the run's plan, constraints and open questions.",
        effect=Effect.IDEMPOTENT,
        schema=working.SCHEMA,
    )

    def __init__(self, memory: Memory, turns: Turns) -> None:
        super().__init__(memory)
        self._turns = turns

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        run = context.run
        await self._turns.mine(run.id, context.call)
        await self._store.flush()
        row = await self._store.run(run.id)
        assert row is not None, "a run that calls is on record"
        now = working.changed(await working_of(self._store, run), args, run.label, row.events)
        encoded = msgspec.json.encode(now)
        where = address(await self._store.run_key(run.id), encoded)
        label = working.label_of(now)
        return Result(
            value=working.as_value(now),
            label=label,
            reads=False,  # It wrote all of it itself.
            remember="",
            events=(ev.WorkingSetChanged(working=where, label=label),),
            blobs={where: encoded},
        )


class Compact(Kind):
    """`memory.compact`: a summary takes the place of the turns since the last one."""

    manifest = ToolManifest(
        name="memory.compact",
        description="Sum up the turns so far, so that they can leave the window.",
        effect=Effect.IDEMPOTENT,
        schema=schema(
            {},
            {
                "summary": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": limits.SUMMARY_CHARS_MAX,
                }
            },
        ),
    )

    def __init__(self, memory: Memory, turns: Turns) -> None:
        super().__init__(memory)
        self._turns = turns

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        run, store = context.run, self._store
        await self._turns.mine(run.id, context.call)
        acts = await Acts.of(store, run.id)
        own = next(call for call in acts.calls if call.id == context.call)
        window = await store.window(run.id)
        from_seq, upto_seq = (window.upto_seq if window else 0) + 1, own.seq
        before = await summary_of(store, run)
        if upto_seq < from_seq:  # One that was asked for at the same time covers it.
            return _told(from_seq, from_seq - 1, before.text if before else "", context.run.label)
        key = await store.run_key(run.id)
        progress = compaction.progress(key, acts.distinct, await working_of(store, run))
        compaction.check(window, progress, is_news=acts.is_news(from_seq - 1))
        text = await self._summary(args, acts, before, from_seq)
        parents = await self._covered(run, from_seq, upto_seq)
        label = run.label.bare
        for parent in parents:
            label = label.join(parent.label.bare)
        if before is not None and "summary" not in args:
            label = label.join(before.label.bare)
        made = (before.record,) if before is not None else ()
        kept = limits.RECORD_PARENTS_MAX - len(made)
        new = NewRecord(
            kind=MemoryKind.SUMMARY,
            text=text,
            label=label,
            role="summary",
            key=f"{run.id} {from_seq}-{upto_seq}",
            parents=(*made, *(parent.id for parent in parents[:kept])),
        )
        event, blobs = records.remembered(
            (new,), key=key, scope_key=await store.scope_key(scope_of(run).owner)
        )
        self._memory.runtime.reached("window.compacts")
        # Which record is the summary: the one right before it in the same write.
        compacted = ev.WindowCompacted(
            from_seq=from_seq, upto_seq=upto_seq, summary="", progress=progress
        )
        told = _told(from_seq, upto_seq, text, label)
        return replace(told, events=(event, compacted), blobs=blobs)

    async def _summary(
        self, args: dict[str, Any], acts: Acts, before: Summary | None, from_seq: int
    ) -> str:
        if "summary" in args:
            return compaction.given(args["summary"])
        covered = [call for call in acts.calls if call.seq >= from_seq]
        turns = await turns_of(self._store, covered)
        return compaction.extract(before.text if before else "", turns)

    async def _covered(self, run: Run, from_seq: int, upto_seq: int) -> list[Record]:
        """What the run remembered of those turns, the newest first."""
        scope = Scope(tenant=run.tenant, principal=run.principal, agent=run.agent, run=run.id)
        kinds = (MemoryKind.EPISODE, MemoryKind.FACT)
        found = await self._store.records(scope, kinds=kinds, most=limits.RECORD_PARENTS_MAX)
        return [one for one in found if from_seq <= one.seq <= upto_seq]


def _told(from_seq: int, upto_seq: int, text: str, label: Label) -> Result:
    value = {"from": from_seq, "upto": upto_seq, "summary": text}
    return Result(value=value, label=label, reads=False, remember="")


class Assemble(Kind):
    """`memory.assemble`: what belongs into a window of so many tokens, and why."""

    manifest = ToolManifest(
        name="memory.assemble",
        description="Put together what a model needs of the run, within a budget of tokens.",
        effect=Effect.PURE,
        schema=schema(
            {
                "budget_tokens": {
                    "type": "integer",
                    "minimum": limits.ASSEMBLY_BUDGET_TOKENS_MIN,
                    "maximum": limits.ASSEMBLY_BUDGET_TOKENS_MAX,
                }
            },
            {
                "query": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": limits.RECALL_QUERY_CHARS_MAX,
                },
                "recall": {"type": "integer", "minimum": 0, "maximum": limits.RECALL_K_MAX},
                "min_integrity": {"enum": [one.value for one in Integrity]},
                "turns": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0},
                    "maxItems": limits.ASSEMBLY_TURNS_MAX,
                    "description": "Tokens of each turn of the caller's own, the oldest first.",
                },
                "last": {"type": "integer", "minimum": 0, "maximum": limits.ASSEMBLY_TURNS_MAX},
            },
        ),
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        run = context.run
        frame = await frame_of(self._store, run)
        candidates = await self._candidates(run, frame, args)
        sizes = args.get("turns", [])
        first = len(sizes) - args.get("last", _LAST_DEFAULT)
        turns = [
            Turn(key=f"turn {number}", tokens=size, floor=number > first)
            for number, size in enumerate(sizes, 1)
        ]
        least = args.get("min_integrity")

        def work(quote: Quote, note: str) -> Assembled:
            return assembly.assemble(
                frame,
                candidates,
                turns,
                budget_tokens=args["budget_tokens"],
                quote=quote,
                note=note,
                min_integrity=Integrity(least) if least else None,
            )

        found = marked(await self._store.run_key(run.id), work)
        return Result(
            value={
                "text": found.head + found.recalled,
                "head": found.head,
                "recalled": found.recalled,
                "tokens": found.tokens,
                "turns": len(found.turns),
                "manifest": [msgspec.to_builtins(entry) for entry in found.manifest],
            },
            label=found.label,
            recalled=found.records,
            remember="",
        )

    async def _candidates(
        self, run: Run, frame: Frame, args: dict[str, Any]
    ) -> list[selecting.Candidate]:
        """What recall finds, and what it would have found had it been good enough."""
        most = args.get("recall", _RECALLED_DEFAULT)
        found = await self._quarantined_summary(run, frame)
        if not most:
            return list(found.values())
        query = args.get("query") or _query(frame)
        least = args.get("min_integrity")
        for floor in [Integrity(least), None] if least else [None]:
            for one in await self._memory.recall(
                scope_of(run),
                query,
                k=most,
                kinds=RECALLED_KINDS,
                min_integrity=floor,
                task_of=run.id,
                label=run.label,
            ):
                if frame.summary is None or one.record.id != frame.summary.record:
                    found.setdefault(one.record.id, _candidate(one.record, one.score))
        return list(found.values())

    async def _quarantined_summary(self, run: Run, frame: Frame) -> dict[str, selecting.Candidate]:
        """The summary that isn't in the frame because it is quarantined: the manifest says so."""
        window = await self._store.window(run.id)
        if window is None or not window.summary or frame.summary is not None:
            return {}
        record = await self._store.record(window.summary)
        if record is None:
            return {}
        return {record.id: replace(_candidate(record, 0.0), quarantined=True)}


def _query(frame: Frame) -> str:
    """The goal, and what is being done about it."""
    doing = [step.text for step in frame.working.plan if step.status == "doing"]
    return " ".join([*doing, frame.goal])[: limits.RECALL_QUERY_CHARS_MAX].strip() or "task"


def _candidate(record: Record, score: float) -> selecting.Candidate:
    text = record.text
    if record.kind is MemoryKind.FACT:
        text = f"{record.subject} {record.predicate}: {text}"
    if record.document:
        text = f"{text}\n({record.document}, {record.place})"
    return selecting.Candidate(
        record=record.id,
        text=text,
        label=record.label if not record.act.startswith("r-") else record.label.bare,
        score=score,
        role=record.role or str(record.kind),
        session=record.session,
        place=record.seq,
        at_us=record.happened_us or record.at_us,
    )


def kinds(memory: Memory) -> dict[CallKind, Tool]:
    """From kind to driver."""
    turns = Turns(memory)
    return {
        CallKind.MEMORY_SET: Tool(Change(memory, turns)),
        CallKind.MEMORY_COMPACT: Tool(Compact(memory, turns)),
        CallKind.MEMORY_ASSEMBLE: Tool(Assemble(memory)),
    }
