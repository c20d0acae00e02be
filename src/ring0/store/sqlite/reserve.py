"""Disk that is held back for kills and ends: given up when there is no other left.

What may use it is a matter of an event's kind: what stops, ends or takes back something.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ring0 import limits
from ring0.store import events as ev
from ring0.store.base import Write
from ring0.store.sqlite import failing
from ring0.types import ApprovalState

ESSENTIAL: Final = (
    ev.Killed,
    ev.RunEnded,
    ev.RunPaused,
    ev.SandboxEnded,
    ev.CallCutOff,
    ev.LockFreed,
)
TAKEN_BACK: Final = (ApprovalState.REVOKED, ApprovalState.DENIED, ApprovalState.EXPIRED)


class Reserve:
    """A file that takes up room and holds nothing."""

    def __init__(self, path: Path) -> None:
        """Takes the room, if it is there. Raises OSError: the folder can't be written to."""
        self._path = path
        self.held = self._take()

    def give_up(self) -> bool:
        """Gives the room to the file system. False: there was none, or it can't be given."""
        if not self.held:
            return False
        self.held = False
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _take(self) -> bool:
        size = limits.DISK_RESERVE_SIZE_BYTES
        opened = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # Of a file whose blocks are there this asks for nothing more.
            os.posix_fallocate(opened, 0, size)
            return True
        except OSError as error:
            if not failing.is_full(error):
                raise
            self._path.unlink(missing_ok=True)
            return False
        finally:
            os.close(opened)


def is_essential(write: Write) -> bool:
    """Does it do nothing but stop, end or take back?"""
    return all(
        isinstance(event, ESSENTIAL)
        or (isinstance(event, ev.ApprovalAnswered) and event.state in TAKEN_BACK)
        for event in write.events
    )


def may_use_reserve(write: Write, used_bytes: int) -> int:
    """How much of the reserve is used with it. Raises StoreFull.

    Kills have most of it to themselves: what ended runs have printed does not use it up.
    """
    used_bytes += sum(map(len, write.blobs.values()))
    used_bytes += limits.ESSENTIAL_EVENT_SIZE_BYTES * len(write.events)
    share = limits.DISK_RESERVE_SIZE_BYTES
    if not all(isinstance(event, ev.Killed) for event in write.events):
        share //= limits.DISK_RESERVE_SHARE_OF_ENDS
    if not is_essential(write) or used_bytes > share:
        raise failing.full()
    return used_bytes
