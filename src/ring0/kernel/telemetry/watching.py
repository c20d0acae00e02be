"""Looks, in a daemon and at times, whether the log still is what was signed.

By `ring0 audit verify --log-only` in a process of its own: a long journal holds up no run. It
tells, and stops nothing. Not here: what is refused at boot (kernel/anchoring.py).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ring0 import limits
from ring0.errors import VerifyFailed
from ring0.observability.telemetry.prometheus import Family

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel


class Watching:
    """Of one kernel. `begin` it, `close` it."""

    def __init__(self, kernel: Kernel, say: Callable[[str, str], None]) -> None:
        self._kernel = kernel
        self._say = say
        self._task: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._looked_us = kernel.runtime.now_us()
        self._changed = False

    def begin(self) -> None:
        self._task = self._kernel.runtime.start(self._goes_on(), name="watching")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._process is not None:
            self._process.kill()
            await self._kernel.runtime.in_thread(self._process.wait)

    async def look(self) -> bool:
        """Whether it is what was signed. A look that comes to nothing is said, and counts as none:
        the number of when it was last looked at grows."""
        runtime = self._kernel.runtime
        self._process = process = await runtime.in_thread(_begin, os.fspath(self._kernel.home))
        said, _ = await runtime.in_thread(process.communicate)
        self._process = None
        try:
            found = msgspec.json.decode(said)
            problems = found["problems"]
        except (msgspec.MsgspecError, TypeError, KeyError):
            self._say(f"can't look whether the journal was changed (exit {process.returncode})", "")
            return False
        self._looked_us = runtime.now_us()
        changed = process.returncode == VerifyFailed.exit_code and bool(problems)
        if changed and not self._changed:
            self._say(f"THE JOURNAL WAS CHANGED: {_first(problems)}; `ring0 audit verify`", "")
        self._changed = changed
        return not changed

    def families(self) -> list[Family]:
        """Its numbers."""
        changed = Family(
            name="ring0_journal_changed", help="1: the log is not what was signed. Evidence."
        )
        changed.set(int(self._changed))
        age = Family(
            name="ring0_journal_looked_at_seconds", help="Since the log was held against that."
        )
        age.set(max(0.0, (self._kernel.runtime.now_us() - self._looked_us) / 1e6))
        return [changed, age]

    async def _goes_on(self) -> None:
        await self._kernel.runtime.sleep(limits.WATCH_FIRST_S)
        while True:
            try:
                await self.look()
            except OSError as error:
                self._say(f"can't look whether the journal was changed: {error}", "")
            await self._kernel.runtime.sleep(limits.WATCH_EVERY_S)


def _begin(home: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "ring0", "--home", home]
    process = subprocess.Popen(
        [*command, "audit", "verify", "--log-only", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", os.defpath)},
    )
    os.setpriority(os.PRIO_PROCESS, process.pid, limits.WATCH_NICE)
    return process


def _first(problems: Any) -> str:
    return str(problems[0])[:200]
