"""A kernel that dies in the middle of an undo: what was taken back stays on record, nothing is
taken back twice, and whoever comes after goes on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from undo_crashes import DIED, Dying, in_child
from undo_world import Books, Desk, desk

from ring0.errors import UndoRefused
from ring0.types import CallState, RunState


async def the_run(d: Desk) -> str:
    rows = await d.store.runs()
    return str(next(row.id for row in rows if row.agent == "clerk"))


async def the_undo(d: Desk) -> str:
    rows = await d.store.runs()
    return str(next(row.id for row in rows if row.agent == "ring0.undo"))


async def until_unknown(d: Desk, run: str) -> str:
    async with asyncio.timeout(10):
        while True:
            await d.store.flush()
            for call in await d.store.calls(run):
                if call.state is CallState.UNKNOWN:
                    return str(call.id)
            await asyncio.sleep(0.01)


def work(folder: Path) -> None:
    async def body() -> None:
        async with desk(folder) as d:
            await d.execute("UPDATE customer SET state = 'closed' WHERE id = ?", 1)
            await d.ok("charge", order="a", amount=1)
            await d.execute("UPDATE customer SET state = 'closed' WHERE id = ?", 2)
            await d.ok("charge", order="b", amount=1)
            await d.finish()

    assert in_child(body) == 0


def die_in_undo(folder: Path, at: str) -> None:
    async def body() -> None:
        runtime = Dying(at)
        async with desk(folder, runtime=runtime, act=runtime.act, start=False) as d:
            runtime.watched = True
            await d.undo(run=await the_run(d), code=d.code())

    assert in_child(body) == DIED


@pytest.mark.parametrize(
    ("at", "happened"), [("refund begins", False), ("refund done", True)], ids=str
)
def test_a_compensation_that_was_cut_off_is_settled_and_never_done_twice(
    tmp_path: Path, at: str, happened: bool
) -> None:
    work(tmp_path)
    die_in_undo(tmp_path, at)

    async def goes_on() -> None:
        async with desk(tmp_path, start=False) as d:
            run, undo, code = await the_run(d), await the_undo(d), d.code()
            unknown = await until_unknown(d, undo)
            # Nobody goes past it, and nobody does it again by itself.
            with pytest.raises(UndoRefused) as refused:
                await d.undo(run=run, code=code)
            assert f"ring0 settle {unknown}" in refused.value.why
            assert await d.kernel.recover() == [undo]
            await d.kernel.settle(unknown, happened=happened, by="bob")
            ended = await d.kernel.runs.wait(undo)
            if happened:
                assert ended.state is RunState.DONE
                with pytest.raises(UndoRefused):
                    await d.undo(run=run, code=code)
            else:
                assert ended.state is RunState.FAILED
                assert (await d.undo(run=run, code=code)).state is RunState.DONE
            assert [row[2] for row in d.customers()] == ["open"] * 3

    assert in_child(goes_on) == 0
    assert Books(tmp_path).said() == ["charge a", "charge b", "refund b", "refund a"]


@pytest.mark.parametrize("at", ["effect.begins", "effect.over"])
def test_rows_whose_restoring_was_cut_off_are_settled_and_the_undo_goes_on(
    tmp_path: Path, at: str
) -> None:
    async def only_rows() -> None:
        async with desk(tmp_path) as d:
            await d.execute("UPDATE customer SET state = 'closed' WHERE id = ?", 1)
            await d.execute("UPDATE customer SET state = 'closed' WHERE id = ?", 2)
            await d.finish()

    assert in_child(only_rows) == 0
    die_in_undo(tmp_path, at)

    async def goes_on() -> None:
        async with desk(tmp_path, start=False) as d:
            restored = [row[2] for row in d.customers()] == ["closed", "open", "open"]
            assert restored is (at == "effect.over")
            undo = await the_undo(d)
            unknown = await until_unknown(d, undo)
            assert await d.kernel.recover() == [undo]
            await d.kernel.settle(unknown, happened=restored, by="bob")
            await d.kernel.runs.wait(undo)
            if not restored:
                assert (await d.undo(run=await the_run(d))).state is RunState.DONE
            assert [row[2] for row in d.customers()] == ["open"] * 3

    assert in_child(goes_on) == 0


@pytest.mark.parametrize("at", ["run.queued", "call.admitted", "call.ended", "run.ends"])
def test_an_undo_that_was_cut_off_between_its_steps_goes_on_by_itself(
    tmp_path: Path, at: str
) -> None:
    work(tmp_path)
    die_in_undo(tmp_path, at)

    async def goes_on() -> None:
        async with desk(tmp_path, start=False) as d:
            run, undo = await the_run(d), await the_undo(d)
            d.kernel.undoing.knows(run, d.code())
            assert await d.kernel.recover() == [undo]
            assert (await d.kernel.runs.wait(undo)).state is RunState.DONE
            with pytest.raises(UndoRefused):
                await d.undo(run=run, code=d.code())
            assert [row[2] for row in d.customers()] == ["open"] * 3

    assert in_child(goes_on) == 0
    assert Books(tmp_path).said() == ["charge a", "charge b", "refund b", "refund a"]


def test_a_compensable_call_whose_kernel_died_in_its_effect_is_known_of_though_it_is_idempotent(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        runtime = Dying("book done")
        async with desk(tmp_path, runtime=runtime, act=runtime.act) as d:
            runtime.watched = True
            await d.ok("book", seat="a")

    async def after() -> None:
        async with desk(tmp_path, start=False) as d:
            run = await the_run(d)
            await d.kernel.kill("run", run, by="bob")
            (left,) = (await d.kernel.plan_undo(run)).left
            assert left.name == "book" and "may have happened" in left.why

    assert in_child(body) == DIED
    assert Books(tmp_path).said() == ["book a"]
    assert in_child(after) == 0
