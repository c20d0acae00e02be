"""How a record lies in the journal: what it says in a blob, the rest of it in an event.

The blob is under the key of its act (a run, or an operator's act) in a domain of its own, so that
no other value of that act can lie at the address: what is forgotten of memory takes nothing else
with it. Who compares without reading (duplicates, facts of one subject) compares digests under the
scope's key. Not here: rows (remembering.py), where blobs lie (sqlite/).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.store import events as ev
from ring0.store.addresses import address
from ring0.store.rows import RecordRow
from ring0.types import Frozen, MemoryKind, NewRecord, Owner, Record

_DOMAIN: Final = b"ring0 memory v1"
_FIELDS: Final = (
    *("role", "key", "session", "subject", "predicate", "document", "place", "fingerprint"),
)


class RecordBody(Frozen, frozen=True, kw_only=True):
    """All of a record that can be forgotten: its blob is the JSON of this. Of what a run's own
    calls bring to memory (`CallEnded.remembered`) the blob is the text alone."""

    text: str
    role: str = ""
    key: str = ""
    session: str = ""
    subject: str = ""
    predicate: str = ""
    document: str = ""
    place: str = ""


encode_body = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(RecordBody).decode


def record_address(key: bytes, value: bytes) -> str:
    """The address of what a record says, under its act's key."""
    return address(hmac.digest(key, _DOMAIN, "sha256"), value)


def body_of(row: RecordRow, value: bytes) -> RecordBody:
    """What lies at the row's address. Raises ValueError, msgspec.MsgspecError."""
    if row.role:
        return RecordBody(text=value.decode(), role=row.role, session=row.act)
    return _decode_body(value)


def searched(body: RecordBody) -> str:
    """The text by which a record is found: of a fact, what it is told of too."""
    return f"{body.subject} {body.predicate}: {body.text}" if body.subject else body.text


def record_of(row: RecordRow, body: RecordBody, seen: tuple[str, ...] = ()) -> Record:
    """As it is handed out."""
    return Record(
        id=row.id,
        kind=row.kind,
        tenant=row.tenant,
        principal=row.principal,
        agent=row.agent,
        act=row.act,
        seq=row.seq,
        role=body.role,
        text=body.text,
        label=row.label,
        at_us=row.at_us,
        happened_us=row.happened_us,
        by=row.by,
        key=body.key,
        session=body.session or row.act,
        parents=row.parents,
        seen=seen,
        subject=body.subject,
        predicate=body.predicate,
        many=row.many,
        valid_from_us=row.valid_from_us,
        valid_to_us=row.valid_to_us,
        superseded_us=row.superseded_us,
        superseded_by=row.superseded_by,
        state=row.state,
        document=body.document,
        place=body.place,
        fingerprint=row.fingerprint,
    )


def slot_of(scope_key: bytes, subject: str, predicate: str) -> str:
    """What facts of one subject and predicate have in common. `scope_key`: `Store.scope_key`."""
    return _digest(scope_key, "slot", subject, predicate)


def key_digest(scope_key: bytes, kind: MemoryKind, key: str) -> str:
    """Of an idempotency key, within scope and kind. `scope_key`: `Store.scope_key`."""
    return _digest(scope_key, "key", kind.value, key)


def remembered(
    records: Iterable[NewRecord],
    *,
    key: bytes,
    scope_key: bytes,
    owner: Owner | None = None,
    act: str = "",
    by: str = "",
) -> tuple[ev.Remembered, dict[str, bytes]]:
    """The event that writes them, and the blobs of the same write.

    `key`: of the run, or the new one of an operator's act (`Write.keys`), which also names `owner`,
    `act` and `by`. Raises CallInvalid.
    """
    written, blobs = [], {}
    for one in records:
        _check(one)
        encoded = encode_body(
            RecordBody(
                text=one.text,
                role=one.role,
                key=one.key,
                session=one.session,
                subject=one.subject,
                predicate=one.predicate,
                document=one.document,
                place=one.place,
            )
        )
        where = record_address(key, encoded)
        blobs[where] = encoded
        is_fact = one.kind is MemoryKind.FACT
        written.append(
            ev.WrittenRecord(
                blob=where,
                kind=one.kind,
                label=one.label,
                state=one.state,
                happened_us=one.happened_us,
                parents=one.parents,
                many=one.many,
                valid_from_us=one.valid_from_us,
                valid_to_us=one.valid_to_us,
                slot=slot_of(scope_key, one.subject, one.predicate) if is_fact else "",
                key=key_digest(scope_key, one.kind, one.key) if one.key else "",
                fingerprint=one.fingerprint,
            )
        )
    if not 1 <= len(written) <= limits.RECORDS_PER_EVENT_MAX:
        raise CallInvalid(
            f"{len(written)} records can't be written at once.",
            why=f"1 to {limits.RECORDS_PER_EVENT_MAX} are taken.",
            todo="Write them in several parts.",
        )
    return ev.Remembered(records=tuple(written), owner=owner, act=act, by=by), blobs


def record_ids(act: str, seq: int, count: int) -> list[str]:
    """Of the records of one event."""
    if count == 1:
        return [f"{act}#{seq}"]
    return [f"{act}#{seq}.{number}" for number in range(1, count + 1)]


def _check(one: NewRecord) -> None:
    if not one.text or len(one.text) > limits.RECORD_CHARS_MAX:
        raise CallInvalid(
            f"A record of {len(one.text):,} characters can't be remembered.",
            why=f"1 to {limits.RECORD_CHARS_MAX:,} are taken.",
            todo="Remember it in parts, or what matters of it.",
        )
    for name in _FIELDS:
        size = len(getattr(one, name))
        if size > limits.RECORD_FIELD_CHARS_MAX:
            raise CallInvalid(
                f"The {name} of a record has {size:,} characters.",
                why=f"No more than {limits.RECORD_FIELD_CHARS_MAX} are taken.",
                todo="Put what is long into the text.",
            )
    if len(one.parents) > limits.RECORD_PARENTS_MAX:
        raise CallInvalid(
            f"A record of {len(one.parents):,} parents can't be remembered.",
            why=f"No more than {limits.RECORD_PARENTS_MAX} are taken.",
            todo="Sum them up in several steps.",
        )
    if one.kind is MemoryKind.FACT and not (one.subject and one.predicate):
        raise CallInvalid(
            "A fact without a subject or a predicate can't be remembered.",
            why="What it is told of is what finds it, and what supersedes it, later.",
            todo="Name both, or write it as a note.",
        )
    times = (one.happened_us, one.valid_from_us, one.valid_to_us)
    least, most = limits.RECORD_TIME_US_MIN, limits.RECORD_TIME_US_MAX
    if any(not least <= at_us <= most for at_us in times) or (
        one.valid_to_us and one.valid_from_us and one.valid_to_us < one.valid_from_us
    ):
        raise CallInvalid(
            "The times of a record can't be.",
            why="One is out of all bounds, or it ends before it begins.",
            todo="Give microseconds since 1970, the beginning before the end.",
        )


def _digest(scope_key: bytes, *parts: str) -> str:
    """Each part with its length: no two lists of parts make the same bytes."""
    said = b"".join(b"%d:" % len(raw) + raw for raw in (part.encode() for part in parts))
    return hmac.digest(scope_key, said, "sha256").hex()
