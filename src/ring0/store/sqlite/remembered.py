"""What the embedded store hands out of memory, and what it writes beside the journal.

A part of `store.py`. Reading blocks the loop for one bounded page at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import NotFound, StoreFailed
from ring0.runtime import Runtime
from ring0.store.records import body_of, key_digest, record_of, searched
from ring0.store.rows import Indexed, KeyedRow, Loaded, RecordRow, ScopeSize, Unindexed
from ring0.store.sqlite import recordsql, sql
from ring0.store.sqlite.beside import Beside, Dropped, Emptied, Indexing, ScopeKeyed, Wiping
from ring0.store.sqlite.storage import Storage
from ring0.store.sqlite.tables import decode
from ring0.types import (
    Label,
    MemoryKind,
    Owner,
    Record,
    RecordState,
    Scope,
    Window,
    WorkingSet,
)

OWNER: Final = ("tenant", "principal", "agent")
_SCOPE_KEY_BYTES: Final = 32
_WIPING_TRIES: Final = 100
_WIPING_PAUSE_S: Final = 0.1
_WINDOW_NUMBERS: Final = 20_000
"""Numbers that are looked at in one go for what has no terms or no vector."""
_decode_working = msgspec.json.Decoder(WorkingSet).decode


class Remembered:
    """The part of a `SqliteStore` that is `remembers.Remembering`."""

    _runtime: Runtime
    storage: Storage

    def __init__(self) -> None:
        self._indexed_to: dict[str, int] = {}
        """By model: all up to this number have terms, and a vector of it."""

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        raise NotImplementedError

    def _submit(self, job: Beside) -> Awaitable[int]:
        raise NotImplementedError

    async def blob(self, address: str) -> bytes:
        raise NotImplementedError

    # --- records ------------------------------------------------------------------------------

    async def record(self, record: str) -> Record | None:
        return (await self.records_of([record])).get(record)

    async def records_of(self, ids: Sequence[str]) -> dict[str, Record]:
        found = {}
        for one in dict.fromkeys(ids):
            for _, row, value in self._all(recordsql.ONE, (one,)):
                found[one] = self._read(row, value, with_seen=True)
        return found

    async def records(
        self,
        scope: Scope,
        *,
        kinds: Iterable[MemoryKind] = (),
        states: Iterable[RecordState] = (RecordState.CURRENT,),
        after: str = "",
        most: int = 200,
        document: str = "",
        subject: str = "",
        predicate: str = "",
        session: str = "",
        superseded: bool = False,
    ) -> list[Record]:
        narrow = {
            "act": scope.run or "",
            "document": document,
            "subject": subject,
            "session": session,
            "predicate": predicate,
        }
        wanted = {name: value for name, value in narrow.items() if value}
        by = "+" if wanted.keys() - {"predicate"} else ""  # The owner's index finds far more.
        parts, values = [f"{by}record.{one} = ?" for one in OWNER], list[Any](scope.owner)
        for column, value in wanted.items():
            parts.append(f"record.{column} = ? AND record.{column} <> ''")
            values.append(value)
        if tuple(kinds) == (MemoryKind.DIRECTIVE,):
            # Spelled out, so that the index of these few is taken: they are asked for all the time.
            parts.append(f"record.kind = '{MemoryKind.DIRECTIVE}'")
            kinds = ()
        for column, several in (("kind", list(kinds)), ("state", list(states))):
            if several:
                parts.append(f"record.{column} IN ({', '.join('?' * len(several))})")
                values += map(str, several)
        if not superseded:
            parts.append("record.superseded_us = 0")
        if after:
            parts.append("record.number < ?")
            values.append(self._number(after))
        values.append(max(0, min(most, limits.RECORDS_PAGE_MAX)))
        rows = self._all(recordsql.LIST.format(where=" AND ".join(parts)), values)
        return [self._read(row, value) for _, row, value in rows]

    async def record_keyed(self, owner: Owner, kind: MemoryKind, key: str) -> Record | None:
        for (scope_key,) in self._all(recordsql.SCOPE_KEY, owner):
            for (row,) in self._all(sql.GET["keyed"], (key_digest(bytes(scope_key), kind, key),)):
                keyed: KeyedRow = decode("keyed", row)
                return await self.record(keyed.record)
        return None

    async def failures(self, owner: Owner, fingerprint: str, most: int) -> list[Record]:
        if not fingerprint:
            return []
        rows = self._all(recordsql.FAILURES, (fingerprint, *owner, most))
        return [self._read(row, value) for _, row, value in rows]

    async def children_of(self, ids: Iterable[str]) -> list[tuple[str, str, str]]:
        found: dict[tuple[str, str, str], None] = {}
        for one in dict.fromkeys(ids):
            for (child,) in self._all(recordsql.CHILDREN, (one,)):
                found[child, one, "parents"] = None
            for (child,) in self._all(recordsql.WRITTEN_AFTER, (one,)):
                if child != one:
                    found[child, one, "seen"] = None
        return list(found)

    async def recalled(self, run: str) -> list[str]:
        return [record for (record,) in self._all(recordsql.RECALLED, (run,))]

    async def recallers_of(self, ids: Iterable[str]) -> list[tuple[str, str]]:
        return [
            (run, one)
            for one in dict.fromkeys(ids)
            for (run,) in self._all(recordsql.RECALLERS, (one,))
        ]

    async def scopes(self) -> list[ScopeSize]:
        return [
            ScopeSize((tenant, principal, agent), records, text_bytes, newest_us)
            for tenant, principal, agent, records, text_bytes, newest_us in self._all(
                recordsql.SCOPES
            )
        ]

    def remembered(self, act: str) -> list[str]:
        """Ids of what a run, or an operator's act, wrote; in order."""
        return [key for (key,) in self._all(recordsql.OF_ACT, (act,))]

    def _read(self, row: bytes, value: bytes, *, with_seen: bool = False) -> Record:
        stored: RecordRow = decode("record", row)
        seen: tuple[str, ...] = ()
        if with_seen:
            most = limits.RECORD_SEEN_MAX
            rows = self._all(recordsql.SEEN, (stored.act, stored.seq, most))
            seen = tuple(one for (one,) in rows)
        return record_of(stored, body_of(stored, bytes(value)), seen)

    def _number(self, record: str) -> int:
        for (number,) in self._all(recordsql.NUMBER, (record,)):
            return int(number)
        raise NotFound(
            f"There is no record {record[:80]!r}.",
            why="It was never written, or it was forgotten.",
            todo="Begin the list anew, without `after`.",
        )

    # --- what an index in memory is made of ---------------------------------------------------

    async def load_scope(self, owner: Owner, model: str, after: int = -1) -> list[Loaded]:
        found: list[Loaded] = []
        embedding, at_once = self._model(model), limits.RECORDS_LOADED_AT_ONCE
        while page := self._all(recordsql.LOAD, (embedding, *owner, after, at_once)):
            found += map(Loaded._make, page)
            after = found[-1].number
            if len(page) < at_once:
                break
            await self._runtime.sleep(0)  # Others have their turn.
        for place, one in enumerate(found):
            if one.terms is None or (model and one.vector is None):
                texts = [text for _, text in self._texts(one.number)]
                found[place] = one._replace(text=texts[0] if texts else "")
        return found

    async def unindexed(self, model: str, most: int) -> list[Unindexed]:
        embedding = self._model(model) if model else -1
        begin = self._indexed_to.get(model, 0)
        ((newest,),) = self._all(recordsql.NEWEST)
        found: list[Unindexed] = []
        while begin < newest and len(found) < most:
            end = min(newest, begin + _WINDOW_NUMBERS)
            room = most - len(found)
            numbers = self._all(recordsql.UNINDEXED, (begin, end, embedding, room))
            if not found:
                self._indexed_to[model] = numbers[0][0] - 1 if numbers else end
            for (number,) in numbers:
                found += self._unindexed(number)
            begin = end
            await self._runtime.sleep(0)
        return found

    def _unindexed(self, number: int) -> list[Unindexed]:
        return [
            Unindexed(
                number=number,
                owner=row.owner,
                id=row.id,
                text=text,
                previous=self._previous(number, row),
                role=self._role(number),
                happened_us=row.happened_us or row.at_us,
            )
            for row, text in self._texts(number)
        ]

    def _texts(self, number: int) -> list[tuple[RecordRow, str]]:
        found = []
        for _, row, value in self._all(recordsql.TEXT, (number,)):
            stored: RecordRow = decode("record", row)
            found.append((stored, searched(body_of(stored, bytes(value)))))
        return found

    def _role(self, number: int) -> str:
        return "".join(role for (role,) in self._all(recordsql.ROLE, (number,)))

    def _previous(self, number: int, row: RecordRow) -> str:
        for _, before, value in self._all(recordsql.PREVIOUS, (number,)):
            stored: RecordRow = decode("record", before)
            return searched(body_of(stored, bytes(value)))
        return ""

    def _model(self, name: str) -> int:
        for (number,) in self._all(recordsql.MODEL, (name,)):
            return int(number)
        return 0

    async def index(self, model: str, rows: Sequence[Indexed]) -> None:
        if rows:
            await self._submit(Indexing(model, rows))

    async def vector_models(self) -> dict[str, int]:
        return {name: count for name, count in self._all(recordsql.VECTOR_MODELS) if count}

    async def drop_vectors(self, model: str) -> int:
        self._indexed_to = {name: to for name, to in self._indexed_to.items() if name == model}
        return await self._submit(Dropped(model))

    async def scope_key(self, owner: Owner) -> bytes:
        rows = self._all(recordsql.SCOPE_KEY, owner)
        if not rows:
            await self._submit(ScopeKeyed(owner, self._runtime.random_bytes(_SCOPE_KEY_BYTES)))
            rows = self._all(recordsql.SCOPE_KEY, owner)
        return bytes(rows[0][0])

    # --- wiping -------------------------------------------------------------------------------

    async def wiped(self) -> None:
        await self._emptied()
        begin, pages = 1, self.storage.pages()
        while begin <= pages:
            # What was written meanwhile lies in the WAL, and is in the file before it is looked at.
            await self._emptied(begin)
            begin += limits.WIPED_PAGES_AT_ONCE

    async def _emptied(self, begin: int = 0) -> None:
        for _ in range(_WIPING_TRIES):
            if not await self._submit(Wiping(begin) if begin else Emptied()):
                return
            await self._runtime.sleep(_WIPING_PAUSE_S)
        raise StoreFailed(
            "What was forgotten is not out of the file yet.",
            why="Another program reads the journal as it was before: its WAL can't be emptied.",
            todo="Wait for its end (a back-up, `ring0 audit verify`), and ask again.",
        )

    # --- windows ------------------------------------------------------------------------------

    async def window(self, run: str) -> Window | None:
        for (row,) in self._all(sql.GET["window"], (run,)):
            found: Window = decode("window", row)
            return found
        return None

    async def working(self, run: str) -> tuple[WorkingSet, Label] | None:
        window = await self.window(run)
        if window is None or not window.working or window.label is None:
            return None
        return _decode_working(await self.blob(window.working)), window.label
