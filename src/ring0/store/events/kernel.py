"""Events of the kernel as a whole: its starts, what operators decided, kills."""

from __future__ import annotations

from ring0.store.events.event import Event
from ring0.types import Login


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


class Killed(Event, frozen=True, kw_only=True, tag="killed"):
    scope: str
    """`run`, `agent`, `tenant` or `all`."""
    target: str
    generation: int
    """At least this one: the row always gets a generation that no kill before it had."""
    by: str


class SourceQuarantined(Event, frozen=True, kw_only=True, tag="source-quarantined"):
    """An operator takes a source out: what these runs did from those seqs on may come of it."""

    tenant: str
    source: str
    runs: dict[str, int]
    by: str
    note: str = ""


class SourceReleased(Event, frozen=True, kw_only=True, tag="source-released"):
    tenant: str
    source: str
    by: str
    note: str = ""


class Exported(Event, frozen=True, kw_only=True, tag="exported"):
    """Spans of runs were sent to the place of `[otlp]` because somebody asked for it."""

    runs: tuple[str, ...]
    spans: int
    to: str
    by: str


KernelEvent = (
    KernelStarted
    | KernelStopped
    | PolicyLoaded
    | SettingChanged
    | LoggedIn
    | LoggedOut
    | Killed
    | SourceQuarantined
    | SourceReleased
    | Exported
)
