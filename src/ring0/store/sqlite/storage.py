"""What operators ask of the store about room: sizes, tenants, archives, growth. It only reads.

One for a store, on its reader (`SqliteStore.storage`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ring0 import limits
from ring0.errors import ValueArchived
from ring0.store.rows import ArchiveRow, TenantRow
from ring0.store.sqlite import sql
from ring0.store.sqlite.tables import decode
from ring0.types import ENDED, CallState, Frozen


class Read(Protocol):
    """Every row of a statement."""

    def __call__(self, statement: str, values: Sequence[Any] = (), /) -> list[Any]: ...


class Growth(Frozen, frozen=True, kw_only=True):
    """What came into the journal of late."""

    span_us: int = 0
    """From the first event looked at until now."""
    events: int = 0
    stored_bytes: int = 0
    by_tenant: dict[str, int] = msgspec.field(default_factory=dict)
    """Bytes."""


class _Counted(msgspec.Struct, frozen=True):
    """What of an entry is counted; all else of it is passed over."""

    run: str
    at_us: int
    stored_bytes: int = 0


_counted = msgspec.json.Decoder(_Counted).decode


def archived(run: str, what: str = "") -> ValueArchived:
    """What is told of what lies in an archive."""
    return ValueArchived(
        f"{what or 'What was said and returned'} is in the archive of {run}.",
        why="The run has ended, and its values were put into a file beside the journal.",
        todo=f"`ring0 unarchive {run}` puts them back.",
    )


class Storage:
    """Reads with what it is given."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def page_bytes(self) -> int:
        return int(self._read("PRAGMA page_size")[0][0])

    def pages(self) -> int:
        return int(self._read("PRAGMA page_count")[0][0])

    def free_pages(self) -> int:
        """Of the file: they hold nothing, and are used again before it grows."""
        return int(self._read(sql.FREE_PAGES)[0][0])

    def events(self) -> int:
        """How many the journal has."""
        ((size,),) = self._read("SELECT coalesce(max(idx), -1) + 1 FROM event")
        return int(size)

    def lies(self, address: str) -> tuple[bool, bytes] | None:
        """Whether the list of a value's parts lies there, and what does; None: nothing, or it is in
        an archive."""
        for form, value in self._read(sql.BLOB, (address,)):
            return None if form == sql.ARCHIVED else (form == sql.LIST, bytes(value))
        return None

    def weighed(self, address: str) -> tuple[int, bytes] | None:
        """How long what lies there is, with the list where one does; None as above. No value is
        read."""
        for size, form in self._read(sql.BLOB_SIZE, (address,)):
            return int(size), bytes(form)
        return None

    def left_unknown(self, run: str) -> bool:
        """Nobody has said what became of one of the run's effects."""
        return bool(self._read(sql.CALL_IN_STATE, (run, CallState.UNKNOWN.value)))

    def is_archived(self, address: str) -> bool:
        """What lay there lies in its run's archive."""
        return any(form == sql.ARCHIVED for form, _ in self._read(sql.BLOB, (address,)))

    def archive(self, run: str) -> ArchiveRow | None:
        for (row,) in self._read(sql.GET["archive"], (run,)):
            found: ArchiveRow = decode("archive", row)
            return found
        return None

    def archives(self) -> list[ArchiveRow]:
        return [decode("archive", row) for (row,) in self._read(sql.ARCHIVES)]

    def tenants(self) -> list[TenantRow]:
        return [decode("tenant", row) for (row,) in self._read(sql.TENANTS)]

    def forked(self) -> set[str]:
        """Runs that others were forked from: `r-…#12` names one."""
        return {str(named).partition("#")[0] for (named,) in self._read(sql.FORKED)}

    def begun_before(self, until_us: int) -> list[str]:
        """Runs that have ended, began before that, and are in no archive; the oldest first."""
        states = tuple(map(str, sorted(ENDED)))
        statement = sql.ENDED_RUNS.format(states=", ".join("?" * len(states)))
        return [key for (key,) in self._read(statement, (*states, until_us))]

    # --- growth -------------------------------------------------------------------------------

    def growth(self, now_us: int) -> Growth:
        """Of the window that limits.py names, or of the newest events where there are more."""
        size = self.events()
        begin = max(
            self._place(now_us - limits.GROWTH_WINDOW_S * 1_000_000, size),
            size - limits.GROWTH_EVENTS_MAX,
        )
        if begin >= size:
            return Growth()
        by_run: dict[str, int] = {}
        first_us, place = 0, begin - 1
        while page := self._read(sql.EVENTS, (place, limits.GROWTH_PAGE_EVENTS)):
            for *_, body in page:
                entry = _counted(body)
                first_us = first_us or entry.at_us
                by_run[entry.run] = by_run.get(entry.run, 0) + entry.stored_bytes
            place = page[-1][0]
        by_tenant: dict[str, int] = {}
        for run, count in by_run.items():
            for (row,) in self._read(sql.GET["run"], (run,)):
                tenant = decode("run", row).tenant
                by_tenant[tenant] = by_tenant.get(tenant, 0) + count
        return Growth(
            span_us=max(1, now_us - first_us),
            events=size - begin,
            stored_bytes=sum(by_run.values()),
            by_tenant=by_tenant,
        )

    def _place(self, since_us: int, size: int) -> int:
        """Of the first event that is not older: the journal's time never goes back."""
        low, high = 0, size
        while low < high:
            middle = (low + high) // 2
            (row,) = self._read("SELECT body FROM event WHERE idx = ?", (middle,))
            if _counted(row[0]).at_us < since_us:
                low = middle + 1
            else:
                high = middle
        return low
