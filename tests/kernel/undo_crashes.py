"""Kernels that die: each in a process of its own, forked from the tests', that ends at once at a
chosen moment, as by kill -9. What it wrote before stays.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import traceback
from collections.abc import Awaitable, Callable

from ring0.runtime import Runtime

DIED = 77
CHILD_S_MAX = 60


class Dying(Runtime):
    """Ends its process at a named point, or at the nth of all; `act` counts as one, too."""

    def __init__(self, at: str = "", after: int = -1) -> None:
        self.at = at
        self.left = after
        self.watched = False
        """Points count from the moment that a test says so."""

    def reached(self, point: str) -> None:
        if not self.watched:
            return
        if point == self.at or self.left == 0:
            os._exit(DIED)
        self.left -= 1

    act = reached


def in_child(body: Callable[[], Awaitable[None]]) -> int:
    """The exit code of a process that runs `body`: 0, DIED, or 1 with a traceback printed."""
    child = os.fork()
    if not child:
        code = 1
        try:
            asyncio.run(body())  # type: ignore[arg-type]
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    ends = time.monotonic() + CHILD_S_MAX
    while time.monotonic() < ends:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the kernel did not end within {CHILD_S_MAX} s")
