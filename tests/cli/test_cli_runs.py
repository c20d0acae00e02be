"""Runs, seen and steered from the command line: what a second process may do meanwhile."""

from __future__ import annotations

import json
import signal

from cli_world import World


def test_a_held_call_is_approved_from_a_second_process_and_all_verbs_tell_of_it(
    world: World,
) -> None:
    first = world.start("run", "agent.py:clerk", "close the account of Ann, number 1")
    approval = world.pending()
    shown = world.ring0("approvals").out
    assert "customers: 1 deleted" in shown and "orders: 2 deleted" in shown
    assert f"ring0 approve {approval}" in shown
    assert world.customers() == ["Ann", "Bob"]

    answered = world.ring0("approve", approval, "--note", "she asked for it", "--json").json
    assert answered["state"] == "approved"
    done = world.finish(first)
    assert done.code == 0
    assert world.customers() == ["Bob"]
    for said in (
        "crm.query",
        "schema-change",
        "held: crm.execute",
        "she asked for it",
        "done",
        '"greeting": "hello"',
        "│ asked: close",
    ):
        assert said in done.out, said
    _hostile_text_is_harmless(world, done.all)
    _the_record_holds(world)
    _undo_puts_it_back(world)
    assert world.ring0("approve", approval).code == 3


def _hostile_text_is_harmless(world: World, seen: str) -> None:
    seen += world.ring0("show").out + world.ring0("show", "--output").out
    for hidden in ("\x1b", "\u202e"):
        assert hidden not in seen
    assert "[bold]markup[/bold]" in seen
    assert "[red]hi[/red]" in seen


def _the_record_holds(world: World) -> None:
    told = world.ring0("show", "--json").json
    assert told["run"]["state"] == "done"
    states = [(call["name"], call["state"]) for call in told["calls"]]
    assert states == [
        ("crm.query", "ok"),
        ("files.write", "ok"),
        ("crm.execute", "refused"),
        ("crm.execute", "ok"),
        ("double", "ok"),
    ]
    dropped = told["calls"][2]
    for name in (dropped["id"], f"#{dropped['seq']}", "0/3"):
        explained = world.ring0("policy", "explain", "last", name, "--json").json
        assert explained["call"]["id"] == dropped["id"]
        assert explained["same"] is True
        assert "forbid" in explained["again"]["policies"][0]["text"]
    tree = world.ring0("show").out
    assert "schema-change" in tree and "she asked for it" in tree and "note.txt" in tree
    replayed = world.ring0("replay", "--strict", "--json")
    assert replayed.code == 0
    assert (replayed.json["matched"], replayed.json["calls"]) == (5, 5)
    assert world.ring0("audit", "verify", "--json").json["ok"] is True
    found = world.ring0("memory", "search", "Ann", "--json").json["found"]
    assert {episode["role"] for episode in found} >= {"task", "result"}


def _undo_puts_it_back(world: World) -> None:
    run = world.ring0("show", "--json").json["run"]["id"]
    only = world.ring0("undo", run, "--call", "0/4")
    assert only.code == 0, only.all
    assert world.customers() == ["Ann", "Bob"]
    again = world.ring0("undo", run, "--call", "0/4", "--json")
    assert again.code == 3
    assert again.json["error"]["code"] == "undo_refused"


def test_a_denied_call_changes_nothing_and_the_run_fails_by_it(world: World) -> None:
    first = world.start("run", "agent.py:clerk", "hi", "--json")
    world.ring0("deny", world.pending(), "--note", "not today")
    done = world.finish(first)
    assert done.code == 1
    assert done.json["state"] == "failed"
    assert world.customers() == ["Ann", "Bob"]


def test_a_kill_ends_a_run_from_a_second_process(world: World) -> None:
    first = world.start("run", "agent.py:clerk", "hi")
    run = world.waits_for("approval")
    assert world.ring0("kill", run[:8], "--json").json["killed"] == [run]
    done = world.finish(first)
    assert done.code == 3, done.all
    assert world.ring0("approvals", "--json").json == {"approvals": []}
    assert world.ring0("kill", run).code == 2


def test_ctrl_c_keeps_the_run_and_recover_goes_on_with_it(world: World) -> None:
    first = world.start("run", "agent.py:clerk", "hi")
    run = world.waits_for("approval")
    first.send_signal(signal.SIGINT)
    done = world.finish(first)
    assert done.code == 130
    assert run in done.err and "ring0 recover" in done.err and "ring0 kill" in done.err

    second = world.start("recover", "--json")
    world.until(lambda: "none is at work" not in world.ring0("doctor").out)
    approval = world.pending()
    # As long as it is starting, whoever asks is told to try again.
    world.until(lambda: world.ring0("approve", approval).code == 0)
    done = world.finish(second)
    assert done.code == 0
    assert [row["state"] for row in json.loads(done.out)["recovered"]] == ["done"]
    assert world.customers() == ["Bob"]


def test_a_killed_kernel_leaves_a_run_that_recover_finishes(world: World) -> None:
    first = world.start("run", "agent.py:clerk", "hi")
    world.waits_for("approval")
    first.kill()
    first.communicate()
    other = world.ring0("run", "agent.py:plain", "hi")
    assert other.code == 0
    assert "1 unfinished run waits" in other.all
    assert world.ring0("approve", world.pending()).code == 0  # With no kernel at work.
    done = world.ring0("recover")
    assert done.code == 0, done.all
    assert world.customers() == ["Bob"]
    assert "Nothing to recover" in world.ring0("recover").out


