"""Which format a file has, by what it holds and not by its name."""

from __future__ import annotations

from typing import Any

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.memory.exchange import letta, mem0
from ring0.memory.exchange.bundle import Bundle, parsed
from ring0.memory.exchange.lines import read_lines


def read(data: bytes, *, owner: str = "") -> Bundle:
    """`owner`: whose part of the file, where it holds several (mem0's `user_id`, Letta's agent).
    Raises InvalidInput."""
    if len(data) > limits.EXCHANGE_SIZE_BYTES_MAX:
        raise InvalidInput(
            f"The file has {len(data):,} bytes.",
            why=f"At most {limits.EXCHANGE_SIZE_BYTES_MAX:,} are taken.",
            todo="Split it.",
        )
    start = data[:200].lstrip()
    if start.startswith((b'{"ring0"', b'{ "ring0"')):
        return read_lines(data)
    said = parsed(data, where="The file")
    if letta.is_one(said):
        return letta.read(said, owner)
    if mem0.is_one(said):
        return mem0.read(said, owner)
    raise InvalidInput(
        "The file is of no format that can be read.",
        why=f"It is {_kind(said)}: neither `ring0 memory export`, nor mem0's get_all(), nor a"
        " Letta agent file.",
        todo="`ring0 memory import --help` names the formats.",
    )


def _kind(said: Any) -> str:
    if isinstance(said, dict):
        return f"an object of {', '.join(list(said)[:5])[:200] or 'nothing'}"
    return f"a list of {len(said)}" if isinstance(said, list) else "no list and no object"
