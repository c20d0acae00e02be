"""A tree of runs: a child gets a part of what its parent has, and ends when its parent ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_world import UNTRUSTED, Doing
from locks_world import band
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import ManifestInvalid, RunDead
from ring0.kernel.agent.agents import Agent, Family, family_of
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.life import recovery
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store.events import RunQueued
from ring0.tools.registry import Tool
from ring0.types import (
    ENDED,
    AgentManifest,
    ApprovalState,
    Budget,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Mode,
    Outcome,
    Request,
    Run,
    RunState,
    ToolManifest,
)

Body = Callable[["Tree", LiveRun], Awaitable[Any]]


class Tree:
    """A kernel whose agents are the test's functions, by name."""

    def __init__(self, kernel: Kernel, manifests: dict[str, AgentManifest], bodies: Any) -> None:
        self.kernel = kernel
        self.manifests = manifests
        self.functions = {f"agent:{name}": self._bound(body) for name, body in bodies.items()}
        self.count: dict[str, int] = {}

    def _bound(self, body: Body) -> Any:
        async def run(live: LiveRun) -> Any:
            return await body(self, live)

        return run

    async def start(self, name: str, task: str = "go") -> Run:
        others = tuple(one for other, one in self.manifests.items() if other != name)
        return await self.kernel.start_embedded(
            self.manifests[name], others, self.functions, task, principal="alice"
        )

    async def call(self, run: LiveRun, kind: CallKind, name: str = "", args: Any = None) -> Outcome:
        self.count[run.id] = self.count.get(run.id, 0) + 1
        request = Request(kind=kind, name=name, args=args, path="0", counter=self.count[run.id])
        return await self.kernel.gate.call(run.handle, request)

    async def spawn(self, run: LiveRun, name: str, task: str = "go") -> Outcome:
        return await self.call(run, CallKind.SPAWN, name, {"task": task})

    async def spawned(self, run: LiveRun, name: str) -> str:
        outcome = await self.spawn(run, name)
        assert outcome.state is CallState.OK, outcome
        return str(outcome.value["run"])

    async def wait(self, run: LiveRun, child: str) -> Outcome:
        return await self.call(run, CallKind.WAIT, args={"run": child})

    async def row(self, run: str) -> Run:
        await self.kernel.store.flush()
        found = await self.kernel.store.run(run)
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def tree(
    home: Path, manifests: list[AgentManifest], runtime: Runtime | None = None, **bodies: Body
) -> AsyncIterator[Tree]:
    home.mkdir(exist_ok=True)

    async def embed(run: LiveRun, function: Callable[..., Any]) -> Any:
        return await function(run)

    kernel = await open_kernel(home, runtime or Runtime(), {}, embed=embed)
    try:
        yield Tree(kernel, {manifest.name: manifest for manifest in manifests}, bodies)
    finally:
        await kernel.close()


def agent(name: str, *agents: str, **fields: Any) -> AgentManifest:
    return AgentManifest(name=name, agents=agents, **fields)


def function(name: str) -> ToolManifest:
    return Doing(name).manifest


async def forever(t: Tree, run: LiveRun) -> None:
    await asyncio.Event().wait()


async def result(t: Tree, row: Run) -> Any:
    import msgspec

    return msgspec.json.decode(await t.kernel.store.blob((await t.row(row.id)).result))


# --- what a child gets -----------------------------------------------------------------------


async def test_a_childs_budget_is_moved_from_its_parents_and_the_rest_is_given_back(
    tmp_path: Path,
) -> None:
    seen: dict[str, Run] = {}

    async def parent(t: Tree, run: LiveRun) -> Any:
        child = await t.spawned(run, "child")
        seen["parent"], seen["child"] = await t.row(run.id), await t.row(child)
        await t.wait(run, child)
        return child

    async def child(t: Tree, run: LiveRun) -> Any:
        for _ in range(3):
            await t.call(run, CallKind.NOW, args={})
        return "done"

    budget = Budget(calls=100, cost_microusd=1_000)
    asked = Budget(calls=1_000_000, cost_microusd=700, wall_s=10**6)
    manifests = [agent("parent", "child", budget=budget), agent("child", budget=asked)]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.kernel.runs.wait((await t.start("parent")).id)
        assert row.state is RunState.DONE
        given_to = seen["child"].budget
        assert given_to.calls < 100 and given_to.cost_microusd == 700
        assert given_to.wall_s <= budget.wall_s
        assert seen["child"].deadline_us <= seen["parent"].deadline_us
        assert seen["parent"].calls_used == 1 + given_to.calls
        assert seen["parent"].cost_used_microusd == 700
        after = await t.row(row.id)
        assert after.calls_used == 2 + 3, "spawn, wait, and what the child really used"
        assert after.cost_used_microusd == 0


