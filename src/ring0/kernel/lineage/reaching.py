"""What came of a source: every run that saw it, and all that they did from then on.

Through a model nothing is exact, so all that a run does after it saw a source may come of it: its
calls, notes, files, messages, children, result. Found in one pass over the journal, in its order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from ring0 import limits
from ring0.errors import LimitReached, StoreDamaged, ValueArchived
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.store import events as ev
from ring0.store.records import record_ids
from ring0.types import (
    ENDED,
    Approval,
    ApprovalState,
    Call,
    CallKind,
    CallState,
    Frozen,
    Label,
    Outcome,
    Quarantine,
    RunState,
)

_RUN: Final = "run "
_AT_ONCE: Final = 256
"""Entries that are looked at before others have their turn."""
_NOT_HERE: Final = "not here"
"""In place of a value that may have been any."""
_decode = msgspec.json.Decoder(Outcome).decode

Kind = Literal["call", "memory", "file", "message", "child", "ask", "result"]


class Item(Frozen, frozen=True, kw_only=True):
    """One thing that may come of the source."""

    kind: Kind
    run: str
    seq: int
    name: str
    """A call's id and what it called; a file's path; the run that a message or a child is."""
    direct: bool = False
    """It is the source's own value, as it came in."""


class Reached(Frozen, frozen=True, kw_only=True):
    """All that was found."""

    source: str
    runs: dict[str, int]
    """Those that saw it, each with the seq from which on."""
    items: tuple[Item, ...]
    pending: tuple[str, ...]
    """Asks that wait."""
    live: tuple[str, ...]
    """Those of the runs that have not ended."""
    more: int = 0
    """Things that may come of it beside `items`, which is full."""


def matches(wanted: str, source: str) -> bool:
    """Whether a label's source is what an operator named: exactly it; all results of a tool
    (`crm.query`) or of a server (`mail`); what lies beneath an address."""
    if source == wanted:
        return True
    name, _, call = source.partition("@")
    if call.startswith("r-") and (name == wanted or name.startswith(f"{wanted}.")):
        return True
    beneath = wanted if wanted.endswith("/") else f"{wanted}/"
    return "://" in wanted and source.startswith((beneath, f"{wanted}?", f"{wanted}#"))


def quarantined(tenant: str, rows: Iterable[Quarantine]) -> dict[str, int]:
    """By run, the seq from which on nothing of it counts any more."""
    found: dict[str, int] = {}
    for row in rows:
        for run, seq in row.runs.items() if row.tenant == tenant else ():
            found[run] = min(seq, found.get(run, seq))
    return found


async def reached(store: Store, runtime: Runtime, tenant: str, source: str) -> Reached:
    """What may come of the source in the runs of a tenant. Raises LimitReached."""
    await store.flush()
    walk, number = _Walk(store, tenant, source), 0
    async for entry in store.entries():
        await walk.take(entry)
        number += 1
        if number % _AT_ONCE == 0:
            await runtime.sleep(0)  # Runs go on meanwhile.
    waiting = await store.approvals(states=[ApprovalState.PENDING])
    asks = [one for one in waiting if walk.rests(one)]
    live = [run for run in walk.runs if walk.states.get(run, RunState.DONE) not in ENDED]
    return Reached(
        source=source,
        runs=walk.runs,
        items=tuple(walk.items),
        pending=tuple(one.id for one in asks),
        live=tuple(live),
        more=walk.more,
    )


