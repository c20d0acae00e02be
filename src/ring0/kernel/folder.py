"""A data folder: what lies where in it, and the lock that gives it one kernel.

Not here: who else looks at the folder (gateway/holding.py), what the files hold (store, vault).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ring0.errors import InvalidInput, KernelBusy

LOCK: Final = "kernel.lock"
SNAPSHOTS: Final = "snapshots"


def make_folder(home: Path) -> None:
    """For its owner alone. Raises InvalidInput."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidInput(
            f"{home} can't be made: {error.strerror}.",
            todo="Set RING0_HOME to a folder that you may write to.",
        ) from None


def lock_folder(home: Path) -> int:
    """The lock of a data folder, as an open descriptor. Raises KernelBusy."""
    return hold(
        home / LOCK,
        lambda other: KernelBusy(
            f"Another kernel (process {other}) has {home}.",
            why="Two kernels on one journal would both be right.",
            todo="Wait until it ends, or set RING0_HOME to another folder.",
        ),
    )


def hold(lock: Path, taken: Callable[[str], KernelBusy]) -> int:
    """Holds a file with our process id in it for as long as the descriptor is open.

    taken: what is raised where another process holds it, made of that one's id.
    """
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(held, 20, 0).decode("ascii", "replace").strip() or "?"
        os.close(held)
        raise taken(other) from None
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    return held
