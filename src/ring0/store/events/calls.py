"""Events of a call: refused, or intended and ended; cut off, retried, settled."""

from __future__ import annotations

from ring0.store.events.event import Event
from ring0.types import Call, CallState, CapUse, FileDelta, Integrity, Label


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


class CallCopied(Event, frozen=True, kw_only=True, tag="call-copied"):
    """A call of the run that this one was forked from, as it ended there: it is recalled, and was
    not made again. It costs nothing, and nothing here takes it back."""

    call: Call
    of: str
    """The call's id there."""


class CallStreamed(Event, frozen=True, kw_only=True, tag="call-streamed"):
    """In which pieces a model's answer went out, before its end did."""

    call: str
    stream: str
    """Address of the pieces (gateway/models/streams.py)."""


class CallRetried(Event, frozen=True, kw_only=True, tag="call-retried"):
    """After a crash: a pure or idempotent call runs again under its own id. What was reserved for
    the try before may have been spent, and stays so; as much is reserved once more."""

    call: str
    epoch: int
    reserve_microusd: int = 0
    reserve_tokens: int = 0
    caps: tuple[CapUse, ...] = ()
    approval: str = ""
    """A yes that was asked for anew: the one that it began with no longer covered it."""


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
    """Address (`records.record_address`) of a text that becomes an episode."""
    remembered_role: str = "result"
    remembered_label: Label | None = None
    remembered_fingerprint: str = ""
    """Of a failure: of what was tried."""
    recalled: tuple[str, ...] = ()
    """Records that the call brought to the run."""


class Declassified(Event, frozen=True, kw_only=True, tag="declassified"):
    """Somebody answers for values of a call as if they came from somewhere better: the operator's
    named sanitiser let them through, or people said yes to them."""

    call: str
    what: str
    """The path of the field, or the argument."""
    values: int
    """How many."""
    before: Integrity
    after: Integrity
    by: str
    """`sanitiser integer`, or who said yes."""


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


CallEvent = (
    CallRefused
    | CallsRefusedAlike
    | CallIntended
    | CallCopied
    | CallStreamed
    | CallRetried
    | CallEnded
    | Declassified
    | CallCutOff
    | CallSettled
)
