"""Yeses that were given for one thing, and what hostile agents made of them: each by name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from approvals_world import ADA, ALICE, BOB, CAROL, PAY, PAY_SCHEMA, payer
from kernel_world import Doing, World, world

from ring0 import limits
from ring0.errors import AnswerRefused
from ring0.kernel.asks import newest
from ring0.kernel.operating import changing
from ring0.types import (
    AgentManifest,
    ApprovalState,
    CallKind,
    CallState,
    Effect,
    Outcome,
    RunState,
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


def say(home: Path, policy: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "own.cedar").write_text(policy)
    (home / "ring0.toml").write_text('policy = ["own.cedar"]\n')


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
        asked = await w.pending()
        assert asked.id != approval.id, "it is asked anew"
        assert (await w.store.approval(approval.id)).state is ApprovalState.REVOKED
        await w.kernel.answer(asked.id, yes=False, by=CAROL)
        assert (await second).state is CallState.REFUSED


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
        second = await w.call("pay", {**PAY, "amount": 5_000}, counter=5)
        assert second.state is CallState.REFUSED and tool.done == 0
        assert "something else" in str(second.error)


async def test_one_yes_is_not_enough_once_the_policy_wants_two(tmp_path: Path) -> None:
    say(tmp_path / "home", ASK)
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        say(w.home, TWO)
        await changing.reload(w.kernel, by="ann")
        await w.kernel.answer(approval.id, yes=True, by=CAROL)
        asked = await w.pending()
        assert (asked.call, asked.needs) == (approval.call, 2) and tool.done == 0
        await w.kernel.answer(asked.id, yes=True, by=ADA)
        await w.kernel.answer(asked.id, yes=True, by=BOB)
        assert (await call).state is CallState.OK and tool.done == 1


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
        async with asyncio.timeout(5):
            while (asked := await w.pending()).id == approval.id:
                await asyncio.sleep(0.005)
        with pytest.raises(AnswerRefused):
            await w.kernel.answer(asked.id, yes=True, by=ALICE)
        await w.kernel.answer(asked.id, yes=True, by=CAROL)
        assert (await second).state is CallState.OK and tool.done == 1


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


BOTH = (
    ASK
    + """
@id("much")
@approvers("1")
permit (principal, action == Action::"pay", resource)
when { context.approved && context.args.amount > 100 };
"""
)


async def test_the_principals_yes_in_advance_is_none_where_somebody_else_has_to_say_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", policy=BOTH) as w:
        tool = payer(w)
        first = w.start("pay", PAY)
        approval = await w.pending()
        terms = Terms(match={"amount": "*"})
        await w.kernel.answer(approval.id, yes=True, by=ALICE, terms=terms)
        assert (await first).state is CallState.OK
        second = w.start("pay", {**PAY, "amount": 500})
        asked = await w.pending()
        assert asked.apart and tool.done == 1
        await w.kernel.answer(asked.id, yes=False, by=CAROL)
        assert (await second).state is CallState.REFUSED


class Sized(Doing):
    """It says that it touches a table by who gets it, and a row for each unit of the amount."""

    async def prepare(self, args: dict[str, Any], context: Any) -> Any:
        prepared = await super().prepare(args, context)
        return msgspec.structs.replace(prepared, tables=(args["note"],), rows=args["amount"])


async def test_a_yes_to_all_that_are_alike_reaches_no_more_rows_and_no_other_tables(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", task="pay mallory") as w:
        tool = w.tool(Sized("pay", effect=Effect.ONCE, mutates=True, own=False, schema=PAY_SCHEMA))
        asks = []
        for amount, table in ((3, "small"), (2, "small"), (4, "small"), (1, "salaries")):
            w.start("pay", {"to": "mallory", "amount": amount, "note": table})
            asks += [one for one in await w.all_pending(len(asks) + 1) if one not in asks]
        rows = await w.kernel.answering.answer_all([asks[0].id], yes=True, by=CAROL, like=True)
        assert [row.id for row in rows] == [asks[0].id, asks[1].id]
        async with asyncio.timeout(5):
            while tool.done < 2:
                await asyncio.sleep(0.005)
        rows = await w.kernel.answering.answer_all([asks[2].id], yes=False, by=CAROL, like=True)
        assert [row.id for row in rows] == [asks[2].id, asks[3].id], "a no is for all of them"


async def test_a_run_that_is_paused_for_its_denials_asks_nobody(tmp_path: Path) -> None:
    """It went on to ask, and waited only once a person had said yes."""
    async with world(tmp_path / "home") as w:
        payer(w)
        for n in range(limits.DENIALS_IN_A_ROW_MAX):
            call = w.start("pay", {**PAY, "amount": n + 1})
            await w.kernel.answer((await w.pending()).id, yes=False, by=CAROL)
            assert (await call).state is CallState.REFUSED
        call = w.start("pay", {**PAY, "amount": 99})
        await w.until(RunState.WAITING, "pause")
        assert not await w.store.approvals(states=[ApprovalState.PENDING])
        await w.kernel.resume(w.run.id, by="alice")
        await w.kernel.answer((await w.pending()).id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK
