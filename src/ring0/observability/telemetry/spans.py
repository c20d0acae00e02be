"""A span as values, before it is anybody's bytes. No behaviour."""

from __future__ import annotations

import enum

import msgspec

from ring0.types import Frozen

Value = str | int | bool | tuple[str, ...]


class SpanKind(enum.IntEnum):
    """As OTLP numbers them."""

    INTERNAL = 1
    CLIENT = 3


class SpanEvent(Frozen, frozen=True, kw_only=True):
    """A moment within a span."""

    name: str
    at_us: int
    attributes: dict[str, Value] = msgspec.field(default_factory=dict)


class Span(Frozen, frozen=True, kw_only=True):
    """A run, a call, or what became of one; complete, and never said again in another way."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str
    kind: SpanKind = SpanKind.INTERNAL
    start_us: int
    end_us: int
    attributes: dict[str, Value]
    events: tuple[SpanEvent, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """Trace and span ids of others'."""
    failed: bool = False
    told: str = ""
    """Of what failed: in words, where content is said at all."""
