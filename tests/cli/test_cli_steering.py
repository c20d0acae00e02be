"""Pause, resume, send, kill --tree, and what `ps` and `top` tell: with a daemon, beside a kernel of
`ring0 run`, and where none is at work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cli_world import Terminal, World
from serving_world import daemon, journal

from ring0.store import events as ev

STEPS = """
from ring0 import Context, agent


@agent(builtins={"files": {"use": "files"}})
async def steps(ctx: Context, task: str):
    for number in range(int(task)):
        await ctx.tool("files.write", path="a.txt", text=str(number))
        await ctx.sleep(0.3)
    return "walked"


@agent(agents=["steps"], builtins={"files": {"use": "files"}})
async def parent(ctx: Context, task: str):
    child = await ctx.spawn("steps", task)
    return await child.wait()
"""


@pytest.fixture
def steps(world: World) -> World:
    world.write("steps.py", STEPS)
    return world


@contextmanager
def kernel(world: World, kind: str, entry: str, task: str) -> Iterator[str]:
    """A run at work under a kernel of that kind; its id."""
    if kind == "daemon":
        with daemon(world):
            yield world.ring0("run", "--detach", f"steps.py:{entry}", task).out.strip()
    else:
        with world.holding("run", f"steps.py:{entry}", task):
            yield next(row["id"] for row in world.live() if not row["parent"])


def made(world: World, run: str) -> int:
    """How many calls of a run are on record."""
    return len(world.calls(run))


@pytest.mark.parametrize("kind", ["daemon", "run"])
def test_a_paused_run_makes_no_call_until_it_is_resumed(steps: World, kind: str) -> None:
    with kernel(steps, kind, "steps", "400") as name:
        steps.until(lambda: made(steps, name) > 3)
        paused = steps.ring0("pause", name, "--note", "lunch")
        assert paused.code == 0 and "paused" in paused.out
        assert steps.ring0("pause", name).code == 2
        row = steps.until(lambda: [r for r in steps.live() if r["waiting_for"] == "pause"])[0]
        assert row["paused_by"] and row["waiting_since_us"]
        assert "paused by" in steps.ring0("ps").out
        before = made(steps, name)
        time.sleep(1)
        assert made(steps, name) == before
        assert steps.ring0("resume", name, "--json").json == {"resumed": [name]}
        steps.until(lambda: made(steps, name) > before)
        assert steps.ring0("kill", name).code == 0


def test_a_run_can_be_paused_and_killed_where_no_kernel_is_at_work(steps: World) -> None:
    with kernel(steps, "run", "steps", "400") as name:
        pass
    assert steps.ring0("pause", name).code == 0
    assert steps.live()[0]["paused_by"]
    assert steps.ring0("resume", name).code == 0
    assert steps.ring0("kill", name, "--tree").code == 0
    assert not steps.live()


@pytest.mark.parametrize("kind", ["daemon", "run"])
def test_kill_tree_ends_the_whole_tree_from_any_run_of_it_within_a_second(
    steps: World, kind: str
) -> None:
    with kernel(steps, kind, "parent", "400") as root:
        child = steps.until(lambda: [r for r in steps.live() if r["parent"]])[0]["id"]
        steps.until(lambda: made(steps, child) > 2)
        killed = steps.ring0("kill", child, "--tree")
        assert killed.code == 0, killed.all
        assert not steps.live()
        rows = {r["id"]: r for r in steps.ring0("ps", "--all", "--json").json["runs"]}
        assert {rows[one]["state"] for one in (root, child)} == {"cancelled"}
        ended_us = max(rows[one]["ended_us"] for one in (root, child))
        begun_us = next(at_us for at_us, what in journal(steps) if isinstance(what, ev.Killed))
        assert ended_us - begun_us < 1_000_000


def test_kill_of_a_child_alone_leaves_its_parent(steps: World) -> None:
    with kernel(steps, "daemon", "parent", "400") as root:
        child = steps.until(lambda: [r for r in steps.live() if r["parent"]])[0]["id"]
        assert steps.ring0("kill", child).code == 0
        steps.until(lambda: not steps.live())
        assert steps.ring0("show", root, "--json").json["run"]["state"] != "cancelled"


def test_tree_without_a_run_is_no_kill(world: World) -> None:
    for arguments in (("--tree",), ("--tree", "--all"), ("--tree", "--agent", "x")):
        assert world.ring0("kill", *arguments).code == 2


def test_ps_and_top_show_a_tree_as_a_tree_and_what_waits_for_what(steps: World) -> None:
    with kernel(steps, "daemon", "parent", "400") as root:
        child = steps.until(lambda: [r for r in steps.live() if r["parent"]])[0]["id"]
        steps.until(lambda: [r for r in steps.live() if r["waiting_for"] == "child"])
        lines = steps.ring0("ps").out.splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith(root))
        assert "waiting (child, " in lines[at] and lines[at + 1].startswith(f"└ {child}")
        top = steps.ring0("top", "--once").out
        assert f"└ {child}" in top and "daemon" in top and "events/s" in top
        # It looks twice; on a busy machine nothing may happen in between.
        steps.until(lambda: steps.ring0("top", "--json").json["events_per_s"] > 0)
        seen = steps.ring0("top", "--json").json
        assert seen["daemon"] and seen["kernel"]
        assert {one["id"] for one in seen["runs"]} == {root, child}
        resources = {one["name"]: one for one in seen["load"]["resources"]}
        assert resources["call"]["size"] > 0


def test_top_works_where_no_kernel_is_at_work_and_where_nothing_has_run(world: World) -> None:
    assert world.ring0("run", "agent.py:plain", "x").code == 0
    seen = world.ring0("top", "--json").json
    assert seen["kernel"] is None and seen["load"] is None and seen["runs"] == []
    assert "no kernel is at work" in world.ring0("top", "--once").out
    assert world.ring0("top").code == 2  # There is no terminal.


def test_top_in_a_terminal_ends_with_q_and_leaves_it_as_it_was(steps: World) -> None:
    with kernel(steps, "daemon", "steps", "400") as name:
        shown = Terminal(steps, "top")
        shown.wait_for(name)
        shown.type("q")
        assert shown.end() == 0
        assert "\x1b[?1049l" in shown.shown


def test_a_message_is_told_to_a_run_that_goes_on_and_to_no_other(steps: World) -> None:
    with kernel(steps, "daemon", "steps", "400") as name:
        assert steps.ring0("send", name, "hello").code == 0
        assert steps.ring0("kill", name).code == 0
        late = steps.ring0("send", name, "hello")
        assert late.code == 2 and "has ended already" in late.err
    assert steps.ring0("send", "r-none", "hello").code == 2
