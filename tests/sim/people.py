"""The people around a simulated kernel: they answer asks, settle what is unknown, kill and pause.

What they do is fixed by the seed and by what they are asked about; what a dead kernel did not do,
they find undone and do again.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from ring0.errors import Ring0Error
from ring0.store.base import GuardFailed
from ring0.types import LIVE, ApprovalState, Run
from ring0.types import Operator as Human

if TYPE_CHECKING:
    from sim.plan import Deed
    from sim.world import Life, World

LOOKS_EVERY_S = 2.0


class Person:
    """Looks now and then at what waits for people."""

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life
        self._at: dict[str, float] = {}
        """When what will be said."""

    async def work(self) -> None:
        while True:
            await self._life.news(LOOKS_EVERY_S)
            await self._answer()
            await self._settle()
            await self._resume()

    def _when(self, what: str, dice: random.Random) -> bool:
        """Whether its time has come; each thing has one, when it is first seen."""
        now_s = self._world.clock.now_s
        at_s = self._at.setdefault(what, now_s + dice.choice((0.0, 1.0, 1.0, 30.0, 200.0)))
        return at_s <= now_s

    async def _answer(self) -> None:
        world, kernel = self._world, self._life.kernel
        for approval in await kernel.store.approvals(states=[ApprovalState.PENDING]):
            dice = world.outside.fate(approval.call, "person")
            if dice.random() > world.plan.patience:
                continue  # Nobody ever answers this one.
            yes = dice.random() < 0.75
            if not self._when(approval.id, dice):
                continue
            world.moment("answer")
            try:
                await kernel.answer(approval.id, yes=yes, by=Human(name="pat"))
            except (Ring0Error, GuardFailed) as error:
                world.seen(f"too late to answer: {type(error).__name__}")

    async def _resume(self) -> None:
        world, kernel = self._world, self._life.kernel
        for row in await kernel.store.runs(states=LIVE, most=10_000):
            if row.paused_by and self._when(
                f"resume {row.id}", world.outside.fate(row.id, "pause")
            ):
                self._at.pop(f"resume {row.id}")
                try:
                    await kernel.pausing.resume(row.id, by="pat")
                    world.seen("resume done")
                except Ring0Error as error:
                    world.seen(f"resume refused: {type(error).__name__}")

    async def _settle(self) -> None:
        world, kernel = self._world, self._life.kernel
        for call in world.unknown():
            dice = world.outside.fate(call, "settle")
            if dice.random() > world.plan.patience or not self._when(call, dice):
                continue
            if any(posted == call for _, posted in world.outside.posted):
                continue  # Still on its way: a person waits until it can be known.
            doing = world.outside.doings.get(call)
            if doing is not None and self._life.number in doing.under_way:
                continue
            happened = world.outside.happened(call)
            try:
                await kernel.settle(call, happened=happened, by="pat")
                world.seen(f"settled: {'happened' if happened else 'did not happen'}")
            except (Ring0Error, GuardFailed) as error:
                world.seen(f"too late to settle: {type(error).__name__}")


class Operator:
    """Does one deed of the plan."""

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life

    async def do(self, deed: Deed) -> None:
        self._world.seen(f"deed {deed.what}")
        self._world.tell(f"deed {deed.what}")
        word, _, scope = deed.what.partition(" ")
        match word:
            case "kill":
                await self._kill(scope, deed)
            case "jump":
                self._world.jumped_s = self._world.clock.now_s
                self._world.clock.skew_us += int((deed.size - 0.3) * 60_000_000)
            case "full" | "broken":
                self._world.disk.faults.append(word)
            case "slow":
                self._world.disk.slow = not self._world.disk.slow
            case "stop":
                self._life.stop()
            case "pause":
                await self._pause(deed)
            case "send":
                await self._send(deed)
            case "raise":
                await self._raise(deed)
            case _:
                raise AssertionError(f"no such deed: {deed.what}")

    async def _live(self) -> list[Run]:
        return sorted(
            await self._life.kernel.store.runs(states=LIVE, most=10_000), key=lambda r: r.id
        )

    async def _kill(self, scope: str, deed: Deed) -> None:
        kernel, world = self._life.kernel, self._world
        rows = await self._live()
        if scope == "tree":
            rows = [row for row in rows if not row.parent]
        if not rows:
            return
        chosen = rows[int(deed.pick * len(rows))]
        scope = "run" if scope == "tree" else scope
        target = {"run": chosen.id, "agent": chosen.agent, "tenant": chosen.tenant, "all": ""}[
            scope
        ]
        same = {"run": "id", "agent": "agent", "tenant": "tenant"}
        victims = rows if scope == "all" else [
            row for row in rows if getattr(row, same[scope]) == target
        ]  # fmt: skip
        world.tell(f"kill {scope} {target}: {[row.id for row in victims]}")
        try:
            await kernel.kill(scope, target, by="pat")
        except Ring0Error as error:
            world.seen(f"kill refused: {type(error).__name__}")
            return
        await kernel.store.flush()
        every = {row.id: row for row in await kernel.store.runs(most=10_000)}
        asked = await kernel.store.approvals(states=[ApprovalState.PENDING])
        world.checks.confirmed(victims, every, asked)
        world.seen(f"kill {scope} confirmed")

    async def _pause(self, deed: Deed) -> None:
        kernel, rows = self._life.kernel, await self._live()
        if not rows:
            return
        chosen = rows[int(deed.pick * len(rows))]
        await self._try("pause", kernel.pausing.pause(chosen.id, by="pat", tree=deed.size < 0.5))

    async def _send(self, deed: Deed) -> None:
        rows = await self._live()
        if rows:
            chosen = rows[int(deed.pick * len(rows))]
            await self._try("send", self._life.kernel.send(chosen.id, "a word", by="pat"))

    async def _raise(self, deed: Deed) -> None:
        rows = await self._live()
        if rows:
            chosen = rows[int(deed.pick * len(rows))]
            more = {"calls": 5, "cost_microusd": 1_000, "tokens": 100}
            await self._try("raise", self._life.kernel.raise_budget(chosen.id, more, by="pat"))

    async def _try(self, what: str, doing: Awaitable[Any]) -> None:
        try:
            await doing
            self._world.seen(f"{what} done")
        except Ring0Error as error:
            self._world.seen(f"{what} refused: {type(error).__name__}")
