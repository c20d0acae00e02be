"""What runs hold and share, from events to rows: budgets, caps, locks, messages.

A part of `project.py`, which calls these and nobody else does.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from msgspec.structs import replace

from ring0.store import events as ev
from ring0.store.rows import CapRow
from ring0.types import Budget, CapUse, Lock, Message, Run

NEWEST_LOCK: Final = "newest:"
SHARED: Final = {
    "calls": "calls_used",
    "tokens": "tokens_used",
    "cost_microusd": "cost_used_microusd",
    "children": "children_used",
}
"""What a child's budget is moved from its parent's: the field of the budget, and of the run."""


class Tables(Protocol):
    """Rows by table and key. A row is a struct of types.py; None removes it."""

    def get(self, table: str, key: str) -> Any: ...

    def put(self, table: str, key: str, row: Any) -> None: ...


def spend(run: Run, amounts: dict[str, int]) -> Run:
    """The run with this much more (or less) used."""
    used = {SHARED[name]: getattr(run, SHARED[name]) + amount for name, amount in amounts.items()}
    return replace(run, **used)


def capped(use: CapUse, tables: Tables) -> None:
    row: CapRow | None = tables.get("cap", use.key)
    used = use.amount + (row.used_in(use.window) if row else 0)
    assert use.amount >= 0 and used <= use.most, f"{used} of {use.most}: {use.key}"
    window = max(use.window, row.window if row else 0)
    tables.put("cap", use.key, CapRow(key=use.key, used=used, window=window))


def uncapped(use: CapUse, tables: Tables) -> None:
    row: CapRow | None = tables.get("cap", use.key)
    assert row is not None and use.amount >= 0, f"nothing was taken from {use.key}"
    if row.window == use.window:  # What was taken in a window that is over is no use to this one.
        assert use.amount <= row.used, f"more came back than went: {use.key}"
        tables.put("cap", use.key, replace(row, used=row.used - use.amount))


def raised(body: ev.BudgetRaised, run: Run, tables: Tables) -> Run:
    """More for the run; each run above has that much more, and has moved it down already."""
    more = {name: getattr(body, name) for name in SHARED}
    assert min(*more.values(), body.wall_s) >= 0, "a budget is only ever raised"
    above = run.parent
    while above:
        one: Run = tables.get("run", above)
        tables.put("run", above, _longer(spend(replace(one, budget=_more(one, more)), more), body))
        above = one.parent
    return _longer(replace(run, budget=_more(run, more)), body)


def _more(run: Run, more: dict[str, int]) -> Budget:
    return replace(run.budget, **{k: getattr(run.budget, k) + v for k, v in more.items()})


def _longer(run: Run, body: ev.BudgetRaised) -> Run:
    budget = replace(run.budget, wall_s=run.budget.wall_s + body.wall_s)
    return replace(run, budget=budget, deadline_us=run.deadline_us + body.wall_s * 1_000_000)


def lock_key(tenant: str, resource: str, run: str) -> str:
    return f"{tenant}\n{resource}\n{run}"


def locked(lock: Lock, run: Run, tables: Tables) -> None:
    assert lock.run == run.id and lock.tenant == run.tenant, "a lock is its run's own"
    key = lock_key(lock.tenant, lock.resource, run.id)
    newest: Lock | None = tables.get("lock", NEWEST_LOCK)
    held: Lock | None = tables.get("lock", key)
    if held is None or held.fence != lock.fence:  # Otherwise its lease is made longer.
        assert newest is None or lock.fence > newest.fence, f"the fence {lock.fence} is not new"
        tables.put("lock", NEWEST_LOCK, replace(lock, tenant="", resource=""))
    tables.put("lock", key, lock)


def message_key(to: str, number: int) -> str:
    return f"{to}\n{number:09d}"


def sent(entry: ev.Entry, body: ev.MessageSent, run: Run, tables: Tables) -> Run:
    to: Run | None = run if body.to == run.id else tables.get("run", body.to)
    assert to is not None and to.tenant == run.tenant, f"{run.id} can't tell {body.to} anything"
    message = Message(
        to=to.id,
        number=to.messages + 1,
        sender=body.sender,
        body=body.body,
        key_of=body.key_of,
        label=body.label,
        sent_us=entry.at_us,
    )
    tables.put("message", message_key(to.id, message.number), message)
    to = replace(to, messages=message.number)
    if to.id == run.id:
        return to
    tables.put("run", to.id, to)
    return run
