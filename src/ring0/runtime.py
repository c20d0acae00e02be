"""The only door to time, randomness, ids, sleeping and tasks, so that all of ring0 runs simulated.

`Runtime` is the real one. A test passes a `Runtime` of its own with a clock that jumps and
randomness from a seed; nothing outside this module (and the store's writer thread) may import
`time`, `random`, `uuid`, `secrets` or `threading`, or call `asyncio.sleep` (`make check` looks).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


class Runtime:
    """Real clock, real randomness, asyncio's tasks."""

    def now_us(self) -> int:
        """Wall-clock time, microseconds since 1970 (UTC)."""
        return time.time_ns() // 1_000

    def monotonic_us(self) -> int:
        """A clock that never goes back, microseconds since some point."""
        return time.monotonic_ns() // 1_000

    def cpu_us(self) -> int:
        """CPU time of this process, microseconds."""
        return time.process_time_ns() // 1_000

    def random_bytes(self, count: int) -> bytes:
        """`count` bytes fit for keys and handles."""
        return os.urandom(count)

    def new_id(self, prefix: str) -> str:
        """`prefix-` and 12 characters of Crockford base32 (60 bits), easy to read aloud."""
        value = int.from_bytes(self.random_bytes(8), "big")
        return prefix + "-" + "".join(_BASE32[(value >> (5 * i)) & 31] for i in range(12))

    async def sleep(self, seconds: float) -> None:
        """Wait; a simulated runtime jumps."""
        await asyncio.sleep(seconds)

    async def wait_for(self, awaitable: Awaitable[T], seconds: float) -> T:
        """`awaitable`, or `TimeoutError` after `seconds`."""
        # Not asyncio.wait_for: before Python 3.12 it loses a cancel that meets the result.
        async with asyncio.timeout(seconds):
            return await awaitable

    def start(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """A task in the background; the caller keeps and ends it."""
        return asyncio.get_running_loop().create_task(coroutine, name=name)

    async def in_thread(self, function: Callable[..., T], *args: object) -> T:
        """A blocking function, off the loop. For drivers; never for what decides."""
        return await asyncio.to_thread(function, *args)
