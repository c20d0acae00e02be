"""Sandboxes that are made ahead, parked complete, and used once.

A parked one holds nobody's data and has no program yet. It is kept for its class: all of a spec but
the program. Classes are learnt by use and forgotten when unused. Who gets none from here makes one:
this is never more than a shortcut, and never lets anybody wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.runtime import Runtime
from ring0.tools.sandbox.sandbox import TIER, Sandbox
from ring0.tools.sandbox.spec import SandboxSpec, class_of


class Parked(NamedTuple):
    """A sandbox that waits for its program, and its name in the journal."""

    name: str
    sandbox: Sandbox


@dataclass
class _Class:
    """What is parked for one class, and how much is wanted."""

    spec: SandboxSpec
    used_us: int
    wanted: int = 0
    coming: int = 0
    not_before_us: int = 0
    """After a failure: none is made before this."""
    ready: deque[Parked] = field(default_factory=deque)

    @property
    def lacks(self) -> int:
        return self.wanted - self.coming - len(self.ready)


class Pool:
    """The parked sandboxes of one kernel. `close` it."""

    def __init__(
        self,
        runtime: Runtime,
        make: Callable[[SandboxSpec], Awaitable[Sandbox]],
        journal: Callable[[Sandbox], Awaitable[str]],
        end: Callable[[Parked], Awaitable[None]],
    ) -> None:
        """`make`: one that has no program. `journal`: puts its identity on disk and names it; only
        then it can be claimed. `end`: kills it, on record."""
        self._runtime = runtime
        self._make = make
        self._journal = journal
        self._end = end
        self._classes: dict[bytes, _Class] = {}
        self._parking: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._making = 0
        self._tending: asyncio.Task[None] | None = None
        self._closed = False

    def claim(self, spec: SandboxSpec) -> Parked | None:
        """One of this class, which is the caller's from here on; None where none is ready. Either
        way the pool learns that this class is asked for."""
        if self._closed or spec.tier != TIER:
            return None
        known = self._learn(spec)
        claimed = None
        while known.ready and claimed is None:
            first = known.ready.popleft()
            if first.sandbox.alive:
                claimed = first
            else:  # died while it waited
                self._discard(first)
        if claimed is None:
            known.wanted = min(max(1, known.wanted * 2), limits.POOL_CLASS_PARKED_MAX)
        self._refill()
        if claimed is not None:
            claimed.sandbox.take_up(spec)
        return claimed

    @property
    def parked(self) -> int:
        """How many could be claimed now."""
        return sum(len(known.ready) for known in self._classes.values())

    async def close(self) -> None:
        """Ends all that is parked or coming."""
        self._closed = True
        if self._tending is not None:
            self._tending.cancel()
        for task in self._parking:
            task.cancel()
        await asyncio.gather(*self._parking, return_exceptions=True)
        for key in list(self._classes):
            self._forget(key)
        await asyncio.gather(*self._ending)

    # --- ours ---------------------------------------------------------------------------------

    def _learn(self, spec: SandboxSpec) -> _Class:
        key = class_of(spec)
        known = self._classes.pop(key, None)
        if known is None:
            bare = msgspec.structs.replace(
                spec, argv=(), code="", env={},
                cwd=SandboxSpec().cwd, host_uid=None,
            )  # fmt: skip
            known = _Class(bare, 0)
            while len(self._classes) >= limits.POOL_CLASSES_MAX:
                self._forget(next(iter(self._classes)))
        self._classes[key] = known  # the last is the one that was used last
        known.used_us = self._runtime.monotonic_us()
        if self._tending is None:
            self._tending = self._runtime.start(self._tend(), name="pool")
        return known

    def _refill(self) -> None:
        """Start making what is lacking, the class that was used last first."""
        now_us = self._runtime.monotonic_us()
        for known in reversed(self._classes.values()):
            while known.lacks > 0 and known.not_before_us <= now_us and not self._closed:
                if self._making >= limits.POOL_MAKING_MAX or not self._room_for(known):
                    return
                self._making += 1
                known.coming += 1
                parking = self._runtime.start(self._park(known), name="park")
                self._parking.add(parking)
                parking.add_done_callback(self._parking.discard)

    def _room_for(self, known: _Class) -> bool:
        """May one more be parked? If all places are taken, the class that was used longest ago
        gives one up."""
        taken = sum(len(one.ready) + one.coming for one in self._classes.values())
        if taken < limits.POOL_PARKED_MAX:
            return True
        for other in self._classes.values():
            if other is known:
                return False
            if other.ready:
                other.wanted = 0
                self._discard(other.ready.popleft())
                return True
        return False

    async def _park(self, known: _Class) -> None:
        try:
            try:
                await self._runtime.sleep(limits.POOL_REFILL_DELAY_MS / 1_000)
                made = await self._make(known.spec)
            finally:
                self._making -= 1
            self._refill()  # the next one need not wait for the disk
            parked = await self._record(made)
            if known.wanted > len(known.ready):
                known.ready.append(parked)
            else:  # given up meanwhile
                self._discard(parked)
        except (Ring0Error, OSError):
            # Whoever needs one makes one, and is told. Here it is only not tried again at once.
            known.not_before_us = self._runtime.monotonic_us() + limits.POOL_PAUSE_S * 1_000_000
        finally:
            known.coming -= 1

    async def _record(self, made: Sandbox) -> Parked:
        try:
            return Parked(await self._journal(made), made)
        except BaseException:
            await made.close()
            raise

    async def _tend(self) -> None:
        """Gives up what nobody asks for."""
        while True:
            await self._runtime.sleep(limits.POOL_FORGET_S / 4)
            oldest_us = self._runtime.monotonic_us() - limits.POOL_FORGET_S * 1_000_000
            for key in [key for key, one in self._classes.items() if one.used_us < oldest_us]:
                self._forget(key)
            self._refill()

    def _forget(self, key: bytes) -> None:
        known = self._classes.pop(key)
        known.wanted = 0
        while known.ready:
            self._discard(known.ready.popleft())

    def _discard(self, parked: Parked) -> None:
        ending = self._runtime.start(self._end_quietly(parked), name="end-parked")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end_quietly(self, parked: Parked) -> None:
        with contextlib.suppress(Ring0Error):  # it stays on record as alive, until the next boot
            await self._end(parked)
