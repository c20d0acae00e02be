"""Forks: a new task of whoever forks, which begins with another run's past, up to a point of it.

What that run had done by then is recalled, never done again; from there on the fork is live, under
the grants, the budget and the policy of today, with no approval of the other run, and what isn't
`pure` asks (steps/forks.py). What is edited carries the label of who edited it. Its digest key is
the other run's: recall knows requests by digests under that key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import InvalidInput, NotFound
from ring0.identity import narrowing
from ring0.identity.tokens import came_with_token
from ring0.kernel import values
from ring0.kernel.agent import agents
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.life.queueing import Beside, Past
from ring0.kernel.life.runs import Runs
from ring0.kernel.replaying.folding import fold
from ring0.store import address
from ring0.store import events as ev
from ring0.store.events import Entry
from ring0.types import (
    Call,
    CallKind,
    CallState,
    Effect,
    FileDelta,
    Integrity,
    Label,
    Mode,
    Outcome,
    Run,
)

TASK: Final = "task"
"""What an edit changes, beside calls."""
_OVER: Final = (CallState.OK, CallState.ERROR, CallState.REFUSED)


class Then(msgspec.Struct):
    """A run as it was at one seq of it."""

    calls: dict[str, Call] = {}
    label: Label | None = None
    """As far as it had fallen; None: not yet."""
    files: dict[str, FileDelta] = {}
    began: ev.RunQueued | None = None


def then(entries: Sequence[Entry], at: int) -> Then:
    """What the run had done by that seq. Its own entries, in their order."""
    found = Then(calls={}, files={})
    for entry in entries:
        if entry.seq > at:
            break
        _take(found, entry)
    return found


def _take(found: Then, entry: Entry) -> None:
    fold(found.calls, entry)
    match entry.body:
        case ev.RunQueued() as began:
            found.began = began
            found.files.update((file.path, file) for file in began.files)
        case ev.RunForked(label=label) | ev.CallRefused(run_label=label):
            _fall(found, label)
        case ev.CallEnded() as ended:
            _fall(found, ended.run_label)
            if not ended.files_of:
                found.files.update((file.path, file) for file in ended.files)


def _fall(found: Then, label: Label | None) -> None:
    if label is not None:
        found.label = found.label.join(label) if found.label else label


class Forking:
    """Forks the runs of one kernel."""

    def __init__(
        self,
        runs: Runs,
        tenant: str,
        check: Callable[[Agent], Awaitable[None]],
        storing: asyncio.Lock,
    ) -> None:
        """`check`: raises what keeps an agent from starting here. `storing`: while it is held,
        nothing that a fork shares with its past is archived or erased."""
        self._storing = storing
        self._runs = runs
        self._tenant = tenant
        self._check = check

    async def fork(
        self,
        run: str,
        at: int,
        edits: Mapping[str, Any],
        *,
        by: str,
        only: Sequence[str] | None = None,
        code: Agent | None = None,
    ) -> Run:
        """Starts a run of `by`'s that begins as `run` was at its seq `at`. `edits`: by `task`, or
        the id of a call that had ended by then, what is there in place of it. `code`: that of an
        embedded agent. Raises NotFound, InvalidInput, StoreDamaged, what keeps it from starting."""
        async with self._storing:
            return await self._fork(run, at, edits, by, only, code)

    async def _fork(
        self,
        run: str,
        at: int,
        edits: Mapping[str, Any],
        by: str,
        only: Sequence[str] | None,
        code: Agent | None,
    ) -> Run:
        store = self._runs.store
        await store.flush()
        row = await store.run(run)
        if row is None or row.tenant != self._tenant:
            raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps --all` lists them.")
        if not 1 <= at <= row.events:
            raise InvalidInput(
                f"{run} has no event #{at}.",
                why=f"It has {row.events}.",
                todo=f"`ring0 show {run}` lists its calls, each with its seq.",
            )
        store.check_here(run)
        family = await agents.family_of(store, run)
        agent = self._agent(row, family, code)
        past = then([entry async for entry in store.entries(run)], at)
        assert past.began is not None, "a run begins with its start"
        name, key = self._runs.runtime.new_id("r"), await store.run_key(run)
        made = _Made(name, key, row, by)
        copies = [await self._copy(made, call, edits) for call in _prefix(past, run)]
        task, label = await self._task(past.began, row, edits)
        made.check_all_done(edits)
        await self._check(agent)
        forked = ev.RunForked(run=run, at=at, by=by, edits=tuple(made.edited), label=past.label)
        beside = Beside(
            events=(forked, *copies),
            only=None if only is None else narrowing.for_task(only),
            past=Past(
                of=f"{run}#{at}",
                key=key,
                label=label,
                only=row.only,
                files=tuple(file for file in past.files.values() if file.blob),
                blobs=made.blobs,
            ),
        )
        return await self._runs.begin(
            agent, task, principal=by, tenant=row.tenant, run=name, beside=beside
        )

    def _agent(self, row: Run, family: Family, code: Agent | None) -> Agent:
        """Its own code, as it was. Raises InvalidInput, StoreDamaged."""
        if family.operator:
            raise InvalidInput(
                f"{row.id} is an undo, which is not forked.", todo="`ring0 undo` begins another."
            )
        if row.mode is Mode.ISOLATED:
            return agents.restore(family, row.agent_digest, self._runs.folder)
        if code is None:
            raise InvalidInput(
                f"{row.id} was embedded in another program.",
                why="Its code is that program's, and is not here.",
                todo="Fork isolated runs.",
            )
        return Agent(family, row.agent_digest, functions=code.functions)

    async def _task(
        self, began: ev.RunQueued, row: Run, edits: Mapping[str, Any]
    ) -> tuple[str, Label]:
        """What whoever forks says is said by a principal. A child's own task was a run's word."""
        if TASK in edits:
            text = edits[TASK]
            if not isinstance(text, str):
                raise InvalidInput("A task is text.", todo="`--edit task=TEXT`.")
            return text, Label(integrity=Integrity.USER, sources=(TASK,))
        label = began.run.label
        if row.parent:
            label = label.join(Label(integrity=Integrity.UNTRUSTED, sources=(row.parent,)))
        return (await self._runs.store.blob(row.task)).decode(), label

    async def _copy(self, made: _Made, call: Call, edits: Mapping[str, Any]) -> ev.CallCopied:
        copy = replace(
            call,
            id=made.named(call.id),
            run=made.run,
            seq=0,
            effect=Effect.PURE,  # To recall it does nothing.
            decision="",
            approval="",
            undo="",
            undone_by="",
            undoes="",
            cost_microusd=0,
            tokens=0,
        )
        # What was erased or archived is missed before anything begins.
        stored = await self._runs.store.blob(call.outcome)
        if call.id in edits:
            was = msgspec.json.decode(stored, type=Outcome)
            copy = replace(
                copy, state=CallState.OK, outcome=made.edit(call, was, edits[call.id]), stream=""
            )
        return ev.CallCopied(call=copy, of=call.id)


class _Made:
    """A fork while it is put together."""

    def __init__(self, run: str, key: bytes, of: Run, by: str) -> None:
        self.run = run
        self.blobs: dict[str, bytes] = {}
        self.edited: list[str] = []
        self._key = key
        self._of = of
        self._by = by

    def named(self, call: str) -> str:
        return self.run + call.removeprefix(self._of.id)

    def edit(self, call: Call, was: Outcome, value: Any) -> str:
        """The address of another result: a person's word, and as private as what it replaces."""
        values.check(value, what="The edit")
        label = Label(
            integrity=Integrity.USER,
            confidentiality=was.label.confidentiality,
            sources=(f"edited by {self._by}",),
        )
        stored = msgspec.json.encode(Outcome(state=CallState.OK, value=value, label=label))
        if len(stored) > limits.RESULT_SIZE_BYTES_MAX:
            raise InvalidInput("The edit is larger than a call may return.", todo="Say less.")
        where = address(self._key, stored)
        self.blobs[where] = stored
        self.edited.append(self.named(call.id))
        return where

    def check_all_done(self, edits: Mapping[str, Any]) -> None:
        """Raises InvalidInput for an edit that would change nothing."""
        if len(edits) > limits.FORK_EDITS_MAX:
            raise InvalidInput(f"A fork has at most {limits.FORK_EDITS_MAX} edits.", todo="Fewer.")
        done = set(self.edited)
        for what in edits:
            if what != TASK and self.named(what) not in done:
                raise InvalidInput(
                    f"{what[:80]} had not ended by then, or is no call of {self._of.id}.",
                    why="What is edited is the result of a call before the fork.",
                    todo=f"`ring0 show {self._of.id}` lists them; fork at a later seq.",
                )
        if TASK in edits:
            self.edited.insert(0, TASK)


def _prefix(past: Then, run: str) -> list[Call]:
    """The calls that the fork recalls: those of its own process that had ended. Raises InvalidInput
    where nobody knows what came of one."""
    own = [
        call
        for call in past.calls.values()
        if call.kind is not CallKind.EGRESS and not came_with_token(call.id)
    ]
    for call in own:
        if call.state is CallState.UNKNOWN:
            raise InvalidInput(
                f"{call.id} is unknown: nobody knows whether it happened.",
                why="A fork would go on from what may not be so.",
                todo=f"`ring0 settle {call.id} …` first, or fork before it.",
            )
    return [call for call in own if call.state in _OVER]
