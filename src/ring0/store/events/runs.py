"""Events of a run: its life, its budget and locks, what it was given, where it runs."""

from __future__ import annotations

from ring0.store.events.event import Event
from ring0.types import FileDelta, Label, Lock, Only, Run, RunState


class RunQueued(Event, frozen=True, kw_only=True, tag="run-queued"):
    run: Run
    manifest: str
    """Address of the AgentManifest."""
    files: tuple[FileDelta, ...] = ()
    """What was copied into the workspace."""
    remembered: str = ""
    """Address (`records.record_address`) of the task's text, as an episode."""


class RunForked(Event, frozen=True, kw_only=True, tag="run-forked"):
    """In the fork's own journal, beside its start: what it begins with is another run's past."""

    run: str
    """The run that it was forked from."""
    at: int
    """What that one had done up to this seq is what it begins with."""
    by: str
    edits: tuple[str, ...] = ()
    """What whoever forked it changed: `task`, and the ids of calls, as they are here."""
    label: Label | None = None
    """How far that one had fallen by then; None: not at all."""


class RunMoved(Event, frozen=True, kw_only=True, tag="run-moved"):
    state: RunState
    waiting_for: str = ""
    epoch: int = 0
    """0: as it was."""
    wake_us: int = 0
    note: str = ""


class RunPaused(Event, frozen=True, kw_only=True, tag="run-paused"):
    """From its next call on it waits."""

    by: str
    note: str = ""


class RunResumed(Event, frozen=True, kw_only=True, tag="run-resumed"):
    by: str


class RunEnded(Event, frozen=True, kw_only=True, tag="run-ended"):
    state: RunState
    result: str
    epoch: int
    output: str = ""
    """Address of what the process printed, bounded."""
    by: str = ""


class BudgetRaised(Event, frozen=True, kw_only=True, tag="budget-raised"):
    """A person gave the run more; each run above it has that much more, and has moved it down."""

    by: str
    calls: int = 0
    tokens: int = 0
    cost_microusd: int = 0
    children: int = 0
    wall_s: int = 0
    """Of this run and those above it."""
    approval: str = ""
    note: str = ""


class CallsLost(Event, frozen=True, kw_only=True, tag="calls-lost"):
    """After a crash: as many calls may have been made whose intents were not on disk yet. They
    count as made: a budget is never overspent."""

    calls: int
    tokens: int = 0
    cost_microusd: int = 0
    """What those calls may have reserved, at most."""


class LockTaken(Event, frozen=True, kw_only=True, tag="lock-taken"):
    """Taken, or its lease made longer."""

    lock: Lock


class LockFreed(Event, frozen=True, kw_only=True, tag="lock-freed"):
    tenant: str
    resource: str
    how: str
    """`freed`, `expired` or `ended`."""


class MessageSent(Event, frozen=True, kw_only=True, tag="message-sent"):
    """In the sender's journal; a person's, in the receiver's own."""

    to: str
    sender: str
    body: str
    key_of: str = ""
    label: Label


class TokenIssued(Event, frozen=True, kw_only=True, tag="token-issued"):
    """Somebody was given a token of the run. Not the token is here, but a digest that names it."""

    token: str
    epoch: int
    """It is dead under any other."""
    only: Only
    expires_us: int
    by: str


class TokenRevoked(Event, frozen=True, kw_only=True, tag="token-revoked"):
    """That token is dead, and all that was narrowed from it."""

    token: str
    by: str


class CertificateIssued(Event, frozen=True, kw_only=True, tag="certificate-issued"):
    """The run got an X.509-SVID."""

    name: str
    serial: str
    expires_us: int


class SandboxStarted(Event, frozen=True, kw_only=True, tag="sandbox-started"):
    sandbox: str
    pid: int
    start_ticks: int
    boot_id: str
    purpose: str


class SandboxClaimed(Event, frozen=True, kw_only=True, tag="sandbox-claimed"):
    """One that the kernel had made ahead (it is on record there as started) is this run's now."""

    sandbox: str
    pid: int
    purpose: str


class SandboxEnded(Event, frozen=True, kw_only=True, tag="sandbox-ended"):
    sandbox: str
    how: str = ""


RunEvent = (
    RunQueued
    | RunForked
    | RunMoved
    | RunPaused
    | RunResumed
    | RunEnded
    | BudgetRaised
    | CallsLost
    | LockTaken
    | LockFreed
    | MessageSent
    | TokenIssued
    | TokenRevoked
    | CertificateIssued
    | SandboxStarted
    | SandboxClaimed
    | SandboxEnded
)
