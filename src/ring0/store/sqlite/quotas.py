"""How much of the journal one run, and one tenant, may fill.

Asked of what asks for more: intents, refusals, asks, messages, new runs. Never of outcomes and
ends: what has happened is put on record whatever it takes.
"""

from __future__ import annotations

from typing import Final

from ring0 import limits
from ring0.errors import LimitReached
from ring0.store import events as ev
from ring0.store.base import Write
from ring0.store.rows import TenantRow
from ring0.store.sqlite.tables import SqliteTables
from ring0.types import Run

ASKED_OF: Final = frozenset(
    {
        ev.RunQueued,
        ev.CallIntended,
        ev.CallRefused,
        ev.CallsRefusedAlike,
        ev.CallRetried,
        ev.ApprovalAsked,
        ev.MessageSent,
        ev.LockTaken,
        ev.ValuesReturned,
    }
)


def check_quota(write: Write, tables: SqliteTables) -> None:
    """Raises LimitReached."""
    if ASKED_OF.isdisjoint(map(type, write.events)):
        return
    run: Run | None = tables.get("run", write.run)
    tenant = run.tenant if run else ""
    queued = write.events[0]
    if run is None and isinstance(queued, ev.RunQueued):
        tenant = queued.run.tenant
    if run is not None:
        whose, todo = f"The run {run.id}", "Start a new run for what is left to do."
        _check(whose, run.events, limits.RUN_EVENTS_MAX, "events", todo)
        _check(whose, run.stored_bytes, limits.RUN_STORED_BYTES_MAX, "bytes", todo)
    row: TenantRow | None = tables.get("tenant", tenant)
    if row is not None:
        whose, todo = f"The tenant {tenant!r}", "Give it a data folder of its own (RING0_HOME)."
        _check(whose, row.events, limits.TENANT_EVENTS_MAX, "events", todo)
        most = limits.TENANT_STORED_BYTES_MAX
        todo = "`ring0 archive` puts the values of its ended runs into files; " + (
            f"`ring0 quota {tenant}` raises what it may." if row.quota_bytes else todo
        )
        _check(whose, row.stored_bytes, min(most, row.quota_bytes or most), "bytes", todo)


def _check(whose: str, used: int, most: int, what: str, todo: str) -> None:
    if used >= most:
        raise LimitReached(
            f"{whose} has put {used:,} {what} in the journal, and may no more than {most:,}.",
            why="A journal that one can fill is lost for all. What has happened is still recorded.",
            todo=todo,
        )
