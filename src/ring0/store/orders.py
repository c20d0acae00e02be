"""Orders that start runs by themselves (crons, hooks), from events to rows.

A part of `project.py`, which calls these and nobody else does.
"""

from __future__ import annotations

from msgspec.structs import replace

from ring0.store import events as ev
from ring0.store.holdings import Tables
from ring0.types import Cron, Hook, Run

ORDERS = ("cron", "hook")


def ordered(entry: ev.Entry, tables: Tables) -> None:
    """What the kernel's own journal says of orders."""
    match entry.body:
        case ev.CronSet(cron=cron):
            before: Cron | None = tables.get("cron", cron.name)
            assert before is None or cron.done_us >= before.done_us, (
                f"{cron.name} goes back in time"
            )
            tables.put("cron", cron.name, replace(cron, version=entry.seq))
        case ev.HookSet(hook=hook):
            tables.put("hook", hook.name, replace(hook, version=entry.seq))
        case ev.OrderPaused() as paused:
            order = _order(paused.order, paused.name, tables)
            assert paused.by and not order.paused_by, f"{paused.name} is paused already"
            tables.put(paused.order, paused.name, replace(order, paused_by=paused.by))
        case ev.OrderResumed() as resumed:
            order = _order(resumed.order, resumed.name, tables)
            assert order.paused_by, f"{resumed.name} is not paused"
            tables.put(resumed.order, resumed.name, replace(order, paused_by=""))
        case ev.OrderRemoved() as removed:
            _order(removed.order, removed.name, tables)
            tables.put(removed.order, removed.name, None)
        case ev.CronSkipped() as skipped:
            cron = _cron(skipped.cron, skipped.version, tables)
            assert skipped.moments > 0 and skipped.why, "no moment is skipped for nothing"
            assert skipped.through_us > cron.done_us, f"{cron.name}: dealt with already"
            row = replace(cron, done_us=skipped.through_us, skipped=skipped.why)
            tables.put("cron", cron.name, row)
        case _:
            pass


def fired(body: ev.CronFired | ev.HookFired, run: Run, tables: Tables) -> None:
    """An order has started this run. A moment starts one run at the most, whoever tries."""
    assert run.events == 1, f"{run.id} had begun already"
    if isinstance(body, ev.HookFired):
        hook = _order("hook", body.hook, tables)
        assert hook.version == body.version, f"{hook.name} was given anew"
        tables.put("hook", hook.name, replace(hook, last_run=run.id, runs=hook.runs + 1))
        return
    cron = _cron(body.cron, body.version, tables)
    done_us = cron.done_us
    if body.due_us:
        assert body.due_us > done_us, f"{cron.name}: dealt with already"
        done_us = body.due_us
    row = replace(cron, done_us=done_us, last_run=run.id, runs=cron.runs + 1, skipped="")
    tables.put("cron", cron.name, row)


def _order(order: str, name: str, tables: Tables) -> Cron | Hook:
    assert order in ORDERS, f"there is no kind of order {order}"
    row: Cron | Hook | None = tables.get(order, name)
    assert row is not None, f"there is no {order} {name}"
    return row


def _cron(name: str, version: int, tables: Tables) -> Cron:
    cron = _order("cron", name, tables)
    assert isinstance(cron, Cron) and cron.version == version, f"{name} was given anew"
    return cron
