"""In which pieces an answer went out: kept with its call, so that whoever hears it again (a replay,
a retry, a run that goes on) hears the same bytes in the same pieces.

A piece of text is kept as the number of letters that it takes of the answer's text, which is on
record anyway; only what differs from that is kept as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error, RunDead
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.models import Delta
from ring0.store import GuardFailed, Write, address
from ring0.store import events as ev
from ring0.types import CallState, Outcome

Group = list[Delta]
"""What went out at once; empty: nothing had come, and the client was told to wait on."""
_ENDED: Final = (CallState.OK, CallState.ERROR)


def encoded(groups: Sequence[Group], text: str) -> bytes:
    """`text`: the answer's own, as it is on record."""
    at, found = 0, []
    for group in groups:
        pieces: list[Any] = []
        for delta in group:
            if delta.kind != "text":
                pieces.append(msgspec.to_builtins(delta))
            elif text.startswith(delta.text, at):
                pieces.append(len(delta.text))
                at += len(delta.text)
            else:
                pieces.append(delta.text)
        found.append(pieces)
    return msgspec.json.encode(found)


def decoded(stored: bytes, text: str) -> list[Group]:
    """The groups as they were. Raises ValueError for what `encoded` does not write."""
    at, found = 0, []
    for pieces in msgspec.json.decode(stored, type=list[list[int | str | Delta]]):
        group: Group = []
        for piece in pieces:
            if isinstance(piece, int):
                group.append(Delta(text=text[at : at + piece]))
                at += piece
            else:
                group.append(Delta(text=piece) if isinstance(piece, str) else piece)
        found.append(group)
    return found


async def keep(gate: Gate, run: LiveRun, call: str, groups: Sequence[Group]) -> None:
    """Writes down how the answer to that call went out, before its end does. One that went out
    before keeps its first form; where nothing can be written any more, the answer goes out all the
    same."""
    record = run.records.get(call)
    if run.strict or record is None or record.stream or record.state not in _ENDED:
        return
    stored = encoded(groups, await _text(gate, record.outcome))
    if len(stored) > limits.STREAM_PIECES_SIZE_BYTES_MAX:
        return
    where = address(run.key, stored)
    event = ev.CallStreamed(call=call, stream=where)
    try:
        await gate.store.append(Write(run=run.id, events=[event], blobs={where: stored}))
    except (GuardFailed, Ring0Error):
        return  # It is how the answer was told, not what it was: that is on record.
    now = run.records[call]
    run.records[call] = msgspec.structs.replace(now, stream=where)


async def kept(gate: Gate, run: LiveRun, call: str) -> list[Group]:
    """How the answer to that call went out when it did; empty: whole, or nobody knows."""
    record = run.records.get(call)
    if record is None or not record.stream:
        return []
    stored = await gate.store.blob(record.stream)
    try:
        return decoded(stored, await _text(gate, record.outcome))
    except (ValueError, msgspec.MsgspecError):
        raise RunDead(
            f"How the answer to {call} went out can't be read.",
            todo="`ring0 audit verify` tells what else was changed.",
        ) from None


async def _text(gate: Gate, outcome: str) -> str:
    await gate.store.flush()
    value = msgspec.json.decode(await gate.store.blob(outcome), type=Outcome).value
    text = value.get("text") if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""