async def test_many_children_at_once_never_get_more_together_than_their_parent_has(
    tmp_path: Path,
) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        outcomes = await asyncio.gather(*(t.spawn(run, "child", f"{n}") for n in range(30)))
        return [one.state for one in outcomes]

    manifests = [agent("parent", "child", budget=Budget(calls=40)), agent("child")]
    async with tree(tmp_path / "home", manifests, parent=parent, child=forever) as t:
        row = await t.start("parent")
        ended = await t.kernel.runs.wait(row.id)
        states = (await result(t, ended))["value"]
        children = await t.kernel.store.runs(parent=row.id)
        assert 0 < len(children) == states.count("ok") and len(states) == 30
        spent = sum(child.budget.calls for child in children)
        assert spent + states.count("ok") <= 40
        assert all(child.state is RunState.CANCELLED for child in children)
        assert (await t.row(row.id)).calls_used <= 40


async def test_a_tree_has_an_end_in_depth(tmp_path: Path) -> None:
    depths: list[int] = []

    async def deeper(t: Tree, run: LiveRun) -> Any:
        depths.append(run.row.depth)
        outcome = await t.spawn(run, "deeper", f"part {run.row.depth}")
        if outcome.error is not None:
            return outcome.error["code"]
        return (await t.wait(run, outcome.value["run"])).value

    manifests = [agent("deeper", "deeper", budget=Budget(calls=1_000))]
    async with tree(tmp_path / "home", manifests, deeper=deeper) as t:
        row = await t.kernel.runs.wait((await t.start("deeper")).id)
        assert (await result(t, row))["value"] == "limit_reached"
        assert depths == list(range(limits.RUN_DEPTH_MAX + 1))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    has=st.sets(st.sampled_from("abcdef")),
    wants=st.sets(st.sampled_from("abcdef")),
    builtin=st.sets(st.sampled_from(["sh", "job"])),
    wants_builtin=st.sets(st.sampled_from(["sh", "job"])),
    numbers=st.lists(st.integers(1, 10**6), min_size=9, max_size=9),
    seconds=st.tuples(st.integers(1, 99), st.integers(1, 99)),
)
def test_no_manifest_of_a_child_gives_it_more_than_its_parent_has(
    has: set[str],
    wants: set[str],
    builtin: set[str],
    wants_builtin: set[str],
    numbers: list[int],
    seconds: tuple[int, int],
) -> None:
    def made(name: str, tools: set[str], config: set[str], most: int, n: int) -> AgentManifest:
        return AgentManifest(
            name=name,
            functions=tuple(function(tool) for tool in sorted(tools)),
            tools={tool: {"use": "shell", "timeout_s": most} for tool in config},
            folder=f"/{name}",
            budget=Budget(calls=numbers[n], cost_microusd=numbers[n + 1], wall_s=numbers[n + 2]),
        )

    parent = made("parent", has, builtin, seconds[0], 0)
    child = made("child", wants, wants_builtin, seconds[1], 3)
    family = Family(manifest=parent, others=(child,), mode=Mode.EMBEDDED, operator=True)
    most = Budget(calls=numbers[6], cost_microusd=numbers[7], wall_s=numbers[8])
    try:
        narrowed = Agent(family, "d").child("child", most)
    except ManifestInvalid:
        assert not (wants <= has and wants_builtin <= builtin)
        return
    got = narrowed.manifest
    assert {tool.name for tool in got.functions} <= has
    assert got.tools == {
        tool: {"use": "shell", "timeout_s": min(seconds)} for tool in wants_builtin
    }, "with the narrower of the two settings"
    for name in ("calls", "cost_microusd", "wall_s"):
        assert getattr(got.budget, name) <= getattr(most, name)
    assert (got.models, got.sandbox, got.folder) == (parent.models, parent.sandbox, parent.folder)
    assert not narrowed.operator, "what an operator may do is not inherited"


