"""Events of storage: archives of ended runs, quotas, room given back, back-ups, what was restored.

`RunArchived` and `ValuesReturned` are in the journal of the run; the others are the kernel's.
"""

from __future__ import annotations

from ring0.store.events.event import Event


class RunArchived(Event, frozen=True, kw_only=True, tag="run-archived"):
    """The values of an ended run lie in a file beside the journal, and in the store no more."""

    digest: str
    """SHA-256 of the file."""
    values: int
    size_bytes: int
    """As they were stored: so much less is the run's, and its tenant's."""
    by: str


class ValuesReturned(Event, frozen=True, kw_only=True, tag="values-returned"):
    """Values came back from the run's archive, with this event."""

    values: int
    last: bool
    """All are here: the file holds nothing that the store does not."""
    by: str


class QuotaSet(Event, frozen=True, kw_only=True, tag="quota-set"):
    """How much of the journal a tenant may fill."""

    tenant: str
    stored_bytes: int
    """0: what the bound in limits.py lets it."""
    by: str


class RoomGivenBack(Event, frozen=True, kw_only=True, tag="room-given-back"):
    """Pages of the file that held nothing went back to the file system."""

    pages: int
    by: str


class BackedUp(Event, frozen=True, kw_only=True, tag="backed-up"):
    """A copy of the journal was made, as it was at this size."""

    folder: str
    size: int
    """Of the Merkle log, in events."""
    root: str
    by: str


class Restored(Event, frozen=True, kw_only=True, tag="restored"):
    """This journal goes on from a back-up: what another did after that size is not here, and all
    that was given out until then is void."""

    size: int
    """Of the back-up's Merkle log, in events: it ends right before this event."""
    root: str
    by: str


class ValuesErased(Event, frozen=True, kw_only=True, tag="values-erased"):
    """What a run's events name is gone for good, and the key of their addresses with it. The events
    stand, and all that is proved of them: they hold addresses, and never a value."""

    values: int
    records: tuple[str, ...] = ()
    """What memory held of it."""
    by: str
    note: str = ""


StorageEvent = (
    RunArchived | ValuesReturned | QuotaSet | RoomGivenBack | BackedUp | Restored | ValuesErased
)
