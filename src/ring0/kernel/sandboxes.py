"""Every sandbox by its name in the journal: written before anything runs in it, ended on record.

So that a kernel that starts after a crash can kill each one that its predecessor left, and confirm
it, before it recovers anything. Some are made ahead (tools/sandbox/pool.py): those are on record
before a run can claim them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.runtime import Runtime
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.tools.sandbox import Identity, Sandbox, SandboxSpec, confirm_dead, tiers
from ring0.tools.sandbox.host import make
from ring0.tools.sandbox.pool import Parked, Pool
from ring0.tools.sandbox.spec import program_fields
from ring0.tools.sandbox.zygote import Zygotes

UID_FIRST = 2_000_000_000
UID_COUNT = 100_000_000
"""Host uids for sandboxes, where the kernel is root: far from any real user's."""
PARKED = "parked"
"""The purpose of one that has none yet."""


class Sandboxes:
    """Starts and ends sandboxes for runs. Without a store (replays, descriptions) nothing is
    written and none is made ahead: those sandboxes die with the control socket of the kernel that
    made them. `close` it."""

    def __init__(
        self,
        store: Store | None,
        runtime: Runtime,
        trusted: Collection[str] = (),
        tier_min: str = "ns",
    ) -> None:
        """`trusted`: modules that the operator lets an image import, by their first names.
        `tier_min`: the weakest tier that any of them may have."""
        self._tier_min = tier_min
        self._store = store
        self._runtime = runtime
        self._alive: dict[str, tuple[str, Sandbox]] = {}
        self._claims: dict[str, ev.SandboxClaimed] = {}
        """What is still to be written about those that were claimed; and who will."""
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._uid = int.from_bytes(runtime.random_bytes(4), "big") % UID_COUNT
        self._zygotes = Zygotes(runtime, trusted)
        self._pool = Pool(runtime, self._make_parked, self._record_parked, self._end_parked)

    def next_uid(self) -> int | None:
        """A host uid that no other live sandbox has; None where the kernel is not root."""
        if os.geteuid() != 0:
            return None
        self._uid = (self._uid + 1) % UID_COUNT
        return UID_FIRST + self._uid

    @property
    def parked(self) -> int:
        """How many wait to be claimed."""
        return self._pool.parked

    async def start(
        self,
        run: str,
        spec: SandboxSpec,
        purpose: str,
        before_go: Callable[[Sandbox], Awaitable[None]] | None = None,
    ) -> Sandbox:
        """A running sandbox, with a uid of its own where the spec names none. Raises
        SandboxUnavailable, SandboxFailed; InvalidInput for what can't be run."""
        program_fields(spec)
        tier = tiers.stronger(spec.tier, self._tier_min)
        if tier != spec.tier:
            spec = msgspec.structs.replace(spec, tier=tier)
        if spec.host_uid is None:
            spec = msgspec.structs.replace(spec, host_uid=self.next_uid())
        name, sandbox = self._claim(run, spec, purpose) or await self._make(run, spec, purpose)
        try:
            if before_go is not None:
                await before_go(sandbox)
            await sandbox.go()
            self._write_claim(name, run)  # not before: nobody should wait for that
        except BaseException:
            await self._end(name, run, sandbox)
            raise
        return sandbox

    async def end(self, sandbox: Sandbox) -> None:
        """Kills it and confirms it; ending one twice is nothing."""
        for name, (run, alive) in list(self._alive.items()):
            if alive is sandbox:
                await self._end(name, run, sandbox)
                return
        await sandbox.close()

    async def end_all(self, run: str = "") -> None:
        """Those of one run, or all."""
        for owner, sandbox in list(self._alive.values()):
            if not run or owner == run:
                await self.end(sandbox)

    async def close(self) -> None:
        """Ends all, also what was made ahead, and what makes them."""
        await self.end_all()
        await asyncio.gather(*self._writing.values(), return_exceptions=True)
        await self._pool.close()
        await self._zygotes.close()

    async def bury(self) -> int:
        """At boot: kills what an earlier kernel left behind, and confirms it. Returns how many."""
        assert self._store is not None
        left = [*await self._store.sandboxes_alive(), *await self._store.sandboxes_parked()]
        for row in left:
            await confirm_dead(
                Identity(pid=row.pid, start_ticks=row.start_ticks, boot_id=row.boot_id),
                self._runtime,
            )
            await self._store.append(
                Write(
                    run=row.run,
                    events=[ev.SandboxEnded(sandbox=row.id, how="confirmed dead at boot")],
                )
            )
        tiers.sweep()
        return len(left)

    # --- one of a run -------------------------------------------------------------------------

    def _claim(self, run: str, spec: SandboxSpec, purpose: str) -> Parked | None:
        """One that was made ahead. It is on disk already: that it is this run's may ride along."""
        if self._store is None or (claimed := self._pool.claim(spec)) is None:
            return None
        self._alive[claimed.name] = (run, claimed.sandbox)
        self._claims[claimed.name] = ev.SandboxClaimed(
            sandbox=claimed.name, pid=claimed.sandbox.identity.pid, purpose=purpose
        )
        return claimed

    def _write_claim(self, name: str, run: str) -> None:
        if name in self._claims:
            writing = self._runtime.start(self._record_claim(name, run), name="claim")
            self._writing[name] = writing
            writing.add_done_callback(lambda _: self._writing.pop(name, None))

    async def _record_claim(self, name: str, run: str) -> None:
        """A little later, so that it takes no time from what was claimed."""
        assert self._store is not None
        await self._runtime.sleep(limits.SANDBOX_CLAIM_DELAY_MS / 1_000)
        if (event := self._claims.pop(name, None)) is not None:
            with contextlib.suppress(Ring0Error):  # then its end can't be written either
                await self._store.append(Write(run=run, events=[event]))

    async def _make(self, run: str, spec: SandboxSpec, purpose: str) -> Parked:
        """One that is made now, on record when this returns."""
        if spec.host_uid is None:
            spec = msgspec.structs.replace(spec, host_uid=self.next_uid())
        kept = self._zygotes if self._store is not None else None
        sandbox = await tiers.make(spec, self._runtime, kept)
        name = self._runtime.new_id("s")
        self._alive[name] = (run, sandbox)
        try:
            await self._record(name, run, sandbox, purpose)
        except BaseException:
            await self._end(name, run, sandbox)
            raise
        return Parked(name, sandbox)

    async def _record(self, name: str, run: str, sandbox: Sandbox, purpose: str) -> None:
        if self._store is None:
            return
        who = sandbox.identity
        event = ev.SandboxStarted(
            sandbox=name,
            pid=who.pid,
            start_ticks=who.start_ticks,
            boot_id=who.boot_id,
            purpose=purpose,
        )
        await self._store.append(Write(run=run, durable=True, events=[event]))
        self._runtime.reached("sandbox.recorded")

    async def _end(self, name: str, run: str, sandbox: Sandbox) -> None:
        await sandbox.close()
        if self._alive.pop(name, None) is None or self._store is None:
            return
        claimed, writing = self._claims.pop(name, None), self._writing.get(name)
        if claimed is not None and writing is not None:
            writing.cancel()
        events: list[ev.AnyEvent] = [*([claimed] if claimed else []), ev.SandboxEnded(sandbox=name)]
        await self._store.append(Write(run=run, events=events))
        self._runtime.reached("sandbox.ended")

    # --- those that are made ahead --------------------------------------------------------------

    async def _make_parked(self, spec: SandboxSpec) -> Sandbox:
        own = msgspec.structs.replace(spec, host_uid=self.next_uid())
        return await make(own, self._runtime, self._zygotes)

    async def _record_parked(self, sandbox: Sandbox) -> str:
        name = self._runtime.new_id("s")
        try:
            await self._record(name, ev.KERNEL, sandbox, PARKED)
        except asyncio.CancelledError:  # it may be on disk, or get there
            await self._end_parked(Parked(name, sandbox))
            raise
        return name

    async def _end_parked(self, parked: Parked) -> None:
        await parked.sandbox.close()
        if self._store is not None:
            event = ev.SandboxEnded(sandbox=parked.name)
            await self._store.append(Write(run=ev.KERNEL, events=[event]))
