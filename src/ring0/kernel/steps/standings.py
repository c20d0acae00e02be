"""Standing approvals of a kernel at work: which of them covers a call, and their end.

What is here is a picture of rows: each use is checked against the row in its own transaction, so
one that was revoked meanwhile covers nothing.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import AnswerRefused, InvalidInput, LimitReached, NotFound
from ring0.governance import standing as rules
from ring0.kernel.live import LiveRun
from ring0.kernel.steps.judging import Judged
from ring0.runtime import Runtime
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.types import CallKind, Operator, Role, Standing

_FIRST_EVENTS = 3
"""Of a run: that an order has started it stands in the same write as that it is queued."""


class Standings:
    """Those that stand, by tenant and tool."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._known: dict[tuple[str, str], dict[str, tuple[Standing, rules.Pattern]]] = {}

    async def load(self) -> None:
        """At the kernel's start. Raises StoreDamaged."""
        for row in await self._store.standings():
            if not row.revoked_by and row.expires_us > self._runtime.now_us():
                stored = await self._store.blob(row.pattern)
                self.add(row, msgspec.json.decode(stored, type=rules.Pattern))

    def add(self, row: Standing, pattern: rules.Pattern) -> None:
        """One that was just given. It is on record."""
        self._known.setdefault((row.tenant, row.tool), {})[row.id] = (row, pattern)

    def drop(self, standing: str) -> None:
        """It stands no more."""
        for key, found in list(self._known.items()):
            found.pop(standing, None)
            if not found:
                del self._known[key]

    def check_room(self, tenant: str) -> None:
        """Raises LimitReached where the tenant has as many as it may."""
        now_us = self._runtime.now_us()
        mine = [
            row.id
            for key, found in self._known.items()
            if key[0] == tenant
            for row, _ in found.values()
        ]
        for row in [row for found in self._known.values() for row, _ in found.values()]:
            if row.expires_us <= now_us:
                self.drop(row.id)
        if len(mine) >= limits.STANDING_PER_TENANT_MAX:
            raise LimitReached(
                f"{len(mine)} standing approvals are there already.",
                why="Nobody knows any more what was said yes to.",
                todo="`ring0 approvals --standing` lists them; revoke some, or approve this once.",
            )

    async def covering(self, run: LiveRun, judged: Judged) -> Standing | None:
        """One that is a yes to this call, as far as is known here. None for what people have
        changed, for what came with a token, and for all that is no tool's call."""
        held = judged.held
        known = self._known.get((run.row.tenant, held.name))
        if not known or held.kind is not CallKind.TOOL:
            return None
        if held.edits or held.within is not None or held.scope is not None:
            return None
        asked = rules.Asked(
            tool=held.name,
            tool_digest=judged.tool.digest,
            args=held.args,
            reversal=judged.shown.reversal,
            rows=judged.prepared.rows,
            tables=judged.prepared.tables,
            verdict=judged.verdict,
        )
        by_person = any(row.everywhere for row, _ in known.values()) and await self._by_person(run)
        now_us = self._store.now_us()
        for row, pattern in list(known.values()):
            if row.expires_us <= now_us:
                self.drop(row.id)
            elif rules.covers(row, pattern, run.row, by_person, asked):
                return row
        return None

    async def _by_person(self, run: LiveRun) -> bool:
        """No order (cron, hook) has started it."""
        await self._store.flush()
        async for entry in self._store.entries(run.id):
            if isinstance(entry.body, ev.CronFired | ev.HookFired):
                return False
            if entry.seq >= _FIRST_EVENTS:
                break
        return True

    async def revoke(self, standing: str, by: Operator) -> Standing:
        """From here on it covers nothing; not what it was used for and has not begun, either.
        Raises NotFound, InvalidInput, AnswerRefused."""
        row = await self._store.standing(standing)
        if row is None:
            raise NotFound(
                f"There is no standing approval {standing[:40]!r}.",
                todo="`ring0 approvals --standing` lists them.",
            )
        if Role.APPROVER not in by.roles:
            raise AnswerRefused(
                f"{by.name} can't revoke {row.id}.",
                why=f"{by.name} has not the role `approver`.",
                todo="Ask somebody who has it.",
            )
        if row.revoked_by:
            raise InvalidInput(f"{row.id} was revoked by {row.revoked_by}.", todo="Nothing.")
        event = ev.StandingRevoked(standing=row.id, by=by.name)
        await self._store.append(Write(run=row.run, durable=True, events=[event]))
        self.drop(row.id)
        return replace(row, revoked_by=by.name)