class _Walk:
    """The journal so far."""

    def __init__(self, store: Store, tenant: str, source: str) -> None:
        self._store = store
        self._tenant = tenant
        self._source = source
        self.runs: dict[str, int] = {}
        self.items: list[Item] = []
        self.more = 0
        self.states: dict[str, RunState] = {}
        """Of the tenant's runs."""
        self._calls: dict[str, Call] = {}
        """Those that are open."""
        self._sent: Counter[str] = Counter()
        self._messages: set[tuple[str, int]] = set()
        """(receiver, number) of those that may come of it."""
        self._remembered: set[str] = set()
        """Ids of records that may."""

    def rests(self, approval: Approval) -> bool:
        return approval.run in self.runs

    async def take(self, entry: ev.Entry) -> None:
        match entry.body:
            case ev.RunQueued() as began if began.run.tenant == self._tenant:
                self._queued(entry, began)
            case ev.Remembered() as body if entry.run == ev.KERNEL:
                self._operator_wrote(entry, body)
            case _ if entry.run not in self.states:
                pass  # The kernel's own, or another tenant's.
            case ev.CallIntended(call=call):
                self._calls[call.id] = call
            case ev.CallRefused(call=call, run_label=risen) if risen is not None:
                outcome = await self._outcome(call, call.outcome)
                self._saw(entry, call, outcome.label)
            case ev.CallEnded() as ended:
                await self._ended(entry, ended)
            case ev.CallSettled(call=call):
                self._calls.pop(call, None)
            case ev.Remembered() as body:
                self._run_wrote(entry, body)
            case ev.MessageSent() as sent:
                self._was_sent(entry, sent)
            case ev.RunEnded(state=state):
                self.states[entry.run] = state
                if entry.run in self.runs:
                    self._add("result", entry, str(state))
            case _:
                pass

    # --- how a run comes to see it --------------------------------------------------------------

    def _queued(self, entry: ev.Entry, began: ev.RunQueued) -> None:
        run = began.run
        self.states[run.id] = run.state
        direct = any(self._is(file.label) for file in began.files)
        if direct or matches(self._source, f"{_RUN}{run.id}") or run.parent in self.runs:
            self._taint(run.id, entry.seq)
        if run.parent in self.runs:
            self._add("child", entry, f"of {run.parent}")
        for file in began.files:
            if self._is(file.label):
                self._add("file", entry, file.path, direct=True)
        if began.remembered and run.id in self.runs:
            self._keep(entry)

    def _saw(self, entry: ev.Entry, call: Call, label: Label) -> None:
        if self._is(label):
            self._taint(entry.run, entry.seq)
            self._add("call", entry, _named(call), direct=True)

    async def _ended(self, entry: ev.Entry, ended: ev.CallEnded) -> None:
        call = self._calls.pop(ended.call, None)
        if call is None:
            return
        outcome = await self._outcome(call, ended.outcome)
        direct = self._is(outcome.label) or any(self._is(file.label) for file in ended.files)
        if direct or self._handed_on(call, ended, outcome):
            self._taint(entry.run, entry.seq)
        if entry.run not in self.runs:
            return
        self._add("call", entry, _named(call), direct=direct)
        for file in ended.files:
            self._add("file", entry, file.path, direct=self._is(file.label))
        if ended.remembered:
            self._keep(entry)

    async def _outcome(self, call: Call, where: str) -> Outcome:
        """Where it was erased, or lies in an archive, its sources are what the events say: the call
        itself, and all that the run's own label names; what a recall gave back may be anything."""
        try:
            return _decode(await self._store.blob(where))
        except StoreDamaged as error:
            row = await self._store.run(call.run)
            if row is None or not (row.erased or isinstance(error, ValueArchived)):
                raise
            source = f"{call.name or call.kind}@{call.id}"
            own = Label(integrity=row.label.integrity, sources=(source,))
            return Outcome(state=CallState.OK, value=_NOT_HERE, label=own.join(row.label))

    def _handed_on(self, call: Call, ended: ev.CallEnded, outcome: Outcome) -> bool:
        """By a message, by a child, by memory."""
        if ended.received:
            return (call.run, ended.received) in self._messages
        if not self._remembered.isdisjoint(ended.recalled):
            return True
        children = [one.removeprefix(_RUN) for one in outcome.label.sources if one.startswith(_RUN)]
        return call.kind is CallKind.WAIT and any(child in self.runs for child in children)

    # --- what comes of it then ------------------------------------------------------------------

    def _was_sent(self, entry: ev.Entry, sent: ev.MessageSent) -> None:
        self._sent[sent.to] += 1
        if entry.run in self.runs and sent.sender == entry.run:  # Not a person's word to it.
            self._messages.add((sent.to, self._sent[sent.to]))
            self._add("message", entry, f"to {sent.to}")
        elif self._is(sent.label):
            self._messages.add((sent.to, self._sent[sent.to]))
            self._add("message", entry, f"to {sent.to}", direct=True)

    def _keep(self, entry: ev.Entry) -> None:
        self._remembered.add(f"{entry.run}#{entry.seq}")
        self._add("memory", entry, "")

    def _run_wrote(self, entry: ev.Entry, body: ev.Remembered) -> None:
        """Notes under a key, facts, summaries. A label may name what the run itself never saw."""
        direct = any(self._is(one.label) for one in body.records)
        if direct:
            self._taint(entry.run, entry.seq)
        if entry.run in self.runs:
            self._remembered.update(record_ids(entry.run, entry.seq, len(body.records)))
            self._add("memory", entry, "", direct=direct)

    def _operator_wrote(self, entry: ev.Entry, body: ev.Remembered) -> None:
        """A document, an import: the whole act is out where one of its records is of the source,
        or was made of what is."""
        if body.owner is None or body.owner[0] != self._tenant:
            return
        direct = self._source == body.act or any(self._is(one.label) for one in body.records)
        if direct or any(not self._remembered.isdisjoint(one.parents) for one in body.records):
            self._taint(body.act, entry.seq)
            self._remembered.update(record_ids(body.act, entry.seq, len(body.records)))
            self._add("memory", entry, body.act, direct=direct)

    def _is(self, label: Label) -> bool:
        return any(matches(self._source, source) for source in label.sources)

    def _taint(self, run: str, seq: int) -> None:
        if run in self.runs:
            return
        if len(self.runs) >= limits.QUARANTINE_RUNS_MAX:
            raise LimitReached(
                f"More than {limits.QUARANTINE_RUNS_MAX} runs saw {self._source[:80]!r}.",
                why="One quarantine holds no more.",
                todo="Name it more narrowly: one result, `crm.query@r-…/0/3`, or one run.",
            )
        self.runs[run] = seq

    def _add(self, kind: Kind, entry: ev.Entry, name: str, *, direct: bool = False) -> None:
        if len(self.items) >= limits.QUARANTINE_ITEMS_MAX:
            self.more += 1
            return
        self.items.append(Item(kind=kind, run=entry.run, seq=entry.seq, name=name, direct=direct))


def _named(call: Call) -> str:
    return f"{call.id} {call.name or call.kind}"


def is_out(record: str, out: Mapping[str, int]) -> bool:
    """Whether the record of that id came after its act saw what is quarantined."""
    act, _, number = record.partition("#")
    begins = out.get(act)
    return begins is not None and int(number.partition(".")[0]) >= begins
