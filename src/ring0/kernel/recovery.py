"""After a crash: cut-off effects become unknown, and every run that had not ended goes on."""

from __future__ import annotations

from collections.abc import Callable

from ring0 import limits
from ring0.errors import EffectUnknown, Ring0Error, RunDead, StoreFailed, StoreFull
from ring0.kernel import agents
from ring0.kernel.agents import Agent, Family
from ring0.kernel.runs import Runs
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.types import LIVE, Call, CallState, Effect, Mode


async def cut_off(store: Store) -> list[Call]:
    """At boot: marks each `once` call without an outcome as unknown. Returns those."""
    unknown = []
    for row in await store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX):
        for call in await store.calls(row.id):
            if call.state is CallState.INTENDED and call.effect is Effect.ONCE:
                why = EffectUnknown("the kernel ended between the intent and the outcome").what
                await store.append(
                    Write(run=row.id, durable=True, events=[ev.CallCutOff(call=call.id, why=why)])
                )
                unknown.append(call)
    return unknown


async def recover(runs: Runs, functions: Callable[[Family], Agent | None]) -> list[str]:
    """Starts every run again that had not ended. Returns their ids, parents first.

    `functions` finds the code of an embedded agent; without it such a run waits as a row.
    What keeps one run from starting is in `not_recovered`, and keeps back no other; raised is
    it where nothing else was started.
    """
    started = []
    runs.not_recovered = {}
    for row in reversed(await runs.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)):
        if row.id in runs.at_work():
            continue  # It is at work.
        try:
            family = await agents.family_of(runs.store, row.id)
            if row.mode is Mode.EMBEDDED:
                agent = functions(family)
                if agent is None:
                    continue
            else:
                agent = agents.restore(family, row.agent_digest, runs.folder)
            await runs.start(row, agent)
            started.append(row.id)
        except RunDead:
            continue  # A kill reached it before the crash: now it has ended.
        except (StoreFull, StoreFailed):
            raise
        except Ring0Error as error:
            runs.not_recovered[row.id] = error
            runs.tell(row.id, error)
    if runs.not_recovered and not started:
        raise next(iter(runs.not_recovered.values()))
    return started
