"""What a run may ask for beneath its agent's manifest: grants, all of which must name it.

A run holds a list of grants: its task's, those of the runs above it, its principal's. Whoever hands
something on can only add to the list, so that delegation never widens. Nothing is looked up here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.types import CallKind, Only

TOOL: Final = "tool:"
MODEL: Final = "model:"
AGENT: Final = "agent:"
KERNEL: Final = "kernel:"
"""What the kernel does for every run: `kernel:memory.recall`, `kernel:send`, …"""
DOMAINS: Final = (TOOL, MODEL, AGENT, KERNEL)
_OF: Final = {
    CallKind.TOOL: TOOL,
    CallKind.EGRESS: TOOL,
    CallKind.MODEL: MODEL,
    CallKind.SPAWN: AGENT,
}


def subject(kind: CallKind, name: str) -> str:
    """What a call asks for, as grants name it: `tool:crm.query`, `kernel:now`."""
    domain = _OF.get(kind)
    return KERNEL + kind if domain is None else domain + name


def exactly(only: Iterable[str]) -> Only:
    """A grant that names these patterns and nothing else. Raises InvalidInput.

    A pattern is `crm.query` or `files.*` for tools (`tool:` may be written), `model:NAME`,
    `agent:NAME`, `kernel:KIND`. `*` stands for any characters; nothing else is special.
    """
    named = tuple(sorted({_pattern(text) for text in only}))
    if len(named) > limits.GRANT_PATTERNS_MAX:
        raise InvalidInput(
            f"A grant names {len(named)} patterns.",
            why=f"At most {limits.GRANT_PATTERNS_MAX} are taken.",
            todo="Use `*`: `files.*`.",
        )
    return named


def for_task(only: Iterable[str]) -> Only:
    """The same for a task or a principal: a domain that it says nothing about (models, agents, the
    kernel's own) stays as the manifest has it; tools are always named. Raises InvalidInput."""
    named = exactly(only)
    open_ = (d + "*" for d in DOMAINS[1:] if not any(pattern.startswith(d) for pattern in named))
    return tuple(sorted({*named, *open_}))


def narrowed(grants: Sequence[Only], *more: Only) -> tuple[Only, ...]:
    """The grants of whoever gets something handed on. One that is there already adds nothing."""
    return tuple(dict.fromkeys((*grants, *more)))


def allows(grants: Sequence[Only], asked: str) -> bool:
    """Whether each of the grants names it."""
    return all(any(_matches(pattern, asked) for pattern in only) for only in grants)


class Narrowed:
    """The grants of one run, with what was asked of them so far. Those asked are names that its
    manifest has, so they are few."""

    __slots__ = ("_known", "grants")

    def __init__(self, grants: Sequence[Only]) -> None:
        self.grants = tuple(grants)
        self._known: dict[str, bool] = {}

    def allows(self, asked: str) -> bool:
        found = self._known.get(asked)
        if found is None:
            found = self._known[asked] = allows(self.grants, asked)
        return found

    def told(self) -> str:
        """What they name, for a person: one grant after another."""
        each = (" ".join(pattern.removeprefix(TOOL) for pattern in only) for only in self.grants)
        return "; and ".join(one or "nothing" for one in each)[: limits.GRANT_TOLD_CHARS_MAX]


def _pattern(text: str) -> str:
    if not text or len(text) > limits.GRANT_CHARS_MAX or not text.isprintable() or " " in text:
        raise InvalidInput(
            f"{text[:60]!r} is nothing that a grant can name.",
            why=f"It has 1 to {limits.GRANT_CHARS_MAX} characters, without spaces.",
            todo="Write it like `crm.query`, `files.*`, `model:default` or `agent:NAME`.",
        )
    pattern = text if text.startswith(DOMAINS) else TOOL + text
    if pattern in DOMAINS:
        raise InvalidInput(f"{text!r} names nothing.", todo=f"Write `{text}*` for all of them.")
    return pattern


def _matches(pattern: str, asked: str) -> bool:
    """Takes time in proportion to both: the earliest place for each part between stars is as good
    as any later one."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == asked
    if not asked.startswith(first):
        return False
    place, last = len(first), rest.pop()
    for part in rest:
        found = asked.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return len(asked) - place >= len(last) and asked.endswith(last)
