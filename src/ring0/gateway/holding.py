"""Who holds a data folder: the kernel at work on it, and the supervisor of a daemon.

Looked up in what Linux lists, never tried: a try could keep a kernel out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ring0.errors import KernelBusy
from ring0.kernel.folder import hold

SUPERVISOR_LOCK: Final = "serve.lock"


def holder(lock: Path) -> int | None:
    """The process that holds the lock file; None where nobody does."""
    try:
        inode = lock.stat().st_ino
        with open("/proc/locks", encoding="ascii") as file:
            for entry in file:
                part = entry.split()
                if part[1] == "FLOCK" and int(part[5].rpartition(":")[2]) == inode:
                    return int(part[4])
    except (OSError, ValueError, IndexError):
        pass
    return None


def supervisor(home: Path) -> int | None:
    """The supervisor of the daemon that serves this folder; None where there is none.

    Numbers of files are told without their disk: the lock has to say the same process.
    """
    lock = home / SUPERVISOR_LOCK
    found = holder(lock)
    try:
        written = lock.read_text("ascii")[:20].strip()
    except (OSError, UnicodeDecodeError):
        return None
    return found if found is not None and written == str(found) else None


def hold_as_supervisor(home: Path) -> int:
    """The lock of the folder's one daemon, as an open descriptor. Raises KernelBusy."""
    return hold(
        home / SUPERVISOR_LOCK,
        lambda other: KernelBusy(
            f"A daemon (process {other}) serves {home} already.",
            why="A data folder has one kernel.",
            todo="Use that one, or set RING0_HOME to another folder.",
        ),
    )
