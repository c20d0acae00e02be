"""What the journal can say. One struct an event; projections are made from these.

An `Entry` is what is stored: its exact bytes are the Merkle leaf, so nothing is ever re-encoded.
Large or erasable values are not in it, but in blobs that it names by keyed digest.
"""

from __future__ import annotations

import msgspec

from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallState,
    FileDelta,
    Frozen,
    Label,
    Run,
    RunState,
)

KERNEL = "kernel"
"""The `run` of events that belong to no run."""


class Event(Frozen, frozen=True, kw_only=True, tag_field="event"):
    """Base of all events."""


class KernelStarted(Event, frozen=True, kw_only=True, tag="kernel-started"):
    version: str
    pid: int
    secrets: tuple[str, ...] = ()
    """Names of what the vault holds."""


class KernelStopped(Event, frozen=True, kw_only=True, tag="kernel-stopped"):
    pass


class PolicyLoaded(Event, frozen=True, kw_only=True, tag="policy-loaded"):
    digest: str
    text: str
    """Address of the whole policy text, so that any old decision can be made again."""


class RunQueued(Event, frozen=True, kw_only=True, tag="run-queued"):
    run: Run
    manifest: str
    """Address of the AgentManifest."""
    files: tuple[FileDelta, ...] = ()
    """What was copied into the workspace."""
    remembered: str = ""
    """Address of the task's text, indexed as an episode."""


class RunMoved(Event, frozen=True, kw_only=True, tag="run-moved"):
    state: RunState
    waiting_for: str = ""
    epoch: int = 0
    """0: as it was."""
    note: str = ""


class RunEnded(Event, frozen=True, kw_only=True, tag="run-ended"):
    state: RunState
    result: str
    epoch: int
    output: str = ""
    """Address of what the process printed, bounded."""
    by: str = ""


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


class CallRefused(Event, frozen=True, kw_only=True, tag="call-refused"):
    """The gate said no before anything was done; that is the recorded outcome."""

    call: Call
    run_label: Label | None = None
    """Where the words of the no told of data that the run had not seen."""


class CallIntended(Event, frozen=True, kw_only=True, tag="call-intended"):
    """Admitted: from here on the effect may happen."""

    call: Call
    reserve_microusd: int = 0


class CallRetried(Event, frozen=True, kw_only=True, tag="call-retried"):
    """After a crash: a pure or idempotent call runs again under its own id."""

    call: str
    epoch: int


class CallEnded(Event, frozen=True, kw_only=True, tag="call-ended"):
    call: str
    state: CallState
    outcome: str
    run_label: Label | None = None
    """The run's own label, where it rose."""
    cost_microusd: int = 0
    undo: str = ""
    undoes: str = ""
    """The call that this one took back."""
    files: tuple[FileDelta, ...] = ()
    files_of: str = ""
    """The run whose workspace they belong to; empty: this one."""
    remembered: str = ""
    remembered_role: str = "result"
    remembered_label: Label | None = None


class CallCutOff(Event, frozen=True, kw_only=True, tag="call-cut-off"):
    """A `once` call whose outcome nobody knows."""

    call: str
    why: str


class CallSettled(Event, frozen=True, kw_only=True, tag="call-settled"):
    """A human, or the tool's reconcile(), says what became of an unknown call."""

    call: str
    happened: bool
    outcome: str
    by: str
    note: str = ""


class ApprovalAsked(Event, frozen=True, kw_only=True, tag="approval-asked"):
    approval: Approval


class ApprovalAnswered(Event, frozen=True, kw_only=True, tag="approval-answered"):
    approval: str
    state: ApprovalState
    by: str
    note: str = ""


class Killed(Event, frozen=True, kw_only=True, tag="killed"):
    scope: str
    """`run`, `agent`, `tenant` or `all`."""
    target: str
    generation: int
    """At least this one: the row always gets a generation that no kill before it had."""
    by: str


AnyEvent = (
    KernelStarted
    | KernelStopped
    | PolicyLoaded
    | RunQueued
    | RunMoved
    | RunEnded
    | SandboxStarted
    | SandboxClaimed
    | SandboxEnded
    | CallRefused
    | CallIntended
    | CallRetried
    | CallEnded
    | CallCutOff
    | CallSettled
    | ApprovalAsked
    | ApprovalAnswered
    | Killed
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal: (run, seq) names it for ever."""

    run: str
    seq: int
    at_us: int
    body: AnyEvent


encode_entry = msgspec.json.Encoder().encode
decode_entry = msgspec.json.Decoder(Entry).decode
