"""Step 10 of the gate: what of a call becomes an episode, and how its text is kept.

Not here: who may read it, and what becomes of it (kernel/memory/).
"""

from __future__ import annotations

from ring0 import limits
from ring0.kernel import values
from ring0.kernel.live import LiveRun
from ring0.kernel.steps.judging import Judged
from ring0.store import records
from ring0.types import CallKind


def of_tool(judged: Judged, value: object) -> str:
    """A tool's call and result as one line of memory."""
    if judged.held.kind is not CallKind.TOOL:
        return ""
    args = values.canonical(judged.held.args).decode()
    result = values.canonical(value).decode()
    return f"{judged.held.name} {args[:2000]} -> {result[:4000]}"


def kept(run: LiveRun, text: str, blobs: dict[str, bytes]) -> str:
    """The address of what becomes an episode; its value is put to `blobs`."""
    encoded = text[: limits.EPISODE_CHARS_MAX].encode()
    where = records.record_address(run.key, encoded)
    blobs[where] = encoded
    return where
