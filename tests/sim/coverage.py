"""What a long simulation must have come to at least once; what is missing was not simulated."""

from __future__ import annotations

from collections import Counter

from ring0.types import CallKind, CallState
from sim.plan import POINTS_HERE

_NOT_HERE = {
    CallKind.EGRESS,  # Only the sandbox of a tool's call makes it, and there is none here.
}
_NEVER = {
    # These take no arguments, or only the kernel's own: nothing fails in them.
    (CallKind.NOW, CallState.ERROR),
    (CallKind.RANDOM, CallState.ERROR),
    (CallKind.SLEEP, CallState.ERROR),
    (CallKind.MEMORY_APPEND, CallState.ERROR),
    (CallKind.MEMORY_RECALL, CallState.ERROR),
    (CallKind.ASK, CallState.ERROR),
}
_ALWAYS = (CallState.OK, CallState.ERROR)
RUNS = ("done", "failed", "cancelled", "unknown")
WAITS = ("approval", "child", "timer", "lock", "budget", "message", "pause", "unknown")
APPROVALS = ("approved", "denied", "expired", "revoked")
ENDS = ("died", "stopped", "failed", "done", "not booted")
DEEDS = (
    "kill run", "kill tree", "kill agent", "kill tenant", "kill all", "jump", "full", "broken",
    "slow", "pause", "stop", "send", "raise",
)  # fmt: skip
FAULTS = (
    "door broken", "door doubled", "tool fails", "tool posted", "tool unknown with",
    "tool unknown without", "tool breaks with", "tool breaks without", "tool hangs before",
    "tool hangs after", "model slow down", "model fails", "model fails unpaid",
    "model counts nothing", "settled: happened", "settled: did not happen", "store failed",
    "kill run confirmed", "kill agent confirmed", "kill tenant confirmed", "kill all confirmed",
    "pause done", "resume done", "send done", "raise done", "run at its deadline",
    "run held against its calm twin",
)  # fmt: skip


def wanted() -> list[str]:
    """All that must be seen."""
    calls = [
        f"call {kind} {state}"
        for kind in CallKind
        for state in _ALWAYS
        if kind not in _NOT_HERE and (kind, state) not in _NEVER
    ]
    return [
        *calls,
        "call tool unknown",
        "call tool refused",
        "call model refused",
        *(f"run {state}" for state in RUNS),
        *(f"waiting for {what}" for what in WAITS),
        *(f"approval {state}" for state in APPROVALS),
        *(f"a kernel ended: {how}" for how in ENDS),
        *(f"deed {deed}" for deed in DEEDS),
        *(f"point {point}" for point in POINTS_HERE),
        *(f"death at moment {point}" for point in POINTS_HERE),
        "death at time",
        *FAULTS,
    ]


def missing(seen: Counter[str]) -> list[str]:
    """What was not."""
    return [one for one in wanted() if not seen[one]]
