"""The embedded store: opens the file, writes through the one writer, reads on its own connection.

Files in the data folder: `journal.db` (with its WAL) and `journal.head`, which says how long the
journal is: a journal shorter than its head was cut short, and is not written to again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Final

import apsw

from ring0.errors import StoreDamaged
from ring0.runtime import Runtime
from ring0.store import lists
from ring0.store.base import Write
from ring0.store.events import KERNEL, Entry, decode_entry
from ring0.store.project import NEWEST_LOCK, message_key
from ring0.store.rows import CapRow, Head, SandboxRow, TenantRow
from ring0.store.sqlite import sql
from ring0.store.sqlite.beside import Beside
from ring0.store.sqlite.committing import Writer
from ring0.store.sqlite.failing import closed
from ring0.store.sqlite.remembered import Remembered
from ring0.store.sqlite.snapshot import Snapshot, read_head
from ring0.store.sqlite.storage import Storage, archived
from ring0.store.sqlite.tables import decode, tree_of
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    Cron,
    File,
    Hook,
    Lock,
    Login,
    Message,
    Quarantine,
    Run,
    RunState,
    Setting,
    Standing,
)

PAGE_ROWS: Final = 500
"""How much of the journal is read at once."""


class SqliteStore(Remembered):
    """`store.base.Store` in one SQLite file. Open it with `open_store`.

    `writer`: whatever runs a `Committer` (None: this store only reads). `head_file` -1: none.
    """

    def __init__(
        self, reader: apsw.Connection, writer: Writer | None, head_file: int, runtime: Runtime
    ) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer
        self._head_file = head_file
        self._runtime = runtime
        self._closed = False
        self.storage = Storage(self._all)

    # --- writing ------------------------------------------------------------------------------

    async def append(self, write: Write) -> int:
        assert self._writer is not None, "this store was opened to read"
        return await self._writer.submit(write)

    def _submit(self, job: Beside) -> asyncio.Future[int]:
        assert self._writer is not None, "this store was opened to read"
        return self._writer.submit(job)

    async def flush(self) -> None:
        if self._writer is not None:
            await self._writer.submit(None)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await asyncio.shield(self._runtime.in_thread(self._writer.stop))
        # The last to close is the one that may write: so the WAL goes into the file, which is then
        # the whole journal.
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
        if self._head_file >= 0:
            os.close(self._head_file)
            self._head_file = -1

    def now_us(self) -> int:
        latest_us = self._writer.latest_us() if self._writer is not None else 0
        return max(self._runtime.now_us(), latest_us)

    # --- reading ------------------------------------------------------------------------------

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Every row at once: a cursor that is left open would hold this reader in the past."""
        try:
            return self._reader.execute(statement, values).fetchall()
        except UnicodeEncodeError:  # A lone surrogate: nothing stored has one in its name.
            return []
        except apsw.ConnectionClosedError:
            raise closed() from None

    def _one(self, statement: str, values: Sequence[Any]) -> Any:
        return next(iter(self._all(statement, values)), None)

    def _row(self, table: str, key: str) -> Any:
        found = self._one(sql.GET[table], (key,))
        return None if found is None else decode(table, found[0])

    def _rows(self, table: str, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return [decode(table, row) for (row,) in self._all(statement, values)]

    async def run(self, run: str) -> Run | None:
        found: Run | None = self._row("run", run)
        return found

    async def runs(
        self, *, states: Iterable[RunState] = (), parent: str = "", root: str = "", most: int = 200
    ) -> list[Run]:
        where, values = _where(state=[str(s) for s in states], parent=parent, root=root)
        statement = f"SELECT row FROM run{where} ORDER BY started_us DESC, key LIMIT ?"
        return self._rows("run", statement, (*values, most))

    async def runs_named(self, prefix: str) -> list[str]:
        return [key for (key,) in self._all(sql.RUNS_NAMED, (prefix, prefix + "\U0010ffff"))]

    async def run_key(self, run: str) -> bytes:
        found = self._one(sql.RUN_KEY, (run,))
        if found is None:
            raise StoreDamaged(
                f"The key of run {run} is gone.",
                why="It was forgotten or cut off.",
                todo="Nothing of that run's values can be checked any more.",
            )
        return bytes(found[0])

    def check_here(self, run: str) -> None:
        if self.storage.archive(run) is not None:
            raise archived(run)

    async def call(self, call: str) -> Call | None:
        found: Call | None = self._row("call", call)
        return found

    async def calls(self, run: str) -> list[Call]:
        return self._rows("call", sql.CALLS, (run,))

    async def approval(self, approval: str) -> Approval | None:
        found: Approval | None = self._row("approval", approval)
        return found

    async def approvals(
        self, *, states: Iterable[ApprovalState] = (), run: str = ""
    ) -> list[Approval]:
        where, values = _where(state=[str(s) for s in states], run=run)
        statement = f"SELECT row FROM approval{where} ORDER BY asked_us, key"
        return self._rows("approval", statement, values)

    async def standings(self) -> list[Standing]:
        return self._rows("standing", sql.STANDINGS)

    async def standing(self, standing: str) -> Standing | None:
        found: Standing | None = self._row("standing", standing)
        return found

    async def locks(self, *, tenant: str = "", run: str = "") -> list[Lock]:
        if run:
            return self._rows("lock", sql.LOCKS_OF_RUN, (run,))
        if tenant:
            return self._rows("lock", sql.LOCKS_OF_TENANT, (tenant,))
        return self._rows("lock", sql.LOCKS)

    async def newest_fence(self) -> int:
        newest: Lock | None = self._row("lock", NEWEST_LOCK)
        return newest.fence if newest else 0

    async def messages(self, to: str, *, waiting: bool = True) -> list[Message]:
        return self._rows("message", sql.MESSAGES_WAITING if waiting else sql.MESSAGES, (to,))

    async def message(self, to: str, number: int) -> Message | None:
        found: Message | None = self._row("message", message_key(to, number))
        return found

    async def cap_used(self, key: str, window: int = 0) -> int:
        row: CapRow | None = self._row("cap", key)
        return row.used_in(window) if row else 0

    async def tenant(self, tenant: str) -> TenantRow:
        found: TenantRow | None = self._row("tenant", tenant)
        return found or TenantRow(tenant=tenant)

    async def crons(self) -> list[Cron]:
        return self._rows("cron", sql.CRONS)

    async def hooks(self) -> list[Hook]:
        return self._rows("hook", sql.HOOKS)

    async def login(self, key: str) -> Login | None:
        found: Login | None = self._row("login", key)
        return found

    async def logins(self) -> list[Login]:
        return self._rows("login", sql.LOGINS)

    async def settings(self) -> dict[str, Setting]:
        return {row.name: row for row in self._rows("setting", sql.SETTINGS)}

    async def quarantines(self) -> list[Quarantine]:
        return self._rows("quarantine", sql.QUARANTINES)

    async def runs_due(self, now_us: int, most: int) -> list[Run]:
        return self._rows("run", sql.RUNS_DUE, (now_us, most))

    async def next_wake_us(self) -> int:
        return int(self._one(sql.NEXT_WAKE, ())[0])

    async def files(self, run: str) -> list[File]:
        return self._rows("file", sql.FILES, (f"{run}\n", f"{run}\x0b"))

    async def file(self, run: str, path: str) -> File | None:
        found: File | None = self._row("file", f"{run}\n{path}")
        return found

    async def sandboxes_alive(self) -> list[SandboxRow]:
        alive = self._rows("sandbox", sql.SANDBOXES_ALIVE)
        return [row for row in alive if row.run != KERNEL]

    async def sandboxes_parked(self) -> list[SandboxRow]:
        alive = self._rows("sandbox", sql.SANDBOXES_ALIVE)
        return [row for row in alive if row.run == KERNEL]

    async def kill_generation(self) -> int:
        return int(self._one(sql.KILL_GENERATION, ())[0])

    async def blob(self, address: str) -> bytes:
        is_list, value = self.lying(address)
        return lists.whole(lists.Listed(value), self.lying) if is_list else value

    def lying(self, address: str) -> tuple[bool, bytes]:
        """What lies at an address: whether it is the list of a value's parts, and its bytes. Raises
        StoreDamaged, ValueArchived."""
        found = self._one(sql.BLOB, (address,))
        if found is None:
            raise StoreDamaged(
                f"The value {address[:16]}… is not in the store.",
                why="The journal names it, so it was lost or erased.",
                todo="Run `ring0 audit verify` to see what else is missing.",
            )
        form, value = found
        if form == sql.ARCHIVED:
            run = bytes(value).decode("utf-8", "replace")
            raise archived(run, f"The value {address[:16]}…")
        return form == sql.LIST, bytes(value)

    async def entries(self, run: str = "") -> AsyncIterator[Entry]:
        for _, _, _, _, body in self.stored(run):
            yield decode_entry(body)

    async def placed(self, run: str) -> AsyncIterator[tuple[int, Entry]]:
        for place, _, _, _, body in self.stored(run):
            yield place, decode_entry(body)

    def stored(self, run: str = "") -> Iterator[tuple[int, str, int, bytes, bytes]]:
        """The journal as it lies on disk: (index, run, seq, leaf hash, exact bytes)."""
        after = 0 if run else -1
        while page := (
            self._all(sql.EVENTS_OF_RUN, (run, after, PAGE_ROWS))
            if run
            else self._all(sql.EVENTS, (after, PAGE_ROWS))
        ):
            yield from page
            after = page[-1][2] if run else page[-1][0]

    def stored_at(self, index: int) -> tuple[int, str, int, bytes, bytes] | None:
        """The entry at that place: (index, run, seq, leaf hash, exact bytes)."""
        found = self._one(sql.EVENTS, (index - 1, 1))
        return found if found is not None and found[0] == index else None

    def stored_after(self, index: int, most: int) -> list[tuple[int, bytes, Entry]]:
        """The journal behind that place (-1: all of it), at most so many: (index, leaf hash,
        entry)."""
        rows = self._all(sql.EVENTS, (index, most))
        return [(place, bytes(leaf), decode_entry(body)) for place, _, _, leaf, body in rows]

    def stored_blobs(self) -> Iterator[tuple[str, bytes]]:
        """All values, and parts of those that lie in parts: (address, value)."""
        after = ""
        while page := self._all(sql.BLOBS, (after, PAGE_ROWS)):
            yield from page
            after = page[-1][0]

    def snapshot(self) -> Snapshot:
        """One moment of the whole journal, for verification. Close it."""
        return Snapshot(self._reader, self._head_file)

    def anchored(self) -> Head | None:
        """What the head file says."""
        return read_head(self._head_file)

    def runs_keyed(self, key: bytes) -> list[str]:
        """Runs whose values lie under that key."""
        return [run for (run,) in self._all(sql.RUNS_KEYED, (key,))]

    def messages_keyed(self, run: str) -> list[Message]:
        """Those whose bodies lie under the run's key, whoever got them."""
        return self._rows("message", sql.MESSAGES_KEYED, (run,))

    def leaves(self, begin: int, end: int) -> list[bytes]:
        return [bytes(leaf) for (leaf,) in self._all(sql.LEAVES_BETWEEN, (begin, end))]

    async def head(self) -> Head:
        try:
            tree, _ = tree_of(self._reader)
        except ValueError as error:
            raise StoreDamaged(
                f"The journal has no Merkle tree: {error}.",
                why="It was changed behind the kernel's back.",
                todo="Run `ring0 audit verify`, and put back a copy.",
            ) from None
        except apsw.ConnectionClosedError:
            raise closed() from None
        return Head(size=tree.size, root=tree.root().hex())


def _where(**wanted: Any) -> tuple[str, tuple[Any, ...]]:
    """A WHERE clause of equalities; empty values are left out. Column names are ours."""
    parts: list[str] = []
    values: list[Any] = []
    for column, value in wanted.items():
        if isinstance(value, list) and value:
            parts.append(f"{column} IN ({', '.join('?' * len(value))})")
            values += value
        elif value:
            parts.append(f"{column} = ?")
            values.append(value)
    return (" WHERE " + " AND ".join(parts) if parts else "", tuple(values))
