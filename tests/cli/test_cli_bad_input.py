"""Whatever a user gets wrong is one clear error, the exit code of its kind, no traceback."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess

import pytest
from cli_world import RING0, WAIT_S, World


def test_a_manifest_that_is_missing_is_named(world: World) -> None:
    done = world.ring0("run", "--manifest", "none.toml", "hi")
    assert done.code == 2
    assert "none.toml can't be read" in done.err and "Do:" in done.err


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('name = "x"\nentry = "agent.py"\nfoo = 1\n', "unknown field `foo`"),
        ("name = \n", "is not TOML"),
        ('name = "x"\n', "either `entry` or `command`"),
        ('name = "x"\nentry = "agent.py"\n[budget]\ncalls = "many"\n', "Expected `int`"),
        ('name = "x"\nentry = "agent.py:plain"\ncode = ["../other"]\n', "`code` names '../other'"),
        ('name = "x"\nentry = "agent.py:plain"\n[tools.a]\nuse = "nosuch"\n', "no built-in tool"),
    ],
)
def test_a_broken_manifest_is_told_what_is_wrong_with_it(
    world: World, manifest: str, said: str
) -> None:
    world.write("agent.toml", manifest)
    done = world.ring0("run", "--manifest", "agent.toml", "hi")
    assert done.code == 2
    assert said in done.err
    assert world.live() == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nosuchmodule\n", "does not import: ModuleNotFoundError"),
        ("def f(:\n", "does not import"),
        ("x = 1\n", "declares no agent"),
        ("import sys\nsys.exit(3)\n", "does not import"),
    ],
)
def test_an_agent_file_that_does_not_import_says_where(world: World, code: str, said: str) -> None:
    world.write("broken.py", code)
    done = world.ring0("run", "broken.py", "hi", "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "agent_invalid"
    assert said in done.json["error"]["what"]


def test_an_agent_that_is_not_named_or_not_there_is_asked_for(world: World) -> None:
    several, none, nowhere = (
        world.ring0("run", file, "hi") for file in ("agent.py", "agent.py:nobody", "nowhere.py")
    )
    assert [several.code, none.code, nowhere.code] == [2, 2, 2]
    assert "several agents" in several.err
    assert "'nobody'" in none.err
    assert "no file 'nowhere.py'" in nowhere.err


def test_an_unknown_tool_or_field_is_refused_on_record_and_the_agent_is_told(world: World) -> None:
    world.write(
        "odd.py",
        """
from ring0 import agent
@agent(builtins={"files": {"use": "files"}})
async def odd(ctx):
    said = []
    for name, args in (("shell", {}), ("files.list", {"colour": 1}), ("files.read", {"path": 3})):
        try:
            await ctx.tool(name, **args)
        except Exception as error:
            said.append(str(error))
    return said
