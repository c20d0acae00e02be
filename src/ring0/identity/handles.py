"""Handles: who a call comes from. Live, or dead from the moment the run ends.

A handle is an object that the kernel gives to a listener (or to an embedded agent's context); the
listener it came in on is the identity, so nothing that a caller sends can name another run.
"""

from __future__ import annotations

import hashlib

from ring0.errors import RunDead
from ring0.runtime import Runtime


class Handle:
    """A 256-bit opaque value bound to (run, epoch); only its hash is kept."""

    __slots__ = ("digest", "epoch", "run")

    def __init__(self, run: str, epoch: int, digest: bytes) -> None:
        self.run = run
        self.epoch = epoch
        self.digest = digest

    def __repr__(self) -> str:
        return f"<handle of {self.run}, epoch {self.epoch}>"


class Handles:
    """The live handles. Checking one is a look-up, whatever their number."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._live: dict[str, Handle] = {}

    def mint(self, run: str, epoch: int) -> Handle:
        """A new handle; an older one of the same run is dead from here on."""
        digest = hashlib.sha256(self._runtime.random_bytes(32)).digest()
        handle = self._live[run] = Handle(run, epoch, digest)
        return handle

    def check(self, handle: Handle) -> None:
        """Raises RunDead unless it is the newest handle of a run that goes on."""
        if self._live.get(handle.run) is not handle:
            raise RunDead(
                f"The handle of {handle.run} is dead.",
                why="The run has ended, or was started again under a new one.",
                todo="Start a new run; an ended one can't be entered again.",
            )

    def is_live(self, run: str, epoch: int) -> bool:
        """Whether the run goes on, and under this epoch."""
        handle = self._live.get(run)
        return handle is not None and handle.epoch == epoch

    def kill(self, run: str) -> None:
        """Dead from here on; killing twice is nothing."""
        self._live.pop(run, None)

    def process_died(self, handle: Handle) -> None:
        """What it was given to is no more. A newer one of the same run lives on."""
        if self._live.get(handle.run) is handle:
            del self._live[handle.run]
