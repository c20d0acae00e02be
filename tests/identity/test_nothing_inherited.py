"""Fork, spawn and cron never carry credentials or approvals along."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing
from locks_world import band

from ring0.errors import TokenDead
from ring0.kernel.agent import profiles
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.tools.registry import Tool
from ring0.types import (
    AgentManifest,
    Approval,
    ApprovalState,
    CallKind,
    CallState,
    Effect,
    Operator,
    Outcome,
    Request,
    Run,
    RunState,
)

ANN = Operator(name="ann (uid 5)")
PAY = {"x": 1}
Body = Callable[["Family", LiveRun], Awaitable[Any]]


class Family:
    """A kernel with agents whose every run has the tool `pay`, which a person is asked about."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.paid: list[str] = []

    async def call(self, run: LiveRun, kind: CallKind, name: str, args: Any) -> Outcome:
        run.tools["pay"] = Tool(
            Doing(
                "pay",
                effect=Effect.ONCE,
                mutates=True,
                own=False,
                act=lambda _args, _context: self.paid.append(run.id),
            )
        )
        request = Request(kind=kind, name=name, args=args, path="0", counter=1)
        return await self.kernel.gate.call(run.handle, request)

    async def start(self, body: Body, child: Body) -> Run:
        async def parent(run: LiveRun) -> Any:
            return await body(self, run)

        async def beneath(run: LiveRun) -> Any:
            return await child(self, run)

        return await self.kernel.start_embedded(
            AgentManifest(name="clerk", agents=("helper",)),
            (AgentManifest(name="helper"),),
            {"agent:clerk": parent, "agent:helper": beneath},
            "the task",
            principal=ANN.name,
        )

    async def asked(self, run: str = "", but: str = "") -> Approval:
        async with asyncio.timeout(10):
            while True:
                found = await self.kernel.store.approvals(states=[ApprovalState.PENDING], run=run)
                if left := [one for one in found if one.run != but]:
                    return left[0]
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def family(folder: Path) -> AsyncIterator[Family]:
    async def embed(run: LiveRun, function: Callable[..., Any]) -> Any:
        return await function(run)

    kernel = await open_kernel(folder / "home", Runtime(), {}, embed=embed)
    try:
        yield Family(kernel)
    finally:
        await kernel.close()


async def pays(f: Family, run: LiveRun) -> str:
    return str((await f.call(run, CallKind.TOOL, "pay", PAY)).state)


async def test_a_child_that_is_spawned_asks_for_itself_what_its_parent_was_allowed(
    tmp_path: Path,
) -> None:
    spawned: list[Outcome] = []

    async def parent(f: Family, run: LiveRun) -> Any:
        assert await pays(f, run) == CallState.OK
        request = Request(kind=CallKind.SPAWN, name="helper", args={"task": "pay"},
                          path="0", counter=2)  # fmt: skip
        spawned.append(await f.kernel.gate.call(run.handle, request))
        await asyncio.sleep(30)

    async with family(tmp_path) as f:
        row = await f.start(parent, pays)
        first = await f.asked(row.id)
        await f.kernel.answer(first.id, yes=True, by=ANN)
        second = await f.asked(but=row.id)
        async with asyncio.timeout(10):
            while not spawned:  # The child may ask before its parent hears that it was started.
                await asyncio.sleep(0.005)
        assert spawned[0].state is CallState.OK
        assert second.run != row.id and second.id != first.id
        assert second.bound_to != first.bound_to
        assert f.paid == [row.id]
        stored = await f.kernel.store.approval(first.id)
        assert stored is not None and stored.state is ApprovalState.CONSUMED
        await f.kernel.answer(second.id, yes=False, by=ANN)
        child = await f.kernel.runs.wait(second.run)
        assert child.parent == row.id and f.paid == [row.id]
        await f.kernel.kill("all", "", by=ANN.name)


async def test_a_run_that_an_order_starts_again_asks_again_for_the_same_call(
    tmp_path: Path,
) -> None:
    async with family(tmp_path) as f:
        for turn in range(2):
            row = await f.start(pays, pays)
            asked = await f.asked(row.id)
            assert len(f.paid) == turn
            await f.kernel.answer(asked.id, yes=True, by=ANN)
            await f.kernel.runs.wait(row.id)
        assert len(set(f.paid)) == 2


