"""The clock and the dice that a SQL statement sees: still, so that a rehearsal repeats exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import apsw
import msgspec

from ring0 import limits

_EPOCH_JULIAN_MS: Final = 210_866_760_000_000


class Moment(msgspec.Struct, frozen=True):
    """The clock and the dice that a statement sees.

    Given by the caller, the same to `plan` and `execute`: else `DEFAULT CURRENT_TIMESTAMP` or a
    random id would make each execution differ from what was approved.
    """

    now_us: int
    seed: bytes


class _Clock(apsw.VFS):
    """Where SQLite takes its time from: standing still at one moment."""

    def __init__(self, now_us: int) -> None:
        self.vfs_name = f"ring0-clock-{id(self)}"
        self._julian_ms = _EPOCH_JULIAN_MS + now_us // 1_000
        super().__init__(self.vfs_name, "")

    def xCurrentTimeInt64(self) -> int:
        return self._julian_ms


def set_moment(db: apsw.Connection, moment: Moment) -> None:
    """Replace the functions that see the clock or throw dice.

    The dates are computed by SQLite itself, in a second connection whose clock stands still: the
    database's own connection keeps the native file layer, which never holds Python's lock.
    """
    clock = _Clock(moment.now_us)
    other = apsw.Connection(":memory:", vfs=clock.vfs_name)
    thrown = 0

    def dates(name: str) -> Callable[..., Any]:
        bare = name.startswith("current_")

        def compute(*arguments: Any) -> Any:
            marks = "" if bare else f"({', '.join('?' * len(arguments))})"
            return other.execute(f"SELECT {name}{marks}", arguments).get

        return compute

    def throw(size_bytes: int) -> bytes:
        nonlocal thrown
        thrown += 1
        return hashlib.shake_256(moment.seed + thrown.to_bytes(8, "big")).digest(size_bytes)

    def random_blob(*arguments: Any) -> bytes:
        wanted = arguments[0] if isinstance(arguments[0], int) else 1
        if wanted > limits.SQL_VALUE_SIZE_BYTES_MAX:
            raise apsw.TooBigError("string or blob too big")
        return throw(max(1, wanted))

    def random(*_: Any) -> int:
        return int.from_bytes(throw(8), "big", signed=True)

    innocuous = apsw.SQLITE_INNOCUOUS
    # Deterministic: they stand still, and an index on date(column) stays usable.
    for name in ("date", "time", "datetime", "julianday", "strftime", "unixepoch"):
        db.create_scalar_function(name, dates(name), -1, deterministic=True, flags=innocuous)
    for name in ("current_date", "current_time", "current_timestamp"):
        db.create_scalar_function(name, dates(name), 0, deterministic=True, flags=innocuous)
    db.create_scalar_function("timediff", dates("timediff"), 2, deterministic=True, flags=innocuous)
    db.create_scalar_function("randomblob", random_blob, 1, flags=innocuous)
    db.create_scalar_function("random", random, 0, flags=innocuous)
