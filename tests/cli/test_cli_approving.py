"""Answers beyond one yes: changed arguments, several at once, in advance; from the command line."""

from __future__ import annotations

import pytest
from cli_world import Terminal, World, plain

from ring0 import limits
from ring0.cli import checks
from ring0.cli.anew import QUESTION
from ring0.cli.place import Place
from ring0.runtime import Runtime

DELETES = """
from ring0 import Context, agent


@agent(builtins={"crm": {"use": "sql", "database": "crm.db"}})
async def deletes(ctx: Context, task: str):
    done = []
    await ctx.tool("crm.query", statement="SELECT id FROM orders")
    for number in (1, 2, 1):
        try:
            done.append(await ctx.tool("crm.execute",
                                       statement="DELETE FROM orders WHERE id = ?",
                                       parameters=[number]))
        except Exception as error:
            done.append(str(error))
    return len(done)
"""


def test_an_argument_is_changed_and_all_verbs_tell_what_was_asked_and_what_ran(
    world: World,
) -> None:
    first = world.start("run", "agent.py:clerk", "close the account of Ann, number 1")
    approval = world.pending()
    for wrong in (
        ("--set", "parameters"), ("--set", "parameters=[2]", "--set", "parameters=[3]"),
        ("--set", "parameter=[2]"), ("--set", "parameters=two"), ("--match", "statement=*"),
        ("--set", "parameters=[2]", "--for-run"), ("--for-run", "--until", "2h"),
        ("--until", "soon"), ("--until", "9000h"), ("--until", "0s"),
    ):  # fmt: skip
        assert world.ring0("approve", approval, *wrong).code in (2, 3), wrong
    assert world.customers() == ["Ann", "Bob"]
    said = world.ring0("approve", approval, "--set", "parameters=[2]", "--note", "typo").out
    assert "changed by" in said and "judged anew" in said
    anew = world.pending()
    assert anew != approval and world.customers() == ["Ann", "Bob"], "nobody has seen that dry run"
    assert "customers: 1 deleted" in said and f"ring0 approve {anew}" in said
    assert f"{anew} waits (digest " in said
    assert world.ring0("approve", anew).code == 0
    assert world.finish(first).code == 0
    assert world.customers() == ["Ann"]
    shown = world.ring0("show").out
    assert "changed before it ran: parameters by" in shown
    assert "told: People changed" in shown or "People changed" in world.ring0("show", "--json").out
    listed = world.ring0("approvals", "--all", "--json").json["approvals"]
    assert sorted(one["state"] for one in listed) == ["consumed", "edited"]
    assert world.ring0("audit", "verify").code == 0


def test_a_yes_in_advance_is_listed_used_and_revoked(world: World) -> None:
    world.write("deletes.py", DELETES)
    first = world.start("run", "deletes.py", "delete the orders 1 and 2")
    approval = world.pending()
    assert world.ring0("approvals", "--standing").out.strip() == (
        "Nothing was said yes to in advance."
    )
    answered = world.ring0("approve", approval, "--for-run", "--match", "parameters=*")
    assert answered.code == 0, answered.all
    assert world.finish(first).code == 0
    assert world.ring0("approvals", "--standing").out.strip() == (
        "Nothing was said yes to in advance."
    ), "it ended with its run"
    (row,) = world.ring0("approvals", "--standing", "--all", "--json").json["standing"]
    assert row["uses"] >= 1 and row["pattern"]["like"] == {"parameters": "*"}
    revoked = world.ring0("revoke", row["id"])
    assert revoked.code == 0 and "revoked by" in revoked.out
    assert world.ring0("revoke", row["id"]).code == 2
    assert world.ring0("revoke", "s-none").code == 2
    assert "revoked by" in world.ring0("approvals", "--standing", "--all").out
    assert world.ring0("audit", "verify").code == 0


def test_several_are_answered_together_or_not_at_all(world: World) -> None:
    first = world.start("run", "agent.py:clerk", "close the account of Ann, number 1")
    approval = world.pending()
    assert world.ring0("approve", approval, "a-none").code == 2
    assert world.ring0("deny", approval, approval, "--like", "--note", "no").code == 0
    assert world.customers() == ["Ann", "Bob"]
    assert world.finish(first).code != 0


