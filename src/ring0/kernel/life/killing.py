"""Kills: a generation on record that every effect is checked against, then the ends of the runs.

Not here: how a run ends (ending.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ring0 import limits
from ring0.errors import InvalidInput, NotFound, SandboxFailed
from ring0.store import Write
from ring0.store import events as ev
from ring0.types import LIVE

if TYPE_CHECKING:
    from ring0.kernel.life.orders import Orders
    from ring0.kernel.life.runs import Runs

KILL_SCOPES: Final = ("run", "agent", "tenant", "all")


async def kill(runs: Runs, orders: Orders, scope: str, target: str, *, by: str) -> list[str]:
    """Ends a run with all beneath it, an agent's runs, a tenant's, or all. Returns the runs that it
    ended, once every process of them is confirmed dead. Raises InvalidInput, NotFound; and
    SandboxFailed where one can't be confirmed: then all the others are."""
    store = runs.store
    if scope not in KILL_SCOPES:
        raise InvalidInput(
            f"Nothing can be killed by {scope[:40]!r}.",
            why=f"There are: {', '.join(KILL_SCOPES)}.",
            todo="Name one of those.",
        )
    if scope == "run":
        row = await store.run(target)
        if row is None:
            raise NotFound(f"There is no run {target[:40]!r}.", todo="`ring0 ps` lists them.")
        if row.state not in LIVE:
            raise InvalidInput(f"{target} has ended already: it is {row.state}.", todo="Nothing.")
    await orders.killed(scope, target, by=by)
    generation = await store.kill_generation() + 1
    await store.append(
        Write(
            run=ev.KERNEL,
            durable=True,
            events=[
                ev.Killed(
                    scope=scope,
                    target="" if scope == "all" else target,
                    generation=generation,
                    by=by,
                )
            ],
        )
    )
    # Asked after the kill is on disk: what is queued from here on has seen it.
    generation = await store.kill_generation()
    victims = []
    for row in await store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX):
        names = {"run": row.id, "agent": row.agent, "tenant": row.tenant, "all": target}
        if names[scope] == target and (scope == "run" or row.kill_seen < generation):
            victims.append(row.id)
    try:
        await runs.end_all(victims, by=by)
    except SandboxFailed:
        await _all_others(runs, victims, by)
    return victims


async def _all_others(runs: Runs, victims: list[str], by: str) -> None:
    """One process that does not die keeps no other alive. Raises SandboxFailed with all of them."""
    left: dict[str, SandboxFailed] = {}
    for run in victims:
        row = await runs.store.run(run)
        if row is not None and row.state in LIVE:
            try:
                await runs.cancel(run, by=by)
            except SandboxFailed as error:
                left[run] = error
    if left:
        first = next(iter(left.values()))
        raise SandboxFailed(
            f"{len(left)} of {len(victims)} runs could not be confirmed dead:"
            f" {', '.join(list(left)[: limits.KILLS_TOLD_MAX])}.",
            why=f"{first.what} {first.why} All others are dead.",
            todo=first.todo,
        )
