"""The example that the SDK is described by, to the letter, in its sandbox: async, and plain."""

from __future__ import annotations

import pytest
from cli_world import World
from page import PAGE, PLAIN, PUPPET

MODEL = '[models.default]\nprovider = "scripted"\nscript = "puppet.toml"\n'


@pytest.mark.parametrize("source", [PAGE, PLAIN], ids=["async", "plain"])
def test_the_pages_agent_works_isolated_and_its_tool_is_taken_back(
    world: World, source: str
) -> None:
    world.home.mkdir()
    (world.home / "ring0.toml").write_text(MODEL)
    world.write("puppet.toml", PUPPET)
    world.write("page.py", source)
    running = world.start("run", "page.py", "Refund 80 for order A-17")
    ask = world.pending()
    assert world.ring0("approve", ask).code == 0
    done = world.finish(running)
    assert done.code == 0 and "paid 80 for A-17" in done.out, done.out + done.err
    replayed = world.ring0("replay", "last", "--strict")
    assert replayed.code == 0, replayed.all
    undone = world.ring0("undo", "last")
    assert undone.code == 0 and "cancelled A-17" in undone.out, undone.all