async def test_an_approval_of_one_run_is_taken_by_no_other(tmp_path: Path) -> None:
    async with family(tmp_path) as f:
        one, other = [await f.start(pays, pays) for _ in range(2)]
        asked = {row.id: await f.asked(row.id) for row in (one, other)}
        await f.kernel.answer(asked[one.id].id, yes=True, by=ANN)
        await f.kernel.runs.wait(one.id)
        assert f.paid == [one.id]
        left = await f.kernel.store.approval(asked[other.id].id)
        assert left is not None and left.state is ApprovalState.PENDING
        await f.kernel.kill("all", "", by=ANN.name)
        assert f.paid == [one.id]


# --- credentials --------------------------------------------------------------------------------

WEB = {"web": {"use": "http", "egress": ["GET https://a.example/*"], "secrets": ["token"]}}


@contextlib.asynccontextmanager
async def with_a_credential(folder: Path, agents: str) -> AsyncIterator[Family]:
    """Its runs stand for agents in sandboxes: embedded ones may use no credential at all."""
    home = folder / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(
        '[credentials.token]\nsecret = "TOKEN"\nuse_for = "GET https://a.example/*"\n'
        f"agents = {agents}\n"
    )

    async def embed(run: LiveRun, function: Callable[..., Any]) -> Any:
        return await function(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "_secret_of", lambda agent: "")
        secrets = {"TOKEN": "canary-of-a-token-2e"}
        kernel = await open_kernel(home, Runtime(), secrets, embed=embed)
        try:
            yield Family(kernel)
        finally:
            await kernel.close()


@pytest.mark.parametrize(
    ("agents", "tools", "starts"),
    [
        ('["clerk"]', WEB, False),
        ('["clerk"]', {}, True),
        ('["clerk", "helper"]', WEB, True),
    ],
    ids=["not for the child", "the child names none", "for both"],
)
async def test_a_credential_of_a_parent_is_none_of_the_child_that_it_spawns(
    tmp_path: Path, agents: str, tools: dict[str, Any], starts: bool
) -> None:
    async def parent(run: LiveRun) -> Any:
        request = Request(kind=CallKind.SPAWN, name="helper", args={"task": "x"},
                          path="0", counter=1)  # fmt: skip
        spawned.set_result(await f.kernel.gate.call(run.handle, request))

    async def child(run: LiveRun) -> Any:
        has.set_result(sorted(run.tools))

    spawned: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    has: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    async with with_a_credential(tmp_path, agents) as f, asyncio.timeout(20):
        await f.kernel.start_embedded(
            AgentManifest(name="clerk", agents=("helper",), tools=WEB),
            (AgentManifest(name="helper", tools=tools),),
            {"agent:clerk": parent, "agent:helper": child},
            "the task",
            principal=ANN.name,
        )
        outcome = await spawned
        if not starts:
            assert "not for helper" in (outcome.error or {})["what"]
            rows = {row.agent: row for row in await f.kernel.store.runs()}
            assert rows["helper"].state is RunState.FAILED and not has.done()
            return
        assert outcome.state is CallState.OK, outcome
        assert await has == (["web.get", "web.request"] if tools else [])


async def test_a_token_of_a_parent_is_none_of_its_childs_and_both_die_with_the_parent(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        parent = await b.start()
        spawned = await parent.call(CallKind.SPAWN, {"task": "go"}, "child")
        child = await b.actor(spawned.value["run"])
        granting = b.kernel.granting
        scopes = {}
        for one in (parent, child):
            text = await granting.give(one.id, ["*"], 60, by="ann")
            scopes[one.id] = granting.tokens.scope(text)
            assert scopes[one.id].issued.run == one.id
        (of_child,) = granting.list(child.id)
        await granting.revoke(child.id, of_child.id, by="ann")
        scopes[parent.id].check()
        with pytest.raises(TokenDead):
            scopes[child.id].check()
        again = granting.tokens.scope(await granting.give(child.id, ["*"], 60, by="ann"))
        await parent.end()
        for scope in (scopes[parent.id], again):
            with pytest.raises(TokenDead):
                scope.check()
