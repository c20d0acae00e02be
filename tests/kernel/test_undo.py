"""Undo: takes back what a run did where nobody has changed it since, once, on record as the
operator's own; and what can't be taken back says so before it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from kernel_world import Doing, World, database, rows, world

from ring0.errors import NotFound, UndoRefused
from ring0.types import CallKind, CallState, Effect, Operator, RunState

POLICY = """
@id("own") @reason("Of this test.")
permit (principal, action in Action::"tool", resource == Tool::"crm.execute");
"""
ALICE = Operator(name="alice")
TASK = "customer 1 2 3 9 Ann Bob Cy: closed, Bob Closed, new, open, new.txt"
PURCHASES = "SELECT * FROM purchase ORDER BY id"


@contextlib.asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[World]:
    tools = {"crm": {"use": "sql", "database": str(database(folder))}, "files": {"use": "files"}}
    async with world(folder / "home", policy=POLICY, task=TASK, tools=tools) as w:
        yield w


async def execute(w: World, statement: str, *parameters: Any, counter: int | None = None) -> str:
    args = {"statement": statement, "parameters": list(parameters)}
    outcome = await w.call("crm.execute", args, counter=counter)
    assert outcome.state is CallState.OK, outcome
    return (await w.calls())[-1].id


async def text(w: World, path: str) -> str | None:
    outcome = await w.call("files.read", {"path": path})
    return outcome.value["text"] if outcome.state is CallState.OK else None


def change(folder: Path, statement: str) -> None:
    connection = apsw.Connection(str(folder / "crm.db"))
    connection.execute(statement)
    connection.close()


async def test_undo_restores_the_rows_of_every_table_and_the_files_in_reverse_order(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as w:
        path = tmp_path / "crm.db"
        before = rows(path), rows(path, PURCHASES)
        await w.call("files.write", {"path": "old.txt", "text": "first"}, counter=900)
        await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 2)
        await execute(w, "DELETE FROM customer WHERE id = ?", 1)
        await execute(w, "UPDATE customer SET name = 'Bob Closed' WHERE id = ?", 2)
        await execute(w, "INSERT INTO customer VALUES (9, 'new', 'open')")
        await w.call("files.write", {"path": "old.txt", "text": "second"})
        await w.call("files.write", {"path": "new.txt", "text": "new"})
        await w.call("files.remove", {"path": "new.txt"})
        assert rows(path, PURCHASES) != before[1], "the cascade took orders"
        undone = await w.kernel.undo(w.run.id, by="alice")
        assert undone.state is RunState.DONE
        assert (rows(path), rows(path, PURCHASES)) == before
        assert await text(w, "old.txt") is None and await text(w, "new.txt") is None
        assert await w.store.files(w.run.id) == []


async def test_undo_of_one_call_takes_back_that_call_alone(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        path = tmp_path / "crm.db"
        first = await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 1)
        await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 2)
        assert (await w.kernel.undo(w.run.id, by="alice", only=first)).state is RunState.DONE
        assert [row[2] for row in rows(path)] == ["open", "closed", "open"]


async def test_undo_is_refused_where_a_row_has_changed_since_and_changes_nothing(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as w:
        path = tmp_path / "crm.db"
        await execute(w, "UPDATE customer SET state = 'closed'")
        change(tmp_path, "UPDATE customer SET name = 'Bobby' WHERE id = 2")
        before = rows(path)
        undone = await w.kernel.undo(w.run.id, by="alice")
        assert undone.state is RunState.FAILED
        assert rows(path) == before, "all of a call, or nothing of it"
        change(tmp_path, "UPDATE customer SET name = 'Bob' WHERE id = 2")
        assert (await w.kernel.undo(w.run.id, by="alice")).state is RunState.DONE
        assert [row[2] for row in rows(path)] == ["open"] * 3


async def test_undo_is_refused_where_what_was_deleted_is_there_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        await execute(w, "DELETE FROM customer WHERE id = ?", 3)
        change(tmp_path, "INSERT INTO customer VALUES (3, 'Another', 'open')")
        assert (await w.kernel.undo(w.run.id, by="alice")).state is RunState.FAILED
        assert rows(tmp_path / "crm.db")[2][1] == "Another"


async def test_undo_is_refused_where_a_file_has_changed_since(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        await w.call("files.write", {"path": "new.txt", "text": "one"}, counter=500)
        await w.call("files.write", {"path": "new.txt", "text": "two"}, counter=501)
        first = f"{w.run.id}/0/500"
        assert (await w.kernel.undo(w.run.id, by="alice", only=first)).state is RunState.FAILED
        assert await text(w, "new.txt") == "two"
        assert (await w.kernel.undo(w.run.id, by="alice")).state is RunState.DONE
        assert await text(w, "new.txt") is None


async def test_an_undo_goes_no_further_than_its_first_refusal(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 1)
        await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 2)
        await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 3)
        change(tmp_path, "UPDATE customer SET name = 'Bobby' WHERE id = 2")
        assert (await w.kernel.undo(w.run.id, by="alice")).state is RunState.FAILED
        assert [row[2] for row in rows(tmp_path / "crm.db")] == ["closed", "closed", "open"]
        undone = [call.undone_by != "" for call in await w.calls()]
        assert undone == [False, False, True]


async def test_a_call_is_taken_back_once(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        call = await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 1)
        undone = await w.kernel.undo(w.run.id, by="alice")
        change(tmp_path, "UPDATE customer SET state = 'closed' WHERE id = 1")
        for only in ("", call):
            with pytest.raises(UndoRefused):
                await w.kernel.undo(w.run.id, by="alice", only=only)
        assert rows(tmp_path / "crm.db")[0][2] == "closed"
        with pytest.raises(UndoRefused):  # Nor is an undo taken back by an undo.
            await w.kernel.undo(undone.id, by="alice")


async def test_of_two_undos_at_once_one_takes_back_and_the_rows_are_right(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 1)
        both = await asyncio.gather(
            *(w.kernel.undo(w.run.id, by="alice") for _ in range(2)), return_exceptions=True
        )
        states = [one.state for one in both if not isinstance(one, BaseException)]
        assert states.count(RunState.DONE) == 1
        assert rows(tmp_path / "crm.db")[0][2] == "open"


async def test_an_undo_is_itself_a_run_on_record_as_the_operators(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        call = await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 1)
        undone = await w.kernel.undo(w.run.id, by="alice (uid 7)")
        assert undone.id != w.run.id and undone.principal == "alice (uid 7)"
        (step,) = await w.store.calls(undone.id)
        assert (step.name, step.state, step.effect) == ("undo", CallState.OK, Effect.ONCE)
        evidence = await w.evidence(step)
        assert evidence["question"]["operator"] is True
        assert [reason.rule for reason in step.verdict.reasons] == ["operator-undo"]
        assert (await w.recorded(call)).undone_by == step.id


async def test_no_agent_has_the_undo_of_an_operator(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        call = await execute(w, "UPDATE customer SET state = 'closed' WHERE id = ?", 1)
        outcome = await w.call("undo", {"call": call})
        assert outcome.state is CallState.REFUSED
        assert rows(tmp_path / "crm.db")[0][2] == "closed"


async def test_what_cannot_be_taken_back_says_so_before_it_is_done(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("mail", effect=Effect.ONCE, mutates=True, own=False))
        call = w.start("mail", {})
        approval = await w.pending()
        assert (await w.shown(approval))["reversal"] == "irreversible"
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        assert (await call).state is CallState.OK
        with pytest.raises(UndoRefused):
            await w.kernel.undo(w.run.id, by="alice")


async def test_a_change_that_leaves_no_images_is_shown_as_irreversible_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ring0 import limits

    monkeypatch.setattr(limits, "SQL_ROWS_REVERSIBLE_MAX", 2)
    tools = {"crm": {"use": "sql", "database": str(database(tmp_path))}}
    async with world(tmp_path / "home", tools=tools) as w:
        call = w.start("crm.execute", {"statement": "UPDATE customer SET state = 'x'"})
        approval = await w.pending()
        assert (await w.shown(approval))["reversal"].startswith("irreversible: ")
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        assert (await call).state is CallState.OK
        with pytest.raises(UndoRefused):
            await w.kernel.undo(w.run.id, by="alice")


async def test_an_undo_of_nothing_is_a_clear_error(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        await w.kind(CallKind.NOW, {})
        await w.call("crm.query", {"statement": "SELECT 1"})
        with pytest.raises(UndoRefused):
            await w.kernel.undo(w.run.id, by="alice")
        with pytest.raises(NotFound):
            await w.kernel.undo("r-none", by="alice")
        first = (await w.calls())[0].id
        for only in (first, "r-another/0/1"):
            with pytest.raises(UndoRefused):
                await w.kernel.undo(w.run.id, by="alice", only=only)


async def test_a_run_that_has_ended_can_still_be_undone_and_its_files_too(tmp_path: Path) -> None:
    async with desk(tmp_path) as w:
        await execute(w, "DELETE FROM customer WHERE id = ?", 1)
        await w.call("files.write", {"path": "new.txt", "text": "x"})
        w.end.set_result("done")
        await w.kernel.runs.wait(w.run.id)
        assert (await w.kernel.undo(w.run.id, by="alice")).state is RunState.DONE
        assert len(rows(tmp_path / "crm.db")) == 3
        await w.store.flush()
        assert await w.store.files(w.run.id) == []
