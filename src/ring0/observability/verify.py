"""`audit verify`: is the journal what it was, and do the tables say what the journal says?

Checked from the stored bytes: every leaf hash, the order without gaps, the Merkle root against the
tree and the head file, every blob against its keyed address, and every row of every projection
against a rebuild. The limit: whoever owns the machine can rewrite journal and head file together;
checkpoints that are signed and kept elsewhere come with the observability issue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ring0.store import address, merkle
from ring0.store.events import KERNEL, RunQueued, decode_entry
from ring0.store.project import project
from ring0.store.sqlite import SqliteStore
from ring0.store.sqlite.tables import decode
from ring0.types import Frozen

PROBLEMS_MAX = 20
TABLES = ("run", "call", "approval", "file", "sandbox", "kill", "episode")


class Report(Frozen, frozen=True, kw_only=True):
    """What `verify` found."""

    ok: bool
    events: int
    blobs: int
    rows: int
    root: str
    """Of the Merkle tree over all entries."""
    anchored: int
    """How many events the head file vouches for."""
    problems: tuple[str, ...] = ()
    """The first ones, in order."""


class _Rebuilt:
    """`store.project.Tables` in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {table: {} for table in TABLES}

    def get(self, table: str, key: str) -> Any:
        return self.rows[table].get(key)

    def put(self, table: str, key: str, row: Any) -> None:
        if row is None:
            self.rows[table].pop(key, None)
        else:
            self.rows[table][key] = row


async def verify(store: SqliteStore) -> Report:
    """Checks the whole store. Reads only; never raises for what it finds."""
    problems: list[str] = []
    rebuilt = _Rebuilt()
    tree = merkle.Tree()
    anchored = store.anchored()
    anchored_root = ""
    seqs: dict[str, int] = {}
    for index, run, seq, leaf, body in store.stored():
        if index != tree.size:
            problems.append(f"event {tree.size}: missing (the next is {index})")
            break
        if merkle.leaf_hash(body) != leaf:
            problems.append(
                f"event {index} ({run} #{seq}): its bytes are not those that were hashed"
            )
        if seq != seqs.get(run, 0) + 1:
            problems.append(f"event {index}: {run} #{seq} follows #{seqs.get(run, 0)}")
        seqs[run] = seq
        tree.append(leaf)
        if anchored is not None and tree.size == anchored.size:
            anchored_root = tree.root().hex()
        problems += _rebuild(index, run, seq, body, rebuilt)
    problems += await _check_tree(store, tree, anchored, anchored_root)
    keys, found = await _check_keys(store, rebuilt), 0
    problems += keys
    for problem in _check_blobs(store):
        problems.append(problem)
    for _ in store.stored_blobs():
        found += 1
    rows = sum(len(table) for table in rebuilt.rows.values())
    problems += list(_check_rows(store, rebuilt))
    return Report(
        ok=not problems,
        events=tree.size,
        blobs=found,
        rows=rows,
        root=tree.root().hex(),
        anchored=anchored.size if anchored else 0,
        problems=tuple(problems[:PROBLEMS_MAX]),
    )


def _rebuild(index: int, run: str, seq: int, body: bytes, rebuilt: _Rebuilt) -> list[str]:
    try:
        entry = decode_entry(body)
        if (entry.run, entry.seq) != (run, seq):
            return [f"event {index}: it calls itself {entry.run} #{entry.seq}, not {run} #{seq}"]
        project(entry, rebuilt)
    except (msgspec.MsgspecError, AssertionError, AttributeError, KeyError) as error:
        return [f"event {index} ({run} #{seq}): it can't have happened: {str(error)[:200]}"]
    return []


async def _check_tree(
    store: SqliteStore, tree: merkle.Tree, anchored: Any, anchored_root: str
) -> list[str]:
    problems = []
    head = await store.head()
    if (head.size, head.root) != (tree.size, tree.root().hex()):
        problems.append(
            f"the tree says {head.size} events, root {head.root[:16]}…; the journal has"
            f" {tree.size}, root {tree.root().hex()[:16]}…"
        )
    if anchored is None:
        if tree.size:
            problems.append(
                "there is no head file: nobody can tell whether the journal was cut short"
            )
    elif anchored.size > tree.size:
        problems.append(
            f"the journal was cut short: {tree.size} events, the head file says {anchored.size}"
        )
    elif anchored.size and anchored.root != anchored_root:
        problems.append(f"the first {anchored.size} events are not those of the head file")
    return problems


async def _check_keys(store: SqliteStore, rebuilt: _Rebuilt) -> list[str]:
    """Every run's key is there."""
    problems = []
    for run in rebuilt.rows["run"]:
        try:
            await store.run_key(run)
        except Exception as error:
            problems.append(str(error).partition("\n")[0])
    return problems


def _check_blobs(store: SqliteStore) -> Iterator[str]:
    """Every blob lies under an address that one of the keys makes of it; every name is there."""
    keys = [b"", *store.stored_keys()]
    known = set()
    for where, value in store.stored_blobs():
        known.add(where)
        if not any(address(key, value) == where for key in keys):
            yield f"the value {where[:16]}… is not what was stored under that address"
    for _, run, seq, _, body in store.stored():
        if run != KERNEL:
            for where in _named(body):
                if where not in known:
                    yield f"{run} #{seq} names the value {where[:16]}…, which is gone"


def _named(body: bytes) -> Iterator[str]:
    """The blobs that an entry names."""
    try:
        event = decode_entry(body).body
    except msgspec.MsgspecError:
        return
    if isinstance(event, RunQueued):
        yield from (event.manifest, event.run.task, *(file.blob for file in event.files))
    for field in ("outcome", "undo", "remembered", "result", "output"):
        where = getattr(event, field, "")
        if isinstance(where, str) and where:
            yield where
    call = getattr(event, "call", None)
    if call is not None and not isinstance(call, str):
        yield from filter(None, (call.args, call.outcome, call.decision))
    for file in getattr(event, "files", ()):
        if file.blob:
            yield file.blob


def _check_rows(store: SqliteStore, rebuilt: _Rebuilt) -> Iterator[str]:
    """Every row of every projection, against the rebuild."""
    for table, wanted in rebuilt.rows.items():
        seen = set()
        for key, stored in store.stored_rows(table):
            seen.add(key)
            row = wanted.get(key)
            if row is None:
                yield f"table {table}: the row {key!r} comes from no event"
            elif decode(table, stored) != row:
                yield f"table {table}: the row {key!r} does not say what the journal says"
        for key in wanted.keys() - seen:
            yield f"table {table}: the row {key!r} is missing"


__all__ = ["Report", "verify"]
