"""examples/plain, as it stands there: run, asked about, approved or not, replayed, undone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_world import World

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain"
TASK = "Please refund order 1234."


@pytest.fixture
def example(world: World) -> World:
    shutil.copytree(EXAMPLE, world.folder / "plain")
    world.folder = world.folder / "plain"
    return world


def test_the_plain_example_refunds_what_a_person_approves_and_can_be_taken_back(
    example: World,
) -> None:
    running = example.start("run", "support.py", TASK)
    ask = example.pending()
    held = example.ring0("approvals", ask)
    assert "untrusted-target" in held.out, "the amount is what a tool said"
    assert example.ring0("approve", ask).code == 0
    done = example.finish(running)
    assert done.code == 0 and "refunded 19 for order 1234" in done.out, done.out + done.err
    assert example.ring0("replay", "last", "--strict").code == 0
    listed = example.ring0("workspace", "diff", "last")
    assert "answers/" in listed.out, listed.all
    undone = example.ring0("undo", "last")
    assert undone.code == 0 and "cancelled the refund of order 1234" in undone.out, undone.all


def test_the_plain_example_goes_on_after_a_no(example: World) -> None:
    running = example.start("run", "support.py", TASK)
    assert example.ring0("deny", example.pending()).code == 0
    done = example.finish(running)
    assert done.code == 0 and "refunded 19" not in done.out
    assert "Refused:" in done.out and "refund" in done.out
