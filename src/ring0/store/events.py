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
    CapUse,
    Cron,
    FileDelta,
    Frozen,
    Hook,
    Label,
    Lock,
    Login,
    Only,
    Run,
    RunState,
    Standing,
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


class SettingChanged(Event, frozen=True, kw_only=True, tag="setting-changed"):
    """The operator's files say something else than what was on record (`types.Setting`)."""

    name: str
    before: str
    """Empty: nothing was on record."""
    after: str
    text: str = ""
    """Address of all that it says, where `after` is a digest."""
    by: str
    loosened: bool = False
    """It holds less back than the one before; whoever took it up was asked and said so."""


class LoggedIn(Event, frozen=True, kw_only=True, tag="logged-in"):
    login: Login


class LoggedOut(Event, frozen=True, kw_only=True, tag="logged-out"):
    key: str
    by: str
    """Empty: its time was over."""


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
    wake_us: int = 0
    note: str = ""


class RunPaused(Event, frozen=True, kw_only=True, tag="run-paused"):
    """From its next call on it waits."""

    by: str
    note: str = ""


class RunResumed(Event, frozen=True, kw_only=True, tag="run-resumed"):
    by: str


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


class RunEnded(Event, frozen=True, kw_only=True, tag="run-ended"):
    state: RunState
    result: str
    epoch: int
    output: str = ""
    """Address of what the process printed, bounded."""
    by: str = ""


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


class CallRefused(Event, frozen=True, kw_only=True, tag="call-refused"):
    """The gate said no before anything was done; that is the recorded outcome."""

    call: Call
    run_label: Label | None = None
    """Where the words of the no told of data that the run had not seen."""


class CallsRefusedAlike(Event, frozen=True, kw_only=True, tag="calls-refused-alike"):
    """More calls that asked for the same as one that was refused, and were told the same."""

    like: str
    calls: tuple[str, ...]


class CallIntended(Event, frozen=True, kw_only=True, tag="call-intended"):
    """Admitted: from here on the effect may happen."""

    call: Call
    reserve_microusd: int = 0
    reserve_tokens: int = 0
    uncounted: bool = False
    """It takes no call of the budget."""
    caps: tuple[CapUse, ...] = ()


class CallRetried(Event, frozen=True, kw_only=True, tag="call-retried"):
    """After a crash: a pure or idempotent call runs again under its own id. What was reserved for
    the try before may have been spent, and stays so; as much is reserved once more."""

    call: str
    epoch: int
    reserve_microusd: int = 0
    reserve_tokens: int = 0
    caps: tuple[CapUse, ...] = ()


class CallEnded(Event, frozen=True, kw_only=True, tag="call-ended"):
    call: str
    state: CallState
    outcome: str
    run_label: Label | None = None
    """The run's own label, where it rose."""
    cost_microusd: int = 0
    tokens: int = 0
    caps_back: tuple[CapUse, ...] = ()
    """What was taken from caps for it and not used."""
    notice: str = ""
    fingerprint: str = ""
    received: int = 0
    """The number of the message that this call received; 0: none."""
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
    """`approved` is one person's yes: it is approved when as many have said so as it needs."""

    approval: str
    state: ApprovalState
    by: str
    note: str = ""


class ApprovalEdited(Event, frozen=True, kw_only=True, tag="approval-edited"):
    """A person changed arguments and says yes to the call as it is then. It is judged anew."""

    approval: str
    by: str
    edits: str
    """Address of all that was changed so far (`types.Edit`s)."""
    note: str = ""


class ApprovalTold(Event, frozen=True, kw_only=True, tag="approval-told"):
    """A place of `[[notify]]` has taken the message that this ask waits."""

    approval: str
    to: str


class StandingGiven(Event, frozen=True, kw_only=True, tag="standing-given"):
    standing: Standing


class StandingRevoked(Event, frozen=True, kw_only=True, tag="standing-revoked"):
    standing: str
    by: str


class Killed(Event, frozen=True, kw_only=True, tag="killed"):
    scope: str
    """`run`, `agent`, `tenant` or `all`."""
    target: str
    generation: int
    """At least this one: the row always gets a generation that no kill before it had."""
    by: str


class CronSet(Event, frozen=True, kw_only=True, tag="cron-set"):
    """Given, or given anew under the same name."""

    cron: Cron


class HookSet(Event, frozen=True, kw_only=True, tag="hook-set"):
    hook: Hook


class OrderPaused(Event, frozen=True, kw_only=True, tag="order-paused"):
    """It starts no run until it is resumed."""

    order: str
    """`cron` or `hook`."""
    name: str
    by: str
    note: str = ""


class OrderResumed(Event, frozen=True, kw_only=True, tag="order-resumed"):
    order: str
    name: str
    by: str


class OrderRemoved(Event, frozen=True, kw_only=True, tag="order-removed"):
    order: str
    name: str
    by: str


class CronFired(Event, frozen=True, kw_only=True, tag="cron-fired"):
    """In the journal of the run that it starts, in one transaction with that run's first event."""

    cron: str
    version: int
    due_us: int = 0
    """The moment that the run is for; 0: a person asked for it."""
    skipped: int = 0
    """Moments before that one that get no run of their own."""
    by: str = ""


class CronSkipped(Event, frozen=True, kw_only=True, tag="cron-skipped"):
    """Moments that get no run."""

    cron: str
    version: int
    through_us: int
    """The newest of them."""
    moments: int
    why: str


class HookFired(Event, frozen=True, kw_only=True, tag="hook-fired"):
    """As CronFired, for a delivery."""

    hook: str
    version: int
    delivery: str
    """What names it: the sender's id, or the digest of a body that has none."""


AnyEvent = (
    KernelStarted
    | KernelStopped
    | PolicyLoaded
    | SettingChanged
    | LoggedIn
    | LoggedOut
    | RunQueued
    | RunMoved
    | RunPaused
    | RunResumed
    | BudgetRaised
    | CallsLost
    | LockTaken
    | LockFreed
    | MessageSent
    | RunEnded
    | TokenIssued
    | TokenRevoked
    | CertificateIssued
    | SandboxStarted
    | SandboxClaimed
    | SandboxEnded
    | CallRefused
    | CallsRefusedAlike
    | CallIntended
    | CallRetried
    | CallEnded
    | CallCutOff
    | CallSettled
    | ApprovalAsked
    | ApprovalAnswered
    | ApprovalEdited
    | ApprovalTold
    | StandingGiven
    | StandingRevoked
    | Killed
    | CronSet
    | HookSet
    | OrderPaused
    | OrderResumed
    | OrderRemoved
    | CronFired
    | CronSkipped
    | HookFired
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal: (run, seq) names it for ever."""

    run: str
    seq: int
    at_us: int
    stored_bytes: int = 0
    """Of its body as stored, and of the values that came with it and were new."""
    body: AnyEvent


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """An `Entry` whose body is encoded already. The same fields in the same order."""

    run: str
    seq: int
    at_us: int
    stored_bytes: int
    body: msgspec.Raw


encode_entry = msgspec.json.Encoder().encode
decode_entry = msgspec.json.Decoder(Entry).decode


def seal(run: str, seq: int, at_us: int, body: AnyEvent, values_bytes: int) -> tuple[Entry, bytes]:
    """The entry, and its exact bytes: those of `encode_entry`."""
    raw = encode_entry(body)
    size = len(raw) + values_bytes
    entry = Entry(run=run, seq=seq, at_us=at_us, stored_bytes=size, body=body)
    sealed = _Sealed(run=run, seq=seq, at_us=at_us, stored_bytes=size, body=msgspec.Raw(raw))
    return entry, encode_entry(sealed)
