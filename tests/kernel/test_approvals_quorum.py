"""How many people have to say yes, and who counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from approvals_world import (
    ADA,
    ALICE,
    BOB,
    CAROL,
    EVE,
    PAY,
    SOMEBODY_ELSE,
    TWO_PEOPLE,
    VIEWER,
    payer,
)
from kernel_world import JumpingRuntime, world

from ring0.errors import CallDenied
from ring0.types import ApprovalState, Budget, CallState, Operator


async def test_two_people_have_to_say_yes_where_a_rule_says_two(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE) as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        assert (approval.needs, approval.apart) == (2, True)
        first = await w.kernel.answer(approval.id, yes=True, by=ADA)
        assert (first.state, first.yes_by) == (ApprovalState.PENDING, (ADA.name,))
        await asyncio.sleep(0.05)
        assert not call.done() and tool.done == 0, "one yes is not enough"
        second = await w.kernel.answer(approval.id, yes=True, by=BOB)
        assert (second.state, second.yes_by) == (ApprovalState.APPROVED, (ADA.name, BOB.name))
        assert (await call).state is CallState.OK and tool.done == 1
        used = await w.store.approval(approval.id)
        assert (used.state, used.yes_by) == (ApprovalState.CONSUMED, (ADA.name, BOB.name))


async def test_one_person_counts_once_however_often_and_at_whatever_moment(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE) as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        answers = await asyncio.gather(
            *(w.kernel.answer(approval.id, yes=True, by=ADA) for _ in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, CallDenied) for one in answers) == 7
        with pytest.raises(CallDenied, match="counts once"):
            await w.kernel.answer(approval.id, yes=True, by=ADA)
        assert (await w.store.approval(approval.id)).yes_by == (ADA.name,) and tool.done == 0
        await w.kernel.answer(approval.id, yes=False, by=BOB)
        assert (await call).state is CallState.REFUSED


async def test_one_no_denies_whoever_said_yes_before(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE) as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        await w.kernel.answer(approval.id, yes=True, by=ADA)
        denied = await w.kernel.answer(approval.id, yes=False, by=ALICE, note="not so")
        assert denied.state is ApprovalState.DENIED, (
            "a no needs no login, and the principal's counts"
        )
        with pytest.raises(CallDenied):
            await w.kernel.answer(approval.id, yes=True, by=BOB)
        assert (await call).state is CallState.REFUSED and tool.done == 0


async def test_a_quorum_above_one_needs_logins_at_an_issuer(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE) as w:
        payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        with pytest.raises(CallDenied, match="has not logged in at an issuer") as refused:
            await w.kernel.answer(approval.id, yes=True, by=CAROL)
        assert "ring0 login" in refused.value.todo
        assert (await w.store.approval(approval.id)).yes_by == ()
        call.cancel()


async def test_an_approver_is_not_the_requester_where_a_rule_names_how_many(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", policy=SOMEBODY_ELSE) as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        assert (approval.needs, approval.apart) == (1, True)
        with pytest.raises(CallDenied, match="is whom the run acts for"):
            await w.kernel.answer(approval.id, yes=True, by=ALICE)
        assert tool.done == 0
        await w.kernel.answer(approval.id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK


async def test_on_a_machine_of_one_the_one_it_acts_for_may_answer(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        assert (approval.needs, approval.apart) == (1, False)
        await w.kernel.answer(approval.id, yes=True, by=ALICE)
        assert (await call).state is CallState.OK


async def test_who_has_not_the_role_answers_nothing(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        for yes in (True, False):
            with pytest.raises(CallDenied, match="role `approver`"):
                await w.kernel.answer(approval.id, yes=yes, by=VIEWER)
        assert (await w.store.approval(approval.id)).state is ApprovalState.PENDING
        call.cancel()


async def test_of_many_answers_at_once_as_many_count_as_are_needed(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE) as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        people = [ADA, BOB, EVE, *(Operator(name=f"p{n}", login="oidc") for n in range(5))]
        answers = await asyncio.gather(
            *(w.kernel.answer(approval.id, yes=True, by=one) for one in people),
            return_exceptions=True,
        )
        assert sum(not isinstance(one, Exception) for one in answers) == 2
        assert (await call).state is CallState.OK and tool.done == 1
        assert len((await w.store.approval(approval.id)).yes_by) == 2


async def test_a_rule_says_for_how_long_it_may_be_answered(tmp_path: Path) -> None:
    clock = JumpingRuntime()
    budget = Budget(wall_s=2 * 3_600)
    async with world(tmp_path / "home", runtime=clock, policy=SOMEBODY_ELSE, budget=budget) as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        assert approval.expires_us - approval.asked_us < 3_660 * 1_000_000
        clock.jump(3_601)
        assert (await call).state is CallState.REFUSED and tool.done == 0
        assert (await w.store.approval(approval.id)).state is ApprovalState.EXPIRED


async def test_what_one_has_said_yes_to_is_not_carried_over_when_the_call_changes(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE) as w:
        tool = payer(w)
        call = w.start("pay", PAY)
        first = await w.pending()
        await w.kernel.answer(first.id, yes=True, by=ADA)
        tool.prepared["digest"] = "otherwise"
        await w.kernel.answer(first.id, yes=True, by=BOB)
        second = await w.pending()
        assert second.id != first.id and second.yes_by == ()
        assert (await w.store.approval(first.id)).state is ApprovalState.REVOKED
        await w.kernel.answer(second.id, yes=False, by=ADA)
        assert (await call).state is CallState.REFUSED and tool.done == 0
