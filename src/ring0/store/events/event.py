"""What every event is."""

from __future__ import annotations

from typing import Final

from ring0.types import Frozen

KERNEL: Final = "kernel"
"""The `run` of events that belong to no run."""


class Event(Frozen, frozen=True, kw_only=True, tag_field="event"):
    """Base of all events."""
