"""What stands on the operator's screen is the kernel's word, or marked as an agent's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from cli_world import RING0, WAIT_S, Terminal, World, plain
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ring0.cli.output import broken

QUESTION = "approve? [y]es / [n]o / [l]ater: "
FORGED = "    0/1   allowed crm.execute  by policy"
LOUD = f"""
import sys, threading, time
from ring0 import agent, tool

@tool
def pay(n: int) -> int:
    return n

@agent(tools=[pay], builtins={{"files": {{"use": "files"}}}})
async def forger(ctx, task):
    print("x" * 114 + {FORGED!r})
    print("\\t" * 40 + {FORGED!r})
    print("界" * 70 + {FORGED!r})
    await ctx.tool("files.write", path="a", text="y" * 57 + "  0/1   allowed crm.execute" * 9)

@agent(tools=[pay])
async def talker(ctx, task):
    def talk():
        for number in range(40):
            print("still talking", number, flush=True)
            time.sleep(0.05)
    threading.Thread(target=talk, daemon=True).start()
    await ctx.tool("pay", n=1)
    print("over")

@agent
async def flood(ctx, task):
    print("abcdefgh" * 10 + "\\n", end="")
    for _ in range(20):
        sys.stdout.write(("abcdefgh" * 10 + "\\n") * 500)
    return "flooded"
