"""Yeses that were given for one thing, and what hostile agents made of them: each by name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from approvals_world import ALICE, CAROL, PAY, PAY_SCHEMA, payer
from kernel_world import Doing, World, world
from test_changing import say

from ring0.kernel import changing
from ring0.kernel.live import newest
from ring0.types import (
    AgentManifest,
    ApprovalState,
    CallKind,
    CallState,
    Effect,
    Outcome,
    Terms,
)

ASK_SPAWN = """
@id("look-at-children")
forbid (principal, action == Action::"spawn", resource)
unless { context.approved };
"""
ASK = """
@id("one")
@reason("One person.")
forbid (principal, action in Action::"tool", resource == Tool::"pay")
unless { context.approved };
"""
TWO = ASK.replace('@id("one")', '@id("one")\n@approvers("2")')
ELSE = ASK.replace('@id("one")', '@id("one")\n@approvers("1")')
OPEN = 'permit (principal, action in Action::"tool", resource);\n'
NEVER = '@id("no-more") forbid (principal, action in Action::"tool", resource == Tool::"pay");\n'


async def starts_anew(w: World, call: asyncio.Task[Outcome]) -> None:
    """The run's process is put away in the middle of a call that waits, and started again."""
    call.cancel()
    await w.run.stop_calls()
    w.run.approvals = newest(await w.store.approvals(run=w.run.id))


async def test_a_yes_to_one_child_starts_no_other(tmp_path: Path) -> None:
    """A process that is started again asks for another agent under the very same call."""
    manifest = AgentManifest(name="clerk", agents=("helper", "danger"))
    async with world(tmp_path / "home", policy=ASK_SPAWN, manifest=manifest) as w:
        def spawn(agent: str) -> asyncio.Task[Outcome]:
            return w.start(agent, {"task": "x"}, kind=CallKind.SPAWN, counter=5)

        first = spawn("helper")
        approval = await w.pending()
        await starts_anew(w, first)
        await w.kernel.answer(approval.id, yes=True, by=CAROL)
        w.run.approvals = newest(await w.store.approvals(run=w.run.id))
        second = spawn("danger")
        await asyncio.sleep(0.3)
        assert not second.done(), "it is asked anew"
        assert (await w.store.approval(approval.id)).state is not ApprovalState.CONSUMED
        second.cancel()


async def test_a_changed_argument_is_no_yes_to_others_that_the_agent_changes_then(
    tmp_path: Path,
) -> None:
    """A person corrects whom it is for; the process that is started again asks for more money."""
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        first = w.start("pay", PAY, counter=5)
        approval = await w.pending()
        await starts_anew(w, first)
        await w.kernel.answer(approval.id, yes=True, by=CAROL, edits={"to": "ann"})
        w.run.approvals = newest(await w.store.approvals(run=w.run.id))
        second = w.start("pay", {**PAY, "amount": 5_000}, counter=5)
        await asyncio.wait([second], timeout=0.5)
        assert tool.args == []
        second.cancel()


async def test_one_yes_is_not_enough_once_the_policy_wants_two(tmp_path: Path) -> None:
    say(tmp_path / "home", ASK)
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        say(w.home, TWO)
        await changing.reload(w.kernel, by="ann")
        await w.kernel.answer(approval.id, yes=True, by=CAROL)
        await asyncio.wait([call], timeout=0.5)
        assert tool.done == 0
        (asked,) = await w.all_pending(1)
        assert asked.needs == 2
        call.cancel()


async def test_the_principals_yes_is_none_once_the_policy_wants_somebody_else(
    tmp_path: Path,
) -> None:
    say(tmp_path / "home", ASK)
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        first = w.start("pay", PAY, counter=5)
        approval = await w.pending()
        await starts_anew(w, first)
        say(w.home, ELSE)
        await changing.reload(w.kernel, by="ann")
        second = w.start("pay", PAY, counter=5)
        await asyncio.sleep(0.1)
        pending = await w.all_pending(1)
        for one in pending:
            try:
                await w.kernel.answer(one.id, yes=True, by=ALICE)
            except Exception as e:
                print(e)
        await asyncio.wait([second], timeout=0.5)
        assert tool.done == 0
        assert approval.id
        second.cancel()


async def test_a_policy_that_is_taken_up_during_a_dry_run_counts_for_that_call(
    tmp_path: Path,
) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        go, there = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            there.set()
            await go.wait()

        tool.preparing = slow
        call = w.start("pay", PAY)
        await there.wait()
        say(w.home, OPEN + NEVER)
        await changing.reload(w.kernel, by="ann")
        go.set()
        assert (await call).state is CallState.REFUSED and tool.done == 0


BOTH = ASK + """
@id("much")
@approvers("1")
permit (principal, action == Action::"pay", resource)
when { context.approved && context.args.amount > 100 };
"""


async def test_the_principals_yes_in_advance_is_none_where_somebody_else_has_to_say_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", policy=BOTH) as w:
        tool = payer(w)
        schema = {**PAY_SCHEMA, "properties": {**PAY_SCHEMA["properties"]}}
        assert schema
        first = w.start("pay", PAY)
        approval = await w.pending()
        terms = Terms(match={"amount": "*"})
        await w.kernel.answer(approval.id, yes=True, by=ALICE, terms=terms)
        assert (await first).state is CallState.OK
        second = w.start("pay", {**PAY, "amount": 500})
        await asyncio.wait([second], timeout=0.5)
        assert tool.done == 1
        second.cancel()
