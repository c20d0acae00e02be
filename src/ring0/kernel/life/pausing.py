"""Pause and resume: a paused run waits from its next call on; what is under way ends.

A pause is a row: it stands when the kernel starts anew. Its children go on unless the whole tree is
paused; a kill, a deadline and a parent's end reach a paused run as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ring0 import limits
from ring0.errors import InvalidInput, NotFound
from ring0.kernel import values
from ring0.kernel.live import LiveRun
from ring0.kernel.steps.waiting import Waiting
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.store.approving import DENIED_IN_A_ROW
from ring0.types import LIVE, Run


def _nobody(root: str, runs: list[str]) -> None:
    """Nobody writes a log."""


async def passed(waiting: Waiting, run: LiveRun) -> bool:
    """Returns when nobody has the run paused; whether that had to be waited for."""
    waited = False
    while run.paused_by:
        waited = True
        run.resumed.clear()
        async with waiting.state(run, "pause"):
            await run.resumed.wait()
    return waited


class Pausing:
    """Does what operators ask."""

    def __init__(
        self, store: Store, live: Mapping[str, LiveRun], wake: Callable[[str], None]
    ) -> None:
        """`live`: the runs whose process stands here. `wake`: one that is put away may go on."""
        self._store = store
        self._live = live
        self._wake = wake
        self._turn = asyncio.Lock()
        self.told: Callable[[str, list[str]], None] = _nobody
        """(root, runs): a tree was told no too often, and these of it that go on are paused."""

    async def pause(self, run: str, *, by: str, note: str = "", tree: bool = False) -> list[str]:
        """Pauses a run, or it and all beneath it. Returns those that went on until now. Raises
        NotFound, InvalidInput (it has ended, it is paused)."""
        first = await self._live_row(run)
        rows = await self._tree(first) if tree else [first]
        event = ev.RunPaused(by=by, note=values.note(note))
        async with self._turn:
            paused = [row.id for row in rows if await self._write(row.id, event)]
        if not paused:
            raise InvalidInput(
                f"{run} is paused already, by {first.paused_by}.",
                todo="`ring0 resume` lets it go on.",
            )
        for one in paused:
            if (live := self._live.get(one)) is not None:
                live.paused_by = by
        return paused

    async def resume(self, run: str, *, by: str, tree: bool = False) -> list[str]:
        """Lets a paused run go on, or it and all beneath it. Returns those that were paused.
        Raises NotFound, InvalidInput (it has ended, it is not paused)."""
        first = await self._live_row(run)
        rows = await self._tree(first) if tree else [first]
        async with self._turn:
            resumed = [row.id for row in rows if await self._write(row.id, ev.RunResumed(by=by))]
        if not resumed:
            raise InvalidInput(f"{run} is not paused.", todo="`ring0 ps` says what it waits for.")
        for one in resumed:
            if (live := self._live.get(one)) is not None:
                live.paused_by = ""
                live.resumed.set()
            self._wake(one)
        return resumed

    async def told_no(self, root: str) -> None:
        """Pauses all of a tree that goes on, where people have denied too many of its asks in a
        row. What stays of it unpaused (a crash, a child that is just being made) can ask nobody,
        and comes here when it tries."""
        async with self._turn:
            row = await self._store.run(root)
            if row is None or row.denials < limits.DENIALS_IN_A_ROW_MAX:
                return  # A person has let it go on since.
            rows = await self._tree(row)
            event = ev.RunPaused(by=DENIED_IN_A_ROW)
            paused = [one.id for one in rows if await self._write(one.id, event)]
            for one in rows:
                if (live := self._live.get(one.id)) is not None and not live.paused_by:
                    live.paused_by = DENIED_IN_A_ROW
        if row.denials == limits.DENIALS_IN_A_ROW_MAX or paused:
            self.told(root, [one.id for one in rows if one.state in LIVE])

    async def told_no_to(self, waiting: Waiting, run: LiveRun) -> None:
        """The same, for one of it that tries to ask: returns when it may go on."""
        await self.told_no(run.row.root)
        await passed(waiting, run)

    async def _live_row(self, run: str) -> Run:
        await self._store.flush()
        row = await self._store.run(run)
        if row is None:
            raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps` lists them.")
        if row.state not in LIVE:
            raise InvalidInput(f"{run} has ended already: it is {row.state}.", todo="Nothing.")
        return row

    async def _tree(self, top: Run) -> list[Run]:
        """The run and all beneath it that go on, from the top down."""
        all_of_it = await self._store.runs(root=top.root, states=LIVE, most=limits.RUNS_LIVE_MAX)
        found = {top.id: top}
        for row in sorted(all_of_it, key=lambda row: row.depth):
            if row.parent in found:
                found[row.id] = row
        return list(found.values())

    async def _write(self, run: str, event: ev.RunPaused | ev.RunResumed) -> bool:
        row = await self._store.run(run)
        if row is None or row.state not in LIVE:
            return False
        if bool(row.paused_by) == isinstance(event, ev.RunPaused):
            return False  # It is so already.
        try:
            await self._store.append(
                Write(
                    run=run,
                    durable=True,
                    events=[event],
                    guards=[base.RunLive(run=run, epoch=row.epoch)],
                )
            )
        except GuardFailed:
            return await self._write(run, event)  # It was started again, or ended.
        return True
