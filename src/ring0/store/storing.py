"""What was archived, quotas, and what a restored journal voids: from events to rows.

A part of `project.py`, which calls this and nobody else does.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ring0 import limits
from ring0.store import events as ev
from ring0.store.holdings import NEWEST_LOCK, Tables
from ring0.store.remembering import forget
from ring0.store.rows import ArchiveRow, TenantRow
from ring0.types import ENDED, Lock, LockMode, Run

STORED: Final = ev.QuotaSet | ev.RoomGivenBack | ev.BackedUp | ev.Restored
"""The events that `stored` takes."""


def stored(entry: ev.Entry, tables: Tables) -> None:
    """What the kernel's own journal says of storage."""
    match entry.body:
        case ev.QuotaSet() as quota:
            assert quota.tenant and quota.by and quota.stored_bytes >= 0, "a quota of nobody's"
            row: TenantRow = tables.get("tenant", quota.tenant) or TenantRow(tenant=quota.tenant)
            tables.put("tenant", quota.tenant, replace(row, quota_bytes=quota.stored_bytes))
        case ev.Restored():
            _fences_go_on(entry.at_us, tables)
        case _:
            pass


def beyond(newest: int, now_us: int, step: int) -> int:
    """A number that a restored journal goes on from. It is the time: of two restores of one
    back-up the second is ahead of all that was counted after the first. `step`: what is counted
    on where the clock is behind."""
    return now_us if now_us > max(newest, step) else newest + step


def _fences_go_on(now_us: int, tables: Tables) -> None:
    """No fence is given twice, however many were given after the back-up."""
    newest: Lock | None = tables.get("lock", NEWEST_LOCK)
    fence = beyond(newest.fence if newest else 0, now_us, limits.RESTORED_FENCES)
    row = Lock(
        tenant="", resource="", run="", mode=LockMode.EXCLUSIVE, fence=fence, expires_us=0, call=""
    )
    tables.put("lock", NEWEST_LOCK, row)


def erased(body: ev.ValuesErased, run: Run, tables: Tables) -> Run:
    """The run's row after it."""
    assert run.state in ENDED, f"{run.id} goes on: it is {run.state}"
    assert not run.erased and body.by, f"{run.id} was erased before, or by nobody"
    assert tables.get("archive", run.id) is None, f"{run.id} lies in an archive"
    assert all(one.startswith(f"{run.id}#") for one in body.records), "what others wrote stays"
    forget(body.records, tables)
    tables.put("window", run.id, None)
    return replace(run, erased=True)


def archived(
    entry: ev.Entry, body: ev.RunArchived | ev.ValuesReturned, run: Run, tables: Tables
) -> Run:
    """The run's row after it."""
    there: ArchiveRow | None = tables.get("archive", run.id)
    if isinstance(body, ev.ValuesReturned):
        assert there is not None, f"{run.id} is in no archive"
        assert 0 <= body.values <= there.values, "more came back than went"
        left = replace(there, values=there.values - body.values)
        tables.put("archive", run.id, None if body.last else left)
        return run
    assert run.state in ENDED, f"{run.id} goes on: it is {run.state}"
    assert there is None, f"{run.id} is archived already"
    assert body.values > 0 and 0 <= body.size_bytes <= run.stored_bytes, "more than there was"
    row = ArchiveRow(
        run=run.id,
        digest=body.digest,
        values=body.values,
        size_bytes=body.size_bytes,
        by=body.by,
        at_us=entry.at_us,
    )
    tables.put("archive", run.id, row)
    tenant: TenantRow = tables.get("tenant", run.tenant)
    less = max(0, tenant.stored_bytes - body.size_bytes)
    tables.put("tenant", run.tenant, replace(tenant, stored_bytes=less))
    return replace(run, stored_bytes=run.stored_bytes - body.size_bytes)
