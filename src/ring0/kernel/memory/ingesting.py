"""Documents into memory: passages of a file for one agent and one principal, written where they
have changed.

A document is a name within a scope. Its card, a retired record that nobody recalls, says which file
it was made of. Passages that the file still has stay as they are; those that are gone are
superseded once all new ones are written, and the card comes last: what a crash leaves is finished
by the same command again. Not for reading files (the CLI) or their formats (memory/documents).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.kernel.memory.documents import (
    CARD,
    FORM,
    PASSAGE,
    SOURCE,
    Card,
    Document,
    Ingested,
    Order,
    check_name,
    label_of,
    listed,
    read_card,
    source_of,
    too_large,
    unchanged,
)
from ring0.kernel.memory.parsing import parse
from ring0.memory import documents
from ring0.memory.documents import Passage
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.records import remembered
from ring0.types import Label, MemoryKind, NewRecord, Record, RecordState, Scope

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

_ACT: Final = "m"
"""How the name of an operator's act begins."""


class Ingesting:
    """One a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._store = kernel.store
        self._writing = asyncio.Lock()
        """Two of one document at once would both find the old one."""
        self._uploads: dict[tuple[str, str], bytearray] = {}
        """By who sends it and what they call it; the one that waits longest first."""

    # --- pieces of a file -----------------------------------------------------------------------

    def take(self, by: str, upload: str, piece: bytes, *, first: bool) -> None:
        """Puts a piece behind those that came. Raises InvalidInput."""
        if first:
            self._uploads.pop((by, upload), None)
            while len(self._uploads) >= limits.DOCUMENT_UPLOADS_MAX:
                del self._uploads[next(iter(self._uploads))]
            self._uploads[by, upload] = bytearray()
        held = self._held(by, upload)
        if len(held) + len(piece) > limits.DOCUMENT_SIZE_BYTES_MAX:
            del self._uploads[by, upload]
            raise too_large(len(held) + len(piece))
        held += piece

    def whole(self, by: str, upload: str) -> bytes:
        """All that came, once. Raises InvalidInput."""
        held = self._held(by, upload)
        del self._uploads[by, upload]
        return bytes(held)

    def _held(self, by: str, upload: str) -> bytearray:
        held = self._uploads.get((by, upload))
        if held is None:
            raise InvalidInput(
                "The pieces of the file that came before this one are gone.",
                why=f"{limits.DOCUMENT_UPLOADS_MAX} files are taken in at once, and none over a"
                " restart.",
                todo="Ingest it again.",
            )
        return held

    # --- one document ---------------------------------------------------------------------------

    async def ingest(self, order: Order, data: bytes) -> Ingested:
        """Remembers what the file says and has not said before. Raises InvalidInput,
        DocumentUnreadable, SandboxUnavailable, StoreFull."""
        check_name(order.name)
        if len(data) > limits.DOCUMENT_SIZE_BYTES_MAX:
            raise too_large(len(data))
        parser = documents.check(order.name)
        digest = hashlib.sha256(data).hexdigest()
        source = await self._source(order)
        label = label_of(order, source)
        card = await self._card(order)
        if card is not None and (done := unchanged(order, card, digest, label)) is not None:
            return done
        found = await parse(self._kernel.sandboxes, self._kernel.runtime, order.name, parser, data)
        told = Card(
            digest=digest,
            size_bytes=len(data),
            parser=parser,
            passages=len(found),
            form=FORM,
            note=order.note,
        )
        async with self._writing:
            return await self._write(order, told, label, found)

    async def documents(self, scope: Scope) -> list[Document]:
        """What was ingested for one agent and principal, newest first."""
        cards = await self._all(scope, (RecordState.RETIRED,), "")
        return [listed(row, card) for row in cards if (card := read_card(row)) is not None]

    async def superseded(self, scope: Scope, document: str) -> tuple[str, ...]:
        """All that a document said once and says no more, with the cards of that time."""
        rows = await self._all(scope, (), document, superseded=True)
        return tuple(row.id for row in rows if row.superseded_us)

    async def _write(
        self, order: Order, card: Card, label: Label, found: Sequence[Passage]
    ) -> Ingested:
        old = await self._card(order)
        present = await self._all(order.scope, (RecordState.CURRENT,), order.name)
        runtime, redact = self._kernel.runtime, self._kernel.gate.secrets.redact_text
        clean = await runtime.in_thread(_clean, found, redact)
        new, gone = await runtime.in_thread(_compared, clean, present, label)
        act = self._kernel.runtime.new_id(_ACT)
        writing = _Writing(self._kernel, order, act, self._kernel.runtime.random_bytes(32))
        await writing.remember(
            [
                NewRecord(
                    kind=MemoryKind.PASSAGE,
                    text=passage.text,
                    label=label,
                    role=PASSAGE,
                    # The file's digest goes first: it is what a citation names.
                    key=f"{card.digest}/{number}/{act}",
                    session=f"{SOURCE}{order.name}",
                    document=order.name,
                    place=passage.place,
                )
                for number, passage in new
            ]
        )
        await writing.finish(card, label, gone, old)
        return Ingested(
            document=order.name,
            state="changed" if old is not None or present else "new",
            digest=card.digest,
            size_bytes=card.size_bytes,
            passages=len(found),
            written=len(new),
            kept=len(found) - len(new),
            superseded=len(gone),
            source=source_of(label),
            label=label,
            act=act,
        )

    async def _card(self, order: Order) -> Record | None:
        """The one that holds."""
        rows = await self._store.records(
            order.scope,
            kinds=(MemoryKind.PASSAGE,),
            states=(RecordState.RETIRED,),
            most=1,
            document=order.name,
        )
        return next((row for row in rows if row.role == CARD), None)

    async def _all(
        self,
        scope: Scope,
        states: Sequence[RecordState],
        document: str,
        *,
        superseded: bool = False,
    ) -> list[Record]:
        found: list[Record] = []
        while True:
            page = await self._store.records(
                scope,
                kinds=(MemoryKind.PASSAGE,),
                states=states,
                after=found[-1].id if found else "",
                most=limits.RECORDS_PAGE_MAX,
                document=document,
                superseded=superseded,
            )
            found += page
            await self._kernel.runtime.sleep(0)  # Others have a turn between two pages.
            if len(page) < limits.RECORDS_PAGE_MAX:
                return found

    async def _source(self, order: Order) -> str:
        """The same for all versions of a document, and nobody can read its name from it."""
        key = await self._store.scope_key(order.scope.owner)
        said = hmac.digest(key, b"document\0" + order.name.encode(), "sha256").hex()
        return f"{SOURCE}{said[:16]}"


def _clean(found: Sequence[Passage], redact: Callable[[str], str]) -> list[Passage]:
    """Without known secrets."""
    return [
        Passage(
            text=redact(one.text)[: limits.RECORD_CHARS_MAX],
            place=redact(one.place)[: limits.RECORD_FIELD_CHARS_MAX],
        )
        for one in found
    ]


def _compared(
    found: Sequence[Passage], present: Sequence[Record], label: Label
) -> tuple[list[tuple[int, Passage]], list[str]]:
    """Passages that are not remembered, each with its place in the document; and the ids of those
    that are remembered and no more in it. The same words under another label are others."""
    there: dict[tuple[str, Label], list[str]] = defaultdict(list)
    for row in present:  # The newest first: of equals the oldest is kept.
        there[row.text, row.label].append(row.id)
    new = []
    for number, passage in enumerate(found):
        if same := there.get((passage.text, label)):
            same.pop()
        else:
            new.append((number, passage))
    return new, [one for ids in there.values() for one in ids]


class _Writing:
    """The transactions of one act."""

    def __init__(self, kernel: Kernel, order: Order, act: str, key: bytes) -> None:
        self._kernel = kernel
        self._order = order
        self._act = act
        self._key = key

    async def remember(self, records: Sequence[NewRecord]) -> None:
        most = limits.DOCUMENT_RECORDS_AT_ONCE
        for start in range(0, len(records), most):
            await self._append(records[start : start + most], ())

    async def finish(
        self, card: Card, label: Label, gone: Sequence[str], old: Record | None
    ) -> None:
        """What holds no more is superseded; with the last of it the new card takes the place of
        the old one."""
        most = limits.DOCUMENT_RECORDS_AT_ONCE
        whole = len(gone) // most * most
        for start in range(0, whole, most):
            await self._append((), gone[start : start + most])
        last = [*gone[whole:], *([old.id] if old is not None else [])]
        text = msgspec.json.encode(card).decode()
        record = NewRecord(
            kind=MemoryKind.PASSAGE,
            text=text,
            label=label,
            role=CARD,
            state=RecordState.RETIRED,
            key=f"{card.digest}/card/{self._act}",
            session=f"{SOURCE}{self._order.name}",
            document=self._order.name,
        )
        await self._append((record,), last)

    async def _append(self, records: Sequence[NewRecord], gone: Sequence[str]) -> None:
        store, order = self._kernel.store, self._order
        events: list[ev.AnyEvent] = []
        blobs: dict[str, bytes] = {}
        if records:
            event, blobs = remembered(
                records,
                key=self._key,
                scope_key=await store.scope_key(order.scope.owner),
                owner=order.scope.owner,
                act=self._act,
                by=order.by,
            )
            events.append(event)
        # Somebody may have forgotten some meanwhile. From here on nobody else has a turn.
        await store.flush()
        there = await store.records_of(gone)
        still = [one for one in gone if one in there and not there[one].superseded_us]
        events += [ev.Superseded(record=record, by=order.by) for record in still]
        if not events:
            return
        # With each of them: who forgets all that came before takes the key away.
        keys = {self._act: self._key} if records else {}
        await store.append(
            Write(run=ev.KERNEL, events=events, blobs=blobs, keys=keys, durable=True)
        )
