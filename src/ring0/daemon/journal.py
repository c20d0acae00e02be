"""Whether the journal can still be written, as a worker looks at its own.

A store that gave up never recovers by itself: the next worker opens it anew. One that met a full
disk has given away its reserve and takes only kills and ends; the next worker takes the reserve
back, but not before there is room for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ring0 import limits
from ring0.errors import Ring0Error, StoreFailed
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.store.sqlite import RESERVE


class Journal:
    """The journal of the kernel that is at work."""

    def __init__(
        self,
        home: Path,
        store: Store,
        runtime: Runtime,
        say: Callable[[str], None],
        room_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        """`say`: a line for whoever operates the daemon."""
        self._home = home
        self._store = store
        self._runtime = runtime
        self._say = say
        self._room_bytes = room_bytes or _room_bytes

    async def until_opened_anew(self) -> None:
        """Returns when there is room again after the disk was full. Raises StoreFailed where it can
        be written no more."""
        was_full = False
        failures = 0
        while True:
            await self._runtime.sleep(limits.JOURNAL_LOOK_S)
            error = await self._error()
            failures = failures + 1 if error is not None else 0  # It may be crowded for a moment.
            if error is not None and failures >= limits.JOURNAL_FAILURES_MAX:
                raise error
            is_full = not (self._home / RESERVE).exists()
            if is_full and self._room_bytes(self._home) >= limits.JOURNAL_ROOM_SIZE_BYTES_MIN:
                self._say("the disk has room again: the next worker takes over")
                return
            if is_full and not was_full:
                self._say("the disk is full: only kills and ends are taken until there is room")
            was_full = is_full

    async def _error(self) -> StoreFailed | None:
        try:
            await self._store.flush()
        except StoreFailed as error:
            return error
        except Ring0Error:
            pass  # A full disk is looked for by itself.
        return None


def _room_bytes(home: Path) -> int:
    """What a user who is not root may still write there."""
    found = os.statvfs(home)
    return found.f_bavail * found.f_frsize
