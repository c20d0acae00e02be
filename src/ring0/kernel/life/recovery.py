"""After a crash: what was cut off has ended, and every run that had not ended goes on.

What was at work is started again; what was put away stays a row that this kernel wakes. Where one
kernel after the other died soon after that, what was at work is *held*: paused by `HOLDER` and put
away, so that it stays so in later kernels, until a person resumes it or its deadline comes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from ring0 import limits
from ring0.errors import Ring0Error, RunDead, RunFailed, StoreFailed, StoreFull
from ring0.kernel.agent import agents
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.life import cutting, reasons
from ring0.kernel.life.runs import Runs
from ring0.kernel.life.waking import Functions
from ring0.kernel.memory import consolidating
from ring0.kernel.undo import undoing
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.types import LIVE, Call, Mode, Run, RunState

HOLDER: Final = "ring0"
"""Who has a held run paused: the name of no operator, which always says a uid."""


async def cut_off(store: Store) -> list[Call]:
    """At boot: what was under way when the kernel ended has an end on record. Returns the `once`
    calls that became unknown."""
    unknown = []
    for row in await store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX):
        if not reasons.is_put_away(row):  # Nothing is under way in one that is.
            unknown += await cutting.cut_off(store, row)
    return unknown


Find = Callable[[Family], Agent | None]
"""The code of an embedded agent; None: it is another program's."""
Check = Callable[[Agent], Awaitable[None]]
"""Raises what keeps an agent's tools from ever starting."""


def code_of(agent: Agent | None) -> Find:
    """An undo's code is the kernel's own; that of other embedded runs comes with `agent`."""

    def find(family: Family) -> Agent | None:
        if family.kernels:
            return consolidating.agent(family.manifest)
        if family.operator:
            return undoing.agent(family.manifest)
        if agent is None:
            return None
        if agent.manifest.name == family.manifest.name:
            return agent
        if f"agent:{family.manifest.name}" in agent.functions:  # One that it spawned.
            return Agent(family, agent.digest, functions=agent.functions)
        return None

    return find


async def recover(
    runs: Runs, find: Find, check: Check | None = None, *, died_young: int = 0
) -> list[str]:
    """Takes on every run that had not ended: returns the ids of those that go on, parents first.

    `died_young`: so many kernels before this one died in a row, soon after they did this.

    An embedded run whose code is not found waits as a row. What keeps one run from starting is in
    `not_recovered`, and keeps back no other; raised is it where no other goes on.
    """
    taken = []
    runs.not_recovered = {}
    runs.runtime.reached("kernel.recovers")
    await runs.store.flush()  # What was let go of here has written how far it came.
    for row in reversed(await runs.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)):
        if runs.is_here(row.id) or row.id in runs.waking.away:
            continue
        try:
            if await _take_on(runs, row, find, check, died_young):
                taken.append(row.id)
        except RunDead:
            continue  # A kill reached it before the crash: now it has ended.
        except (StoreFull, StoreFailed):
            raise
        except Ring0Error as error:
            _not_recovered(runs, row, error)
    runs.runtime.reached("kernel.recovered")
    if runs.not_recovered and not taken:
        raise next(iter(runs.not_recovered.values()))
    return taken


async def again(runs: Runs, run: str, find: Find, check: Check | None) -> bool:
    """Tries once more what could not go on, though nobody has it paused; whether that was so.
    Raises what keeps it from starting."""
    row = await runs.store.run(run)
    if row is None or row.paused_by or row.state not in LIVE or run not in runs.not_recovered:
        return False
    if run in runs.waking.away:
        runs.wake(run, anyway=True)
        return True
    try:
        taken = runs.is_here(run) or await _take_on(runs, row, find, check, 0)
    except RunDead:
        raise
    except Ring0Error as error:
        _not_recovered(runs, row, error)
        raise
    if taken:
        runs.not_recovered.pop(run, None)
    return taken


def _not_recovered(runs: Runs, row: Run, error: Ring0Error) -> None:
    """Nobody carries it on; its deadline ends it all the same."""
    runs.not_recovered[row.id] = error
    runs.ends.kept(row.id, error)
    if not runs.waking.alarms.at(row.id):
        runs.waking.alarms.set(row.id, row.deadline_us)


async def _take_on(runs: Runs, row: Run, find: Find, check: Check | None, died_young: int) -> bool:
    """Whether the run goes on: at work, in the queue, or as a row. Raises what keeps it back."""
    away = reasons.is_put_away(row)
    if away and row.mode is Mode.ISOLATED:
        return _put_away(runs, row, None)
    if not away:
        await cutting.cut_off(runs.store, row)
    family = await agents.family_of(runs.store, row.id)
    if row.mode is Mode.EMBEDDED:
        agent = find(family)
        if agent is None:
            return False
    else:
        agent = agents.restore(family, row.agent_digest, runs.folder)
    functions = agent.functions if row.mode is Mode.EMBEDDED else None
    if away:
        return _put_away(runs, row, functions)
    if died_young >= limits.WORKER_DEATHS_CAUTIOUS and row.state is not RunState.QUEUED:
        return _put_away(runs, await _hold(runs.store, row, died_young), functions, died_young)
    if check is not None:
        await check(agent)
    await runs.beginning.recovered(row, agent)
    return True


def _put_away(runs: Runs, row: Run, functions: Functions | None, died_young: int = 0) -> bool:
    """The row is woken here. Raises RunFailed of one that is held."""
    runs.waking.take_on(row, functions)
    if died_young or row.paused_by == HOLDER:
        raise _held(row, died_young)
    return True


async def _hold(store: Store, row: Run, died_young: int) -> Run:
    """The run's row, once it is put away and somebody has it paused."""
    note = f"{died_young} workers in a row died while it was at work"
    events: list[ev.AnyEvent] = [] if row.paused_by else [ev.RunPaused(by=HOLDER, note=note)]
    events.append(
        ev.RunMoved(
            state=RunState.WAITING,
            waiting_for=reasons.PAUSE,
            wake_us=max(1, row.deadline_us),
            note=note,
        )
    )
    guard = base.RunLive(run=row.id, epoch=row.epoch)
    try:
        await store.append(Write(run=row.id, durable=True, events=events, guards=[guard]))
    except GuardFailed as failure:
        raise RunDead(f"{row.id} is not held.", why=failure.detail, todo="Nothing.") from None
    found = await store.run(row.id)
    assert found is not None
    return found


def _held(row: Run, died_young: int) -> RunFailed:
    often = f"{died_young} workers in a row" if died_young else "Several workers in a row"
    return RunFailed(
        f"{row.id} is held: it may have killed its worker.",
        why=f"{often} died soon after it had gone on.",
        todo=f"`ring0 resume {row.id}` starts it again, `ring0 kill {row.id}` ends it.",
    )
