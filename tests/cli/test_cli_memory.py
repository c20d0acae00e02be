"""`ring0 memory` from the command line: one world, from a first directive to a receipt."""

from __future__ import annotations

import json

from cli_world import World

AGENT = """
from ring0 import Context, agent


@agent
async def desk(ctx: Context, task: str):
    await ctx.memory.append(f"the pin of the safe is \\x1b[31mzanzibar-{task}")
    await ctx.memory.append("Count the money first.", procedure=True)
    return "noted"
"""


def test_memory_is_searched_explained_exchanged_and_forgotten(world: World) -> None:
    world.write("desk.py", AGENT)
    ran = world.ring0("run", "desk.py:desk", "4711", "--json")
    assert ran.code == 0, ran.all
    _looked_at(world)
    _told_what_to_keep_to(world)
    _proposed_and_approved(world)
    _brought_elsewhere(world)
    _forgotten(world)


def _note(world: World) -> dict[str, str]:
    found = world.ring0("memory", "search", "pin safe", "--agent", "desk", "--json").json["found"]
    return next(row for row in found if row["role"] == "note")


def _looked_at(world: World) -> None:
    shown = world.ring0("memory", "search", "pin safe")
    assert shown.code == 0 and "zanzibar-4711" in shown.out and "\x1b[31m" not in shown.out
    note = _note(world)
    told = world.ring0("memory", "show", note["id"])
    assert "zanzibar-4711" in told.out and "desk for" in told.out and "\x1b[31m" not in told.out
    why = world.ring0("memory", "why", note["id"], "--json").json
    assert why["call"].endswith("/0/1") and why["agent"] == "desk"
    assert "by the call" in world.ring0("memory", "why", note["id"]).out
    (scope,) = world.ring0("memory", "stats", "--json").json["scopes"]
    assert scope["agent"] == "desk" and scope["records"] >= 2
    assert "desk" in world.ring0("memory", "stats").out
    assert "No fact is remembered" in world.ring0("memory", "facts").out
    missing = world.ring0("memory", "show", "r-nothing#1", "--json")
    assert missing.code == 2 and missing.json["error"]["code"] == "not_found"


def _told_what_to_keep_to(world: World) -> None:
    add = world.ring0("memory", "directive", "add", "Answer in French.", "--agent", "desk")
    assert add.code == 0, add.all
    listed = world.ring0("memory", "directive", "list", "--json").json["directives"]
    assert [row["text"] for row in listed] == ["Answer in French."]
    assert world.ring0("memory", "directive", "retire", listed[0]["id"]).code == 0
    assert "No directive stands" in world.ring0("memory", "directive", "list").out
    assert "Answer in French." in world.ring0("memory", "directive", "list", "--all").out
    refused = world.ring0("memory", "approve", _note(world)["id"])
    assert refused.code == 2 and "nobody approves" in refused.err


def _proposed_and_approved(world: World) -> None:
    [row] = world.ring0("memory", "approve", "--json").json["proposed"]
    assert (row["text"], row["agent"]) == ("Count the money first.", "desk")
    listed = world.ring0("memory", "approve").out
    assert row["id"] in listed and "`ring0 memory approve ID`" in listed
    assert "what        procedure; proposed\n" in world.ring0("memory", "show", row["id"]).out
    assert world.ring0("memory", "approve", row["id"]).code == 0
    assert "No procedure is proposed." in world.ring0("memory", "approve").out
    tidied = world.ring0("memory", "consolidate", "--agent", "desk").out
    assert "looked at" in tidied and "upto" not in tidied and "ended" not in tidied


def _brought_elsewhere(world: World) -> None:
    out = world.ring0("memory", "export", "out.jsonl", "--agent", "desk")
    assert out.code == 0, out.all
    assert (world.folder / "out.jsonl").stat().st_mode & 0o777 == 0o600
    assert world.ring0("memory", "export", "out.jsonl", "--agent", "desk").code == 2
    world.write("mem0.json", json.dumps([{"id": "m1", "memory": "likes oolong", "user_id": "a"}]))
    for name, fresh in (("out.jsonl", True), ("mem0.json", True), ("mem0.json", False)):
        done = world.ring0("memory", "import", name, "--agent", "cook", "--json")
        assert done.code == 0, done.all
        assert bool(done.json["new"]) is fresh
    rows = world.ring0("memory", "search", "oolong", "--agent", "cook", "--json").json["found"]
    assert [(row["text"], row["integrity"]) for row in rows] == [("likes oolong", "untrusted")]
    assert world.ring0("memory", "import", "desk.py", "--agent", "cook").code == 2


def _forgotten(world: World) -> None:
    note = _note(world)["id"]
    for words in ((), ("--agent", "desk"), ("--everything",), ("--check",)):
        refused = world.ring0("memory", "forget", *words)
        assert refused.code == 2, refused.all
    plan = world.ring0("memory", "forget", note, "--agent", "desk")
    assert plan.code == 2 and "Nothing was done" in plan.out and "zanzibar" in plan.out
    assert "\x1b[31m" not in plan.out
    done = world.ring0("memory", "forget", note, "--agent", "desk", "--yes", "--json")
    assert done.code == 0, done.all
    receipt = done.json["receipt"]
    assert receipt["left"] == [] and len(receipt["runs"]) == 1
    assert (
        "nothing is left"
        in world.ring0("memory", "forget", "--receipt", receipt["id"], "--check").out
    )
    assert world.ring0("memory", "show", note).code == 2
    # What was exported, and taken in by another agent, is another's: it stands.
    rows = world.ring0("memory", "search", "zanzibar-4711", "--agent", "cook", "--json").json
    assert rows["found"]
    gone = world.ring0("memory", "forget", "--everything", "--agent", "cook", "--yes")
    assert gone.code == 0, gone.all
    for path in world.home.rglob("*"):
        if path.is_file():
            assert b"zanzibar-4711" not in path.read_bytes(), path
    assert world.ring0("audit", "verify", "--json").json["ok"] is True


ASKER = """
from ring0 import Context, agent


@agent(name="asker", models={"default": {"provider": "scripted", "script": "said.toml"}})
async def asker(ctx: Context, task: str):
    return (await ctx.loop(user=task)).text
"""


def test_a_run_shows_which_directives_each_question_was_given(world: World) -> None:
    world.write("asker.py", ASKER)
    world.write("said.toml", 'answer = "ok"\nrules = []\n')
    assert world.ring0("run", "asker.py", "hello").code == 0
    assert "given" not in world.ring0("show", "last").out
    added = world.ring0("memory", "directive", "add", "Be kind.", "--agent", "asker", "--json")
    name = added.json["id"]
    assert world.ring0("run", "asker.py", "hello").code == 0
    assert f"given 1 directive: {name}" in world.ring0("show", "last").out
    (call,) = world.ring0("show", "last", "--json").json["calls"]
    assert call["directives"] == [name] and "Be kind." not in str(call["args"])
