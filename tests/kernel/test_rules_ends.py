"""Liveness and kills are looked at in the very transaction that dispatches an effect; and a kill
takes away all that waits for people, whatever it names.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from approvals_world import ALICE, CAROL, PAY, payer
from kernel_world import Doing, World, world
from locks_world import band
from msgspec.structs import replace

from ring0.errors import CallDenied, Ring0Error, RunDead
from ring0.store import Write
from ring0.store import events as ev
from ring0.types import ApprovalState, CallKind, CallState, Effect, RunState

ON_DISK = ["run", "agent", "tenant", "all", "ended", "epoch"]


async def on_disk_alone(w: World, what: str) -> None:
    """A kill, an end or another epoch that stands in the journal, and that nothing in this process
    was told of: its handle is live."""
    row = w.run.row
    targets = {"run": row.id, "agent": row.agent, "tenant": row.tenant, "all": ""}
    if what in targets:
        killed = ev.Killed(scope=what, target=targets[what], generation=1, by="ann")
        write = Write(run=ev.KERNEL, durable=True, events=[killed])
    elif what == "ended":
        end = ev.RunEnded(state=RunState.CANCELLED, result="", epoch=row.epoch + 1, by="ann")
        write = Write(run=row.id, durable=True, events=[end])
    else:
        write = Write(
            run=row.id,
            durable=True,
            events=[ev.RunMoved(state=RunState.RUNNING, epoch=row.epoch + 1)],
        )
    await w.store.append(write)
    w.kernel.gate.handles.check(w.run.handle)


async def outcome_of(call: asyncio.Task[Any]) -> Any:
    try:
        return (await call).state
    except Ring0Error as error:
        return type(error)


@pytest.mark.parametrize("what", ON_DISK)
@pytest.mark.parametrize("effect", [Effect.PURE, Effect.ONCE])
async def test_what_is_on_disk_by_the_intent_stops_the_effect_whatever_memory_says(
    tmp_path: Path, what: str, effect: Effect
) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act", effect=effect))

        async def preparing() -> None:  # Between the first look and the intent.
            tool.preparing = None
            await on_disk_alone(w, what)

        tool.preparing = preparing
        assert await outcome_of(w.start("act", {})) in (RunDead, CallState.REFUSED)
        assert tool.done == 0


@pytest.mark.parametrize("what", ON_DISK)
async def test_a_yes_is_of_no_use_once_a_kill_is_on_disk(tmp_path: Path, what: str) -> None:
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        await on_disk_alone(w, what)
        answered: Any = None
        try:
            answered = await w.kernel.answer(approval.id, yes=True, by=CAROL)
        except CallDenied:
            call.cancel()
        if answered is not None:
            assert await outcome_of(call) in (RunDead, CallState.REFUSED)
        kept = await w.store.approval(approval.id)
        assert kept.state is not ApprovalState.CONSUMED and tool.done == 0


@pytest.mark.parametrize("scope", ["run", "agent", "tenant", "all"])
async def test_a_kill_revokes_all_that_is_pending_beneath_what_it_names(
    tmp_path: Path, scope: str
) -> None:
    async with band(tmp_path / "home") as b:
        parent = await b.start()
        spawned = await parent.call(CallKind.SPAWN, {"task": "go"}, "child")
        child = await b.actor(spawned.value["run"])
        tools = [one.tool(name="pay", mutates=True, own=False) for one in (parent, child)]
        calls = [asyncio.create_task(one.touch("pay")) for one in (parent, child)]
        async with asyncio.timeout(10):
            while len(await b.kernel.store.approvals(states=[ApprovalState.PENDING])) < 2:
                await asyncio.sleep(0.005)
        asked = await b.kernel.store.approvals()
        targets = {"run": parent.id, "agent": "clerk", "tenant": parent.run.row.tenant, "all": ""}
        await b.kernel.kill(scope, targets[scope], by=ALICE.name)
        for one in asked:
            found = await b.kernel.store.approval(one.id)
            assert found is not None and found.state is ApprovalState.REVOKED
            with pytest.raises(CallDenied):
                await b.kernel.answer(one.id, yes=True, by=CAROL)
        await asyncio.gather(*calls, return_exceptions=True)
        assert [tool.done for tool in tools] == [0, 0]


async def test_a_yes_is_to_the_tool_as_it_was_and_none_to_another_in_its_place(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        call = w.start("pay", PAY)
        first = await w.pending()
        tool = w.run.tools["pay"]
        other = Doing("pay", effect=Effect.ONCE, mutates=True, own=False, reversal="reversible")
        other.manifest = replace(tool.manifest, description="another")
        call.cancel()
        await w.run.stop_calls()
        w.tool(other)
        await w.kernel.answer(first.id, yes=True, by=CAROL)
        again = w.start("pay", PAY, counter=1)
        second = await w.pending()
        assert second.id != first.id and second.tool_digest != first.tool_digest
        await w.kernel.answer(second.id, yes=False, by=CAROL)
        assert (await again).state is CallState.REFUSED and other.done == 0