"""


def test_no_line_of_an_agent_looks_like_one_of_the_kernel(world: World) -> None:
    world.write("loud.py", LOUD)
    terminal = Terminal(world, "run", "loud.py:forger", "hi")  # 80 columns wide.
    assert terminal.end() == 0
    for row in plain(terminal.shown).splitlines():
        assert cell_len(row) <= 80, row
        if "crm.execute" in row or "xxx" in row or "界" in row:
            assert row.startswith(("    │ ", "    ┆ ", "  0/1", "          ┆ ")), row
        if row.startswith("  0/1"):
            assert "files.write" in row


@given(st.text(), st.integers(2, 40))
def test_a_broken_line_loses_nothing_and_no_piece_is_too_wide(words: str, room: int) -> None:
    pieces = broken(words, room)
    assert "".join(pieces) == words.expandtabs(8)
    assert all(cell_len(piece) <= room for piece in pieces)


def test_between_a_question_and_its_answer_nothing_of_an_agent_is_shown(world: World) -> None:
    world.write("loud.py", LOUD)
    terminal = Terminal(world, "run", "loud.py:talker", "hi")
    terminal.wait_for(QUESTION)
    with pytest.raises(AssertionError):
        terminal.wait_for("no such words", wait_s=1.5)
    assert plain(terminal.shown).endswith(QUESTION)
    terminal.type("y\n")
    assert terminal.end() == 0
    assert plain(terminal.shown).rpartition(QUESTION)[2].count("│ still talking") > 10


def test_a_recovered_run_goes_on_before_it_asks(world: World) -> None:
    first = world.start("run", "agent.py:clerk", "close account 1")
    world.pending()
    first.kill()
    first.communicate()
    terminal = Terminal(world, "recover")
    terminal.wait_for(QUESTION)
    seen = plain(terminal.shown)
    assert 0 < seen.index("goes on (start 2)") < seen.index("held: crm.execute")
    assert seen.count("held: crm.execute") == 1
    assert "agent clerk" in seen and "close account 1" in seen and "since 20" in seen
    terminal.type("y\n")
    assert terminal.end() == 0


def test_what_an_agent_prints_is_shown_up_to_a_bound(world: World) -> None:
    world.write("loud.py", LOUD)
    done = world.ring0("run", "loud.py:flood", "hi")
    assert done.code == 0
    assert len(done.out) < 300_000
    assert done.out.count("More of what it prints: ring0 show r-") == 1
    assert "flooded" in done.out


def test_what_is_piped_is_neither_wrapped_nor_filled_up(world: World) -> None:
    world.write("loud.py", LOUD)
    done = world.ring0("run", "loud.py:forger", "hi")
    assert "    │ " + "x" * 114 + FORGED in done.out
    assert [row for row in done.out.splitlines() if row != row.rstrip()] == []


def _shell(world: World, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=world.folder,
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def test_a_run_goes_on_without_whoever_read_its_screen(world: World) -> None:
    for where in ("| head -1 >/dev/null", ">/dev/full", ">&-"):
        done = _shell(world, f"{RING0} run agent.py:sleeps 0.3 {where}; exit ${{PIPESTATUS[0]}}")
        assert (done.returncode, done.stderr) == (0, ""), where
    rows = world.ring0("ps", "--all", "--json").json["runs"]
    assert [row["state"] for row in rows] == ["done"] * 3
    done = _shell(world, f"{RING0} run agent.py:fails x | head -0; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 1


def test_a_full_disk_under_the_output_is_one_clear_line(world: World) -> None:
    assert world.ring0("run", "agent.py:plain", "hi").code == 0
    for words in ("show last", "show last --json", "ps --all", "--help", "--version", "doctor"):
        done = _shell(world, f"{RING0} {words} >/dev/full")
        assert done.returncode == 74, words
        assert done.stderr.startswith("ring0: Standard output can't be written to: No space")
        assert len(done.stderr.splitlines()) == 2


def test_ctrl_c_while_python_loads_is_one_line(world: World) -> None:
    for delay_s in (0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.35):
        process = world.start("ps")
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_S)
        assert process.returncode in (130, 6), err
        assert "Traceback" not in err


def test_the_entry_point_imports_next_to_nothing() -> None:
    loaded = "import ring0.cli.main, sys; print([m for m in sys.modules if 'ring0' in m])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)
    assert done.stdout.strip() == "['ring0', 'ring0.cli', 'ring0.cli.main']"


VERBS = (
    ["ps"],
    ["doctor"],
    ["approvals"],
    ["show"],
    ["run", "agent.py:plain", "hi"],
    ["recover"],
    ["kill", "--all"],
    ["approve", "a-1"],
    ["settle", "r-1/0/1", "happened"],
    ["audit", "verify"],
    ["memory", "search", "x"],
)


def test_a_data_folder_that_is_none_is_said_in_every_verb(world: World) -> None:
    file = world.write("file", "")
    loop = world.folder / "loop"
    loop.symlink_to(loop)
    others = (str(file), f"{file}/beneath", str(loop), "~nobody-at-all/x")
    for home, verb in [*(("/dev/null", verb) for verb in VERBS),
                       *((home, verb) for home in others for verb in VERBS[-2:])]:  # fmt: skip
        world.environment["RING0_HOME"] = home
        done = world.ring0(*verb)
        assert done.code == 2, (home, verb, done.all)
        assert "RING0_HOME" in done.err and done.out == ""


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_somebody_elses_data_folder_is_refused_in_every_verb(world: World, mode: int) -> None:
    if os.getuid() != 0:
        pytest.skip("somebody else's folder takes two users")
    world.home.mkdir()
    world.home.chmod(mode)
    for verb in VERBS:
        try:
            done = subprocess.run(
                [RING0, *verb], cwd="/", env=world.environment, user=65_534, group=65_534,
                extra_groups=[], capture_output=True, text=True, timeout=WAIT_S,
            )  # fmt: skip
        except PermissionError:
            pytest.skip("this checkout is for its owner only")
        assert "Traceback" not in done.stderr and "fault" not in done.stderr
        assert done.returncode == 2 or "nothing has run here" in done.stderr, verb


def test_the_last_run_is_not_the_undo_of_one(world: World) -> None:
    assert world.ring0("run", "agent.py:plain", "hi").code == 0
    run = world.ring0("show", "--json").json["run"]["id"]
    assert world.ring0("undo", "last").code == 0
    assert world.ring0("show", "last", "--json").json["run"]["id"] == run
