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
from typing import Any, Final, TypeVar

T = TypeVar("T")

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"

POINTS: Final = (
    # The kernel, after a crash: its start is on record, old sandboxes are dead, cut-off effects are
    # marked; each run that goes on is taken on.
    "kernel.started",
    "kernel.buried",
    "kernel.cut-off",
    "kernel.recovers",
    "kernel.recovered",
    # A group of writes: in the transaction, on disk, the head follows it.
    "group.written",
    "group.committed",
    "group.headed",
    # A call's way through the gate.
    "call.resolved",
    "call.judged",
    "approval.asked",
    "approval.answered",
    "call.admitted",
    "call.intended",
    "approval.consumed",
    "call.retried",
    "effect.begins",
    "effect.over",
    "call.ends",
    "call.ended",
    "call.refused",
    "call.settled",
    # A run's life.
    "run.queued",
    "run.started",
    "run.put-away",
    "run.woken",
    "run.ends",
    "run.ended",
    "child.spawned",
    "sandbox.recorded",
    "sandbox.ended",
    # What runs share.
    "lock.taken",
    "lock.freed",
    "message.told",
    "message.sent",
    "message.received",
    "budget.raised",
    # A run's window: its summary is made, and nothing of it is written.
    "window.compacts",
)
"""Where `Runtime.reached` is called: each moment after which a crash finds something else on disk,
or outside. `make crash` kills a kernel at every one."""


def id_of(prefix: str, eight_bytes: bytes) -> str:
    """`prefix-` and 12 characters of Crockford base32, of 60 of these bits."""
    value = int.from_bytes(eight_bytes, "big")
    return prefix + "-" + "".join(_BASE32[(value >> (5 * i)) & 31] for i in range(12))


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
        return id_of(prefix, self.random_bytes(8))

    def reached(self, point: str) -> None:
        """The kernel is at a named point (one of POINTS). Nothing; a test may stop it there. Any
        thread of the kernel may call it."""

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
