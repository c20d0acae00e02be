"""L1, the ledgers: what a run did to the world, and what it read, from its own calls on record.

The kernel makes them; no model writes a word of one beyond the arguments that it called with. They
are made anew from the same calls each time: so a compaction can't change one. Not the loop stop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from ring0 import limits
from ring0.memory.working import one_line
from ring0.types import CallState, Frozen

STATES: Final = {
    CallState.OK: "done",
    CallState.ERROR: "failed",
    CallState.INTENDED: "under way",
    CallState.UNKNOWN: "unknown: it may have happened",
}
UNDONE: Final = "taken back"


class Act(Frozen, frozen=True, kw_only=True):
    """One call of the run, as far as a ledger tells of it."""

    tool: str
    args: str
    """Address of its arguments: the same for the same ones."""
    outcome: str = ""
    """Address of what came of it."""
    state: CallState
    undone: bool = False


class Line(Frozen, frozen=True, kw_only=True):
    """The same done several times is one line."""

    tool: str
    args: str
    shown: str = ""
    """The arguments in short, as the model wrote them."""
    state: str
    times: int = 1
    outcome: str = ""
    """The beginning of the newest outcome's address: what is the same has the same."""


class Ledger(Frozen, frozen=True, kw_only=True):
    lines: tuple[Line, ...] = ()
    """The newest, in the order in which each was done last."""
    others: tuple[tuple[str, int], ...] = ()
    """What is left out: (tool, how many calls)."""
    total: int = 0
    """Calls, each repetition counted."""


def ledger(acts: Iterable[Act], most: int = limits.LEDGER_LINES_MAX) -> Ledger:
    """Of calls in the order in which they were made."""
    found: dict[tuple[str, str, str], Line] = {}
    total = 0
    for act in acts:
        total += 1
        state = UNDONE if act.undone else STATES[act.state]
        key = (act.tool, act.args, state)
        before = found.pop(key, None)  # Its place is that of the newest.
        found[key] = Line(
            tool=act.tool,
            args=act.args,
            state=state,
            times=before.times + 1 if before else 1,
            outcome=act.outcome[: limits.LEDGER_FINGERPRINT_CHARS],
        )
    lines = list(found.values())
    kept, rest = lines[max(0, len(lines) - most) :], lines[: max(0, len(lines) - most)]
    others: Counter[str] = Counter()
    for line in rest:
        others[line.tool] += line.times
    return Ledger(
        lines=tuple(kept),
        others=tuple(sorted(others.items())),
        total=total,
    )


def distinct(acts: Iterable[Act]) -> frozenset[tuple[str, str, str]]:
    """Each different thing that was done, and what became of it: what `progress` is made of."""
    return frozenset((act.tool, act.args, act.state.value) for act in acts)


def with_arguments(found: Ledger, shown: Sequence[str]) -> Ledger:
    """With the arguments of each line, in short."""
    lines = [
        replace(line, shown=_short(text)) for line, text in zip(found.lines, shown, strict=True)
    ]
    return replace(found, lines=tuple(lines))


def told(found: Ledger, *, reads: bool = False) -> list[str]:
    """One line of text each, the oldest first; what is left out before them."""
    lines = []
    if found.others:
        counted = ", ".join(f"{tool} {times}×" for tool, times in found.others)
        lines.append(f"- and before these, not shown one by one: {counted}")
    for line in found.lines:
        times = f" ({line.times}×)" if line.times > 1 else ""
        mark = f", result #{line.outcome}" if reads and line.outcome else ""
        state = "read" if reads and line.state == STATES[CallState.OK] else line.state
        lines.append(f"- {one_line(line.tool)} {line.shown}: {state}{mark}{times}")
    return lines


def _short(text: str) -> str:
    line = one_line(text)
    most = limits.LEDGER_ARGS_CHARS_MAX
    return line if len(line) <= most else line[: most - 1] + "…"
