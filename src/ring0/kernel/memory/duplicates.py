"""The three tools of a run that consolidates: what is new, what says the same, and its texts.

Nothing else has them. That two records say the same is decided by their words alone, by the kernel:
no model is asked, and no label falls. Of those that do, the one with the best label stays, and of
equals the newest: to repeat a text neither raises it nor takes its label away.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.kernel.lineage.reaching import is_out, quarantined
from ring0.kernel.memory.manager import Memory, scope_of
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.base import WriteImpossible
from ring0.store.rows import Loaded
from ring0.tools.driver import CallContext, Driver, Prepared, Result
from ring0.types import (
    INTEGRITY_RANK,
    Effect,
    Integrity,
    Label,
    MemoryKind,
    Record,
    Run,
    ToolManifest,
)

LOOK, MERGE, READ = "consolidate.look", "consolidate.merge", "consolidate.read"
_SYSTEM: Final = Label(integrity=Integrity.SYSTEM)
_ROLES: Final = ("note", "answer", "result")
"""A task is somebody's word each time, and failures are counted."""
_ARTICLES: Final = frozenset({"a", "an", "the"})
_AROUND: Final = ".,;:!…\"'`´“”‘’„«»()"
"""Around a word they say nothing; within it, and all other signs anywhere, they may say it all."""
_UNTRUSTED: Final = INTEGRITY_RANK[Integrity.UNTRUSTED]
_NUMBER: Final = {"type": "integer", "minimum": -1}


def drivers(memory: Memory) -> tuple[Driver, ...]:
    return (Look(memory), Merge(memory), Read(memory))


def words(text: str) -> str:
    """What is left of a text without case, spacing, articles before a word, and punctuation around
    words: two of which the same is left say the same. Numbers, names, signs (`-5`, `€`, `👎`) and
    the order of words are never dropped."""
    left: list[str] = []
    for word in unicodedata.normalize("NFC", text).casefold().split():
        left.append(word.strip(_AROUND) or word)
    if not left:
        return ""
    return " ".join([*(one for one in left[:-1] if one not in _ARTICLES), left[-1]])


class _Tool:
    """What the three have in common."""

    manifest: ToolManifest

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._store = memory.store

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))

    async def _rows(self, run: Run, after: int, upto: int = 1 << 62) -> list[Loaded]:
        """Episodes of the scope that count, behind that number, by number."""
        await self._store.flush()
        out = quarantined(run.tenant, await self._store.quarantines())
        found = await self._store.load_scope(scope_of(run).owner, "", after)
        return [
            one
            for one in found
            if one.number <= upto
            and one.kind == MemoryKind.EPISODE
            and one.role in _ROLES
            and not one.superseded_us
            and not is_out(one.id, out)
        ]


