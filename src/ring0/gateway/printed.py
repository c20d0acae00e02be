"""What agents' processes print, kept for a while and handed on to those who follow a run.

Bounded as a whole: who reads too slowly misses the oldest, and nobody waits for a reader. What a
run has printed is on record when it has ended; this is for looking on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from ring0 import limits
from ring0.runtime import Runtime


class Printed:
    """The newest of what is printed, in order."""

    def __init__(self, runtime: Runtime, root_of: Callable[[str], str]) -> None:
        self._runtime = runtime
        self._root_of = root_of
        self._kept: deque[tuple[str, str, str]] = deque()
        """(root, run, text)."""
        self._first = 0
        """The number of the oldest that is kept."""
        self._bytes = 0
        self._news = asyncio.Event()

    def heard(self, run: str, text: str) -> None:
        """What a run's process printed just now."""
        if not text:
            return  # It printed what no terminal may show, which could be kept without end.
        self._kept.append((self._root_of(run), run, text))
        self._bytes += _weight(text)
        while self._bytes > limits.PRINTED_KEPT_BYTES_MAX:
            self._bytes -= _weight(self._kept.popleft()[2])
            self._first += 1
        self._news.set()
        self._news = asyncio.Event()

    async def of(self, root: str, *, since_start: bool) -> AsyncIterator[tuple[str, str] | None]:
        """(run, text) of a tree: what is kept of it, if asked, then what comes. Never ends.

        None where nothing came for a while: a good moment to see whether somebody still reads.
        """
        at = self._first if since_start else self._first + len(self._kept)
        while True:
            news = self._news
            at = max(at, self._first)
            while at < self._first + len(self._kept):
                of, run, text = self._kept[at - self._first]
                at += 1
                if of == root:
                    yield run, text
                    at = max(at, self._first)
            try:
                await self._runtime.wait_for(news.wait(), limits.CONTROL_IDLE_S_MAX)
            except TimeoutError:
                yield None


def _weight(text: str) -> int:
    """What keeping a piece takes: letters that come one by one take much more than a page."""
    return limits.PRINTED_PIECE_BYTES + len(text.encode("utf-8", "replace"))
