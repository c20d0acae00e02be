"""The driver of `lock`: takes, renews and frees a named resource of the tenant for the run.

The kernel renews nothing: a run that is stuck loses its locks when their leases are over.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, LimitReached, Ring0Error, RunDead
from ring0.kernel.calls.leases import US
from ring0.kernel.calls.locking import Locking
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.scheduler.locks import Ask, Held, Key, canonical_name
from ring0.store import GuardFailed, base
from ring0.store import events as ev
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import Effect, Integrity, Label, Lock, LockMode, ToolManifest

_SYSTEM = Label(integrity=Integrity.SYSTEM)


class LockCall:
    """`lock`: `do` is `take` (with `shared`, `lease_s`, `wait_s`), `renew` or `free`."""

    manifest = ToolManifest(
        name="lock",
        description="Lock a named resource for a time.",
        effect=Effect.IDEMPOTENT,
        schema={
            "type": "object",
            "properties": {
                "resource": {"type": "string"},
                "do": {"enum": ["take", "renew", "free"]},
                "shared": {"type": "boolean"},
                "lease_s": {"type": "integer", "minimum": 1, "maximum": limits.LOCK_LEASE_S_MAX},
                "wait_s": {"type": "number", "minimum": 0, "maximum": limits.SLEEP_S_MAX},
            },
            "required": ["resource"],
            "additionalProperties": False,
        },
    )

    def __init__(self, locking: Locking, runtime: Runtime) -> None:
        self._locking = locking
        self._leases = locking.leases
        self._runtime = runtime

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        named = {
            "do": "take",
            "lease_s": limits.LOCK_LEASE_S_DEFAULT,
            **args,
            "resource": canonical_name(args["resource"]),
        }
        return Prepared(
            driver_bytes=msgspec.json.encode(named, order="sorted"),
            uncounted=named["do"] == "free",
            state=named,
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        named = prepared.state
        run = self._locking.live[context.run.id]
        await self._locking.learn(run)
        key = (run.row.tenant, named["resource"])
        if named["do"] == "free":
            return await self._free(run, key, context)
        try:
            if named["do"] == "renew":
                lock = await self._renew(run, key, named["lease_s"])
            else:
                lock = await self._take(run, key, named, context)
        except GuardFailed as failure:
            raise self._refused(run, failure) from None
        self._locking.taken(run.id)[lock.resource] = lock.fence
        value = {"fence": lock.fence, "expires_us": lock.expires_us, "mode": str(lock.mode)}
        return Result(value=value, label=_SYSTEM)

    async def _take(
        self, run: LiveRun, key: Key, named: dict[str, Any], context: CallContext
    ) -> Lock:
        mode = LockMode.SHARED if named.get("shared") else LockMode.EXCLUSIVE
        mine = self._leases.table.held(key, run.id)
        if mine is not None and not mine.taking and not self._leases.left_us(mine):
            await self._leases.end(key, run.id, "expired")
            mine = self._leases.table.held(key, run.id)
        if mine is not None and mine.lock is not None and mine.lock.call == context.call:
            return mine.lock  # A crash came between it and its outcome.
        self._check_may_take(run, key, mine, mode)
        ask = Ask(
            run.id,
            run.row.started_us,
            context.call,
            [key],
            mode,
            claims=False,
            since_us=context.begun_us,
        )
        until_us = run.row.deadline_us
        if named.get("wait_s") is not None:
            until_us = min(until_us, context.begun_us + int(named["wait_s"] * US))
        await self._leases.granted(run, ask, until_us)
        return await self._leases.take(run, ask, named["lease_s"])

    def _check_may_take(self, run: LiveRun, key: Key, mine: Held | None, mode: LockMode) -> None:
        table = self._leases.table
        more = mine is not None and mine.mode is LockMode.SHARED and mode is LockMode.EXCLUSIVE
        refused = mine is not None and (mine.taking or not more)
        if refused or table.asks(key, run.id):
            raise CallInvalid(
                f"{run.id} has {key[1]} already, or waits for it in another call.",
                why="A lock is the whole run's: its tasks share it.",
                todo="Use `renew` for a longer lease, and `free` before taking it anew.",
            )
        if mine is None and len(table.of(run.id)) >= limits.LOCKS_PER_RUN_MAX:
            raise LimitReached(
                f"{run.id} holds {limits.LOCKS_PER_RUN_MAX} locks already.",
                why="What one run holds keeps others waiting.",
                todo="Free some of them first.",
            )

    async def _renew(self, run: LiveRun, key: Key, lease_s: int) -> Lock:
        """The same lock under the same fence, with a lease that begins now."""
        self._locking.check_not_lost(run, key[1])
        mine = self._leases.table.held(key, run.id)
        if mine is None or mine.lock is None or mine.taking:
            raise CallInvalid(
                f"{run.id} does not hold {key[1]}.", todo="Take the lock before you renew it."
            )
        # A lease is never made shorter: what was promised stands.
        expires_us = max(mine.lock.expires_us, self._leases.now_us() + lease_s * US)
        lock = replace(mine.lock, expires_us=expires_us)
        held = base.LockHeld(run=run.id, tenant=key[0], resource=key[1], fence=lock.fence)
        await self._leases.write(run, lock, held)
        ends_us = max(mine.ends_us, self._runtime.monotonic_us() + lease_s * US)
        if self._leases.table.held(key, run.id) is mine:
            self._leases.table.hold(lock, ends_us)
        return lock

    async def _free(self, run: LiveRun, key: Key, context: CallContext) -> Result:
        """Freed in the write that records the call's end: once, whatever crashes."""
        taken = self._locking.taken(run.id)
        if key[1] not in taken:
            raise CallInvalid(
                f"{run.id} has not taken {key[1]}.", todo="Free what you have locked, once."
            )
        await self._leases.ended(key, run.id)
        mine = self._leases.table.held(key, run.id)
        if mine is None or mine.lock is None or mine.taking or mine.lock.fence != taken[key[1]]:
            taken.pop(key[1])  # It is lost, and the run is told so by this.
            return Result(value={"held": False}, label=_SYSTEM)
        held = self._leases.left_us(mine) > 0
        mine.taking = True  # Its end is on its way: nobody else writes it.
        self._locking.freeing[context.call] = (key, run.id)
        freed = ev.LockFreed(tenant=key[0], resource=key[1], how="freed" if held else "expired")
        return Result(value={"held": held}, label=_SYSTEM, events=(freed,))

    def _refused(self, run: LiveRun, failure: GuardFailed) -> Ring0Error:
        match failure.guard:
            case base.LockHeld() as guard:
                return self._locking.lost(run, guard)
            case base.LockFree():
                return CallDenied(
                    "The lock was not given.", why=failure.detail, todo="Ask for it again."
                )
            case _:
                return RunDead(
                    f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run."
                )
