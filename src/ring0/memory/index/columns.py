"""What an index knows of each record beside its words: times, kind, thread, neighbours, vector.

Columns that grow, by the record's place in its scope. Not searched here: scoring.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ring0.memory.structure import day_of
from ring0.store.rows import Loaded

NOWHERE: Final = -1
_FIRST: Final = 64
_TYPES: Final[dict[str, Any]] = {
    "number": np.int64,
    "kind": np.int16,
    "state": np.int16,
    "role": np.int32,
    "session": np.int32,
    "act": np.int32,
    "seq": np.int64,
    "day": np.int32,
    "at_us": np.int64,
    "superseded_us": np.int64,
    "valid_from_us": np.int64,
    "valid_to_us": np.int64,
    "integrity": np.int16,
    "length": np.float32,
    "previous": np.int32,
    "next": np.int32,
}
_ID_SIZE_BYTES: Final = 120
"""Of an id as a string, and its place in the list."""


class Names:
    """Strings, or days, by a number each."""

    def __init__(self) -> None:
        self.numbers: dict[str | int, int] = {}
        self.names: list[Any] = []

    def number(self, name: str | int) -> int:
        found = self.numbers.get(name)
        if found is None:
            found = self.numbers[name] = len(self.names)
            self.names.append(name)
        return found


class Columns:
    """One row a record, in the order of their numbers."""

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[str] = []
        self.kinds, self.states, self.roles = Names(), Names(), Names()
        self.sessions, self.acts, self.days = Names(), Names(), Names()
        self._held = {name: np.zeros(_FIRST, dtype) for name, dtype in _TYPES.items()}
        self._newest_of: dict[int, int] = {}
        """By session: where its newest record lies."""

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A view of the column; writing to it writes to the column."""
        return self._held[name][: self.count]

    @property
    def size_bytes(self) -> int:
        held = sum(array.nbytes for array in self._held.values())
        names = (self.kinds, self.states, self.roles, self.sessions, self.acts, self.days)
        named = sum(len(one.names) for one in names)
        return held + (self.count + named) * _ID_SIZE_BYTES

    def append(self, rows: Sequence[Loaded], lengths: Sequence[int]) -> int:
        """Where the first of them lies."""
        first = self.count
        self._make_room(first + len(rows))
        self.count += len(rows)
        for offset, (one, length) in enumerate(zip(rows, lengths, strict=True)):
            place = first + offset
            session = self.sessions.number(one.session or one.act)
            values = {
                "number": one.number,
                "kind": self.kinds.number(str(one.kind)),
                "state": self.states.number(str(one.state)),
                "role": self.roles.number(one.role),
                "session": session,
                "act": self.acts.number(one.act),
                "seq": _seq(one.id),
                "day": self.days.number(day_of(one.happened_us or one.at_us)),
                "at_us": one.at_us,
                "superseded_us": one.superseded_us,
                "valid_from_us": one.valid_from_us,
                "valid_to_us": one.valid_to_us,
                "integrity": one.integrity,
                "length": length,
                "previous": self._newest_of.get(session, NOWHERE),
                "next": NOWHERE,
            }
            for name, value in values.items():
                self._held[name][place] = value
            if (before := values["previous"]) != NOWHERE:
                self._held["next"][before] = place
            self._newest_of[session] = place
            self.ids.append(one.id)
        return first

    def _make_room(self, count: int) -> None:
        held = len(self._held["number"])
        if count <= held:
            return
        # An eighth more, at least: what is copied is in proportion to what is added.
        room = max(count, held + held // 2)
        for name, array in self._held.items():
            wider = np.zeros(room, array.dtype)
            wider[: self.count] = array[: self.count]
            self._held[name] = wider


class Matrix:
    """Vectors as rows of 32-bit floats; rows of nothing where there is none yet."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._rows = np.zeros((_FIRST, dimensions), np.float32)
        self._there = np.zeros(_FIRST, np.bool_)
        self.count = 0

    @property
    def rows(self) -> npt.NDArray[np.float32]:
        return self._rows[: self.count]

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        return self._there[: self.count]

    @property
    def size_bytes(self) -> int:
        return self._rows.nbytes + self._there.nbytes

    def append(self, rows: npt.NDArray[np.float32], there: npt.NDArray[np.bool_]) -> None:
        count = self.count + len(rows)
        if count > len(self._rows):
            room = max(count, len(self._rows) + len(self._rows) // 2)
            wider = np.zeros((room, self.dimensions), np.float32)
            wider[: self.count] = self.rows
            flags = np.zeros(room, np.bool_)
            flags[: self.count] = self.there
            self._rows, self._there = wider, flags
        self._rows[self.count : count] = rows
        self._there[self.count : count] = there
        self.count = count

    def put(self, place: int, row: npt.NDArray[np.float32]) -> None:
        self._rows[place] = row
        self._there[place] = True


def _seq(record: str) -> int:
    """Of the event that wrote it: its id is `<act>#<seq>` or `<act>#<seq>.<n>`."""
    said = record.rpartition("#")[2].partition(".")[0]
    return int(said) if said.isdigit() else 0
