"""The drivers of `memory.*`: what a run may note, find, state, replace, and ask about.

The scope is always the run's own: no argument names another. A run writes episodes, facts, and
procedures that a person has yet to approve; never a directive.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, NotFound
from ring0.kernel.memory import explaining, forgetting
from ring0.kernel.memory.manager import Memory, scope_of
from ring0.memory import facts
from ring0.store import events as ev
from ring0.store import records
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.registry import Tool
from ring0.types import (
    CallKind,
    Effect,
    Integrity,
    Label,
    MemoryKind,
    NewRecord,
    Record,
    RecordState,
    Run,
    ToolManifest,
)

_SYSTEM: Final = Label(integrity=Integrity.SYSTEM)
_ID: Final = {"type": "string", "minLength": 1, "maxLength": limits.CALL_PATH_CHARS_MAX}
_IDS: Final = {
    "type": "array",
    "items": _ID,
    "minItems": 1,
    "maxItems": limits.MEMORY_IDS_PER_CALL_MAX,
}
_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": limits.EPISODE_CHARS_MAX}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": limits.MEMORY_SUBJECT_CHARS_MAX}
_KEY: Final = {"type": "string", "minLength": 1, "maxLength": limits.MEMORY_KEY_CHARS_MAX}
_WHY: Final = {"type": "string", "maxLength": limits.MEMORY_WHY_CHARS_MAX}
_TIME: Final = {"type": "string", "maxLength": 40}
"""ISO 8601."""
RECALLED_KINDS: Final = (
    *(MemoryKind.EPISODE, MemoryKind.FACT, MemoryKind.PASSAGE),
    *(MemoryKind.SUMMARY, MemoryKind.PROCEDURE),
)
"""Directives are in every context anyway: search neither finds nor hides them."""


def schema(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


class Kind:
    """What most of them have in common: nothing to prepare."""

    manifest: ToolManifest

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._store = memory.store

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))

    async def _written(self, run: Run, *new: NewRecord, also: tuple[Any, ...] = ()) -> Result:
        """A result that goes on record together with these."""
        event, blobs = records.remembered(
            new,
            key=await self._store.run_key(run.id),
            scope_key=await self._store.scope_key(scope_of(run).owner),
        )
        return Result(
            value=None, label=_SYSTEM, remember="", events=(event, *also), blobs=blobs, reads=False
        )

    async def _own(self, run: Run, ids: list[str]) -> list[Record]:
        """Records of the run's scope, in the order asked. Raises NotFound: of another scope's it
        says the same as of one that never was."""
        found = await self._store.records_of(ids)
        owner = scope_of(run).owner
        for one in ids:
            row = found.get(one)
            if row is None or (row.tenant, row.principal, row.agent) != owner:
                raise NotFound(
                    f"There is no record {one[:80]!r}.",
                    why="It was forgotten, or is none of this agent's for this principal.",
                    todo="`memory.recall` names those that there are.",
                )
        return [found[one] for one in ids]


class Append(Kind):
    """`memory.append`: a note, with the label of the run that writes it."""

    manifest = ToolManifest(
        name="memory.append",
        description="Remember a note, or propose a procedure.",
        effect=Effect.IDEMPOTENT,
        schema=schema({"text": _TEXT}, {"key": _KEY, "kind": {"enum": ["note", "procedure"]}}),
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        is_procedure = args.get("kind") == "procedure"
        if not (args.get("key") or is_procedure):
            return Result(value=None, label=_SYSTEM, remember=args["text"], remember_role="note")
        new = NewRecord(
            kind=MemoryKind.PROCEDURE if is_procedure else MemoryKind.EPISODE,
            text=args["text"],
            label=context.run.label,
            role="procedure" if is_procedure else "note",
            state=RecordState.PROPOSED if is_procedure else RecordState.CURRENT,
            key=args.get("key", ""),
        )
        return await self._written(context.run, new)


class Recall(Kind):
    """`memory.recall`: records of the run's own scope, each with its label."""

    manifest = ToolManifest(
        name="memory.recall",
        description="Search what is remembered.",
        effect=Effect.PURE,
        schema=schema(
            {
                "query": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": limits.RECALL_QUERY_CHARS_MAX,
                }
            },
            {
                "k": {"type": "integer", "minimum": 1, "maximum": limits.RECALL_K_MAX},
                "kinds": {
                    "type": "array",
                    "items": {"enum": [kind.value for kind in RECALLED_KINDS]},
                    "maxItems": len(RECALLED_KINDS),
                },
                "as_of": _TIME,
                "min_integrity": {"enum": [one.value for one in Integrity]},
            },
        ),
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        run = context.run
        least = args.get("min_integrity")
        found = await self._memory.recall(
            scope_of(run),
            args["query"],
            k=args.get("k", 5),
            kinds=tuple(MemoryKind(kind) for kind in args.get("kinds", ())) or RECALLED_KINDS,
            as_of_us=facts.moment_us(args.get("as_of", ""), what="as_of"),
            min_integrity=Integrity(least) if least else None,
            task_of=run.id,
            label=run.label,
        )
        told = [
            shown(one.record, one.score, await self._memory.is_disputed(one.record))
            for one in found
        ]
        return brought([one.record for one in found], told)