def test_recover_without_waiting_returns_where_a_human_is_needed(world: World) -> None:
    first = world.start("run", "agent.py:clerk", "hi")
    world.waits_for("approval")
    first.kill()
    first.communicate()
    done = world.ring0("recover", "--no-wait")
    assert done.code == 4
    assert "ring0 approve" in done.out


def test_an_effect_that_nobody_knows_of_waits_until_it_is_settled(world: World) -> None:
    world.write(
        "once.py",
        """
import time
from ring0 import agent, tool
@tool(effect="once")
def slow() -> str:
    time.sleep(30)
    return "never"
@agent(tools=[slow])
async def once(ctx):
    return await ctx.tool("slow")
""",
    )
    (world.home).mkdir()
    (world.home / "ring0.toml").write_text('policy = ["p.cedar"]\n')
    (world.home / "p.cedar").write_text(
        '@id("slow")\n@reason("ok")\npermit (principal, action, resource == Tool::"slow");\n'
    )
    first = world.start("run", "once.py")
    world.until(lambda: [row for row in world.live() if row["calls_used"]])
    first.kill()
    first.communicate()
    waits = world.ring0("recover", "--no-wait")
    assert waits.code == 4
    call = world.calls("last")[0]
    assert call["state"] == "unknown"
    assert f"ring0 settle {call['id']} happened" in waits.out
    settled = world.ring0(
        "settle", call["id"], "happened", "--note", "seen in the ledger", "--json"
    )
    assert settled.json["state"] == "ok"
    done = world.ring0("recover", "--json")
    assert done.code == 0, done.all
    assert [row["state"] for row in done.json["recovered"]] == ["done"]


def test_a_child_is_shown_beneath_the_call_that_spawned_it(world: World) -> None:
    done = world.ring0("run", "agent.py:parent", "hi")
    assert done.code == 0, done.all
    spawn = next(call for call in world.calls("last") if call["kind"] == "spawn")
    assert spawn["child"]["task"] == "a small part"
    assert [call["name"] for call in spawn["child"]["calls"]] == ["files.write"]
    lines = world.ring0("show").out.splitlines()
    at = next(number for number, line in enumerate(lines) if "spawn plain" in line)
    assert any(spawn["child"]["run"]["id"] in line for line in lines[at : at + 5])


def test_a_run_that_fails_says_why_and_its_exit_code_is_one(world: World) -> None:
    done = world.ring0("run", "agent.py:fails", "hi")
    assert done.code == 1
    assert "no luck" in done.err
    assert "\x1b" not in done.all
    assert world.ring0("show", "--output", "--json").json["stderr"].count("ValueError")


def test_any_program_runs_in_a_sandbox(world: World) -> None:
    done = world.ring0("run", "--json", "--", "sh", "-c", "echo hi; exit 0", "--json")
    assert done.code == 0
    assert done.json["value"] == "hi"
    failed = world.ring0("run", "--", "sh", "-c", "exit 7")
    assert failed.code == 1
    assert "exit code 7" in failed.err


def test_the_agent_toml_beside_a_file_is_its_manifest(world: World) -> None:
    world.write(
        "agent.toml",
        'name = "named"\nentry = "agent.py:plain"\ncode = ["helper.py"]\n'
        '[tools.files]\nuse = "files"\n[budget]\ncalls = 3\n',
    )
    assert world.ring0("run", "agent.py", "a task").code == 0
    run = world.ring0("show", "--json").json["run"]
    assert (run["agent"], run["budget"]["calls"]) == ("named", 3)
    assert world.ring0("run", "--manifest", "agent.toml", "a task").code == 0
    assert world.ring0("run", "agent.py:parent", "a task").code == 0  # It names another function.
    assert world.ring0("show", "--json").json["run"]["agent"] == "parent"


def test_json_parses_everywhere(world: World) -> None:
    for words in (["ps"], ["approvals"], ["ps", "--all"]):
        nothing = world.ring0(*words, "--json")
        assert (nothing.code, nothing.json["error"]["code"]) == (6, "store_damaged")
    assert world.ring0("run", "agent.py:plain", "hi", "--json").json["value"] == "hi"
    for words in (
        ["ps", "--all"],
        ["show"],
        ["show", "--output"],
        ["show", "--events"],
        ["approvals", "--all"],
        ["replay"],
        ["audit", "verify"],
        ["doctor"],
        ["policy", "explain", "last", "0/1"],
        ["memory", "search", "hi"],
        ["recover"],
        ["undo", "last"],
        ["kill", "--all"],
    ):
        done = world.ring0(*words, "--json")
        assert done.code == 0, (words, done.all)
        assert done.json
    assert world.ring0("--version").out.startswith("ring0 ")


def test_a_run_whose_time_is_over_is_ended(world: World) -> None:
    world.write(
        "agent.toml",
        'name = "short"\nentry = "agent.py:sleeps"\n[tools.files]\nuse = "files"\n'
        "[budget]\nwall_s = 1\n",
    )
    done = world.ring0("run", "agent.py", "20")
    assert done.code == 1, done.all
    assert "1 s are over" in done.err
    assert world.live() == []
