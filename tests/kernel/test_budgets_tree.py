"""Budgets down a tree of live runs: the kernel's picture of them is always the store's."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing
from locks_world import band
from spoken import Spoken, priced, said
from test_children import Tree, agent, result, tree

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.kernel.live import LiveRun
from ring0.store.project import SHARED
from ring0.tools.registry import Tool
from ring0.types import LIVE, ApprovalState, Budget, CallKind, Operator, Run, RunState


async def same(t: Tree, run: LiveRun) -> Run:
    """The run's row, which says what the kernel's picture of it says."""
    row = await t.row(run.id)
    for name, field in SHARED.items():
        assert getattr(run.row, field) == getattr(row, field), name
        assert getattr(run.row.budget, name) == getattr(row.budget, name), name
    assert run.row.deadline_us == row.deadline_us
    return row


async def test_a_parent_knows_at_once_what_its_children_were_given_and_left(tmp_path: Path) -> None:
    go = asyncio.Event()
    seen: list[int] = []

    async def parent(t: Tree, run: LiveRun) -> Any:
        children = [await t.spawned(run, "child") for _ in range(3)]
        seen.append((await same(t, run)).calls_used)
        go.set()
        for child in children:
            await t.wait(run, child)
        seen.append((await same(t, run)).calls_used)

    async def child(t: Tree, run: LiveRun) -> Any:
        await go.wait()
        await t.call(run, CallKind.NOW, args={})

    manifests = [
        agent("parent", "child", budget=Budget(calls=100)),
        agent("child", budget=Budget(calls=10)),
    ]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.kernel.runs.wait((await t.start("parent")).id)
        assert row.state is RunState.DONE, await result(t, row)
        assert seen == [3 + 3 * 10, 3 + 3 * 1 + 3]


async def test_what_policy_sees_of_a_parent_counts_its_children(tmp_path: Path) -> None:
    """`context.calls_used` is one truth, whoever spent it."""
    asked: list[int] = []

    async def parent(t: Tree, run: LiveRun) -> Any:
        run.tools["look"] = Tool(Doing("look"))
        await t.spawned(run, "child")
        await t.call(run, CallKind.TOOL, "look", {})
        await t.kernel.store.flush()
        call = (await t.kernel.store.calls(run.id))[-1]
        import msgspec

        evidence = msgspec.json.decode(await t.kernel.store.blob(call.decision))
        asked.append(evidence["question"]["calls_used"])

    async def child(t: Tree, run: LiveRun) -> Any:
        await asyncio.Event().wait()

    manifests = [agent("parent", "child"), agent("child", budget=Budget(calls=10))]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.kernel.runs.wait((await t.start("parent")).id)
        assert row.state is RunState.DONE, await result(t, row)
    assert asked == [1 + 10]


async def test_a_tree_has_only_so_many_runs_in_all_and_so_many_levels(tmp_path: Path) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        first = await t.spawn(run, "child")
        second = await t.spawn(run, "child")
        return [first.error is None, second.error]

    async def child(t: Tree, run: LiveRun) -> Any:
        return (await t.spawn(run, "child")).error["code"]

    budget = Budget(children=1, depth=1)
    manifests = [agent("parent", "child", budget=budget), agent("child", "child")]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.kernel.runs.wait((await t.start("parent")).id)
        began, refused = (await result(t, row))["value"]
        assert began and refused["code"] == "limit_reached" and "children" in refused["what"]
        assert (await t.row(row.id)).children_used == 1
        (child_row,) = await t.kernel.store.runs(parent=row.id)
        assert child_row.budget.depth == 0


@pytest.mark.parametrize("how", ["asked", "operator"])
async def test_what_a_child_is_given_goes_up_the_tree_and_comes_back_down_it(
    tmp_path: Path, how: str
) -> None:
    before: dict[str, Run] = {}
    given = asyncio.Event()

    async def parent(t: Tree, run: LiveRun) -> Any:
        await t.wait(run, await t.spawned(run, "middle"))
        await same(t, run)

    async def middle(t: Tree, run: LiveRun) -> Any:
        await t.wait(run, await t.spawned(run, "leaf"))
        await same(t, run)

    async def leaf(t: Tree, run: LiveRun) -> Any:
        above = run
        while True:
            before[above.id] = await t.row(above.id)
            if not above.row.parent:
                break
            above = t.kernel.gate.live[above.row.parent]
        if how == "asked":
            more = {"calls": 50, "wall_s": 60, "why": "more is left to do"}
            outcome = await t.call(run, CallKind.ASK, args=more)
            assert outcome.error is None, outcome
        else:
            await t.kernel.raise_budget(run.id, {"calls": 50, "wall_s": 60}, by="ann")
        for one in before:
            row = await same(t, t.kernel.gate.live[one])
            # The ask's own call comes on top, and is used.
            assert row.budget.calls == before[one].budget.calls + 50 + (how == "asked")
            assert row.deadline_us == before[one].deadline_us + 60_000_000
        own = await same(t, run)
        assert own.budget.calls - own.calls_used == 50 + (
            before[run.id].budget.calls - before[run.id].calls_used
        )
        given.set()

    manifests = [
        agent("parent", "middle", budget=Budget(calls=100)),
        agent("middle", "leaf", budget=Budget(calls=40)),
        agent("leaf", budget=Budget(calls=5)),
    ]
    async with tree(tmp_path / "home", manifests, parent=parent, middle=middle, leaf=leaf) as t:
        row = await t.start("parent")
        if how == "asked":
            while not (asks := await t.kernel.store.approvals(states=[ApprovalState.PENDING])):
                await asyncio.sleep(0.005)
            await t.kernel.answer(asks[0].id, yes=True, by=Operator(name="ann"))
        ended = await t.kernel.runs.wait(row.id)
        assert ended.state is RunState.DONE, await result(t, ended)
        assert given.is_set()
        calls = 0
        for one in await t.kernel.store.runs(root=row.id):
            calls += len(await t.kernel.store.calls(one.id))
        assert ended.calls_used == calls, "unused came back, exactly once"


async def test_a_whole_tree_shares_how_often_it_may_ask(tmp_path: Path) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        children = [await t.spawned(run, "child") for _ in range(8)]
        return [(await t.wait(run, child)).value for child in children]

    async def child(t: Tree, run: LiveRun) -> Any:
        outcome = await t.call(run, CallKind.ASK, args={"calls": 1, "why": "please"})
        return outcome.error["code"] if outcome.error else "ok"

    manifests = [agent("parent", "child"), agent("child", budget=Budget(calls=5))]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.start("parent")
        ending = asyncio.ensure_future(t.kernel.runs.wait(row.id))
        while not ending.done():
            for ask in await t.kernel.store.approvals(states=[ApprovalState.PENDING]):
                await t.kernel.answer(ask.id, yes=False, by=Operator(name="ann"))
            for one in await t.kernel.store.runs(states=LIVE):
                if one.paused_by:  # The tree was told no too often in a row.
                    with contextlib.suppress(InvalidInput):  # It goes on already.
                        await t.kernel.resume(one.id, by="ann")
            await asyncio.sleep(0.005)
        said = (await result(t, await ending))["value"]
        assert said.count("denied") == limits.ASKS_FOR_MORE_PER_TREE_MAX
        assert said.count("limit_reached") == 8 - limits.ASKS_FOR_MORE_PER_TREE_MAX


async def test_a_child_of_a_run_that_took_more_than_it_had_gets_nothing_and_not_less(
    tmp_path: Path,
) -> None:
    budget = Budget(calls=100, tokens=10_000, cost_microusd=10_000)
    async with band(tmp_path / "home") as b:
        parent = await b.start(budget=budget, models=priced(budget).models)
        Spoken(b, said(9_990, 1_000))  # Far more than was reserved for it.
        asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
        assert (await parent.call(CallKind.MODEL, asked, "default")).error is None
        row = await parent.row()
        assert row.tokens_used > budget.tokens and row.cost_used_microusd > budget.cost_microusd
        given = (await (await b.child_of(parent)).row()).budget
        assert (given.tokens, given.cost_microusd) == (0, 0) and given.calls > 0
