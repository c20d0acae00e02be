"""Events of orders, which start runs: crons and hooks."""

from __future__ import annotations

from ring0.store.events.event import Event
from ring0.types import Cron, Hook


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


OrderEvent = (
    CronSet
    | HookSet
    | OrderPaused
    | OrderResumed
    | OrderRemoved
    | CronFired
    | CronSkipped
    | HookFired
)