class Remember(Kind):
    """`memory.remember`: a fact. What it conflicts with is superseded, and stays on record."""

    manifest = ToolManifest(
        name="memory.remember",
        description="State a fact: subject, predicate, value, and when it holds.",
        effect=Effect.IDEMPOTENT,
        schema=schema(
            {"subject": _NAME, "predicate": _NAME, "value": _TEXT},
            {
                "valid_from": _TIME,
                "valid_to": _TIME,
                "many": {"type": "boolean"},
                "sources": {**_IDS, "minItems": 0, "maxItems": limits.MEMORY_SOURCES_MAX},
                "key": _KEY,
            },
        ),
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        run, label = context.run, context.run.label
        sources = list(dict.fromkeys(args.get("sources", ())))
        await self._check_seen(run, sources)
        for parent in await self._own(run, sources):
            label = label.join(parent.label)
        new = NewRecord(
            kind=MemoryKind.FACT,
            text=args["value"],
            label=label,
            role="fact",
            subject=facts.name(args["subject"], what="subject"),
            predicate=facts.name(args["predicate"], what="predicate"),
            many=args.get("many", False),
            valid_from_us=facts.moment_us(args.get("valid_from", ""), what="valid_from"),
            valid_to_us=facts.moment_us(args.get("valid_to", ""), what="valid_to"),
            key=args.get("key", ""),
            parents=tuple(sources),
        )
        if new.valid_to_us and new.valid_from_us > new.valid_to_us:
            raise CallInvalid(
                "The fact ends before it begins.",
                why=f"It would hold from {args['valid_from'][:40]} to {args['valid_to'][:40]}.",
                todo="Give valid_from before valid_to.",
            )
        return await self._written(run, new)

    async def _check_seen(self, run: Run, sources: list[str]) -> None:
        """Who cites must have read: an id that was guessed is no source."""
        seen = await self._memory.recalled(run.id) if sources else frozenset()
        for one in sources:
            if one not in seen and not one.startswith(f"{run.id}#"):
                raise CallInvalid(
                    f"This run has not seen {one[:80]!r}.",
                    why="A source is a record that the run has recalled, or has written.",
                    todo="Recall it first, or leave it out.",
                )


class Supersede(Kind):
    """`memory.supersede`: another text takes the place of a note, another value that of a fact."""

    manifest = ToolManifest(
        name="memory.supersede",
        description="Replace a note or a fact with what holds now; the old one stays on record.",
        effect=Effect.IDEMPOTENT,
        schema=schema({"id": _ID, "text": _TEXT}, {"why": _WHY}),
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        run = context.run
        (old,) = await self._own(run, [args["id"]])
        self._check(old, run.label)
        new = NewRecord(
            kind=old.kind,
            text=args["text"],
            label=run.label,
            role=old.role,
            state=old.state,
            subject=old.subject,
            predicate=old.predicate,
            many=old.many,
        )
        if old.kind is MemoryKind.FACT and not old.many:
            return await self._written(run, new)  # Its subject and predicate say which it replaces.
        # Which record takes its place is the one right before it in the same write.
        return await self._written(run, new, also=(ev.Superseded(record=old.id),))

    def _check(self, old: Record, label: Label) -> None:
        own = old.kind in (MemoryKind.FACT, MemoryKind.PROCEDURE) or old.role == "note"
        if not own or (old.kind is MemoryKind.PROCEDURE and old.state is not RecordState.PROPOSED):
            raise CallDenied(
                f"{old.id} can't be superseded by a run.",
                why=f"It is {'a directive' if old.kind is MemoryKind.DIRECTIVE else old.role}:"
                " a run replaces facts and notes, and procedures that nobody has approved.",
                todo="Note what holds now beside it.",
            )
        if old.superseded_us:
            raise CallDenied(
                f"{old.id} is superseded already.",
                why=f"{old.superseded_by or 'An operator'} took its place.",
                todo="Supersede that one.",
            )
        if not facts.may_supersede(label, old.label):
            raise CallDenied(
                f"{old.id} can't be superseded by this run.",
                why=f"The run is {label.integrity} by now, the record is {old.label.integrity}:"
                " what is worse never takes the place of what is better.",
                todo="Remember it as a fact of its own: both then stand, as disputed.",
            )


class Forget(Kind):
    """`memory.forget`: the run's own agent's notes and facts, for good; a person is asked."""

    manifest = ToolManifest(
        name="memory.forget",
        description="Forget notes or facts for good, with all that was made of them.",
        effect=Effect.IDEMPOTENT,
        reversal="irreversible",
        schema=schema({"ids": _IDS}, {"why": _WHY}),
    )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        """Shows whom it asks what would be gone."""
        ids = list(dict.fromkeys(args["ids"]))
        gone = await forgetting.of_a_run(
            self._memory, context.run, await self._own(context.run, ids)
        )
        return Prepared(
            driver_bytes=msgspec.json.encode(args, order="sorted"),
            title=f"Forget {len(gone)} records for good",
            lines=tuple(f"{one.id} ({one.role}): {one.text[:200]}" for one in gone),
            digest=records.record_address(b"", "\n".join(one.id for one in gone).encode()),
            state=[one.id for one in gone],
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        receipt = await forgetting.by_a_run(
            self._memory, context.run, context.call, prepared.state, args.get("why", "")
        )
        value = {"receipt": receipt, "forgotten": len(prepared.state)}
        return Result(value=value, label=_SYSTEM, remember="")


class Explain(Kind):
    """`memory.explain`: where a record came from, and what came of it."""

    manifest = ToolManifest(
        name="memory.explain",
        description="Tell where a record came from: who wrote it, and of what it was made.",
        effect=Effect.PURE,
        schema=schema({"id": _ID}),
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        (row,) = await self._own(context.run, [args["id"]])
        told = await explaining.to_a_run(self._store, row)
        return brought([row, *told.parents.values()], told.as_dict())


def shown(record: Record, score: float, is_disputed: bool) -> dict[str, Any]:
    """A record as a run is given it."""
    told: dict[str, Any] = {
        "id": record.id,
        "text": record.text,
        "role": record.role,
        "kind": str(record.kind),
        "run": record.act,
        "at_us": record.at_us,
        "integrity": str(record.label.integrity),
        "confidentiality": str(record.label.confidentiality),
        "score": round(score, 6),
    }
    if record.happened_us:
        told["happened_us"] = record.happened_us
    if record.kind is MemoryKind.FACT:
        told |= {
            "text": f"{record.subject} {record.predicate}: {record.text}",
            "subject": record.subject,
            "predicate": record.predicate,
            "value": record.text,
            "valid_from": facts.written(record.valid_from_us),
            "valid_to": facts.written(record.valid_to_us),
            "disputed": is_disputed,
        }
    if record.superseded_us:
        told["superseded_by"] = record.superseded_by
    if record.document:
        told |= {"document": record.document, "place": record.place}
    return told


def brought(found: list[Record], value: Any) -> Result:
    """What is as good as the worst of the records that it tells."""
    label = Label(integrity=Integrity.SYSTEM, sources=("memory",))
    for record in found:
        # What a run wrote is followed by its run; what an operator brought in, by its sources.
        own = record.label.bare if record.act.startswith("r-") else record.label
        label = label.join(own)
    return Result(label=label, value=value, recalled=tuple(one.id for one in found))


def kinds(memory: Memory) -> dict[CallKind, Tool]:
    """From kind to driver, of all that runs may ask of memory."""
    return {
        CallKind.MEMORY_APPEND: Tool(Append(memory)),
        CallKind.MEMORY_RECALL: Tool(Recall(memory)),
        CallKind.MEMORY_REMEMBER: Tool(Remember(memory)),
        CallKind.MEMORY_SUPERSEDE: Tool(Supersede(memory)),
        CallKind.MEMORY_FORGET: Tool(Forget(memory)),
        CallKind.MEMORY_EXPLAIN: Tool(Explain(memory)),
    }
