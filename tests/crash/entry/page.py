"""The page that a test and the kernels it kills share: which point, which passing, what happens.

A file that each side maps: what a kernel counted is there after SIGKILL too.
"""

from __future__ import annotations

import mmap
import os
import signal
import time

from ring0.runtime import POINTS

_ARMED, _LEFT, _SIGNAL, _MET, _MET_US, _COUNTS = 0, 1, 2, 3, 4, 8
_SIZE_BYTES = 4096
INDEX = {point: number for number, point in enumerate(POINTS)}


class Page:
    """Counts how often each point was passed; at the one that is armed it sends a signal."""

    def __init__(self, path: str) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(file, _SIZE_BYTES)
        self._words = memoryview(mmap.mmap(file, _SIZE_BYTES)).cast("Q")
        os.close(file)

    # --- the test's side ----------------------------------------------------------------------

    def arm(self, point: str, passing: int, number: int = signal.SIGKILL) -> None:
        """From now on: the kernel that passes this point for the so many-th time gets a signal."""
        self._words[_ARMED] = 0
        self._words[_LEFT], self._words[_SIGNAL], self._words[_MET] = passing, number, 0
        self._words[_ARMED] = INDEX[point] + 1

    def disarm(self) -> None:
        self._words[_ARMED] = 0

    @property
    def met(self) -> str:
        """The point at which the signal was sent; empty: it was not."""
        return POINTS[self._words[_MET] - 1] if self._words[_MET] else ""

    def take_met(self) -> str:
        """The same, once."""
        found = self.met
        self._words[_MET] = 0
        return found

    @property
    def met_us(self) -> int:
        return self._words[_MET_US]

    def counts(self) -> dict[str, int]:
        return {point: self._words[_COUNTS + number] for point, number in INDEX.items()}

    # --- the kernel's side --------------------------------------------------------------------

    def reached(self, point: str) -> None:
        words, number = self._words, INDEX[point]
        words[_COUNTS + number] += 1
        if words[_ARMED] != number + 1:
            return
        words[_LEFT] -= 1
        if words[_LEFT] == 0:
            words[_ARMED] = 0
            words[_MET_US] = time.time_ns() // 1_000
            words[_MET] = number + 1
            os.kill(os.getpid(), words[_SIGNAL])
