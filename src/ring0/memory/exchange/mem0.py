"""mem0's memories, as `Memory.get_all()` and the platform's export give them (mem0ai 2.2): a list,
or an object with `results` and, of a graph, `relations`."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.memory.exchange.bundle import (
    UNTRUSTED,
    Bundle,
    Imported,
    chosen,
    parts_of,
    short,
    text_of,
)
from ring0.memory.facts import moment_us
from ring0.types import MemoryKind, NewRecord

_LISTS: Final = ("results", "memories")
_NOBODY: Final = "(nobody)"


def is_one(said: Any) -> bool:
    return any(isinstance(one, dict) and "memory" in one for one in _rows(said)[:10]) or bool(
        isinstance(said, dict) and isinstance(said.get("results"), list)
    )


def read(said: Any, owner: str) -> Bundle:
    """Raises InvalidInput."""
    bundle = Bundle(format="mem0")
    rows = [one for one in _rows(said) if isinstance(one, dict)]
    bundle.left_out["not an object"] = len(_rows(said)) - len(rows)
    whose = chosen({_owner(one): None for one in rows}, owner, what="user")
    for one in rows:
        if _owner(one) != whose:
            bundle.left_out["another user's"] += 1
            continue
        _add(bundle, one)
    if isinstance(said, dict) and isinstance(said.get("relations"), list):
        for one in said["relations"]:
            _relate(bundle, one)
    bundle.left_out = +bundle.left_out
    return bundle


def _add(bundle: Bundle, one: dict[str, Any]) -> None:
    text, origin = text_of(one.get("memory")), short(one.get("id"), 100)
    if not text or not origin:
        bundle.left_out["without text or id"] += 1
        return
    for number, part in enumerate(parts_of(text)):
        mark = f"{origin}.{number}" if number else origin
        bundle.add(
            Imported(
                record=NewRecord(
                    kind=MemoryKind.EPISODE,
                    text=part,
                    label=UNTRUSTED,
                    role=short(one.get("role"), 40) or "note",
                    happened_us=time_us(one.get("updated_at") or one.get("created_at")),
                    session=short(one.get("run_id"), 200),
                    # What was changed there is another record here.
                    key=f"import mem0 {mark} {digest(part)}",
                ),
                origin=mark,
            )
        )


def _relate(bundle: Bundle, one: Any) -> None:
    """`source` — `relationship` → `destination` (also `target`)."""
    if not isinstance(one, dict):
        return
    most = limits.MEMORY_SUBJECT_CHARS_MAX
    subject, predicate = short(one.get("source"), most), short(one.get("relationship"), most)
    value = short(one.get("destination") or one.get("target"), limits.EPISODE_CHARS_MAX)
    if not (subject and predicate and value):
        bundle.left_out["half a relation"] += 1
        return
    mark = digest(f"{subject}\n{predicate}\n{value}")
    bundle.add(
        Imported(
            record=NewRecord(
                kind=MemoryKind.FACT,
                text=value,
                label=UNTRUSTED,
                role="fact",
                subject=subject,
                predicate=predicate,
                many=True,
                key=f"import mem0 relation {mark}",
            ),
            origin=f"relation {mark}",
        )
    )


def time_us(text: Any) -> int:
    """A time as these files have it; what is none is 0: when it was, nobody knows."""
    try:
        return moment_us(short(text, 40))
    except CallInvalid:
        return 0


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _owner(one: dict[str, Any]) -> str:
    return short(one.get("user_id"), 200) or _NOBODY


def _rows(said: Any) -> list[Any]:
    if isinstance(said, dict):
        said = next((said[name] for name in _LISTS if isinstance(said.get(name), list)), [])
    return said if isinstance(said, list) else []
