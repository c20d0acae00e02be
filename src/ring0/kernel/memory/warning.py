"""What failed before: remembered with a fingerprint that is the same in every run of a scope, and
told, once a run, to who is about to try the very same.

The loop stop (scheduler/loops.py) knows one tree, also after a compaction; this knows the runs
before it. A no of the policy is no failure: rules change, and a list of them would be a map for who
wants around them. A warning takes trust from nobody: it says what the kernel knows, and quotes the
words of a failure only where the run's integrity has fallen as low already, and never those that
nobody vouches for: models hear it as the kernel's word.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ring0 import limits
from ring0.errors import CallInvalid, InvalidInput, Ring0Error, ToolFailed
from ring0.guardrails.scanners.spotlight import spotlight
from ring0.kernel import values
from ring0.kernel.lineage.reaching import quarantined
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps import marking
from ring0.store import Store
from ring0.types import INTEGRITY_RANK, CallKind, Integrity, Label, Outcome, Owner, Record

ROLE: Final = "failure"
_DOMAIN: Final = b"ring0 tried"
_WARNED: Final = (CallKind.TOOL, CallKind.PROPOSAL)
_FAILURES: Final = (ToolFailed, CallInvalid)
"""What the world said no to. What the kernel has no room, time or leave for is none."""


def owner_of(run: LiveRun) -> Owner:
    return (run.row.tenant, run.row.principal, run.row.agent)


async def check(run: LiveRun, held: Held, store: Store) -> None:
    """Names what is tried, and puts the warning, where there is one, beside the call."""
    if held.tried or held.invalid is not None:
        return
    if held.kind not in (*_WARNED, CallKind.OBSERVED):
        return
    key = await store.scope_key(owner_of(run))
    args = held.args.get("args") if held.kind is CallKind.OBSERVED else held.args
    held.tried = fingerprint(key, held.name, args)
    if held.kind not in _WARNED or _was_tried(run, held):
        return
    most = limits.FAILURES_RECALLED_MAX + 1
    found = await store.failures(owner_of(run), held.tried, most)
    found = [one for one in found if one.act != run.id]
    if found:
        out = quarantined(run.row.tenant, await store.quarantines())
        found = [one for one in found if not _is_out(one, out)]
    if found:
        held.notice = _told(run, held, found)
        if held.kind is CallKind.PROPOSAL and run.watch is not None:
            run.watch.notice = held.notice  # The model hears it with what it is asked next.


def fingerprint(scope_key: bytes, name: str, args: object) -> str:
    """Of one call, whoever makes it in the scope: it tells nothing without the scope's key."""
    canonical = values.canonical([name, args])
    return hmac.digest(scope_key, _DOMAIN + canonical, "sha256").hex()


def of_failure(held: Held, error: Ring0Error, outcome: Outcome) -> str:
    """What is remembered of a call that failed; empty: nothing is."""
    if held.kind is not CallKind.TOOL or not held.tried or not isinstance(error, _FAILURES):
        return ""
    told = outcome.error or {}
    why = " ".join(text for text in (told.get("what", ""), told.get("why", "")) if text)
    args = values.canonical(held.args).decode()[: limits.FAILURE_ARGS_CHARS_MAX]
    return f"{held.name} {args} failed: {why}"[: limits.EPISODE_CHARS_MAX]


def with_quoted(held: Held, label: Label) -> Label:
    """The label of what the call brings its run, with the words that were quoted to it."""
    return label if held.warned is None else label.join(held.warned)


def _was_tried(run: LiveRun, held: Held) -> bool:
    """Did this run ask for the very same before? Then it has heard of it, and the loop stop
    counts."""
    return any(
        one.id != held.id and one.kind is held.kind and one.request_digest == held.digest
        for one in run.records.values()
    )


def _is_out(record: Record, out: dict[str, int]) -> bool:
    """It was written by a run behind the place from which that run is quarantined."""
    return record.act in out and record.seq >= out[record.act]


def _told(run: LiveRun, held: Held, found: Sequence[Record]) -> str:
    newest, most = found[0], limits.FAILURES_RECALLED_MAX
    tool = run.tools.get(held.name)
    what = tool.manifest.name if tool is not None else "this tool"  # Else it is anybody's text.
    times = f"more than {most} times" if len(found) > most else f"{len(found)} times"
    times = "once" if len(found) == 1 else times
    day = datetime.fromtimestamp(newest.at_us // 1_000_000, UTC).strftime("%Y-%m-%d")
    said = (
        f"ring0: this very call of {what} failed {times} in earlier runs, the last time on"
        f" {day} (memory has it as {newest.id}). Look at why before you try it as it is."
    )
    return " ".join(filter(None, (said, _quoted(run, held, newest))))


def _quoted(run: LiveRun, held: Held, record: Record) -> str:
    """Its words, between marks; empty where they would take trust from the run. Who may see them is
    kept: the run's label rises by that."""
    said, own = record.label.integrity, run.row.label.integrity
    is_lower = said is not Integrity.SYSTEM and INTEGRITY_RANK[said] > INTEGRITY_RANK[own]
    if said is Integrity.UNTRUSTED or is_lower:
        return ""
    try:
        marked = spotlight(
            record.text[: limits.FAILURE_QUOTED_CHARS_MAX], marking.marker(run, held.id)
        )
    except InvalidInput:
        return ""
    held.warned, held.warned_by = record.label.bare, (record.id,)
    return f"It was said then:\n{marked.text}"
