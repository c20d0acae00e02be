"""A log that is checked away from its kernel: a `journal.db`, or a folder of `audit export`.

Only the log itself: the bytes of each entry, in order, against the anchors. What the values and the
tables say is `observability/verify.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import apsw

from ring0 import limits
from ring0.errors import StoreDamaged
from ring0.observability.proof.anchors import Anchors
from ring0.store import merkle
from ring0.store.sqlite import sql
from ring0.types import Frozen

LOG: Final = "log.jsonl"
"""The exact bytes of each entry, a line each: JSON as it is stored has no line breaks."""
CHECKPOINTS: Final = "checkpoints"
KEYS: Final = "keys"
PROBLEMS_MAX: Final = 8
_EVENTS: Final = "SELECT type, sql FROM sqlite_schema WHERE name = 'event'"


class LogReport(Frozen, frozen=True, kw_only=True):
    """What was found of a log alone."""

    ok: bool
    events: int
    root: str
    signed: int
    """How many the newest anchor that holds vouches for."""
    problems: tuple[str, ...] = ()


def check_log(entries: Iterable[tuple[int, bytes | None, bytes]], anchors: Anchors) -> LogReport:
    """Of (index, leaf hash as stored or None, exact bytes). Never raises for what it finds."""
    tree, problems = merkle.Tree(), []
    leaf_hash, append, saw = merkle.leaf_hash, tree.append, anchors.saw
    try:
        for index, stored, body in entries:
            if index != tree.size:
                problems.append(f"event {tree.size}: missing (the next is {index})")
                break
            leaf = leaf_hash(body)
            if stored is not None and stored != leaf and len(problems) < PROBLEMS_MAX:
                problems.append(f"event {index}: its bytes are not those that were hashed")
            append(leaf)
            saw(index, body, tree)
    except (apsw.Error, OSError, ValueError) as error:
        problems.append(f"the log can't be read to its end: {error}")
    anchors.end(tree)
    problems += anchors.problems
    return LogReport(
        ok=not problems,
        events=tree.size,
        root=tree.root().hex(),
        signed=anchors.size,
        problems=tuple(problems),
    )


def entries_of(path: Path) -> Iterator[tuple[int, bytes | None, bytes]]:
    """Of a `journal.db`, a `log.jsonl`, or a folder with either. Raises StoreDamaged."""
    if path.is_dir():
        path = path / LOG if (path / LOG).is_file() else path / "journal.db"
    if not path.is_file():
        raise _no_log(path, "it is not there")
    with path.open("rb") as file:
        is_database = file.read(16) == b"SQLite format 3\x00"
    return _of_database(path) if is_database else _of_lines(path)


def _of_database(path: Path) -> Iterator[tuple[int, bytes | None, bytes]]:
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(5_000)
        connection.execute("PRAGMA trusted_schema = OFF").fetchall()
        if connection.execute(_EVENTS).fetchall() != [("table", _table())]:
            raise _no_log(path, "it has no events as ring0 keeps them")
        rows = connection.execute(sql.LOG)
    except apsw.Error as error:
        raise _no_log(path, str(error)) from None
    try:
        for index, leaf, body in rows:
            if not (type(index) is int and isinstance(leaf, bytes) and isinstance(body, bytes)):
                raise ValueError("an event is not as ring0 keeps them")
            yield index, leaf, body
    finally:
        connection.close()


def _table() -> str:
    """How ours is made: a view, or columns that are worked out, could say anything."""
    pattern = apsw.Connection(":memory:")
    pattern.execute(sql.SCHEMA).fetchall()
    ((_, made),) = pattern.execute(_EVENTS).fetchall()
    pattern.close()
    return str(made)


def _of_lines(path: Path) -> Iterator[tuple[int, bytes | None, bytes]]:
    most = limits.LOG_LINE_SIZE_BYTES_MAX
    with path.open("rb") as file:
        for index, line in enumerate(iter(lambda: file.readline(most + 1), b"")):
            if not line.endswith(b"\n"):
                raise ValueError("a line is too long" if len(line) > most else "it was cut off")
            yield index, None, line[:-1]


def _no_log(path: Path, why: str) -> StoreDamaged:
    return StoreDamaged(
        f"{path} is no log that can be read.",
        why=why[:200],
        todo="Give a journal.db (with its -wal, if there is one), or a folder of `audit export`.",
    )
