"""The absolute loop stop: the same call, over and over, is refused, whatever changes around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ring0 import limits
from ring0.errors import LoopStopped


class Repeats:
    """How often each (kind, name, arguments) came in one run, by its request digest."""

    def __init__(self, earlier: Iterable[str] = ()) -> None:
        self._count: Counter[str] = Counter(earlier)

    def add(self, request_digest: str) -> None:
        """Counts one more. Raises LoopStopped beyond IDENTICAL_CALLS_MAX."""
        self._count[request_digest] += 1
        if self._count[request_digest] > limits.IDENTICAL_CALLS_MAX:
            raise LoopStopped(
                f"The same call came more than {limits.IDENTICAL_CALLS_MAX} times.",
                why="A run that repeats itself makes no progress and spends budget.",
                todo="Do something else, or end the run; the earlier answers stand.",
            )
