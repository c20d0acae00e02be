"""An operator's caps at the gate: how much all runs of a principal may take together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest
from kernel_world import Doing, JumpingRuntime, World, begin, database, world
from spoken import Spoken, priced, said

from ring0.errors import ManifestInvalid
from ring0.types import (
    AgentManifest,
    ApprovalState,
    Budget,
    CallKind,
    CallState,
    Effect,
    Operator,
    Outcome,
)

LET = '@id("let") @reason("A test.") permit (principal, action, resource);'
ROWS = '[[caps]]\ntool = "{tool}"\nof = "{of}"\nmost = {most}\nwindow = "1 h"\n'


def capped(home: Path, *caps: str) -> None:
    """A data folder whose operator set these caps, and lets everything else."""
    home.mkdir(exist_ok=True)
    (home / "own.cedar").write_text(LET)
    (home / "ring0.toml").write_text('policy = ["own.cedar"]\n' + "".join(caps))


def cap(tool: str, of: str, most: int | str, **more: str) -> str:
    fields = {"tool": tool, "of": of, "most": most, "window": "1 h", **more}
    return "[[caps]]\n" + "".join(f"{key} = {value!r}\n" for key, value in fields.items())


def code(outcome: Outcome) -> str:
    return outcome.error["code"] if outcome.error else "ok"


def wipes(name: str = "crm.wipe", **prepared: Any) -> Doing:
    fields = {"mutates": True, "own": False, "rows": 1, "amounts": {"rows": 1}, **prepared}
    return Doing(name, effect=Effect.IDEMPOTENT, **fields)


async def other(w: World, principal: str = "alice") -> World:
    """Another run of the same kernel."""
    second = World(w.kernel, w.home)
    await begin(second, "another task", Budget())
    assert second.run.row.principal == principal
    return second


async def test_two_hundred_parallel_deletes_of_one_row_meet_a_cap_of_fifty(tmp_path: Path) -> None:
    home = tmp_path / "home"
    capped(home, cap("crm.*", "rows", 50))
    async with world(home) as w:
        worlds = [w, await other(w)]
        for one in worlds:
            one.tool(wipes())
        outcomes = await asyncio.gather(
            *(worlds[n % 2].call("crm.wipe", {"x": n}, path=str(n)) for n in range(200)),
        )
        done = [outcome for outcome in outcomes if outcome.state is CallState.OK]
        assert len(done) == 50
        refused = next(outcome for outcome in outcomes if outcome.state is CallState.REFUSED)
        assert code(refused) == "limit_reached"
        assert "50 are used" in refused.error["what"] and "crm.*" in refused.error["what"]
        assert "begins anew at" in refused.error["todo"]


async def test_a_cap_counts_the_rows_that_a_statement_would_change(tmp_path: Path) -> None:
    home, path = tmp_path / "home", database(tmp_path)
    capped(home, cap("crm.*", "rows", 3, resource="customer"))
    manifest = AgentManifest(
        name="clerk",
        tools={"crm": {"use": "sql", "database": str(path)}},
        folder=str(tmp_path),
    )
    async with world(home, manifest=manifest) as w:

        async def execute(statement: str) -> Outcome:
            call = asyncio.ensure_future(w.call("crm.execute", {"statement": statement}))
            while not call.done():
                for approval in await w.store.approvals(states=[ApprovalState.PENDING]):
                    await w.kernel.answer(approval.id, yes=True, by=Operator(name="ann"))
                await asyncio.sleep(0.005)
            return await call

        assert code(await execute("UPDATE customer SET state = 'x' WHERE id <= 2")) == "ok"
        assert code(await execute("UPDATE purchase SET what = 'x'")) == "ok", "another table"
        assert code(await execute("UPDATE customer SET state = 'y'")) == "limit_reached"
        assert code(await execute("UPDATE customer SET state = 'z' WHERE id = 3")) == "ok"
        assert (
            code(await execute("UPDATE customer SET state = 'q' WHERE id = 3")) == "limit_reached"
        )
    states = [row[0] for row in apsw.Connection(str(path)).execute("SELECT state FROM customer")]
    assert states == ["x", "x", "z"]


async def test_a_window_that_turns_begins_at_nothing_and_a_clock_set_back_opens_none(
    tmp_path: Path,
) -> None:
    home, clock = tmp_path / "home", JumpingRuntime()
    capped(home, cap("crm.*", "rows", 2))
    budget = Budget(wall_s=30 * 86_400)
    async with world(home, runtime=clock, budget=budget) as w:
        w.tool(wipes())

        async def wipe(number: int) -> str:
            return code(await w.call("crm.wipe", {"x": number}))

        assert [await wipe(n) for n in range(3)] == ["ok", "ok", "limit_reached"]
        clock.jump(3_601)
        assert await wipe(3) == "ok"
        clock.jump(-3_601)
        assert [await wipe(n) for n in (4, 5)] == ["ok", "limit_reached"], "of the newest window"
        clock.jump(3_601)
        assert await wipe(6) == "limit_reached", "which is no new one"
        clock.jump(3_601)
        assert await wipe(7) == "ok"


async def test_a_cap_holds_after_the_kernel_was_started_anew(tmp_path: Path) -> None:
    home = tmp_path / "home"
    capped(home, cap("crm.*", "calls", 1, window="365 d"))
    for wanted in ("ok", "limit_reached"):
        async with world(home) as w:
            w.tool(wipes())
            assert code(await w.call("crm.wipe", {"x": 1})) == wanted


async def test_nobody_is_asked_about_a_call_that_a_cap_has_no_room_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(cap("crm.*", "rows", 0))
    async with world(home) as w:
        w.tool(wipes())
        assert code(await w.call("crm.wipe", {"x": 1})) == "limit_reached"
        assert await w.store.approvals() == []


async def test_what_a_tool_cannot_count_it_may_not_do_under_a_cap_on_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    capped(home, cap("mail.*", "recipients", 5))
    async with world(home) as w:
        w.tool(wipes("mail.send"))
        w.tool(wipes("mail.tell", amounts={"recipients": 4}))
        w.tool(Doing("mail.list"))
        assert "can't say how many" in (await w.call("mail.send", {})).error["what"]
        assert code(await w.call("mail.tell", {"x": 1})) == "ok"
        assert code(await w.call("mail.tell", {"x": 2})) == "limit_reached"
        assert code(await w.call("mail.list", {})) == "ok"


async def test_money_that_was_reserved_of_a_cap_and_not_spent_comes_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    capped(home, cap("model:*", "money", "0.001"))  # 1,000 micro-dollars.
    manifest = priced(Budget(cost_microusd=10**6))
    async with world(home, manifest=manifest) as w:
        Spoken(w, *(said(10, 45) for _ in range(40)))
        outcomes = []
        for number in range(11):
            text = {"role": "user", "content": f"hello {number:02}"}
            args = {"messages": [text], "max_tokens": 100}
            outcomes.append(await w.call("default", args, kind=CallKind.MODEL))
        # Each reserves about 270 and spends 100.
        assert [code(outcome) for outcome in outcomes] == ["ok"] * 8 + ["limit_reached"] * 3
        assert "0.000800 USD are used" in outcomes[-1].error["what"]


@pytest.mark.parametrize(
    "table",
    [
        cap("crm.*", "rows", -1),
        cap("crm.*", "rows", "many"),
        cap("crm.*", "rows", 1, window="an hour"),
        cap("crm.*", "rows", 1, window="0 s"),
        cap("crm.*", "rows", 1, window="500 d"),
        cap("crm.*", "rows", 1, per="everybody"),
        cap("crm.*", "money", "a lot"),
        cap("", "rows", 1),
        cap("crm.*", "", 1),
        cap("crm.*", "rows", 1) + cap("crm.*", "rows", 2),
    ],
)
async def test_a_cap_that_cannot_be_read_keeps_the_kernel_from_starting(
    tmp_path: Path, table: str
) -> None:
    home = tmp_path / "home"
    capped(home, table)
    with pytest.raises(ManifestInvalid):
        async with world(home, start=False):
            pass


async def test_a_child_and_its_parent_share_a_cap(tmp_path: Path) -> None:
    """Also across trees, which other() shows: here, down one."""
    home = tmp_path / "home"
    capped(home, cap("crm.*", "calls", 1))
    async with world(home) as w:
        w.tool(wipes())
        second = await other(w)
        second.tool(wipes())
        assert code(await second.call("crm.wipe", {"x": 1})) == "ok"
        assert code(await w.call("crm.wipe", {"x": 1})) == "limit_reached"
        assert code(await w.kind(CallKind.NOW, {})) == "ok"
