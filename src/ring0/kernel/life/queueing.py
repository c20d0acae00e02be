"""The row of a new run: its task, manifest and copied files, its share of what its parent has."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.guardrails import Secrets
from ring0.identity import narrowing
from ring0.kernel import values
from ring0.kernel.agent import inputs
from ring0.kernel.agent.agents import Agent
from ring0.observability.telemetry import ids
from ring0.runtime import Runtime
from ring0.store import Store, Write, address, base
from ring0.store import events as ev
from ring0.store.records import record_address
from ring0.types import FileDelta, Frozen, Integrity, Label, Only, Run, RunState


class Past(Frozen, frozen=True, kw_only=True):
    """What a fork begins with of another run."""

    of: str
    """That run, and its seq: `r-…#12`."""
    key: bytes
    """Its digest key."""
    label: Label
    """Of the task."""
    only: tuple[Only, ...] = ()
    """The grants that that one held: a fork is never wider."""
    files: tuple[FileDelta, ...] = ()
    """The workspace as it was then."""
    blobs: dict[str, bytes] = msgspec.field(default_factory=dict)
    """What is there in place of what was."""


class Beside(Frozen, frozen=True, kw_only=True):
    """What is written in one transaction with a new run."""

    events: tuple[ev.AnyEvent, ...] = ()
    guards: tuple[base.Guard, ...] = ()
    files: tuple[tuple[str, bytes, Label], ...] = ()
    """Put into its workspace: path, content, label."""
    only: Only | None = None
    """Its task's grant; None: its task narrows nothing."""
    traceparent: str = ""
    """The span that whoever orders it asks in."""
    past: Past | None = None
    """It is a fork."""


ALONE: Final = Beside()


class Queueing:
    """Writes runs down before they begin."""

    def __init__(self, store: Store, runtime: Runtime, secrets: Secrets, folder: Path) -> None:
        self._store = store
        self._runtime = runtime
        self._secrets = secrets
        self._folder = folder

    async def row(
        self,
        agent: Agent,
        task: str,
        *,
        principal: str,
        tenant: str,
        parent: Run | None = None,
        run: str = "",
        beside: Beside = ALONE,
    ) -> tuple[Run, Write]:
        """A run that is still to be written, and the write. Raises InvalidInput."""
        values.check(task, what="The task")
        encoded = self._secrets.redact_text(task).encode()
        if len(encoded) > limits.TASK_SIZE_BYTES_MAX:
            raise InvalidInput(
                f"The task has {len(encoded)} bytes.",
                why=f"At most {limits.TASK_SIZE_BYTES_MAX} are taken.",
                todo="Put what is long into files of the workspace.",
            )
        run = run or self._runtime.new_id("r")
        past = beside.past
        key = past.key if past else self._runtime.random_bytes(32)
        budget = agent.manifest.budget
        now_us = self._runtime.now_us()
        label = parent.label if parent else Label(integrity=Integrity.USER, sources=("task",))
        label = past.label if past else label
        ends_us = now_us + budget.wall_s * 1_000_000
        family = msgspec.json.encode(agent.family)
        blobs = {address(key, one): one for one in (encoded, family)}
        remembered = ""
        if not agent.family.kernels:  # What the kernel tells an agent of its own is no memory.
            remembered = record_address(key, encoded)
            blobs[remembered] = encoded
        files = past.files if past else ()
        if not parent and not past:
            files = inputs.copied(agent.manifest, key, blobs, self._folder)
        files += inputs.given(beside.files, key, blobs)
        row = Run(
            id=run,
            state=RunState.QUEUED,
            parent=parent.id if parent else "",
            root=parent.root if parent else run,
            depth=parent.depth + 1 if parent else 0,
            agent=agent.manifest.name,
            agent_digest=agent.digest,
            mode=agent.family.mode,
            tenant=tenant,
            principal=principal,
            task=address(key, encoded),
            only=_only(parent.only if parent else past.only if past else (), beside.only),
            forked=parent.forked if parent else past.of if past else "",
            traceparent=parent.traceparent if parent else ids.good(beside.traceparent),
            label=label,
            budget=budget,
            priority=max(agent.manifest.priority, parent.priority if parent else 0),
            kill_seen=await self._store.kill_generation(),
            started_us=now_us,
            deadline_us=min(ends_us, parent.deadline_us) if parent else ends_us,
        )
        write = Write(
            run=run,
            key=key,
            blobs=blobs | past.blobs if past else blobs,
            guards=[*(_of_parent(row, parent) if parent else ()), *beside.guards],
            durable=True,
            events=[
                ev.RunQueued(
                    run=row, manifest=address(key, family), files=files, remembered=remembered
                ),
                *beside.events,
            ],
        )
        return row, write


def _only(held: tuple[Only, ...], only: Only | None) -> tuple[Only, ...]:
    """All that is held above it, and its own: never less narrow than its parent."""
    return narrowing.narrowed(held, *(() if only is None else (only,)))


def _of_parent(row: Run, parent: Run) -> list[base.Guard]:
    """What must hold of the parent when its child is written."""
    budget = row.budget
    return [
        base.RunLive(run=parent.id, epoch=parent.epoch),
        base.NotKilled(run=parent.id),
        base.Room(
            run=parent.id,
            calls=budget.calls,
            tokens=budget.tokens,
            reserve_microusd=budget.cost_microusd,
            children=budget.children + 1,
        ),
    ]
