"""[memory] of agent.toml: what the kernel does with memory for an agent that knows nothing of it.

Not here: how memory is searched and filled (ring0.toml's `[memory]`), what a call of it does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.types import MemorySettings

TOOLS: Final = frozenset(
    {
        "memory_search",
        "memory_note",
        "memory_remember",
        "memory_plan",
        "memory_why",
        "memory_forget",
    }
)
"""What the tools of memory are called at a run's MCP door."""
_AFTER: Final = re.compile(r"after ([0-9]{1,6})")


class MemoryTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As a person writes it."""

    tools: bool = False
    recall: Annotated[int, msgspec.Meta(ge=0, le=limits.RECALL_K_MAX)] = 0
    window_tokens: Annotated[int, msgspec.Meta(ge=0, le=limits.DOOR_WINDOW_TOKENS_MAX)] = 0
    consolidate: str = ""
    consolidate_model: Annotated[str, msgspec.Meta(max_length=limits.CALL_NAME_CHARS_MAX)] = ""


def settings(said: MemoryTable, tools: frozenset[str], path: Path) -> MemorySettings:
    """`tools`: the names of the manifest's own. Raises ManifestInvalid."""
    if 0 < said.window_tokens < limits.DOOR_WINDOW_TOKENS_MIN:
        least = limits.DOOR_WINDOW_TOKENS_MIN
        raise ManifestInvalid(
            f"{path}: [memory] window_tokens = {said.window_tokens} is too small.",
            why=f"Goal, plan and the newest turn need room: {least} at least.",
            todo="Raise it, or take it out: 0 leaves conversations as they are.",
        )
    if said.tools and (taken := sorted(TOOLS & tools)):
        raise ManifestInvalid(
            f"{path}: {taken[0]} is a tool of the agent's, and one of memory's.",
            why="Nobody could tell which of the two a model asks for.",
            todo="Give it another name, or take `tools` out of [memory].",
        )
    if said.consolidate_model and not said.consolidate:
        raise ManifestInvalid(
            f"{path}: [memory] consolidate_model is asked by nobody.",
            why="`consolidate` says when, and it is not set.",
            todo='Add `consolidate = "daily"`, or take the model out.',
        )
    return MemorySettings(
        tools=said.tools,
        recall=said.recall,
        window_tokens=said.window_tokens,
        consolidate_after=_after(said.consolidate, path),
        consolidate_daily=said.consolidate == "daily",
        consolidate_model=said.consolidate_model,
    )


def _after(said: str, path: Path) -> int:
    """After how many new records; 0: it is not said so."""
    if said in ("", "daily"):
        return 0
    found = _AFTER.fullmatch(said)
    count = int(found[1]) if found else 0
    if not limits.CONSOLIDATE_RECORDS_MIN <= count <= limits.CONSOLIDATE_RECORDS_MAX:
        raise ManifestInvalid(
            f"{path}: [memory] consolidate = {said[:40]!r} can't be read.",
            why=f"It is done daily, or after {limits.CONSOLIDATE_RECORDS_MIN} to"
            f" {limits.CONSOLIDATE_RECORDS_MAX:,} new records.",
            todo='Write it like "daily" or "after 50".',
        )
    return count
