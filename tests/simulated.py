"""A runtime for tests: a clock that jumps and never waits, and randomness from a seed."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable
from typing import TypeVar

from ring0.runtime import Runtime

T = TypeVar("T")
START_US = 1_750_000_000_000_000


class Simulated(Runtime):
    """Time moves when somebody sleeps, or when a test calls `advance`.

    Sleepers wake in the order of their deadlines, each with the clock at its own.
    """

    def __init__(self, seed: int = 0) -> None:
        self._us = START_US
        self._dice = random.Random(seed)
        self._deadlines: list[int] = []

    def now_us(self) -> int:
        return self._us

    def monotonic_us(self) -> int:
        return self._us

    def cpu_us(self) -> int:
        return self._us

    def random_bytes(self, count: int) -> bytes:
        return self._dice.randbytes(count)

    def advance(self, seconds: float) -> None:
        """Moves the clock by hand; less than 0 sets it back."""
        self._us += round(seconds * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        deadline = self._us + round(max(0.0, seconds) * 1_000_000)
        heapq.heappush(self._deadlines, deadline)
        try:
            await asyncio.sleep(0)  # Whatever else is to begin now begins first.
            while self._us < deadline:
                if self._deadlines[0] == deadline:
                    self._us = deadline
                else:
                    await asyncio.sleep(0)
        finally:
            self._deadlines.remove(deadline)
            heapq.heapify(self._deadlines)

    async def wait_for(self, awaitable: Awaitable[T], seconds: float) -> T:
        wanted = asyncio.ensure_future(awaitable)
        timer = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait({wanted, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                raise TimeoutError
            return await wanted
        finally:
            wanted.cancel()
            timer.cancel()