def test_a_childs_function_is_what_its_parents_is_whatever_its_own_declaration_says() -> None:
    def made(name: str, **said: Any) -> AgentManifest:
        one = ToolManifest(name="f", description="", schema={}, **said)
        return AgentManifest(name=name, functions=(one,))

    parent = made("parent", effect=Effect.ONCE, secrets=("gitlab", "shared"))
    child = made(
        "child", effect=Effect.PURE, egress=("POST https://elsewhere.example/*",),
        secrets=("github", "shared"), output=Integrity.TRUSTED_FIELD,
    )  # fmt: skip
    narrowed = Agent(Family(manifest=parent, others=(child,)), "d").child("child", Budget())
    (function,) = narrowed.manifest.functions
    assert function.secrets == ("shared",), "credentials are named, never inherited"
    assert replace(function, secrets=parent.functions[0].secrets) == parent.functions[0]


async def test_a_child_that_wants_a_tool_its_parent_has_not_is_not_started(tmp_path: Path) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        return (await t.spawn(run, "child")).error

    manifests = [agent("parent", "child"), agent("child", tools={"files": {"use": "files"}})]
    async with tree(tmp_path / "home", manifests, parent=parent, child=forever) as t:
        row = await t.kernel.runs.wait((await t.start("parent")).id)
        error = (await result(t, row))["value"]
        assert error["code"] == "manifest_invalid"
        assert not await t.kernel.store.runs(parent=row.id)


async def test_a_child_that_was_refused_takes_no_place_of_the_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RUN_CHILDREN_MAX", 2)

    async def parent(t: Tree, run: LiveRun) -> Any:
        for _ in range(3):
            assert (await t.spawn(run, "greedy")).state is not CallState.OK
        return [(await t.spawn(run, "child")).state for _ in range(3)]

    async def child(t: Tree, run: LiveRun) -> Any:
        return 1

    greedy = agent("greedy", functions=(function("more"),))
    manifests = [agent("parent", "child", "greedy"), agent("child"), greedy]
    async with tree(tmp_path / "home", manifests, parent=parent, child=child) as t:
        row = await t.kernel.runs.wait((await t.start("parent")).id)
        states = (await result(t, row))["value"]
    assert states[:2] == ["ok", "ok"] and states[2] != "ok"


async def test_a_child_is_as_untrusted_as_its_parent_was_and_its_result_as_it_became(
    tmp_path: Path,
) -> None:
    labels: list[Any] = []

    async def parent(t: Tree, run: LiveRun) -> Any:
        run.tools["mail"] = Tool(Doing("mail", label=UNTRUSTED))
        clean = await t.spawned(run, "reader")
        outcome = await t.wait(run, clean)
        labels.append((outcome.label.integrity, run.row.label.integrity))
        second = await t.spawned(run, "reader")
        labels.append((await t.row(second)).label.integrity)
        return None

    async def reader(t: Tree, run: LiveRun) -> Any:
        run.tools["mail"] = Tool(Doing("mail", label=UNTRUSTED))
        await t.call(run, CallKind.TOOL, "mail", {})
        return "what the mail said"

    manifests = [agent("parent", "reader"), agent("reader")]
    async with tree(tmp_path / "home", manifests, parent=parent, reader=reader) as t:
        row = await t.kernel.runs.wait((await t.start("parent")).id)
        assert row.state is RunState.DONE
    untrusted = Integrity.UNTRUSTED
    assert labels == [(untrusted, untrusted), untrusted]


async def test_a_run_waits_for_its_own_children_only(tmp_path: Path) -> None:
    async def nosy(t: Tree, run: LiveRun) -> Any:
        other = await t.start("quiet")
        return [(await t.wait(run, name)).state for name in (other.id, run.id, "r-none", "")]

    manifests = [agent("nosy"), agent("quiet")]
    async with tree(tmp_path / "home", manifests, nosy=nosy, quiet=forever) as t:
        row = await t.kernel.runs.wait((await t.start("nosy")).id)
        assert (await result(t, row))["value"] == ["error"] * 4