def test_in_a_terminal_a_change_is_shown_again_and_only_a_typed_yes_lets_it_go_on(
    world: World,
) -> None:
    first = world.start("run", "agent.py:clerk", "close the account of Ann, number 1")
    one = Terminal(world, "approve", world.pending(), "--set", "parameters=[2]")
    one.type("y\n")  # Before it is shown: no answer to it.
    one.wait_for(QUESTION)
    assert "customers: 1 deleted" in plain(one.shown)
    one.type("\n")
    one.wait_for("waits.")
    assert one.end() == 0 and world.customers() == ["Ann", "Bob"]
    other = Terminal(world, "approve", world.pending(), "--set", "parameters=[3]")
    other.wait_for(QUESTION)
    other.type("y\n")
    assert other.end() == 0
    assert world.finish(first).code == 0
    shown = world.ring0("show").out
    assert "changed before it ran: parameters by" in shown
    assert world.ring0("audit", "verify").code == 0


def test_asks_are_listed_by_run_and_one_is_shown_with_what_its_arguments_take(
    world: World,
) -> None:
    first = world.start("run", "agent.py:clerk", "close the account of Ann, number 1")
    approval = world.pending()
    run = world.waits_for("approval")
    for name in (run, run[:8], "last", approval):
        listed = world.ring0("approvals", name, "--json").json["approvals"]
        assert [one["id"] for one in listed] == [approval], name
    assert world.ring0("approvals", "r-none").code == 2
    assert world.ring0("approvals", "a-none").code == 2
    shown = world.ring0("approvals", approval).out
    assert "takes text" in shown and "takes a list, as JSON" in shown
    done = world.ring0("approve", approval, "--set", "parameters=[2]", "--json")
    assert done.json["state"] == "edited" and done.json["anew"]["ask"]["state"] == "pending"
    assert world.ring0("deny", done.json["anew"]["ask"]["id"]).code == 0
    assert "denied" in world.ring0("approvals", "last", "--all").out
    world.finish(first)


def test_three_denials_pause_the_run_and_every_verb_says_so(world: World) -> None:
    world.write("deletes.py", DELETES.replace("(1, 2, 1)", "(1, 2, 3, 1)"))
    first = world.start("run", "deletes.py", "delete the orders")
    for _ in range(limits.DENIALS_IN_A_ROW_MAX):
        assert world.ring0("deny", world.pending()).code == 0
    run = world.waits_for("pause")
    assert not world._listed("approvals"), "it asks nobody meanwhile"
    (row,) = world.live()
    assert row["id"] == run and "in a row" in row["paused_by"]
    shown = " ".join(world.ring0("show", run).out.split())
    assert "paused by kernel" in shown and f"ring0 resume {run} --tree" in shown
    assert world.ring0("resume", run, "--tree").code == 0
    assert world.ring0("deny", world.pending()).code == 0
    done = world.finish(first)
    assert "paused, with all of its tree" in done.out
    assert f"ring0 resume {run} --tree" in " ".join(done.out.split())
    assert world.ring0("audit", "verify").code == 0


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_nobody_says_who_they_are_with_an_option(world: World, verb: str) -> None:
    """`An approver is the subject of an OIDC login or a peer uid, never a --as NAME`."""
    for option in ("--as", "--by", "--approver", "--operator"):
        assert world.ring0(verb, "a-1", option, "carol").code == 2


async def test_doctor_says_which_place_was_not_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NOTIFY_LATE_S", 0)
    world.environment["NOTIFY_KEY"] = "a signing secret"
    world.home.mkdir(exist_ok=True)
    (world.home / "ring0.toml").write_text(
        '[network]\nallow_private = ["127.0.0.0/8"]\n'
        '[[notify]]\nurl = "http://127.0.0.1:9/x"\nsecret = "NOTIFY_KEY"\n'
    )
    place = Place(world.home, world.environment, Runtime())
    first = world.start("run", "agent.py:clerk", "close the account of Ann, number 1")
    approval = world.pending()
    (late,) = await checks._told(place)
    assert late.state == "note" and approval in late.what and "127.0.0.1#" in late.what
    assert world.ring0("approve", approval).code == 0
    assert world.finish(first).code == 0
    (fine,) = await checks._told(place)
    assert fine.state == "ok"
