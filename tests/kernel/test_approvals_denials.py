"""Asks wear people out: what a tree of runs is told no to is counted for all of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from approvals_world import CAROL, PAY, payer
from kernel_world import World, world

from ring0 import limits
from ring0.kernel.life.pausing import Pausing
from ring0.kernel.live import LiveRun
from ring0.store import events as ev
from ring0.tools.registry import Tool
from ring0.types import AgentManifest, ApprovalState, CallKind, CallState, Outcome, Request, Run

MOST = limits.DENIALS_IN_A_ROW_MAX


class Tree:
    """A run and the children that it spawns, all of whose calls the test makes."""

    def __init__(self, w: World, root: Run) -> None:
        self.w = w
        w.run = w.kernel.gate.live[root.id]
        self.root = w.run
        self.tool = payer(w)
        self._counts: dict[str, int] = {}
        self._asked = 0

    async def call(self, run: LiveRun, kind: CallKind, name: str, args: Any) -> Outcome:
        count = self._counts[run.id] = self._counts.get(run.id, 0) + 1
        request = Request(kind=kind, name=name, args=args, path="0", counter=count)
        return await self.w.kernel.gate.call(run.handle, request)

    async def child(self, of: LiveRun) -> LiveRun:
        spawned = await self.call(of, CallKind.SPAWN, "helper", {"task": "ask in my place"})
        assert spawned.state is CallState.OK, spawned.error
        async with asyncio.timeout(5):
            while (live := self.w.kernel.gate.live.get(spawned.value["run"])) is None:
                await asyncio.sleep(0.005)
        live.tools["pay"] = Tool(self.tool)
        return live

    def asks(self, run: LiveRun) -> asyncio.Task[Outcome]:
        self._asked += 1  # Never the same twice: that would be a loop.
        args = {**PAY, "amount": self._asked}
        return asyncio.create_task(self.call(run, CallKind.TOOL, "pay", args))

    async def answered(self, run: LiveRun, *, yes: bool = False) -> Outcome:
        call = self.asks(run)
        await self.w.kernel.answer((await self.w.pending()).id, yes=yes, by=CAROL)
        return await call

    async def paused(self) -> dict[str, bool]:
        rows = await self.w.store.runs(root=self.root.id)
        return {row.id: bool(row.paused_by) for row in rows}

    async def waits_for_a_pause(self, call: asyncio.Task[Outcome], run: LiveRun) -> None:
        async with asyncio.timeout(5):
            while not run.waits["pause"]:
                assert not call.done(), call
                await asyncio.sleep(0.005)
        assert not await self.w.store.approvals(states=[ApprovalState.PENDING])


@contextlib.asynccontextmanager
async def tree(home: Path) -> AsyncIterator[Tree]:
    async def agent(run: LiveRun) -> Any:
        await asyncio.Event().wait()

    helper = AgentManifest(name="helper", agents=("helper",))
    clerk = AgentManifest(name="clerk", agents=("helper",))
    functions = {"agent:clerk": agent, "agent:helper": agent}
    async with world(home, start=False) as w:
        root = await w.kernel.start_embedded(
            clerk, (helper,), functions, "the task", principal="alice"
        )
        yield Tree(w, root)


async def test_children_that_ask_in_its_place_spare_a_run_no_denial(tmp_path: Path) -> None:
    """Each child had a count of its own, so a run that spawned them was never paused."""
    async with tree(tmp_path / "home") as t:
        for number in range(MOST):
            assert not any((await t.paused()).values())
            asker = await t.child(t.root)
            assert (await t.answered(asker)).state is CallState.REFUSED, number
        paused = await t.paused()
        assert len(paused) == MOST + 1 and all(paused.values()), "every live run of the tree"
        assert (await t.w.row(t.root.id)).denials == MOST
        for run in (t.root, asker):
            await t.waits_for_a_pause(t.asks(run), run)
        assert t.tool.done == 0


async def test_a_grandchild_and_the_root_count_as_one(tmp_path: Path) -> None:
    async with tree(tmp_path / "home") as t:
        child = await t.child(t.root)
        grandchild = await t.child(child)
        for run in (grandchild, t.root, child):
            await t.answered(run)
        assert all((await t.paused()).values())
        said = {row.paused_by for row in await t.w.store.runs(root=t.root.id)}
        assert len(said) == 1 and "in a row" in said.pop()


async def test_each_pause_of_a_tree_is_in_the_journal_and_told(tmp_path: Path) -> None:
    async with tree(tmp_path / "home") as t:
        told: list[tuple[str, list[str]]] = []
        t.w.kernel.pausing.told = lambda root, runs: told.append((root, sorted(runs)))
        others = [await t.child(t.root) for _ in range(2)]
        for _ in range(MOST):
            await t.answered(t.root)
        for run in others:
            events = [entry.body async for entry in t.w.store.entries(run.id)]
            assert any(isinstance(event, ev.RunPaused) for event in events)
        assert told == [(t.root.id, sorted([t.root.id, *(run.id for run in others)]))]


async def test_what_a_crash_left_unpaused_of_a_tree_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the third no and the pause of the others: the no alone keeps all from asking."""
    async with tree(tmp_path / "home") as t:
        other = await t.child(t.root)
        with monkeypatch.context() as crashing:

            async def gone(self: Pausing, root: str) -> None:
                """The kernel is no more."""

            crashing.setattr(Pausing, "told_no", gone)
            for _ in range(MOST):
                await t.answered(t.root)
        assert not (await t.w.row(other.id)).paused_by and not other.paused_by
        call = t.asks(other)
        await t.waits_for_a_pause(call, other)
        assert "in a row" in (await t.w.row(other.id)).paused_by
        await t.w.kernel.resume(other.id, by="alice")
        await t.w.kernel.answer((await t.w.pending()).id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK


async def test_a_child_that_was_just_being_made_asks_nobody_either(tmp_path: Path) -> None:
    async with tree(tmp_path / "home") as t:
        for _ in range(MOST):
            await t.answered(t.root)
        await t.w.kernel.resume(t.root.id, by="alice")
        born = await t.child(t.root)
        for _ in range(MOST):
            await t.answered(t.root)
        born.paused_by = ""  # As if it had begun after the tree was paused.
        call = t.asks(born)
        await t.waits_for_a_pause(call, born)


async def test_a_person_who_lets_one_go_on_sets_the_count_of_its_tree_to_zero(
    tmp_path: Path,
) -> None:
    async with tree(tmp_path / "home") as t:
        child = await t.child(t.root)
        for _ in range(MOST):
            await t.answered(child)
        resumed = await t.w.kernel.resume(t.root.id, by="alice", tree=True)
        assert sorted(resumed) == sorted([t.root.id, child.id])
        assert (await t.w.row(t.root.id)).denials == 0
        for run in (child, t.root):
            await t.answered(run)
        assert not any((await t.paused()).values()), "two are not three"
        await t.answered(child)
        assert all((await t.paused()).values())


async def test_a_yes_to_any_run_of_a_tree_begins_the_count_anew(tmp_path: Path) -> None:
    async with tree(tmp_path / "home") as t:
        child = await t.child(t.root)
        for run, yes in ((child, False), (t.root, False), (child, True), (t.root, False)):
            await t.answered(run, yes=yes)
        assert (await t.w.row(t.root.id)).denials == 1
        assert not any((await t.paused()).values())


async def test_another_tree_goes_on(tmp_path: Path) -> None:
    async with tree(tmp_path / "one") as t:
        manifest = AgentManifest(name="clerk")

        async def agent(run: LiveRun) -> Any:
            await asyncio.Event().wait()

        other = await t.w.kernel.start_embedded(
            manifest, (), {"agent:clerk": agent}, "else", principal="alice"
        )
        for _ in range(MOST):
            await t.answered(t.root)
        assert not (await t.w.row(other.id)).paused_by