# --- how a tree ends -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "done", "fails", "deadline"])
async def test_the_end_of_a_parent_ends_all_beneath_it_with_their_asks(
    tmp_path: Path, how: str
) -> None:
    ready = asyncio.Event()

    async def parent(t: Tree, run: LiveRun) -> Any:
        await t.spawned(run, "middle")
        await ready.wait()
        if how == "fails":
            raise ValueError("on purpose")
        if how != "done":
            await forever(t, run)

    async def middle(t: Tree, run: LiveRun) -> Any:
        await t.wait(run, await t.spawned(run, "leaf"))

    async def leaf(t: Tree, run: LiveRun) -> Any:
        run.tools["act"] = Tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        asking = asyncio.ensure_future(t.call(run, CallKind.TOOL, "act", {}))
        while not await t.kernel.store.approvals(states=[ApprovalState.PENDING]):
            await asyncio.sleep(0.005)
        ready.set()
        await asking

    budget = Budget(wall_s=1 if how == "deadline" else 100)
    manifests = [agent("parent", "middle", budget=budget), agent("middle", "leaf"), agent("leaf")]
    async with tree(tmp_path / "home", manifests, parent=parent, middle=middle, leaf=leaf) as t:
        row = await t.start("parent")
        await ready.wait()
        if how == "kill":
            assert len(await t.kernel.kill("run", row.id, by="alice")) == 1
        ended = await t.kernel.runs.wait(row.id)
        wanted = {"kill": "cancelled", "done": "done", "fails": "failed", "deadline": "failed"}
        assert ended.state == wanted[how]
        beneath = [one for one in await t.kernel.store.runs() if one.id != row.id]
        assert len(beneath) == 2
        assert all(one.state in ENDED for one in beneath), "when the parent's end is told"
        if how != "deadline":  # Their own deadline is the same moment.
            assert {one.state for one in beneath} == {RunState.CANCELLED}
        (ask,) = await t.kernel.store.approvals()
        # At the deadline its time may be over a moment before its run is.
        assert ask.state in (ApprovalState.REVOKED, ApprovalState.EXPIRED)
        assert not t.kernel.gate.live


async def test_a_child_that_is_being_spawned_when_its_parent_is_killed_is_not_left_behind(
    tmp_path: Path,
) -> None:
    async def parent(t: Tree, run: LiveRun) -> Any:
        await asyncio.gather(*(t.spawn(run, "child", str(n)) for n in range(8)))
        await forever(t, run)

    manifests = [agent("parent", "child", budget=Budget(calls=10_000)), agent("child")]
    for delay in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016):
        home = tmp_path / f"home{delay}"
        async with tree(home, manifests, parent=parent, child=forever) as t:
            row = await t.start("parent")
            await asyncio.sleep(delay)
            await t.kernel.kill("run", row.id, by="alice")
            await t.kernel.store.flush()
            left = [one for one in await t.kernel.store.runs() if one.state not in ENDED]
            assert left == [], f"after {delay} s"


async def test_a_child_that_is_being_spawned_when_its_parent_ends_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[asyncio.Event] = []

    async def parent(t: Tree, run: LiveRun) -> Any:
        spawning = asyncio.ensure_future(t.spawn(run, "child"))
        spawning.add_done_callback(lambda task: task.cancelled() or task.exception())
        await reached[-1].wait()

    manifests = [agent("parent", "child"), agent("child")]
    async with tree(tmp_path / "home", manifests, parent=parent, child=forever) as t:
        append = t.kernel.store.append

        def watched(write: Write) -> Any:
            written = append(write)
            if isinstance(write.events[0], RunQueued) and write.events[0].run.parent:
                written = asyncio.ensure_future(written)  # On its way to the disk.
                asyncio.get_running_loop().call_soon(reached[-1].set)
            return written

        monkeypatch.setattr(t.kernel.store, "append", watched)
        for _ in range(10):
            reached.append(asyncio.Event())
            row = await t.kernel.runs.wait((await t.start("parent")).id)
            await t.kernel.store.flush()
            children = await t.kernel.store.runs(parent=row.id)
            assert [one.state for one in children] == [RunState.CANCELLED]


# --- interruptions ---------------------------------------------------------------------------


