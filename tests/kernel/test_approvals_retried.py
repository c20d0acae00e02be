"""A yes, then a crash: what is tried again is held to policy, label and dry run of now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from approvals_world import ADA, BOB, CAROL, PAY, TWO_PEOPLE, UNTRUSTED, payer
from kernel_world import Doing, JumpingRuntime, World, world
from msgspec.structs import replace

from ring0 import limits
from ring0.kernel.asks import newest
from ring0.kernel.operating import changing
from ring0.observability import verify
from ring0.store import events as ev
from ring0.types import ApprovalState, Budget, CallKind, CallState, Effect

ASKS = """
@id("asks") @reason("Money.")
forbid (principal, action in Action::"tool", resource == Tool::"pay") unless { context.approved };
"""


async def cut_off(w: World, tool: Doing, *, counter: int = 3) -> None:
    """An idempotent call that a person said yes to, cut off by a crash in its middle."""
    tool.hold()
    call = w.start("pay", PAY, counter=counter)
    await w.kernel.answer((await w.pending()).id, yes=True, by=CAROL)
    await tool.begun.wait()
    call.cancel()
    await started_again(w)
    tool.gate = None
    record = await w.recorded(f"{w.run.id}/0/{counter}")
    assert record.state is CallState.INTENDED and record.approval and tool.done == 0


async def started_again(w: World) -> None:
    """As a start of another kernel reads the run."""
    await w.run.stop_calls()
    await w.store.flush()
    w.run.records = {call.id: call for call in await w.store.calls(w.run.id)}
    w.run.approvals = newest(await w.store.approvals(run=w.run.id))


async def take_up(w: World, policy: str) -> None:
    (w.home / "own.cedar").write_text(policy)
    await changing.reload(w.kernel, by="carol (uid 7)", loosen=False)


async def test_what_a_crash_cut_off_runs_again_with_the_yes_that_it_had(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=ASKS) as w:
        tool = payer(w, effect=Effect.IDEMPOTENT)
        await cut_off(w, tool)
        assert (await w.call("pay", PAY, counter=3)).state is CallState.OK
        assert tool.done == 1 and len(await w.store.approvals()) == 1, "nobody is asked twice"
        assert (await verify(w.store)).ok


async def test_a_newer_policy_that_wants_two_people_is_held_to_when_it_is_tried_again(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", policy=ASKS) as w:
        tool = payer(w, effect=Effect.IDEMPOTENT)
        await cut_off(w, tool)
        first = (await w.calls())[0].approval
        await take_up(w, TWO_PEOPLE)
        call = w.start("pay", PAY, counter=3)
        anew = await w.pending()
        assert anew.needs == 2 and anew.yes_by == () and anew.edition == 1
        await w.kernel.answer(anew.id, yes=True, by=ADA)
        await asyncio.sleep(0.05)
        assert not call.done() and tool.done == 0
        await w.kernel.answer(anew.id, yes=True, by=BOB)
        assert (await call).state is CallState.OK and tool.done == 1
        record = (await w.calls())[0]
        assert record.approval == anew.id != first
        used = {one.id: one.state for one in await w.store.approvals()}
        assert used == {first: ApprovalState.CONSUMED, anew.id: ApprovalState.CONSUMED}
        retried = [
            entry.body async for entry in w.store.entries(w.run.id)
            if isinstance(entry.body, ev.CallRetried)
        ]  # fmt: skip
        assert [one.approval for one in retried] == [anew.id], "that yes is on record too"
        assert (await verify(w.store)).ok


async def test_a_no_when_it_is_asked_anew_ends_the_call(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=ASKS) as w:
        tool = payer(w, effect=Effect.IDEMPOTENT)
        await cut_off(w, tool)
        await take_up(w, TWO_PEOPLE)
        call = w.start("pay", PAY, counter=3)
        anew = await w.pending()
        await w.kernel.answer(anew.id, yes=False, by=CAROL)
        outcome = await call
        assert outcome.state is CallState.REFUSED and tool.done == 0
        assert (await w.calls())[0].state is CallState.ERROR
        assert newest(await w.store.approvals())[anew.call].id == anew.id, "the no is what counts"


async def test_a_yes_that_was_given_anew_is_used_once(tmp_path: Path) -> None:
    """A second crash, after the second yes: under the same policy nobody is asked a third time,
    under another one somebody is."""
    async with world(tmp_path / "home", policy=ASKS) as w:
        tool = payer(w, effect=Effect.IDEMPOTENT)
        await cut_off(w, tool)
        await take_up(w, TWO_PEOPLE)
        tool.hold()
        call = w.start("pay", PAY, counter=3)
        anew = await w.pending()
        for by in (ADA, BOB):
            await w.kernel.answer(anew.id, yes=True, by=by)
        await tool.begun.wait()
        call.cancel()
        await started_again(w)
        tool.gate = None
        await take_up(w, TWO_PEOPLE.replace('"2"', '"3"'))
        call = w.start("pay", PAY, counter=3)
        third = await w.pending()
        assert (third.needs, third.edition) == (3, 2)
        call.cancel()
        await w.run.stop_calls()
        await started_again(w)
        await take_up(w, TWO_PEOPLE)
        await w.kernel.waiting.revoke(w.run.id, "test")
        await started_again(w)
        call = w.start("pay", PAY, counter=3)
        fourth = await w.pending()
        assert fourth.id not in (anew.id, third.id), "a used yes is not found again behind others"
        call.cancel()


@pytest.mark.parametrize("what", ["label", "dry run"])
async def test_what_is_worse_or_other_than_the_person_saw_is_asked_anew(
    tmp_path: Path, what: str
) -> None:
    async with world(tmp_path / "home", policy=ASKS) as w:
        tool = payer(w, effect=Effect.IDEMPOTENT, digest="as it was")
        await cut_off(w, tool)
        if what == "label":
            w.tool(Doing("mail", label=UNTRUSTED))
            await w.call("mail", {}, counter=4)
        else:
            tool.prepared["digest"] = "as it is now"
        call = w.start("pay", PAY, counter=3)
        anew = await w.pending()
        assert tool.done == 0
        await w.kernel.answer(anew.id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK and tool.done == 1


async def test_a_policy_that_asks_only_now_asks_before_it_is_tried_again(tmp_path: Path) -> None:
    free = 'permit (principal, action in Action::"tool", resource) when { context.mutates };'
    async with world(tmp_path / "home", policy=free) as w:
        tool = payer(w, effect=Effect.IDEMPOTENT, critical=())
        tool.hold()
        call = w.start("pay", PAY, counter=3)
        await tool.begun.wait()
        call.cancel()
        await started_again(w)
        tool.gate = None
        await take_up(w, ASKS)
        call = w.start("pay", PAY, counter=3)
        await w.kernel.answer((await w.pending()).id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK and tool.done == 1
        (used,) = await w.store.approvals()
        assert used.state is ApprovalState.CONSUMED, "one yes is for one call"


async def test_more_budget_that_was_given_is_not_asked_for_again(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("mail", label=UNTRUSTED))
        ask = {"calls": 5, "why": "much to do"}
        call = w.start("", ask, kind=CallKind.ASK, counter=3)
        await w.kernel.answer((await w.pending()).id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK
        record = (await w.calls())[0]
        before = (await w.row()).budget
        await w.call("mail", {}, counter=4)  # Its label has risen since.
        await started_again(w)
        # As a crash leaves it, between the intent that gives it and the outcome.
        w.run.records[record.id] = replace(record, state=CallState.INTENDED, outcome="", ended_us=0)
        again = w.start("", ask, kind=CallKind.ASK, counter=3)
        await asyncio.sleep(0.2)
        assert not await w.store.approvals(states=[ApprovalState.PENDING])
        assert (await w.row()).budget == before
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)


def at_the_last_moment(w: World, monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Between the last look at the call and the write that admits it; once."""
    guards = w.kernel.turns.guards
    left = [do]

    def hooked(*given: Any) -> Any:
        if left:
            left.pop()()
        return guards(*given)

    monkeypatch.setattr(w.kernel.turns, "guards", hooked)


