"""`ask`: a run asks a person for more budget. The run waits as a row, `waiting(budget)`.

The yes is an approval as any other, bound to these amounts; the transaction that consumes it raises
the budget. On top of what was asked for comes the one call that the ask itself is, so that a run
with nothing left can ask. How often a tree may ask has a bound, whatever the answers are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached
from ring0.scheduler import budgets
from ring0.store import Store
from ring0.store import events as ev
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import (
    Approval,
    CallKind,
    Effect,
    Frozen,
    Integrity,
    Label,
    Run,
    Shown,
    ToolManifest,
    VerdictKind,
)

if TYPE_CHECKING:
    from ring0.kernel.live import LiveRun
    from ring0.kernel.steps.judging import Judged

MOST: Final = {
    "calls": limits.BUDGET_CALLS_MAX,
    "tokens": limits.BUDGET_TOKENS_MAX,
    "cost_microusd": limits.BUDGET_MICROUSD_MAX,
    "children": limits.RUN_CHILDREN_MAX,
    "wall_s": limits.BUDGET_WALL_S_MAX,
}
"""What one raise may give, by field."""
_SYSTEM = Label(integrity=Integrity.SYSTEM)


def checked(more: Mapping[str, Any]) -> dict[str, int]:
    """Amounts to give, each above 0 and within its bound. Raises CallInvalid."""
    found = {}
    for name, amount in more.items():
        if name not in MOST or not isinstance(amount, int) or isinstance(amount, bool):
            raise CallInvalid(
                f"{name[:40]!r} is no amount of budget.",
                todo=f"Give whole numbers of: {', '.join(MOST)}.",
            )
        if not 0 <= amount <= MOST[name]:
            raise CallInvalid(
                f"{amount} {name} can't be given.", todo=f"Ask for 1 to {MOST[name]:,}."
            )
        if amount:
            found[name] = amount
    if not found:
        raise CallInvalid(
            "More of what?",
            todo=f"Give at least one of: {', '.join(MOST)} (`usd=` in the SDK).",
        )
    return found


def reason(judged: Judged) -> str:
    """What a run waits for whose call waits for a yes."""
    return "budget" if judged.held.kind is CallKind.ASK else "approval"


def raised(judged: Judged, approval: Approval | None) -> tuple[ev.BudgetRaised, ...]:
    """What is written with the intent of an ask that got its yes; nothing for every other call."""
    if judged.held.kind is not CallKind.ASK:
        return ()
    more = dict(judged.prepared.state.more)
    more["calls"] = more.get("calls", 0) + 1
    note = str(judged.held.args.get("why", ""))
    if approval is None:  # An operator's policy permits it.
        return (event(more, by="policy", note=note),)
    return (event(more, by=approval.answered_by, note=note, approval=approval.id),)


def event(more: Mapping[str, int], **said: str) -> ev.BudgetRaised:
    return msgspec.convert({**more, **said, "event": "budget-raised"}, ev.BudgetRaised)


class Asked(Frozen, frozen=True, kw_only=True):
    """What was asked for."""

    more: dict[str, int]
    above: tuple[str, ...]
    """The runs above, the parent first: they are given as much."""


class Ask:
    """The driver of `ask`."""

    manifest = ToolManifest(
        name="ask",
        description="Ask a person for more budget.",
        effect=Effect.IDEMPOTENT,
        schema={
            "type": "object",
            "properties": {
                **{
                    name: {"type": "integer", "minimum": 1, "maximum": most}
                    for name, most in MOST.items()
                },
                "why": {"type": "string", "minLength": 1, "maxLength": limits.ASK_WHY_CHARS_MAX},
            },
            "required": ["why"],
            "additionalProperties": False,
        },
    )

    def __init__(self, store: Store, live: Mapping[str, LiveRun]) -> None:
        self._store = store
        self._live = live
        self._asked: OrderedDict[str, set[str]] = OrderedDict()
        """Of each tree: the calls with which it asked. What is not here is counted anew."""

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        more = checked({name: args[name] for name in args if name != "why"})
        if not context.operator:
            await self._count(context.run, context.call)
        above = await above_of(self._store, context.run)
        return Prepared(
            driver_bytes=msgspec.json.encode(args, order="sorted"),
            state=Asked(more=more, above=tuple(one.id for one in above)),
            title=f"{context.run.id} ({context.run.agent}) asks for {budgets.amounts(more)} more",
            lines=tuple(await self._lines(context.run, more, above)),
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        """What there is now: the raise was written with the intent."""
        row = self._live[context.run.id].row if context.run.id in self._live else context.run
        budget = row.budget
        return Result(
            label=_SYSTEM,
            value={
                "given": dict(prepared.state.more),
                "left": {
                    "calls": budget.calls - row.calls_used,
                    "tokens": budget.tokens - row.tokens_used,
                    "cost_microusd": budget.cost_microusd - row.cost_used_microusd,
                    "children": budget.children - row.children_used,
                },
            },
        )

    async def _count(self, run: Run, call: str) -> None:
        """Raises LimitReached where its tree has asked often enough."""
        asked = self._asked.get(run.root)
        if asked is None:
            asked = self._asked[run.root] = await self._on_record(run.root)
            while len(self._asked) > limits.ASKS_TREES_KEPT_MAX:
                self._asked.popitem(last=False)
        if call not in asked and len(asked) >= limits.ASKS_FOR_MORE_PER_TREE_MAX:
            raise LimitReached(
                f"This run and those of its tree have asked for more"
                f" {limits.ASKS_FOR_MORE_PER_TREE_MAX} times.",
                why="Asks wear people out, so there is a cap, whatever the answers were.",
                todo=f"Do with what is left. An operator gives more with `ring0 budget {run.id}`.",
            )
        asked.add(call)

    async def _on_record(self, root: str) -> set[str]:
        await self._store.flush()
        found = set()
        for run in await self._store.runs(root=root, most=limits.RUNS_LISTED_MAX):
            calls = await self._store.calls(run.id)
            found |= {c.id for c in calls if c.kind is CallKind.ASK and _was_asked(c.verdict.kind)}
            known = {call.id for call in calls}
            for approval in await self._store.approvals(run=run.id):
                if approval.call not in known and await self._asks(approval):
                    found.add(approval.call)
        return found

    async def _asks(self, approval: Approval) -> bool:
        """Is it about a call that has no row yet, and is an ask for more?"""
        shown = msgspec.json.decode(await self._store.blob(approval.shown), type=Shown)
        return shown.tool == CallKind.ASK

    async def _lines(self, run: Run, more: Mapping[str, int], above: Sequence[Run]) -> list[str]:
        """For whoever answers: what was spent on what, and what is left here and above."""
        live = self._live.get(run.id)
        calls = live.records.values() if live else await self._store.calls(run.id)
        lines = [f"{run.agent} asks for {budgets.amounts(more)} more.", f"  has {_left(run)}"]
        for row in budgets.spent(run, calls)[: limits.BUDGET_SPENT_SHOWN_MAX]:
            lines.append(f"  used by {row.words()}")
        for one in above:
            lines.append(f"  above it, {one.id} ({one.agent}) has {_left(one)};")
            lines.append("    it is given as much more, and moves it down")
        return lines


async def above_of(store: Store, run: Run) -> list[Run]:
    """The runs above, the parent first."""
    found: list[Run] = []
    while run.parent:
        above = await store.run(run.parent)
        if above is None:
            break
        found.append(above)
        run = above
    return found


def _was_asked(verdict: VerdictKind) -> bool:
    return verdict is not VerdictKind.DENY


def _left(run: Run) -> str:
    budget = run.budget
    return (
        f"{budget.calls - run.calls_used} of {budget.calls} calls,"
        f" {budget.tokens - run.tokens_used:,} of {budget.tokens:,} tokens,"
        f" {budgets.dollars(budget.cost_microusd - run.cost_used_microusd)} of"
        f" {budgets.dollars(budget.cost_microusd)} left"
    )
