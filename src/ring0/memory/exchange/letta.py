"""Letta's agent files (`.af`): core-memory blocks, messages, archival passages, files.

A block becomes a fact (subject: its label), so that a newer export takes its place; all else notes,
turns and passages. Nothing becomes a directive, and the system prompt is none of memory's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ring0 import limits
from ring0.memory.exchange.bundle import (
    UNTRUSTED,
    Bundle,
    Imported,
    chosen,
    parts_of,
    short,
    text_of,
)
from ring0.memory.exchange.mem0 import digest, time_us
from ring0.types import MemoryKind, NewRecord

_PREDICATE: Final = "core memory"
_ROLES: Final = {"user": "user", "assistant": "assistant", "tool": "result"}
_PASSAGES: Final = ("passages", "archival_passages", "archival_memory")


def is_one(said: Any) -> bool:
    if not isinstance(said, dict):
        return False
    return isinstance(said.get("agents"), list) or (
        "agent_type" in said and isinstance(said.get("messages"), list)
    )


def read(said: Any, owner: str) -> Bundle:
    """Raises InvalidInput."""
    bundle = Bundle(format="letta")
    whole = said if isinstance(said.get("agents"), list) else {"agents": [said]}
    agents = {short(one.get("name"), 200) or "agent": one for one in _dicts(whole["agents"])}
    name = chosen(agents, owner, what="agent")
    if name not in agents:
        return bundle
    agent = agents[name]
    if text_of(agent.get("system")):
        bundle.left_out["system prompt"] += 1
    _blocks(bundle, agent, {short(one.get("id")): one for one in _dicts(whole.get("blocks"))})
    for at, message in enumerate(_dicts(agent.get("messages"))):
        _message(bundle, message, at, name)
    for source in (whole, agent):
        for key in _PASSAGES:
            for at, passage in enumerate(_dicts(source.get(key))):
                _passage(bundle, passage, at)
    for file in _dicts(whole.get("files")):
        _file(bundle, file)
    bundle.records.sort(key=lambda one: one.record.happened_us)
    return bundle


def _blocks(bundle: Bundle, agent: dict[str, Any], known: dict[str, dict[str, Any]]) -> None:
    wanted = agent.get("block_ids")
    rows = [known[one] for one in wanted if one in known] if isinstance(wanted, list) else []
    rows += [*_dicts(agent.get("memory_blocks")), *_dicts(agent.get("core_memory"))]
    for block in rows:
        label, text = (
            short(block.get("label"), limits.MEMORY_SUBJECT_CHARS_MAX),
            text_of(block.get("value")),
        )
        if not text:
            bundle.left_out["empty block"] += 1
            continue
        parts = parts_of(text)
        for number, part in enumerate(parts, 1):
            place = f"{_PREDICATE} {number}" if len(parts) > 1 else _PREDICATE
            bundle.add(
                Imported(
                    record=NewRecord(
                        kind=MemoryKind.FACT,
                        text=part,
                        label=UNTRUSTED,
                        role="fact",
                        subject=label or "memory",
                        predicate=place,
                        key=f"import letta block {label[:100]} {number} {digest(part)}",
                    ),
                    origin=f"{short(block.get('id'), 100) or label}.{number}",
                )
            )


def _message(bundle: Bundle, message: dict[str, Any], at: int, agent: str) -> None:
    role = short(message.get("role"), 40)
    if role not in _ROLES:
        bundle.left_out[f"{role or 'unknown'} message"] += 1
        return
    text = "\n".join(_texts(message))
    if not text:
        bundle.left_out["message without text"] += 1
        return
    origin = short(message.get("id"), 100) or f"message {at}"
    for number, part in enumerate(parts_of(text)):
        mark = f"{origin}.{number}" if number else origin
        bundle.add(
            Imported(
                record=NewRecord(
                    kind=MemoryKind.EPISODE,
                    text=part,
                    label=UNTRUSTED,
                    role=_ROLES[role],
                    happened_us=time_us(message.get("created_at")),
                    session=f"letta {agent}"[: limits.RECORD_FIELD_CHARS_MAX],
                    key=f"import letta {mark} {digest(part)}",
                ),
                origin=mark,
            )
        )


def _texts(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content", message.get("text"))
    if isinstance(content, str):
        yield text_of(content)
    for piece in _dicts(content):
        if found := text_of(piece.get("text")):
            yield found
    for returned in _dicts(message.get("tool_returns")):
        if found := text_of(returned.get("func_response") or returned.get("stdout")):
            yield found


def _passage(bundle: Bundle, passage: dict[str, Any], at: int) -> None:
    origin = short(passage.get("id"), 100) or f"passage {at}"
    for number, part in enumerate(parts_of(text_of(passage.get("text")))):
        mark = f"{origin}.{number}" if number else origin
        bundle.add(
            Imported(
                record=NewRecord(
                    kind=MemoryKind.EPISODE,
                    text=part,
                    label=UNTRUSTED,
                    role="note",
                    happened_us=time_us(passage.get("created_at")),
                    key=f"import letta {mark} {digest(part)}",
                ),
                origin=mark,
            )
        )


def _file(bundle: Bundle, file: dict[str, Any]) -> None:
    name = short(file.get("original_file_name") or file.get("file_name"), 200)
    parts = parts_of(text_of(file.get("content")))
    if not (name and parts):
        bundle.left_out["file without text"] += 1
        return
    for number, part in enumerate(parts, 1):
        bundle.add(
            Imported(
                record=NewRecord(
                    kind=MemoryKind.PASSAGE,
                    text=part,
                    label=UNTRUSTED,
                    role="passage",
                    document=name,
                    place=f"part {number} of {len(parts)}",
                    happened_us=time_us(file.get("file_last_modified_date")),
                    key=f"import letta file {name[:100]} {number} {digest(part)}",
                ),
                origin=f"{short(file.get('id'), 100) or name}.{number}",
            )
        )


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
