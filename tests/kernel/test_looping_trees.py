"""Loops that no single run has: runs that start each other again and again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from test_children import Tree, agent, result, tree

from ring0.errors import ToolFailed
from ring0.kernel.live import LiveRun
from ring0.types import Budget, CallKind

DEEP = Budget(calls=900, children=64, depth=3)


async def test_an_agent_that_hands_down_its_own_task_is_told_and_then_refused(
    tmp_path: Path,
) -> None:
    heard: list[Any] = []

    async def clerk(t: Tree, run: LiveRun) -> Any:
        task = "Do  THE work." if run.row.depth else "do the work."
        spawned = await t.spawn(run, "clerk", task)
        heard.append((run.row.depth, bool(spawned.notice), spawned.error))
        if spawned.error is not None:
            return spawned.error["code"]
        return (await t.wait(run, spawned.value["run"])).value

    manifests = [agent("clerk", "clerk", budget=DEEP)]
    async with tree(tmp_path / "home", manifests, clerk=clerk) as t:
        row = await t.start("clerk", "Do the work.")
        await t.kernel.runs.wait(row.id)
        assert (await result(t, row))["value"] == "loop_stopped"
        assert sorted(one[:2] for one in heard) == [(0, True), (1, False)]


async def test_a_task_that_is_handed_down_in_parts_is_not_refused(tmp_path: Path) -> None:
    async def clerk(t: Tree, run: LiveRun) -> Any:
        low, high = map(int, t.tasks[run.id].split("-"))  # type: ignore[attr-defined]
        if high - low <= 1 or run.row.depth == 3:
            return 1
        middle = (low + high) // 2
        total = 0
        for part in (f"{low}-{middle}", f"{middle}-{high}"):
            spawned = await t.spawn(run, "clerk", part)
            assert spawned.error is None, spawned
            t.tasks[spawned.value["run"]] = part  # type: ignore[attr-defined]
            total += (await t.wait(run, spawned.value["run"])).value
        return total

    manifests = [agent("clerk", "clerk", budget=DEEP)]
    async with tree(tmp_path / "home", manifests, clerk=clerk) as t:
        t.tasks = {}  # type: ignore[attr-defined]

        async def later(row: Any) -> None:
            t.tasks[row.id] = "0-8"  # type: ignore[attr-defined]

        row = await _start_with(t, later)
        await t.kernel.runs.wait(row.id)
        assert (await result(t, row)) == {"value": 8}


async def _start_with(t: Tree, before: Any) -> Any:
    started = asyncio.Event()
    inner = t.functions["agent:clerk"]

    async def held(live: LiveRun) -> Any:
        await started.wait()
        while live.row.id not in t.tasks:  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        return await inner(live)

    t.functions["agent:clerk"] = held
    row = await t.start("clerk", "0-8")
    await before(row)
    started.set()
    return row


async def test_children_in_turn_on_one_task_with_one_end_are_stopped_at_the_fifth(
    tmp_path: Path,
) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        told = []
        for number in range(1, 9):
            spawned = await t.spawn(run, "child", "try it")
            if spawned.error is not None:
                return [number, spawned.error["code"], told]
            told.append(bool((await t.wait(run, spawned.value["run"])).notice))
        return "never"

    async def child(t: Tree, run: LiveRun) -> Any:
        return "nothing found"

    manifests = [agent("parent", "child", budget=DEEP), agent("child", budget=Budget(calls=5))]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.start("parent")
        await t.kernel.runs.wait(row.id)
        found = [5, "loop_stopped", [False, False, True, True]]
        assert (await result(t, row))["value"] == found


async def test_two_agents_that_are_asked_in_turn_are_stopped_in_the_fifth_round(
    tmp_path: Path,
) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        for number in range(20):
            spawned = await t.spawn(run, ("writer", "critic")[number % 2], "the text")
            if spawned.error is not None:
                return [number, spawned.error["code"]]
            await t.wait(run, spawned.value["run"])
        return "never"

    async def writer(t: Tree, run: LiveRun) -> Any:
        return "as before"

    few = Budget(calls=5)
    manifests = [
        agent("parent", "writer", "critic", budget=DEEP),
        agent("writer", budget=few),
        agent("critic", budget=few),
    ]
    async with tree(tmp_path / "home", manifests, parent=parent, writer=writer, critic=writer) as t:
        row = await t.start("parent")
        await t.kernel.runs.wait(row.id)
        assert (await result(t, row))["value"] == [8, "loop_stopped"]


async def test_equal_children_side_by_side_are_no_loop(tmp_path: Path) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        children = [await t.spawned(run, "child") for _ in range(12)]
        outcomes = await asyncio.gather(*(t.wait(run, child) for child in children))
        return [one.value for one in outcomes]

    async def child(t: Tree, run: LiveRun) -> Any:
        found = await t.call(run, CallKind.MEMORY_RECALL, args={"query": "the same"})
        assert found.error is None, found
        return "yes"

    manifests = [agent("parent", "child", budget=DEEP), agent("child", budget=Budget(calls=5))]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.start("parent")
        await t.kernel.runs.wait(row.id)
        assert (await result(t, row)) == {"value": ["yes"] * 12}


async def test_failing_children_in_turn_are_stopped_though_each_has_an_id_of_its_own(
    tmp_path: Path,
) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        for number in range(1, 9):
            pair = [await t.spawn(run, name, "try it") for name in ("one", "other")]
            if pair[0].error is not None:
                return [number, pair[0].error["code"]]
            runs = [spawned.value["run"] for spawned in pair]
            await t.call(run, CallKind.WAIT, args={"runs": runs})
        return "never"

    async def child(t: Tree, run: LiveRun) -> Any:
        raise ToolFailed("no way")

    few = Budget(calls=5)
    manifests = [
        agent("parent", "one", "other", budget=DEEP),
        agent("one", budget=few),
        agent("other", budget=few),
    ]
    async with tree(tmp_path / "home", manifests, parent=parent, one=child, other=child) as t:
        row = await t.start("parent")
        await t.kernel.runs.wait(row.id)
        assert (await result(t, row))["value"] == [5, "loop_stopped"]


async def test_two_runs_that_tell_each_other_the_same_are_stopped_and_a_talk_is_not(
    tmp_path: Path,
) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        found = []
        for words in ("over to you", None):
            spawned = await t.spawn(run, "child", f"answer with {words}")
            for number in range(12):
                args = {"run": spawned.value["run"], "value": words or f"line {number}"}
                sent = await t.call(run, CallKind.SEND, args=args)
                if sent.error is not None:
                    found.append([number, sent.error["code"]])
                    break
                await t.call(run, CallKind.WAIT, args={"message": True})
            else:
                found.append("talked")
            await t.call(run, CallKind.WAIT, args={"runs": [spawned.value["run"]], "cancel": True})
        return found

    async def child(t: Tree, run: LiveRun) -> Any:
        while True:
            heard = await t.call(run, CallKind.WAIT, args={"message": True})
            args = {"run": heard.value["sender"], "value": "I heard you"}
            sent = await t.call(run, CallKind.SEND, args=args)
            assert sent.error is None or "over to you" in str(heard.value), sent

    manifests = [agent("parent", "child", budget=DEEP), agent("child", budget=Budget(calls=99))]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.start("parent")
        await t.kernel.runs.wait(row.id)
        assert (await result(t, row))["value"] == [[4, "loop_stopped"], "talked"]
