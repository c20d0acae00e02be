"""Step 9 of the gate: how a model is shown what a tool gave back (`[guardrails] spotlight`).

The gate only names style and marker; whoever builds the model's messages (sdk/loop.py) writes the
marks. They go on record with the outcome: a replay gives the same, whatever is set by then.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from ring0.kernel.live import Held, LiveRun
from ring0.types import CallKind, FieldRule, Integrity, Label

_MARKER_HEX_DIGITS: Final = 32
_PURPOSE: Final = b"ring0 spotlight\0"
"""And another hash than that of addresses: none of those is a marker, whatever it is of."""


def mark(run: LiveRun, held: Held, label: Label, fields: Iterable[FieldRule] = ()) -> str:
    """Style and marker of an untrusted result; empty: it is shown as it is.

    The marker comes of the run's key, which no agent and no tool has, and of the call: a result
    can't hold the one that it will stand between, and the same call always has the same.
    """
    if not held.spotlight or held.kind is not CallKind.TOOL:
        return ""
    of_fields = (rule.integrity for rule in fields)
    if Integrity.UNTRUSTED not in (label.integrity, *of_fields):
        return ""
    return f"{held.spotlight} {marker(run, held.id)}"


def marker(run: LiveRun, call: str) -> str:
    """Between which what came of that call stands: the same on every replay."""
    found = hmac.digest(run.key, _PURPOSE + call.encode(), "sha512").hex()
    return found[:_MARKER_HEX_DIGITS]
