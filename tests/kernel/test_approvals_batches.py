"""One answer to several asks: all or none, and only to asks that are alike."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from approvals_world import ADA, ALICE, CAROL, PAY, TWO_PEOPLE, UNTRUSTED, payer
from kernel_world import Doing, World, begin, world

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput, NotFound
from ring0.types import Approval, ApprovalState, Budget, CallState, Integrity, Operator, RunState


async def asked(w: World, amounts: range, to: str = "mallory") -> list[Approval]:
    before = len(await w.store.approvals(states=[ApprovalState.PENDING]))
    for n in amounts:
        w.start("pay", {"to": to, "amount": n})
    found = await w.all_pending(before + len(amounts))
    return found[before:]


async def states(w: World, found: list[Approval]) -> set[str]:
    rows = [await w.store.approval(one.id) for one in found]
    return {str(row.state) for row in rows}


async def settled(w: World, done: int, tool: Doing) -> None:
    async with asyncio.timeout(5):
        while tool.done < done:
            await asyncio.sleep(0.005)


async def test_equal_asks_have_one_answer(tmp_path: Path) -> None:
    async with world(tmp_path / "home", task="pay mallory") as w:
        tool = payer(w)
        found = await asked(w, range(1, 5))
        names = [one.id for one in found]
        rows = await w.kernel.answering.answer_all([*names, names[0]], yes=True, by=CAROL)
        assert [row.id for row in rows] == names
        await settled(w, 4, tool)
        assert sorted(args["amount"] for args in tool.args) == [1, 2, 3, 4]


async def test_all_that_are_like_one_have_its_answer_and_the_others_wait(tmp_path: Path) -> None:
    async with world(tmp_path / "home", task="pay mallory") as w:
        tool = payer(w)
        alike = await asked(w, range(1, 4))
        (other,) = await asked(w, range(9, 10), to="nobody-said-so")
        await w.kernel.answering.answer_all([alike[0].id], yes=True, by=CAROL, like=True)
        await settled(w, 3, tool)
        assert (await w.store.approval(other.id)).state is ApprovalState.PENDING
        denied = await w.kernel.answering.answer_all([other.id], yes=False, by=CAROL, like=True)
        assert [one.state for one in denied] == [ApprovalState.DENIED]


async def test_asks_of_different_tools_or_origins_are_refused_and_said_in_what_they_differ(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", task="pay mallory") as w:
        tool = payer(w)
        w.tool(Doing("other", mutates=True, own=False))
        (task,) = await asked(w, range(1, 2))
        (nowhere,) = await asked(w, range(2, 3), to="nowhere")
        w.start("other", {"x": 1})
        (differs,) = [one for one in await w.all_pending(3) if one.id not in (task.id, nowhere.id)]
        for names, why in (
            ([task.id, nowhere.id], "integrity of to|rules that ask|where to came from"),
            ([task.id, differs.id], "the tool"),
        ):
            with pytest.raises(InvalidInput) as refused:
                await w.kernel.answering.answer_all(names, yes=True, by=CAROL)
            assert any(part in refused.value.why for part in why.split("|")), refused.value.why
        assert await states(w, [task, nowhere, differs]) == {"pending"} and tool.done == 0


async def test_asks_before_and_after_the_run_read_something_worse_are_not_alike(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", task="pay mallory") as w:
        payer(w)
        w.tool(Doing("mail", label=UNTRUSTED, output=Integrity.UNTRUSTED))
        (before,) = await asked(w, range(1, 2))
        await w.call("mail", {})
        (after,) = await asked(w, range(2, 3))
        with pytest.raises(InvalidInput, match="can't have one answer"):
            await w.kernel.answering.answer_all([before.id, after.id], yes=True, by=CAROL)


async def test_one_that_cannot_be_answered_leaves_all_unanswered(tmp_path: Path) -> None:
    async with world(tmp_path / "home", task="pay mallory") as w:
        tool = payer(w)
        found = await asked(w, range(1, 4))
        names = [one.id for one in found]
        await w.kernel.answer(names[1], yes=False, by=CAROL)
        with pytest.raises(CallDenied, match=names[1]):
            await w.kernel.answering.answer_all(names, yes=True, by=CAROL)
        assert await states(w, [found[0], found[2]]) == {"pending"} and tool.done == 0
        with pytest.raises(NotFound):
            await w.kernel.answering.answer_all([names[0], "a-none"], yes=True, by=CAROL)
        viewer = Operator(name="vic", roles=frozenset())
        with pytest.raises(CallDenied):
            await w.kernel.answering.answer_all([names[0], names[2]], yes=True, by=viewer)
        for wrong in ([], [f"a-{n}" for n in range(limits.APPROVAL_BATCH_MAX + 1)]):
            with pytest.raises(InvalidInput):
                await w.kernel.answering.answer_all(wrong, yes=True, by=CAROL)
        assert await states(w, [found[0], found[2]]) == {"pending"}


async def test_asks_of_two_runs_are_answered_apart(tmp_path: Path) -> None:
    async with world(tmp_path / "home", task="pay mallory") as w:
        payer(w)
        (mine,) = await asked(w, range(1, 2))
        await begin(w, "pay mallory", Budget())
        payer(w)
        (others,) = await asked(w, range(2, 3))
        assert mine.run != others.run
        with pytest.raises(InvalidInput) as refused:
            await w.kernel.answering.answer_all([mine.id, others.id], yes=True, by=CAROL)
        assert "the run that asks" in refused.value.why


async def test_what_two_people_answer_is_answered_one_by_one(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE, task="pay mallory") as w:
        payer(w)
        found = await asked(w, range(1, 3))
        with pytest.raises(InvalidInput) as refused:
            await w.kernel.answering.answer_all([one.id for one in found], yes=True, by=ADA)
        assert "more than one person" in refused.value.why
        assert await states(w, found) == {"pending"}


# --- asks wear people out -------------------------------------------------------------------------


async def test_three_denials_in_a_row_pause_the_run_until_a_person_lets_it_go_on(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        for n in range(3):
            call = w.start("pay", {**PAY, "amount": n + 1})
            await w.kernel.answer((await w.pending()).id, yes=False, by=CAROL)
            assert (await call).state is CallState.REFUSED
            assert bool((await w.row()).paused_by) == (n == 2)
        assert "in a row" in (await w.row()).paused_by and w.run.paused_by
        w.tool(Doing("look"))
        waits = w.start("look", {})
        await w.until(RunState.WAITING, "pause")
        assert not waits.done()
        await w.kernel.resume(w.run.id, by="alice")
        assert (await waits).state is CallState.OK
        assert (await w.row()).denials == 0, "it is counted anew"
        for n in range(2):
            call = w.start("pay", {**PAY, "amount": n + 10})
            await w.kernel.answer((await w.pending()).id, yes=False, by=CAROL)
            await call
        assert not (await w.row()).paused_by and tool.done == 0


async def test_a_yes_between_denials_begins_the_count_anew(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        for n, yes in enumerate((False, False, True, False, False, True, False)):
            call = w.start("pay", {**PAY, "amount": n + 1})
            await w.kernel.answer((await w.pending()).id, yes=yes, by=CAROL)
            await call
        assert not (await w.row()).paused_by


async def test_denials_all_at_once_pause_the_run_too(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        found = await asked(w, range(1, 5))
        await asyncio.gather(*(w.kernel.answer(one.id, yes=False, by=ALICE) for one in found))
        row = await w.row()
        assert row.paused_by and row.denials == 4
