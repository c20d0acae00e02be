"""How much room a data folder takes, who fills it, and when it will be full. It only reads.

A forecast is a straight line through what was written of late: it says when to look again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ring0 import limits
from ring0.store import archiving
from ring0.store.sqlite import JOURNAL, SqliteStore
from ring0.types import Frozen

_DAY_US: Final = 86_400_000_000
NEVER: Final = -1


class Tenant(Frozen, frozen=True, kw_only=True):
    """What one tenant stores, may store, and adds."""

    tenant: str
    events: int
    stored_bytes: int
    quota_bytes: int
    grows_bytes_a_day: int
    full_in_s: int
    """Until its quota is used up; -1: it does not grow."""


class Storage(Frozen, frozen=True, kw_only=True):
    """What the folder takes, in bytes, and a forecast."""

    file_bytes: int
    log_bytes: int
    """Of the WAL."""
    free_bytes: int
    """In the file: pages that hold nothing."""
    archive_bytes: int
    archived_runs: int
    disk_free_bytes: int
    events: int
    looked_back_us: int
    grows_bytes_a_day: int
    """Of the file, as it takes what is written."""
    full_in_s: int
    """Until the disk has no room for the journal; -1: it does not grow."""
    tenants: tuple[Tenant, ...]


def measure(home: Path, store: SqliteStore) -> Storage:
    """Raises OSError."""
    room, now_us = store.storage, store.now_us()
    page_bytes = room.page_bytes()
    file_bytes, free_bytes = room.pages() * page_bytes, room.free_pages() * page_bytes
    growth = room.growth(now_us)
    rows = room.tenants()
    # What is stored takes more in the file than its bytes: names, indexes, projections.
    stored_bytes = sum(row.stored_bytes for row in rows)
    factor = max(1.0, (file_bytes - free_bytes) / stored_bytes) if stored_bytes else 1.0
    factor = min(factor, limits.STORED_TAKES_TIMES_MAX)
    span_us = max(growth.span_us, limits.GROWTH_SPAN_S_MIN * 1_000_000)

    def a_day(written_bytes: int) -> int:
        return round(written_bytes * _DAY_US / span_us)

    status = os.statvfs(home)
    disk_free_bytes = status.f_bavail * status.f_frsize
    left = disk_free_bytes + free_bytes - limits.JOURNAL_ROOM_SIZE_BYTES_MIN
    grows = round(a_day(growth.stored_bytes) * factor)
    tenants = []
    for row in rows:
        most = min(
            row.quota_bytes or limits.TENANT_STORED_BYTES_MAX, limits.TENANT_STORED_BYTES_MAX
        )
        adds = a_day(growth.by_tenant.get(row.tenant, 0))
        tenants.append(
            Tenant(
                tenant=row.tenant,
                events=row.events,
                stored_bytes=row.stored_bytes,
                quota_bytes=most,
                grows_bytes_a_day=adds,
                full_in_s=_until(most - row.stored_bytes, adds),
            )
        )
    tenants.sort(key=lambda one: -one.stored_bytes)
    archives = [path.stat().st_size for path in (home / archiving.FOLDER).glob("*.r0a")]
    log = home / f"{JOURNAL}-wal"
    return Storage(
        file_bytes=file_bytes,
        log_bytes=log.stat().st_size if log.exists() else 0,
        free_bytes=free_bytes,
        archive_bytes=sum(archives),
        archived_runs=len(room.archives()),
        disk_free_bytes=disk_free_bytes,
        events=room.events(),
        looked_back_us=growth.span_us,
        grows_bytes_a_day=grows,
        full_in_s=_until(left, grows),
        tenants=tuple(tenants),
    )


def _until(left_bytes: int, bytes_a_day: int) -> int:
    """Seconds."""
    return max(0, left_bytes) * 86_400 // bytes_a_day if bytes_a_day > 0 else NEVER
