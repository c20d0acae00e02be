"""Recall: what it finds (`--locomo FILE`), what it takes, and that scopes are strangers
(`--isolation`).

`ring0 bench memory` alone: latency, memory, cold start, beside SQLite's own full text search and
numpy over everything. It asserts nothing about time.
"""

from __future__ import annotations

from bench.memory import finding, scale, strangers
from bench.rows import Row

QUERIES = 100_000


def run(locomo: str | None = None, isolation: bool = False) -> list[Row]:
    """All figures: seconds to a few minutes."""
    if locomo:
        return finding.rows(locomo)
    if isolation:
        return strangers.rows(QUERIES)
    return scale.rows()
