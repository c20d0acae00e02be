"""`ring0 kill` and `ring0 undo` as a person meets them: what it will do and what it will leave is
said before; what it did, and how long it took, after.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time

import pytest
from cli_world import World
from serving_world import daemon

SHOP = """
from ring0 import Context, agent, tool


@tool(effect="once", reversal="compensable:refund")
def charge(order: str, amount: int) -> dict:
    "Charges."
    return {"receipt": "R-\\x1b[31m1", "order": "another"}


@tool(effect="once")
def refund(order: str, receipt: str) -> str:
    "Refunds."
    return "refunded " + order + " " + receipt


@tool(effect="once")
def mail(to: str) -> str:
    "Tells."
    return "sent"


@tool(effect="once")
def stuck(what: str) -> str:
    "Never comes back."
    import time
    time.sleep(600)


@agent(tools=[charge, refund, mail, stuck], builtins={"crm": {"use": "sql", "database": "crm.db"}})
async def shop(ctx: Context, task: str):
    if task == "stuck":
        await ctx.tool("stuck", what="x")
    await ctx.tool("crm.execute", statement="UPDATE customers SET name = 'x' WHERE id = 2")
    await ctx.tool("charge", order="a", amount=1)
    await ctx.tool("mail", to="ann")
"""


@pytest.fixture
def shop(world: World) -> World:
    world.home.mkdir()
    (world.home / "own.cedar").write_text(
        '@id("t") @reason("Of this test.") permit (principal, action, resource)'
        " when { context.mutates };\n"
        '@id("u") @reason("Of this test.") permit (principal, action in Action::"tool", resource);'
    )
    (world.home / "ring0.toml").write_text('policy = ["own.cedar"]\n')
    world.write("shop.py", SHOP)
    return world


def ran(world: World) -> str:
    """The id of a run that did it all, everything it asked for approved."""
    process = world.start("run", "shop.py:shop", "order a 1 2 x")
    ends = time.monotonic() + 40
    while process.poll() is None:
        assert time.monotonic() < ends
        for one in world.ring0("approvals", "--json").json.get("approvals", []):
            world.ring0("approve", one["id"])
        time.sleep(0.05)
    assert process.returncode == 0, process.communicate()
    process.communicate()
    return str(world.ring0("show", "--json").json["run"]["id"])


def test_a_dry_run_shows_each_step_and_what_stays_and_does_nothing(shop: World) -> None:
    run = ran(shop)
    shown = shop.ring0("undo", run, "--dry-run")
    assert shown.code == 0, shown.all
    first, second, third = shown.out.splitlines()[:3]
    assert first.startswith("would take back ") and "charge: refund(" in first
    assert 'order = "a"' in first and "(from its result)" in first, "and from where"
    assert second.startswith("would take back ") and "its rows are put back" in second
    assert third.startswith("stays") and "mail" in third and "irreversible" in third
    assert "\x1b[31m" not in shown.out, "what a tool answered paints no terminal"
    assert shop.customers() == ["Ann", "x"]
    told = shop.ring0("undo", run, "--dry-run", "--json").json
    assert [step["how"] for step in told["steps"]] == ["call", "rows"]
    assert [left["name"] for left in told["left"]] == ["mail"]


def test_an_undo_says_what_stays_before_and_what_it_took_back_after(shop: World) -> None:
    run = ran(shop)
    done = shop.ring0("undo", run)
    assert done.code == 0, done.all
    lines = done.out.splitlines()
    assert lines[0].startswith("stays") and "mail" in lines[0]
    assert lines[1].startswith("taken back ") and "refunded a" in lines[1]
    assert shop.customers() == ["Ann", "Bob"]
    calls = {call["name"]: call for call in shop.calls(run)}
    assert calls["charge"]["undone_by"] and not calls["mail"]["undone_by"]
    again = shop.ring0("undo", run)
    assert again.code == 3 and "done already" in again.err, again.all


def test_a_dry_run_says_what_has_changed_since(shop: World) -> None:
    run = ran(shop)
    with sqlite3.connect(shop.folder / "crm.db") as db:
        db.execute("UPDATE customers SET name = 'y' WHERE id = 2")
    shown = shop.ring0("undo", run, "--dry-run")
    assert "can't take back " in shown.out and "has changed since" in shown.out
    assert shop.customers() == ["Ann", "y"]


def test_show_marks_how_each_call_is_taken_back_and_what_never_is(shop: World) -> None:
    run = ran(shop)
    shown = shop.ring0("show", run).out
    assert "can be taken back by refund" in shown
    assert "can't be taken back: It is irreversible." in shown
    calls = {call["name"]: call for call in shop.calls(run)}
    assert calls["charge"]["undoable"] and calls["charge"]["undone_with"] == "refund"
    assert calls["crm.execute"]["undoable"]
    assert not calls["mail"]["undoable"] and calls["mail"]["stays"] == "It is irreversible."


def test_a_way_back_that_is_none_is_said_before_the_run(shop: World) -> None:
    shop.write("shop.py", SHOP.replace("def refund(order: str,", "def refund(order: int,"))
    done = shop.ring0("run", "shop.py:shop", "order a")
    assert done.code == 2
    assert "charge says that 'refund' takes it back, and it can't" in done.err.replace("\n", " ")


def test_a_kill_says_how_many_died_how_long_it_took_and_what_nobody_knows(shop: World) -> None:
    process = shop.start("run", "shop.py:shop", "stuck")
    try:
        shop.until(lambda: [row for row in shop.live() if row["calls_used"]])
        run = shop.live()[0]["id"]
        shop.until(lambda: [c for c in shop.calls(run) if c["state"] == "intended"])
        killed = shop.ring0("kill", "--tenant", "local")
        assert killed.code == 0, killed.all
        assert f"{run} killed" in killed.out and "1 run dead, confirmed in " in killed.out
        assert f"ring0 settle {run}/" in killed.out
    finally:
        process.kill()
        process.communicate()


def test_a_kill_names_one_scope(shop: World) -> None:
    for wrong in ((), ("--all", "--tenant", "a"), ("r-1", "--agent", "b"), ("--tree", "--all")):
        assert shop.ring0("kill", *wrong).code == 2, wrong


def test_a_kill_that_finds_nothing_says_whom_it_looked_for(shop: World) -> None:
    ran(shop)
    assert "No run of the agent bank goes on" in shop.ring0("kill", "--agent", "bank").out
    assert "No run of the tenant x goes on" in shop.ring0("kill", "--tenant", "x").out


def test_a_kill_comes_through_while_the_daemons_worker_is_being_replaced(
    world: World,
) -> None:
    with daemon(world) as d:
        for _ in range(3):
            assert world.ring0("run", "--detach", "agent.py:sleeps", "60").code == 0
        old = d.worker()
        os.kill(old, signal.SIGKILL)
        killed = world.ring0("kill", "--all", "--json")
        assert killed.code == 0, killed.all
        assert len(killed.json["killed"]) == 3
        assert world.live() == []
        assert d.worker() != old
