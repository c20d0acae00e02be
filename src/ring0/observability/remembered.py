"""What `audit verify` looks at of memory: what records say, the keys of that, the index of it.

Nothing that an event says was forgotten may be there, and nothing that is there may say anything
else than its record. Vectors are looked at for what they are of: what a model makes of a text is
not worked out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ring0.store import events as ev
from ring0.store.events import Entry
from ring0.store.records import body_of, record_address, searched
from ring0.store.remembering import ACT
from ring0.store.rows import RecordRow
from ring0.store.sqlite.snapshot import Snapshot
from ring0.store.sqlite.sql import VALUE
from ring0.store.sqlite.tables import decode, record_columns
from ring0.store.terms import Terms, terms_of


def remembered(entry: Entry) -> Iterator[str]:
    """The addresses of what an entry brings to memory: it may have been forgotten since."""
    match entry.body:
        case ev.Remembered(records=records):
            yield from (one.blob for one in records)
        case ev.RunQueued(remembered=where) | ev.CallEnded(remembered=where) if where:
            yield where
        case _:
            pass


class Memory:
    """What the events make of memory, held against one moment of the store."""

    def __init__(self, moment: Snapshot, records: Mapping[str, RecordRow]) -> None:
        self._moment = moment
        self._records = records
        self._said: set[str] = set()
        self._missing: dict[str, RecordRow] = {}

    def saw(self, entry: Entry) -> None:
        """An event, in the order of the log."""
        self._said.update(remembered(entry))

    def acts(self) -> set[str]:
        """Operators' acts of which a record is there: each has a key."""
        return {row.act for row in self._records.values() if row.act.startswith(ACT)}

    def begin(self) -> None:
        """All events were seen; what lies in the store comes next."""
        self._missing = {row.blob: row for row in self._records.values()}

    def took(
        self, where: str, form: int, value: bytes, keys: Mapping[str, bytes]
    ) -> tuple[bool, str]:
        """Whether a value is memory's, and what is wrong with it."""
        row = self._missing.pop(where, None)
        if row is None:
            if where in self._said:
                return True, f"the value {where[:16]}… was forgotten, and is there"
            return False, ""
        if form != VALUE or record_address(keys.get(row.act, b""), value) != where:
            return True, f"what {row.id} says is not what was remembered ({where[:16]}…)"
        return True, ""

    def missing(self) -> Iterator[str]:
        """What records say and is not there; whose keys."""
        for where, row in self._missing.items():
            yield f"{row.id} names the value {where[:16]}…, which is gone"
        compared = {row.owner for row in self._records.values() if row.slot or row.key}
        for owner in sorted(compared - self._moment.scope_keys()):
            yield f"the key of the scope {' / '.join(owner)} is gone: its facts can't be compared"

    def beside(self, row: RecordRow) -> tuple[Any, ...]:
        """What must lie beside a record's row."""
        value = self._moment.blob(row.blob)
        if value is None:
            return ()
        return record_columns(row, body_of(row, value))

    def index_damage(self) -> Iterator[str]:
        """Whether the index says what the records say."""
        for number, key, row, value, length, packed in self._moment.terms():
            if key is None:
                yield f"the index: number {number} is of no record"
            elif _terms(row, value) != Terms(length=length, packed=packed):
                yield f"the index: the words of {key!r} are not those of what it says"
        for number in self._moment.stray_vectors():
            yield f"the index: a vector of number {number} is of no record, or of no model"


def _terms(row: bytes, value: bytes | None) -> Terms | None:
    try:
        return None if value is None else terms_of(searched(body_of(decode("record", row), value)))
    except (msgspec.MsgspecError, ValueError):
        return None