""",
    )
    done = world.ring0("run", "odd.py", "--json")
    assert done.code == 0
    unknown, field, kind = done.json["value"]
    assert "no tool 'shell'" in unknown
    assert "no argument 'colour'" in field
    assert "path does not fit" in kind
    calls = world.calls("last")
    assert [call["state"] for call in calls] == ["refused"] * 3


def test_a_policy_that_does_not_parse_names_its_line(world: World) -> None:
    world.home.mkdir()
    (world.home / "ring0.toml").write_text('policy = ["p.cedar"]\n')
    (world.home / "p.cedar").write_text("permit (principal")
    done = world.ring0("run", "agent.py:plain", "hi")
    assert done.code == 2
    assert "p.cedar:1" in done.err
    doctor = world.ring0("doctor", "--json")
    assert doctor.code == 6
    assert [c["name"] for c in doctor.json["checks"] if c["state"] == "missing"] == [
        "configuration"
    ]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('[network]\nallow_private = ["10.0.0.1/8"]\n', "10.0.0.1/8"),
        ('[network]\nauthorities = ["nowhere.pem"]\n', "nowhere.pem"),
        ('[credentials.x]\nsecret = "X_API_KEY"\nuse_for = "https://*.a.example"\n', "'x'"),
    ],
)
def test_the_doctor_finds_what_the_way_out_can_not_use(
    world: World, config: str, said: str
) -> None:
    world.home.mkdir()
    (world.home / "ring0.toml").write_text(config)
    world.environment["X_API_KEY"] = "a-key-of-a-test"
    doctor = world.ring0("doctor", "--json")
    assert doctor.code == 6, doctor
    [found] = [c for c in doctor.json["checks"] if c["state"] == "missing"]
    assert found["name"] == "configuration" and said in found["what"]


def _ran(world: World) -> None:
    assert world.ring0("run", "agent.py:plain", "hi").code == 0


def test_a_journal_that_was_cut_short_is_not_written_to(world: World) -> None:
    _ran(world)
    old = world.folder / "old.db"
    shutil.copy(world.home / "journal.db", old)
    _ran(world)
    shutil.copy(old, world.home / "journal.db")
    for left in ("journal.db-wal", "journal.db-shm"):
        (world.home / left).unlink(missing_ok=True)
    done = world.ring0("run", "agent.py:plain", "hi")
    assert done.code == 6
    assert "cut short" in done.err
    audit = world.ring0("audit", "verify", "--json")
    assert audit.code == 5
    assert any("cut short" in problem for problem in audit.json["problems"])


def test_a_journal_that_is_no_database_any_more_is_said_to_be_damaged(world: World) -> None:
    _ran(world)
    os.truncate(world.home / "journal.db", 5_000)
    for left in ("journal.db-wal", "journal.db-shm"):
        (world.home / left).unlink(missing_ok=True)
    for verb in (("run", "agent.py:plain", "hi"), ("ps", "--all"), ("audit", "verify")):
        done = world.ring0(*verb, "--json")
        assert done.code == 6, verb
        assert done.json["error"]["code"] == "store_damaged"


def test_an_event_that_was_changed_is_found_and_named(world: World) -> None:
    _ran(world)
    with sqlite3.connect(world.home / "journal.db") as db:
        db.executescript(
            "DROP TRIGGER event_is_kept;"
            "UPDATE event SET body = CAST(replace(body, 'a', 'b') AS BLOB) WHERE idx = 4"
        )
    done = world.ring0("audit", "verify")
    assert done.code == 5
    assert "event 4" in done.all


def test_a_journal_of_a_newer_version_asks_for_the_newer_program(world: World) -> None:
    _ran(world)
    with sqlite3.connect(world.home / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    for verb in (("run", "agent.py:plain", "hi"), ("ps",)):
        done = world.ring0(*verb)
        assert done.code == 6
        assert "newer ring0" in done.err


def test_a_second_kernel_on_the_folder_is_refused_and_the_first_goes_on(world: World) -> None:
    first = world.start("run", "agent.py:sleeps", "4")  # longer than two commands take
    world.until(world.live)
    second = world.ring0("run", "agent.py:plain", "hi")
    assert second.code == 6
    assert f"process {first.pid}" in second.err
    assert f"process {first.pid}" in world.ring0("doctor").out
    assert world.finish(first).code == 0


def test_a_data_folder_that_cannot_be_is_said_so(world: World) -> None:
    done = world.ring0("--home", "/proc/nowhere", "run", "agent.py:plain", "hi")
    assert done.code == 2
    assert "RING0_HOME" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "nothing to run"),
        (["run", "agent.py:plain", "two", "tasks"], "more than one task"),
        (["run", "agent.py:plain", "one", "--task", "two"], "given twice"),
        (["run", "--"], "no command after"),
        (["run", "--", "no-such-program"], "no program 'no-such-program'"),
        (["frobnicate"], "frobnicate"),
        (["ps", "--colour"], "--colour"),
        (["show"], "no journal"),
        (["ps"], "nothing has run here yet"),
        (["approvals"], "nothing has run here yet"),
        (["show", "r-nothing"], "no journal"),
        (["kill"], "what to kill"),
        (["settle", "r-1/0/0", "perhaps"], "says nothing"),
        (["bench", "nosuch"], "no benchmark 'nosuch'"),
        (["memory", "search", "x"], "no journal"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(world: World, words: list[str], said: str) -> None:
    done = world.ring0(*words)
    assert done.code in (2, 6)
    assert said in done.err
    assert "Do:" in done.err
    assert done.out == ""


NOWHERE = (
    ("show", "r-nothing"),
    ("approve", "a-nothing"),
    ("deny", "a-nothing"),
    ("kill", "r-nothing"),
    ("undo", "r-nothing"),
    ("settle", "r-nothing/0/0", "happened"),
    ("replay", "r-nothing"),
    ("policy", "explain", "last", "0/99"),
    ("policy", "explain", "last", "#99"),
    ("memory", "search", "x", "--agent", "nobody"),
)


def test_what_is_not_there_is_an_error_in_json_too(world: World) -> None:
    _ran(world)
    for words in NOWHERE:
        done = world.ring0(*words, "--json")
        assert done.code == 2, words
        assert done.json["error"]["code"] == "not_found"
        assert done.json["error"]["todo"]


def test_a_reader_that_goes_away_is_no_error(world: World) -> None:
    _ran(world)
    done = subprocess.run(
        f"{RING0} show --events --json | head -1",
        shell=True,
        cwd=world.folder,
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""
