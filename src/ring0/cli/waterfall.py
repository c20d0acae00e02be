"""A tree of runs in time: a line a run and a call, each with a bar from its beginning to its end.

`rows` is what the report draws too; here it becomes lines of a terminal. Not here: what the calls
said (tree.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import line, text
from ring0.cli.parts import STYLES, place, title
from ring0.cli.tree import Told
from ring0.types import ENDED

_NAME_COLUMNS: Final = 38
_BAR_COLUMNS_MIN: Final = 16
_INDENT_MAX: Final = 12
_TAIL_COLUMNS: Final = 30


@dataclass(frozen=True)
class Row:
    """One line: a run, or a call."""

    depth: int
    name: str
    state: str
    begun_us: int
    ended_us: int
    cost_microusd: int
    is_run: bool
    asked_us: int = 0
    """When a person was asked, where one was: what lies between is waiting."""
    call: str = ""


def rows(told: Told, now_us: int, depth: int = 0) -> Iterator[Row]:
    """A run, its calls in their order, and its children beneath the calls that spawned them."""
    run = told.run
    ends_us = run.ended_us if run.state in ENDED else now_us
    state = str(run.state)
    yield Row(depth, run.agent, state, run.started_us, ends_us, run.cost_used_microusd, True)
    for call, _, _ in told.calls:
        approval = told.approvals.get(call.approval)
        asked_us = approval.asked_us if approval is not None else 0
        call_ends_us = call.ended_us or ends_us
        begun_us = min(call.begun_us, asked_us or call.begun_us)
        yield Row(
            depth + 1, f"{place(call.id)} {title(call)}", str(call.state), begun_us, call_ends_us,
            call.cost_microusd, False, asked_us, call.id,
        )  # fmt: skip
        child = told.children.get(call.id)
        if child is not None:
            yield from rows(child, now_us, depth + 2)


def draw(told: Told, now_us: int, columns: int) -> Iterator[Text]:
    """The lines, for a terminal of that width."""
    found = list(rows(told, now_us))
    left_out = len(found) - limits.WATERFALL_ROWS_MAX
    found = found[: limits.WATERFALL_ROWS_MAX]
    from_us = min(row.begun_us for row in found)
    to_us = max(row.ended_us for row in found)
    width = max(_BAR_COLUMNS_MIN, columns - _NAME_COLUMNS - _TAIL_COLUMNS)
    yield text((f"{'':<{_NAME_COLUMNS}}0 … {output.lasted(from_us, to_us)}", "dim"))
    for row in found:
        yield _line(row, from_us, max(1, to_us - from_us), width)
    if left_out > 0:
        yield text((f"{left_out:,} more: `ring0 logs` tells them", "dim"))


def _line(row: Row, from_us: int, whole_us: int, width: int) -> Text:
    indent = " " * min(row.depth, _INDENT_MAX)
    name = indent + line(row.name, _NAME_COLUMNS - 2 - len(indent))
    begins = (row.begun_us - from_us) * width // whole_us
    ends = max(begins + 1, -(-(row.ended_us - from_us) * width // whole_us))
    begins, ends = min(begins, width - 1), min(ends, width)
    full = "█" if row.is_run else "▇"
    bar = " " * begins + full * (ends - begins) + " " * (width - ends)
    cost = f"  {output.money(row.cost_microusd)}" if row.cost_microusd else ""
    state = "" if row.state in ("ok", "done") else f"  {row.state}"
    style = STYLES.get(row.state, "")
    return text(
        (f"{name:<{_NAME_COLUMNS}}", "bold" if row.is_run else ""),
        (bar, style),
        (f"  {output.lasted(row.begun_us, row.ended_us)}", "dim"),
        cost,
        (state, style),
    )


def costs(told: Told) -> list[tuple[str, int, int, int]]:
    """What was spent, by what: (name, calls, tokens, micro-US-dollars), the dearest first."""
    found: dict[str, list[int]] = {}
    left = [told]
    while left:
        one = left.pop()
        left += one.children.values()
        for call, _, _ in one.calls:
            sums = found.setdefault(title(call), [0, 0, 0])
            for column, value in enumerate((1, call.tokens, call.cost_microusd)):
                sums[column] += value
    ranked = sorted(found.items(), key=lambda item: (-item[1][2], -item[1][1], -item[1][0]))
    return [(name, calls, tokens, cost) for name, (calls, tokens, cost) in ranked]
