"""A run and all beneath it. Not here: a whole tree, which the store gives by its root."""

from __future__ import annotations

from ring0 import limits
from ring0.store import Store
from ring0.types import Run


async def beneath(store: Store, row: Run, most: int = limits.RUNS_LISTED_MAX) -> list[Run]:
    """The run itself and every run beneath it, parents first; more than `most` of them only where
    there are more, and then not all."""
    found = [row]
    for one in found:  # It grows on the way.
        found += await store.runs(parent=one.id, most=most)
        if len(found) > most:
            break
    return found
