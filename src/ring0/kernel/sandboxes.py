"""Every sandbox by its name in the journal: written before anything runs in it, ended on record.

So that a kernel that starts after a crash can kill each one that its predecessor left, and confirm
it, before it recovers anything.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from ring0.runtime import Runtime
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.tools.sandbox import Identity, Sandbox, SandboxSpec, confirm_dead, launch

UID_FIRST = 2_000_000_000
UID_COUNT = 100_000_000
"""Host uids for sandboxes, where the kernel is root: far from any real user's."""


class Sandboxes:
    """Starts and ends sandboxes for runs. Without a store (replays, descriptions) nothing is
    written: those sandboxes die with the control socket of the kernel that made them."""

    def __init__(self, store: Store | None, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._alive: dict[str, tuple[str, Sandbox]] = {}
        self._uid = int.from_bytes(runtime.random_bytes(4), "big") % UID_COUNT

    def next_uid(self) -> int | None:
        """A host uid that no other live sandbox has; None where the kernel is not root."""
        if os.geteuid() != 0:
            return None
        self._uid = (self._uid + 1) % UID_COUNT
        return UID_FIRST + self._uid

    async def start(
        self,
        run: str,
        spec: SandboxSpec,
        purpose: str,
        before_go: Callable[[Sandbox], Awaitable[None]] | None = None,
    ) -> Sandbox:
        """A running sandbox. Raises SandboxUnavailable, SandboxFailed."""
        sandbox = await launch(spec, self._runtime)
        name = self._runtime.new_id("s")
        self._alive[name] = (run, sandbox)
        try:
            who = sandbox.identity
            if self._store is not None:
                await self._store.append(
                    Write(
                        run=run,
                        durable=True,
                        events=[
                            ev.SandboxStarted(
                                sandbox=name,
                                pid=who.pid,
                                start_ticks=who.start_ticks,
                                boot_id=who.boot_id,
                                purpose=purpose,
                            )
                        ],
                    )
                )
            if before_go is not None:
                await before_go(sandbox)
            await sandbox.go()
        except BaseException:
            await self.end(sandbox)
            raise
        return sandbox

    async def end(self, sandbox: Sandbox) -> None:
        """Kills it and confirms it; ending one twice is nothing."""
        await sandbox.kill()
        for listener in (sandbox.tcp, sandbox.unix):
            if listener is not None:
                listener.close()
        for name, (run, alive) in list(self._alive.items()):
            if alive is sandbox:
                del self._alive[name]
                if self._store is not None:
                    await self._store.append(Write(run=run, events=[ev.SandboxEnded(sandbox=name)]))

    async def end_all(self, run: str = "") -> None:
        """Those of one run, or all."""
        for owner, sandbox in list(self._alive.values()):
            if not run or owner == run:
                await self.end(sandbox)

    async def bury(self) -> int:
        """At boot: kills what an earlier kernel left behind, and confirms it. Returns how many."""
        assert self._store is not None
        left = await self._store.sandboxes_alive()
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
        return len(left)
