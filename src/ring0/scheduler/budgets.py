"""Budgets: what a run may still use. The hard check is a guard in the store; here are its words."""

from __future__ import annotations

from ring0.errors import LimitReached
from ring0.types import Run


def check_deadline(run: Run, now_us: int) -> None:
    """Raises LimitReached when the run's wall time is over."""
    if now_us >= run.deadline_us:
        raise LimitReached(
            f"The run's {run.budget.wall_s} s are over.",
            why="Every run has a deadline.",
            todo="Raise `wall_s` in the agent's budget if it needs longer.",
        )


def refusal(run: Run, detail: str) -> LimitReached:
    """What a call is told for which the budget has no room."""
    return LimitReached(
        f"The budget has no room for this call: {detail}.",
        why="A run can't use more than its manifest grants.",
        todo="Raise `[budget]` in the agent's manifest, or ask for less.",
    )
