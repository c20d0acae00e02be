"""An event as it is stored: an `Entry`, one line of the journal.

Its exact bytes are the Merkle leaf, so nothing is ever re-encoded. Large or erasable values are not
in it, but in blobs that it names by keyed digest.
"""

from __future__ import annotations

import msgspec

from ring0.store.events.approvals import ApprovalEvent
from ring0.store.events.calls import CallEvent
from ring0.store.events.kernel import KernelEvent
from ring0.store.events.memory import MemoryEvent
from ring0.store.events.orders import OrderEvent
from ring0.store.events.runs import RunEvent
from ring0.store.events.storage import StorageEvent

AnyEvent = (
    KernelEvent | RunEvent | CallEvent | ApprovalEvent | OrderEvent | StorageEvent | MemoryEvent
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal: (run, seq) names it for ever."""

    run: str
    seq: int
    at_us: int
    stored_bytes: int = 0
    """Of its body as stored, and of the values that came with it and were new."""
    body: AnyEvent


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """An `Entry` whose body is encoded already. The same fields in the same order."""

    run: str
    seq: int
    at_us: int
    stored_bytes: int
    body: msgspec.Raw


encode_entry = msgspec.json.Encoder().encode
decode_entry = msgspec.json.Decoder(Entry).decode


def seal(run: str, seq: int, at_us: int, body: AnyEvent, values_bytes: int) -> tuple[Entry, bytes]:
    """The entry, and its exact bytes: those of `encode_entry`."""
    raw = encode_entry(body)
    size = len(raw) + values_bytes
    entry = Entry(run=run, seq=seq, at_us=at_us, stored_bytes=size, body=body)
    sealed = _Sealed(run=run, seq=seq, at_us=at_us, stored_bytes=size, body=msgspec.Raw(raw))
    return entry, encode_entry(sealed)
