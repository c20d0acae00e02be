"""How much the arguments of a run's calls take while these are under way, and room for more.

Parsed, a body may take twenty times its bytes, and a call keeps it until it ends, whether or not
who made it is still there. So what is large waits in its socket, unread, until there is room.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from ring0 import limits


class Weight:
    """Of one run."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of the calls under way, and of bodies that are being read."""
        self._lighter = asyncio.Event()

    def add(self, size: int) -> None:
        self.bytes += size

    def drop(self, size: int) -> None:
        self.bytes -= size
        assert self.bytes >= 0
        self._lighter.set()
        self._lighter = asyncio.Event()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Where there is room for a body of this size; it is kept while the body is read. What is
        small never waits: an agent whose large calls wait for a person still goes on."""
        if size > limits.CALL_SMALL_SIZE_BYTES:
            while self.bytes and self.bytes + size > limits.CALLS_SIZE_PER_RUN_BYTES_MAX:
                await self._lighter.wait()
        self.add(size)
        try:
            yield
        finally:
            self.drop(size)

    @contextmanager
    def kept(self, size: int) -> Iterator[None]:
        """What was read stays for as long as its door has it; there was room for it."""
        self.add(size)
        try:
            yield
        finally:
            self.drop(size)