async def test_a_yes_that_was_given_anew_and_expires_at_the_last_moment_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = JumpingRuntime()
    budget = Budget(wall_s=3 * limits.APPROVAL_EXPIRY_S)
    async with world(tmp_path / "home", policy=ASKS, runtime=clock, budget=budget) as w:
        tool = payer(w, effect=Effect.IDEMPOTENT)
        await cut_off(w, tool)
        await take_up(w, ASKS.replace("asks", "asks-more"))
        call = w.start("pay", PAY, counter=3)
        anew = await w.pending()

        def late() -> None:
            clock.offset_us += (limits.APPROVAL_EXPIRY_S + 1) * 1_000_000

        at_the_last_moment(w, monkeypatch, late)
        await w.kernel.answer(anew.id, yes=True, by=CAROL)
        outcome = await call
        assert outcome.error is not None and tool.done == 0
        assert (await w.store.approval(anew.id)).state is not ApprovalState.CONSUMED


async def test_a_label_that_rises_at_the_last_moment_has_it_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path / "home", policy=ASKS) as w:
        tool = payer(w, effect=Effect.IDEMPOTENT)
        await cut_off(w, tool)
        judged = 0

        async def judging() -> None:
            nonlocal judged
            judged += 1
            w.run.row = replace(w.run.row, label_version=0)  # What the store has, in truth.

        def behind() -> None:
            w.run.row = replace(w.run.row, label_version=7)

        tool.preparing = judging
        at_the_last_moment(w, monkeypatch, behind)
        assert (await w.call("pay", PAY, counter=3)).state is CallState.OK
        assert tool.done == 1 and judged == 4, "twice before it was written, twice after"