class Look(_Tool):
    """How much is new: no text, so that no label falls."""

    manifest = ToolManifest(
        name=LOOK,
        description="Count what is new.",
        effect=Effect.PURE,
        output=Integrity.SYSTEM,
        schema={
            "type": "object",
            "properties": {"after": _NUMBER},
            "required": ["after"],
            "additionalProperties": False,
        },
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        found = await self._rows(context.run, args["after"])
        upto = found[-1].number if found else args["after"]
        return Result(value={"upto": upto, "records": len(found)}, label=_SYSTEM, remember="")


class Merge(_Tool):
    """Supersedes what another record says too."""

    manifest = ToolManifest(
        name=MERGE,
        description="Let what says the same count once.",
        effect=Effect.IDEMPOTENT,
        output=Integrity.SYSTEM,
        schema={
            "type": "object",
            "properties": {"upto": _NUMBER},
            "required": ["upto"],
            "additionalProperties": False,
        },
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        run = context.run
        rows = await self._rows(run, -1, args["upto"])
        rows = rows[-limits.CONSOLIDATE_COMPARED_MAX :]
        kept: dict[tuple[str, str], Record] = {}
        over: list[ev.Superseded] = []
        by = f"consolidation {run.id}"
        for begin in range(0, len(rows), limits.RECORDS_PAGE_MAX):
            page = rows[begin : begin + limits.RECORDS_PAGE_MAX]
            texts = await self._store.records_of([one.id for one in page])
            for row in page:
                if (record := texts.get(row.id)) is None:
                    continue
                said = (row.role, words(record.text))
                first = kept.setdefault(said, record)
                if first is record:
                    continue
                stays, goes = _of_two(first, record)
                kept[said] = stays
                over.append(ev.Superseded(record=goes.id, by_record=stays.id, by=by))
            await self._memory.runtime.sleep(0)  # Runs go on meanwhile.
        merged = 0
        for begin in range(0, len(over), limits.CONSOLIDATE_MERGED_AT_ONCE):
            merged += await self._write(over[begin : begin + limits.CONSOLIDATE_MERGED_AT_ONCE])
        return Result(value={"merged": merged}, label=_SYSTEM, remember="")

    async def _write(self, events: Sequence[ev.Superseded]) -> int:
        """A try that a crash cut off has written some of them: those are superseded, and are not
        found again."""
        ids = [one for event in events for one in (event.record, event.by_record)]
        there = await self._store.records_of(ids)
        left = [
            event
            for event in events
            if event.by_record in there
            and event.record in there
            and not there[event.record].superseded_us
        ]
        if not left:
            return 0
        try:
            await self._store.append(Write(run=ev.KERNEL, events=left))
        except WriteImpossible:
            return 0  # One was superseded or forgotten in this moment: the next run sees it.
        return len(left)


class Read(_Tool):
    """A page of what is new, with its texts: from here on it is in the run."""

    manifest = ToolManifest(
        name=READ,
        description="Read what is new.",
        effect=Effect.PURE,
        output=Integrity.SYSTEM,
        schema={
            "type": "object",
            "properties": {
                "after": _NUMBER,
                "upto": _NUMBER,
                "untrusted": {"type": "boolean"},
            },
            "required": ["after", "upto", "untrusted"],
            "additionalProperties": False,
        },
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        rows = await self._rows(context.run, args["after"], args["upto"])
        rows = [one for one in rows if (one.integrity >= _UNTRUSTED) is args["untrusted"]]
        rows = rows[: limits.CONSOLIDATE_PAGE_RECORDS]
        found = await self._store.records_of([one.id for one in rows])
        records: list[Record] = []
        upto, room = args["upto"], limits.CONSOLIDATE_PAGE_CHARS
        for row in rows:
            record = found.get(row.id)
            room -= len(record.text) if record else 0
            if records and room < 0:
                break
            upto = row.number
            if record is not None:
                records.append(record)
        more = bool(rows) and (upto < rows[-1].number or len(rows) == _PAGE)
        label = _label(records)
        value = {
            "records": [_shown(one) for one in records],
            "next": upto if more else args["upto"],
        }
        ids = tuple(one.id for one in records)
        return Result(value=value, label=label, recalled=ids, remember="")


_PAGE: Final = limits.CONSOLIDATE_PAGE_RECORDS


def _label(records: Sequence[Record]) -> Label:
    label = Label(integrity=Integrity.SYSTEM, sources=("memory",))
    for record in records:
        label = label.join(record.label.bare if record.act.startswith("r-") else record.label)
    return label


def _shown(record: Record) -> Mapping[str, Any]:
    return {
        "id": record.id,
        "role": record.role,
        "text": record.text[: limits.CONSOLIDATE_TEXT_CHARS],
        "at_us": record.at_us,
        "integrity": str(record.label.integrity),
    }


def _of_two(older: Record, newer: Record) -> tuple[Record, Record]:
    """Which stays, and which goes: `newer` is the later one."""
    is_worse = INTEGRITY_RANK[newer.label.integrity] > INTEGRITY_RANK[older.label.integrity]
    return (older, newer) if is_worse else (newer, older)
