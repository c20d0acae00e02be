"""What an operator reads of guardrails: where arguments came from, and which profile holds."""

from __future__ import annotations

from cli_world import World
from test_cli_asks import EVIL, seen

from ring0.types import Integrity, Origin

HOSTILE = {"argument": EVIL, "value": EVIL, "sources": (EVIL,)}


def test_where_other_arguments_came_from_is_shown_of_a_tool_that_marks_none() -> None:
    origin = Origin(
        argument="body", value="4711", sources=("inbox@r-1/0/3",), integrity=Integrity.UNTRUSTED
    )
    nowhere = Origin(argument="note", value="x", sources=(), integrity=Integrity.UNTRUSTED)
    said = seen(beside=(origin, nowhere))
    assert "came from" in said and "body = 4711: inbox@r-1/0/3" in said
    assert "nowhere that the kernel has seen" in said
    said = seen(beside=(Origin(**{**HOSTILE, "integrity": Integrity.UNTRUSTED}),))
    assert "\x1b" not in said and "\u202e" not in said and "\r" not in said


def test_run_says_that_a_stricter_profile_holds_than_the_one_in_the_file(world: World) -> None:
    world.home.mkdir(mode=0o700, exist_ok=True)
    (world.home / "ring0.toml").write_text('profile = "strict"\n')
    assert "holds on" not in world.ring0("run", "agent.py:plain", "hi").all
    (world.home / "ring0.toml").write_text("")
    done = world.ring0("run", "agent.py:plain", "hi")
    told = " ".join(done.err.split())
    assert done.code == 0 and "strict holds on until `ring0 reload --yes-loosen`" in told
    assert "holds on until" in " ".join(world.ring0("recover").err.split())
    assert world.ring0("reload", "--yes-loosen").code == 0
    assert "holds on" not in world.ring0("run", "agent.py:plain", "hi").all
