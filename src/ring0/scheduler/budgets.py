"""Budgets: what a run has used on what, and the words for it. The hard check is a guard in the
store; how a budget moves between a parent and its children is the projection's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ring0 import limits
from ring0.errors import LimitReached
from ring0.types import Budget, Call, CallState, Frozen, Run


class Spent(Frozen, frozen=True, kw_only=True):
    """What one kind of calls took; what is reserved for open ones among it."""

    what: str
    """`tool crm.query`, `model default`, or `moved to children`."""
    calls: int
    tokens: int
    cost_microusd: int

    def words(self) -> str:
        parts = [f"{self.calls} × {self.what}"]
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens")
        if self.cost_microusd:
            parts.append(dollars(self.cost_microusd))
        return parts[0] if len(parts) == 1 else f"{parts[0]} ({', '.join(parts[1:])})"


MOVED = "moved to children or lost in a crash"
"""What a run has used that none of its own calls took."""


def spent(run: Run, calls: Iterable[Call]) -> list[Spent]:
    """By kind and name, those that took most first: money, then tokens, then calls. Refused calls
    took nothing."""
    sums: dict[str, list[int]] = {}
    for call in calls:
        if call.state is CallState.REFUSED:
            continue
        row = sums.setdefault(f"{call.kind} {call.name}".strip(), [0, 0, 0])
        for place, amount in enumerate((1, call.tokens, call.cost_microusd)):
            row[place] += amount
    own = [sum(row[place] for row in sums.values()) for place in range(3)]
    used = (run.calls_used, run.tokens_used, run.cost_used_microusd)
    rest = [max(0, a - b) for a, b in zip(used, own, strict=True)]
    if any(rest):
        sums[MOVED] = rest
    found = [
        Spent(what=what, calls=row[0], tokens=row[1], cost_microusd=row[2])
        for what, row in sums.items()
    ]
    return sorted(found, key=lambda s: (-s.cost_microusd, -s.tokens, -s.calls, s.what))


def reserved(calls: Iterable[Call]) -> tuple[int, int]:
    """Tokens and micro-USD that are held for calls without an outcome."""
    open_calls = [call for call in calls if call.state in (CallState.INTENDED, CallState.UNKNOWN)]
    return sum(c.tokens for c in open_calls), sum(c.cost_microusd for c in open_calls)


class Riding(Frozen, frozen=True, kw_only=True):
    """Calls that ride to the disk, and what they reserve."""

    calls: int = 0
    tokens: int = 0
    cost_microusd: int = 0

    def __add__(self, other: Riding) -> Riding:
        return Riding(
            calls=self.calls + other.calls,
            tokens=self.tokens + other.tokens,
            cost_microusd=self.cost_microusd + other.cost_microusd,
        )

    def less(self, other: Riding) -> Riding:
        """Without those that have arrived."""
        return Riding(
            calls=self.calls - other.calls,
            tokens=self.tokens - other.tokens,
            cost_microusd=self.cost_microusd - other.cost_microusd,
        )

    def fits(self, most: Riding) -> bool:
        return (
            self.calls <= most.calls
            and self.tokens <= most.tokens
            and self.cost_microusd <= most.cost_microusd
        )


def most_riding(budget: Budget) -> Riding:
    """What a crash can take of a run's calls, at most: as much counts as used after one."""
    calls = chunk_calls(budget) - 1
    if calls == 0:
        return Riding()
    return Riding(
        calls=calls,
        tokens=budget.tokens // limits.BUDGET_CHUNKS_MIN,
        cost_microusd=budget.cost_microusd // limits.BUDGET_CHUNKS_MIN,
    )


def lost(run: Run) -> Riding:
    """What counts as used by a run after a crash: no more than there is."""
    budget, most = run.budget, most_riding(run.budget)
    return Riding(
        calls=min(most.calls, budget.calls - run.calls_used),
        tokens=max(0, min(most.tokens, budget.tokens - run.tokens_used)),
        cost_microusd=max(
            0, min(most.cost_microusd, budget.cost_microusd - run.cost_used_microusd)
        ),
    )


def chunk_calls(budget: Budget) -> int:
    """How many calls may ride to the disk together. As many count as made, but one, after a crash:
    so it is a small part of the budget, and 1 where the budget is small."""
    return min(limits.BUDGET_CHUNK_CALLS_MAX, max(1, budget.calls // limits.BUDGET_CHUNKS_MIN))


def check_deadline(run: Run, now_us: int) -> None:
    """Raises LimitReached when the run's wall time is over."""
    if now_us >= run.deadline_us:
        raise LimitReached(
            f"The run's {run.budget.wall_s} s are over.",
            why="Every run has a deadline.",
            todo="Raise `wall_s` in the agent's budget if it needs longer.",
        )


def refusal(run: Run, detail: str, calls: Iterable[Call] = ()) -> LimitReached:
    """What a call is told for which the budget has no room: with what was spent on what."""
    most = [row.words() for row in spent(run, calls)]
    shown = most[: limits.BUDGET_SPENT_SHOWN_MAX]
    rest = len(most) - len(shown)
    took = "; ".join(shown) + (f"; and {rest} more kinds" if rest else "")
    return LimitReached(
        f"The budget has no room for this call: {detail}.",
        why=f"It went to: {took}." if took else "A run can't use more than it was given.",
        todo=f"An operator gives more: `ring0 budget {run.id}`; from the start by [budget] in"
        " agent.toml, or `ring0 run --budget`. Code of the SDK asks a person:"
        " `ctx.ask_for_more(…, why=…)`.",
    )


def dollars(microusd: int) -> str:
    return f"{microusd / 1_000_000:.6f} USD"


def amounts(fields: Mapping[str, int]) -> str:
    """An amount of budget in words: `100 calls, 0.500000 USD`."""
    words = {
        "calls": "{:,} calls",
        "tokens": "{:,} tokens",
        "children": "{:,} children",
        "wall_s": "{:,} s",
    }
    parts = [words[name].format(fields[name]) for name in words if fields.get(name)]
    if fields.get("cost_microusd"):
        parts.append(dollars(fields["cost_microusd"]))
    return ", ".join(parts)
