"""Our own format, JSON Lines: a header that says whose memory it was, and a record a line, with all
that is known of it: label, times, what it was made of, what superseded it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.memory.exchange.bundle import Bundle, Imported, parsed
from ring0.types import MemoryKind, NewRecord, Owner, Record, RecordState

VERSION: Final = 1
_KEPT: Final = ("role", "session", "subject", "predicate", "document", "place", "fingerprint")


class Header(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The first line."""

    ring0: str
    version: int
    tenant: str
    principal: str
    agent: str
    exported_us: int
    note: str = ""


def header(owner: Owner, now_us: int) -> bytes:
    tenant, principal, agent = owner
    return msgspec.json.encode(
        Header(
            ring0="memory",
            version=VERSION,
            tenant=tenant,
            principal=principal,
            agent=agent,
            exported_us=now_us,
        )
    )


def line(record: Record) -> bytes:
    """All of it, but for what its run had recalled before: that is the journal's."""
    told = msgspec.to_builtins(record)
    told.pop("seen", None)
    return msgspec.json.encode(told)


def read_lines(data: bytes) -> Bundle:
    """Raises InvalidInput: the whole file is refused where one line can't be read."""
    bundle = Bundle(format="ring0")
    first = True
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not raw.strip():
            continue
        if len(raw) > limits.EXCHANGE_LINE_BYTES_MAX:
            raise InvalidInput(
                f"Line {number} has {len(raw):,} bytes.",
                why=f"At most {limits.EXCHANGE_LINE_BYTES_MAX:,} are taken.",
                todo="Export it anew.",
            )
        said = parsed(raw, where=f"Line {number}")
        try:
            if first:
                _check(msgspec.convert(said, Header))
                first = False
                continue
            bundle.add(_imported(msgspec.convert(said, Record)))
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"Line {number} is no {'header' if first else 'record'}.",
                why=str(error)[:200],
                todo="Give a file that `ring0 memory export` wrote.",
            ) from None
    bundle.records.sort(key=lambda one: one.record.happened_us)
    return bundle


def _check(found: Header) -> None:
    if found.ring0 != "memory" or found.version != VERSION:
        raise InvalidInput(
            f"The file is of version {found.version} of {found.ring0[:40]!r}.",
            why=f"Version {VERSION} of 'memory' is read.",
            todo="Export it with this version of ring0.",
        )


def _imported(record: Record) -> Imported:
    told: dict[str, Any] = {name: getattr(record, name) for name in _KEPT}
    if record.session == record.act:
        told["session"] = f"{record.act}"
    return Imported(
        record=NewRecord(
            kind=record.kind,
            text=record.text,
            label=record.label,
            # What was approved there was not approved here.
            state=(
                RecordState.PROPOSED
                if record.kind is MemoryKind.PROCEDURE and record.state is RecordState.CURRENT
                else record.state
            ),
            happened_us=record.happened_us or record.at_us,
            key=record.key if record.key.startswith("import ") else f"import {record.id}",
            many=record.many,
            valid_from_us=record.valid_from_us,
            valid_to_us=0 if record.superseded_us else record.valid_to_us,
            **told,
        ),
        origin=record.id,
        parents=record.parents,
        superseded_by=record.superseded_by,
        labelled=True,
    )
