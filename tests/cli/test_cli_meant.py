"""`ring0 run` of what it can't start as it was typed: the right command, in the words that were."""

from __future__ import annotations

import pytest
from cli_world import World

PROGRAM = "import sys\nprint('hello from', sys.argv[1:])\n"


def said(world: World, *arguments: str) -> str:
    done = world.ring0(*arguments)
    assert done.code == 2, done.all
    return " ".join(done.err.split())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("run", "python3", "x.py"), "`ring0 run -- python3 x.py`"),
        (("run", "python3", "x.py", "the task"), "`ring0 run -- python3 x.py 'the task'`"),
        (("run", "--task", "t", "python3", "x.py"), "`ring0 run --task t -- python3 x.py`"),
        (("run", "python3", "x.py", "--fast"), "`ring0 run -- python3 x.py --fast`"),
        (("run", "python3", "-m", "x"), "`ring0 run -- python3 -m x`"),
        (("run", "x.py", "--fast", "1"), "`ring0 run -- python x.py --fast 1`"),
        (("run", "--manifest", "m.toml", "python3", "x.py"),
         "`ring0 run --manifest m.toml -- python3 x.py`"),
    ],
)  # fmt: skip
def test_a_program_that_is_typed_without_dashes_is_told_with_them(
    world: World, typed: tuple[str, ...], meant: str
) -> None:
    world.write("x.py", PROGRAM)
    assert meant in said(world, *typed)


def test_the_command_that_is_told_runs(world: World) -> None:
    world.write("x.py", PROGRAM)
    told = said(world, "run", "python3", "x.py", "a b").partition("`ring0 ")[2].partition("`")[0]
    assert told == "run -- python3 x.py 'a b'"
    done = world.ring0("run", "--", "python3", "x.py", "a b")
    assert done.code == 0 and "hello from ['a b']" in done.out


@pytest.mark.parametrize("text", [PROGRAM, "import openai\nopenai.OpenAI()\n", "def broken(:\n"])
def test_a_file_that_is_no_agent_is_told_as_the_program_that_it_is(world: World, text: str) -> None:
    world.write("x.py", text)
    told = said(world, "run", "x.py", "the task")
    assert "`ring0 run -- python x.py 'the task'`" in told and "Else:" in told


def test_a_file_that_knows_of_ring0_is_told_what_is_wrong_with_it_alone(world: World) -> None:
    world.write("x.py", "from ring0 import agent\n")
    told = said(world, "run", "x.py", "the task")
    assert "declares no agent" in told and "run --" not in told


def test_a_word_that_is_no_program_and_an_option_that_nobody_has_stay_what_they_are(
    world: World,
) -> None:
    assert "no file 'nosuchthing'" in said(world, "run", "nosuchthing", "the task")
    assert "run --" not in said(world, "run", "--nosuch", "agent.py:plain", "x").partition("Do:")[2]


def test_what_is_typed_is_no_way_into_a_terminal_and_has_an_end(world: World) -> None:
    told = world.ring0("run", "python3", "\x1b[31mx\u202e.py", "y" * 5_000).err
    assert "\x1b" not in told and "\u202e" not in told and len(told) < 2_000
