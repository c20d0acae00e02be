"""Undo of a whole tree in the order of the journal, what it says before, and what it leaves: it
claims nothing that it can't do. A second undo goes on where the first ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest
from undo_world import desk

from ring0.errors import NotFound, UndoRefused
from ring0.types import RunState


def change(folder: Path, statement: str) -> None:
    connection = apsw.Connection(str(folder / "crm.db"))
    connection.execute(statement)
    connection.close()


CLOSE = "UPDATE customer SET state = 'closed' WHERE id = ?"
RENAME = "UPDATE customer SET name = ? WHERE id = ?"


async def test_an_undo_takes_back_a_runs_children_with_it_in_the_order_of_the_journal(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as d:
        before = d.customers()
        await d.execute(RENAME, "a", 1)
        child = await d.child()
        other = await d.child()
        # All on the same row: in any other order a row would have changed since.
        await d.execute(RENAME, "b", 1, run=child)
        await d.execute(RENAME, "c", 1)
        await d.execute(RENAME, "d", 1, run=other)
        await d.execute(RENAME, "Bob", 1, run=child)
        await d.ok("charge", run=other, order="a", amount=1)
        await d.ok("files.write", run=child, path="a.txt", text="a")
        undone = await d.undo()
        assert undone.state is RunState.DONE
        assert d.customers() == before and d.books.said() == ["charge a", "refund a"]
        await d.store.flush()
        assert await d.store.files(child.id) == []


async def test_an_undo_of_a_child_leaves_what_its_parent_did(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.execute(RENAME, "a", 1)
        child = await d.child()
        await d.execute(RENAME, "b", 2, run=child)
        await d.ok("charge", run=child, order="a", amount=1)
        await d.undo(run=child.id)
        assert [row[1] for row in d.customers()] == ["a", "Bob", "Cy"]
        assert d.books.said() == ["charge a", "refund a"]


async def test_calls_that_overlap_are_taken_back_by_when_they_ended(tmp_path: Path) -> None:
    import asyncio

    async with desk(tmp_path) as d:
        slow = asyncio.create_task(d.ok("charge", order="a", amount=1))
        await asyncio.sleep(0)
        await d.ok("charge", order="b", amount=1)
        await slow
        ended = [line["call"] for line in d.books.lines()]
        plan = await d.kernel.plan_undo(d.run.id)
        assert [step.call for step in plan.steps] == ended[::-1]


# --- what it says before -------------------------------------------------------------------------


async def test_a_plan_says_of_each_call_how_and_of_the_rest_why_not(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        rows = await d.execute(CLOSE, 1)
        written = await d.ok("files.write", path="a.txt", text="a")
        charge = await d.ok("charge", order="a", amount=1)
        mail = await d.ok("mail", to="a")
        await d.ok("files.read", path="a.txt")
        await d.ok("crm.query", statement="SELECT 1")
        plan = await d.kernel.plan_undo(d.run.id)
        assert [(step.call, step.how) for step in plan.steps] == [
            (charge, "call"),
            (written, "files"),
            (rows, "rows"),
        ]
        assert [(left.call, left.why) for left in plan.left] == [(mail, "It is irreversible.")]
        assert [step.refused for step in plan.steps] == ["", "", ""]
        assert d.books.said() == ["charge a", "mail None"], "and does nothing"


async def test_a_plan_says_what_has_changed_since_and_changes_nothing_itself(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as d:
        first = await d.execute(RENAME, "a", 1)
        second = await d.execute(RENAME, "b", 1)  # Of the same row: not "changed since".
        third = await d.execute(RENAME, "c", 2)
        older = await d.ok("files.write", path="a.txt", text="a")
        newer = await d.ok("files.write", path="a.txt", text="b")
        assert not any(s.refused for s in (await d.kernel.plan_undo(d.run.id)).steps)
        change(tmp_path, "UPDATE customer SET name = 'x' WHERE id = 1")
        before = d.customers()
        plan = {s.call: s.refused for s in (await d.kernel.plan_undo(d.run.id)).steps}
        assert "has changed since" in plan[second] and not plan[third]
        assert not plan[first], "it is not reached"
        assert not plan[older] and not plan[newer]
        assert d.customers() == before
        undone = await d.undo()
        assert undone.state is RunState.FAILED
        assert [row[1] for row in d.customers()] == ["x", "Bob", "Cy"], "as the plan said"


async def test_a_plan_of_files_says_what_has_changed_since(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.ok("files.write", path="a.txt", text="a")
        await d.ok("files.write", path="a.txt", text="b")
        (step,) = (await d.kernel.plan_undo(d.run.id, only=first)).steps
        assert "has changed since" in step.refused


async def test_a_plan_of_a_database_that_cannot_be_asked_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.execute(CLOSE, 1)
        (tmp_path / "crm.db").unlink()
        (step,) = (await d.kernel.plan_undo(d.run.id)).steps
        assert step.refused


async def test_a_call_whose_outcome_nobody_knows_is_not_claimed(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.execute(CLOSE, 1)
        plan = await d.kernel.plan_undo(d.run.id)
        assert not plan.left
        failed = await d.call("book", {"seat": "a", "more": 1})  # Refused: it never began.
        assert failed.error is not None
        assert (await d.kernel.plan_undo(d.run.id)).left == ()


async def test_an_idempotent_call_that_failed_may_have_done_a_part_and_is_told(
    tmp_path: Path,
) -> None:
    def act(point: str) -> None:
        if point == "book done":
            raise RuntimeError("after the effect")

    async with desk(tmp_path, act=act) as d:
        outcome = await d.call("book", {"seat": "a"})
        assert outcome.error is not None
        (left,) = (await d.kernel.plan_undo(d.run.id)).left
        assert "may have done a part" in left.why


# --- going on ------------------------------------------------------------------------------------


async def test_a_second_undo_goes_on_where_the_first_was_refused(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        before = d.customers()
        await d.ok("charge", order="a", amount=1)
        await d.execute(RENAME, "a", 1)
        await d.ok("charge", order="b", amount=1)
        change(tmp_path, "UPDATE customer SET name = 'x' WHERE id = 1")
        first = await d.undo()
        assert first.state is RunState.FAILED
        assert d.books.said() == ["charge a", "charge b", "refund b"]
        change(tmp_path, "UPDATE customer SET name = 'a' WHERE id = 1")
        second = await d.undo()
        assert second.state is RunState.DONE
        assert d.customers() == before
        assert d.books.said() == ["charge a", "charge b", "refund b", "refund a"]
        with pytest.raises(UndoRefused):
            await d.undo()


async def test_what_cannot_be_taken_back_keeps_nothing_else_from_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        before = d.customers()
        await d.execute(CLOSE, 1)
        await d.ok("mail", to="a")
        await d.execute(CLOSE, 2)
        assert (await d.undo()).state is RunState.DONE
        assert d.customers() == before
        (left,) = (await d.kernel.plan_undo(d.run.id)).left
        assert left.name == "mail"


async def test_an_undo_is_not_taken_back_by_an_undo(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.ok("charge", order="a", amount=1)
        undone = await d.undo()
        for undo in (d.kernel.plan_undo(undone.id), d.undo(run=undone.id)):
            with pytest.raises(UndoRefused) as refused:
                await undo
            assert "an undo is not taken back" in refused.value.what
        assert d.books.said() == ["charge a", "refund a"]


async def test_a_plan_of_nothing_is_empty_and_an_undo_of_nothing_is_refused(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as d:
        plan = await d.kernel.plan_undo(d.run.id)
        assert (plan.steps, plan.left) == ((), ())
        mail = await d.ok("mail", to="a")
        with pytest.raises(UndoRefused):
            await d.undo()
        with pytest.raises(UndoRefused) as refused:
            await d.undo(only=mail)
        assert refused.value.why == "It is irreversible."
        with pytest.raises(NotFound):
            await d.kernel.plan_undo("r-none")


async def test_an_undo_of_more_calls_than_one_may_take_back_is_refused(
    tmp_path: Path, monkeypatch: Any
) -> None:
    from ring0 import limits
    from ring0.errors import LimitReached

    async with desk(tmp_path) as d:
        for order in "abc":
            await d.ok("charge", order=order, amount=1)
        monkeypatch.setattr(limits, "UNDO_CALLS_MAX", 2)
        with pytest.raises(LimitReached):
            await d.undo()
        assert d.books.said() == ["charge a", "charge b", "charge c"]