async def test_a_wait_for_a_child_goes_on_after_both_were_interrupted(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def parent(t: Tree, run: LiveRun) -> Any:
        child = await t.spawned(run, "child")
        return (await t.wait(run, child)).value

    async def child(t: Tree, run: LiveRun) -> Any:
        await t.call(run, CallKind.NOW, args={})
        await go.wait()
        return "from the child"

    home = tmp_path / "home"
    manifests = [agent("parent", "child"), agent("child")]
    async with tree(home, manifests, parent=parent, child=child) as t:
        row = await t.start("parent")
        while (await t.row(row.id)).waiting_for != "child":
            await asyncio.sleep(0.005)
        # The child is let go of first, as where its sandbox is the first to be dead.
        name = (await t.kernel.store.runs(parent=row.id))[0].id
        t.kernel.runs._tasks[name].cancel()
        await asyncio.sleep(0.05)
        await t.kernel.runs.stop()
        assert (await t.row(row.id)).state in (RunState.WAITING, RunState.RUNNING)
    go.set()
    async with tree(home, manifests, parent=parent, child=child) as t:
        family = await family_of(t.kernel.store, row.id)
        started = await t.kernel.recover(Agent(family, "embedded", functions=t.functions))
        assert len(started) == 2, "the parent and its child"
        ended = await t.kernel.runs.wait(row.id)
        assert (await result(t, ended)) == {"value": "from the child"}


async def test_a_run_that_cannot_be_recovered_keeps_back_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    manifests = [agent("good"), agent("bad", tools={"files": {"use": "files"}})]
    async with tree(home, manifests, good=forever, bad=forever) as t:
        good, bad = await t.start("good"), await t.start("bad")
        await t.kernel.runs.stop()
    async with tree(home, manifests, good=forever, bad=forever) as t:

        def find(family: Family) -> Agent:
            manifest = family.manifest
            if manifest.name == "bad":
                raise ManifestInvalid("Its database is gone.")
            return Agent(family, "embedded", functions=t.functions)

        assert await recovery.recover(t.kernel.runs, find) == [good.id]
        assert list(t.kernel.runs.not_recovered) == [bad.id]
        assert (await t.row(bad.id)).state is RunState.RUNNING, "its row stands for a later try"
        with pytest.raises(ManifestInvalid):
            await t.kernel.runs.wait(bad.id)
        await t.kernel.kill("run", bad.id, by="alice")
        assert (await t.row(bad.id)).state is RunState.CANCELLED


async def test_an_interrupted_agent_finds_its_door_shut_and_its_run_is_not_ended(
    tmp_path: Path,
) -> None:
    heard: list[type] = []

    async def worker(t: Tree, run: LiveRun) -> Any:
        try:
            await t.call(run, CallKind.SLEEP, args={"seconds": 1_000})
        except BaseException as error:
            heard.append(type(error))
            try:
                await t.call(run, CallKind.NOW, args={})
            except RunDead as dead:
                heard.append(type(dead))
            raise

    async with tree(tmp_path / "home", [agent("worker")], worker=worker) as t:
        row = await t.start("worker")
        await asyncio.sleep(0.05)
        await t.kernel.runs.stop()
        kept = await t.row(row.id)
        assert (kept.state, kept.waiting_for) == (RunState.WAITING, "timer")
    assert heard[0] in (asyncio.CancelledError, RunDead) and heard[1:] in ([], [RunDead])


async def test_a_parent_keeps_calls_to_wait_for_a_child_that_wants_them_all(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        parent = await b.start(budget=Budget(calls=100))
        child = await b.child_of(parent)
        assert (await child.row()).budget.calls + 1 < 100
        row = await parent.row()
        assert row.budget.calls - row.calls_used >= 99 // limits.CHILD_SHARE


async def test_of_a_dozen_children_that_say_no_budget_the_last_one_still_has_some(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        parent = await b.start()
        children = [await b.child_of(parent) for _ in range(12)]
        calls = [(await child.row()).budget.calls for child in children]
        assert calls == sorted(calls, reverse=True)
        assert calls[0] > 100 and calls[-1] >= 20
        row = await parent.row()
        assert row.calls_used == sum(calls) + len(calls) <= row.budget.calls


def test_a_child_gets_what_it_says_as_far_as_there_is_so_much() -> None:
    said = AgentManifest(name="child", budget=Budget(calls=600, tokens=7))
    parent = AgentManifest(name="parent", agents=("child",))
    agent = Agent(Family(manifest=parent, others=(said,)), "d")
    most = Budget(calls=700, tokens=90, children=3, depth=1)
    assert agent.child("child", most).manifest.budget.calls == 600
    assert agent.child("child", most).manifest.budget.tokens == 7
    assert agent.child("child", Budget(calls=90)).manifest.budget.calls == 90
