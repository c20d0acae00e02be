"""Names of traces and spans, made from what they are of: whoever exports twice says the same twice.

W3C trace context (https://www.w3.org/TR/trace-context/), version 00, and nothing of `tracestate`:
what is handed on is an id, never a word of anybody's.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from ring0.types import Frozen, Run

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_SAMPLED: Final = "01"


class Parent(Frozen, frozen=True, kw_only=True):
    """A span of somebody else's, as `traceparent` names it."""

    trace_id: str
    span_id: str


def parsed(text: str) -> Parent | None:
    """What a `traceparent` names; None where it is none, as the standard has it: it is dropped,
    never repaired."""
    found = _TRACEPARENT.fullmatch(text)
    if found is None or not found[1].strip("0") or not found[2].strip("0"):
        return None
    return Parent(trace_id=found[1], span_id=found[2])


def good(text: str) -> str:
    """The text where it is a `traceparent`, else nothing."""
    return text if parsed(text) is not None else ""


def trace_id(run: Run) -> str:
    """32 hex digits: one trace a tree of runs, or the trace of whoever ordered it."""
    parent = parsed(run.traceparent)
    return parent.trace_id if parent else _digest("trace", run.root)[:32]


def run_span(run: str) -> str:
    """16 hex digits."""
    return _digest("run", run)[:16]


def call_span(call: str) -> str:
    """16 hex digits, of a call id, which says run and place: so it is known before the call has a
    seq, and is the same on every replay."""
    return _digest("call", call)[:16]


def entry_span(run: str, seq: int) -> str:
    """16 hex digits, of an entry that is a span by itself."""
    return _digest("entry", f"{run}\n{seq}")[:16]


def traceparent(run: Run, call: str) -> str:
    """What goes out with a call: whoever carries it out can hang spans of its own beneath it."""
    return f"00-{trace_id(run)}-{call_span(call)}-{_SAMPLED}"


def _digest(kind: str, name: str) -> str:
    return hashlib.sha256(f"ring0 {kind}\n{name}".encode("utf-8", "surrogatepass")).hexdigest()
