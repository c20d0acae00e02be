"""Recall: what it finds (`--locomo FILE`), what it and remembering take, and that scopes are
strangers (`--isolation`).

`ring0 bench memory` alone: latency, memory, insert rate, disk, cold start, beside SQLite's own full
text search and numpy over everything. It asserts nothing about time.
"""

from __future__ import annotations

from bench.memory import finding, scale, storing, strangers
from bench.rows import Row


def run(locomo: str | None = None, isolation: bool = False) -> list[Row]:
    """All figures: one to three minutes."""
    if locomo:
        return finding.rows(locomo)
    if isolation:
        return strangers.rows()
    return [*scale.rows(), *storing.rows()]
