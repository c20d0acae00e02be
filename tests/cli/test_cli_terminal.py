"""A human at a terminal: nothing is preselected, and only a typed yes lets a held call go on."""

from __future__ import annotations

import os
import signal

from cli_world import Terminal, World, plain

QUESTION = "approve? [y]es / [n]o / [l]ater: "


def test_a_typed_yes_lets_the_held_call_go_on_and_enter_alone_does_not(world: World) -> None:
    terminal = Terminal(world, "run", "agent.py:clerk", "close account 1")
    terminal.wait_for(QUESTION)
    assert "customers: 1 deleted" in plain(terminal.shown)
    terminal.type("\n")
    terminal.wait_for(QUESTION, times=2)
    terminal.type("maybe\n")
    terminal.wait_for(QUESTION, times=3)
    assert world.customers() == ["Ann", "Bob"]
    terminal.type("yes\n")
    assert terminal.end() == 0
    assert world.customers() == ["Bob"]
    assert "approved by" in plain(terminal.shown)
    assert "\u202e" not in terminal.shown and "\x1b[2J" not in terminal.shown


def test_what_was_typed_before_the_question_is_no_answer_to_it(world: World) -> None:
    terminal = Terminal(world, "run", "agent.py:clerk", "close account 1")
    terminal.type("y\ny\n")
    terminal.wait_for(QUESTION)
    terminal.type("n\n")
    assert terminal.end() == 1
    assert world.customers() == ["Ann", "Bob"]


def test_the_end_of_input_leaves_the_call_waiting_and_another_terminal_may_answer(
    world: World,
) -> None:
    terminal = Terminal(world, "run", "agent.py:clerk", "close account 1")
    terminal.wait_for(QUESTION)
    terminal.type("\x04")
    terminal.wait_for("waits.")
    world.ring0("approve", world.pending())
    assert terminal.end() == 0


def test_an_answer_from_elsewhere_takes_the_question_away(world: World) -> None:
    terminal = Terminal(world, "run", "agent.py:clerk", "close account 1")
    terminal.wait_for(QUESTION)
    world.ring0("deny", world.pending())
    assert terminal.end() == 1
    assert "denied by" in plain(terminal.shown)


def test_ctrl_c_at_the_question_keeps_the_run(world: World) -> None:
    terminal = Terminal(world, "run", "agent.py:clerk", "close account 1")
    terminal.wait_for(QUESTION)
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "ring0 recover" in plain(terminal.shown)
    assert world.live()[0]["waiting_for"] == "approval"


def test_a_second_ctrl_c_ends_it_at_once(world: World) -> None:
    terminal = Terminal(world, "run", "agent.py:sleeps", "20")
    terminal.wait_for("files.write")
    os.kill(terminal.pid, signal.SIGINT)
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == 130
    shown = plain(terminal.shown)
    assert "The run is kept" in shown or "is kept." in shown
