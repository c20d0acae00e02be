"""A run that kills its worker, with real processes: it is held, and the daemon and all else go on.
And what is said of one that can't be started again.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from cli_world import World
from serving_world import daemon

from ring0 import limits

DEADLY = """
from ring0 import Context, agent


@agent(builtins={"files": {"use": "files"}}, budget="100 calls, WALL s")
async def deadly(ctx: Context, task: str):
    await ctx.tool("files.write", path="a.txt", text="fine")
    await ctx.tool("files.write", path="b.txt", text="kills-the-worker")
    return "survived"
"""


@pytest.fixture
def deadly(world: World) -> World:
    world.write("deadly.py", DEADLY.replace("WALL", "900"))
    world.environment["PYTHONPATH"] = str(Path(__file__).parent / "deadly")
    world.environment["DEADLY"] = "kills-the-worker"
    world.home.mkdir(mode=0o700)
    (world.home / "ring0.toml").write_text("[scheduler]\nruns_at_work = 1\n")
    return world


def test_a_run_that_kills_its_worker_is_held_and_a_healthy_run_beside_it_ends(
    deadly: World,
) -> None:
    with daemon(deadly) as d:
        bad = deadly.ring0("run", "--detach", "deadly.py", "x").out.strip()
        d.says("may have killed its worker")
        good = deadly.ring0("run", "agent.py:plain", "hi")  # The held one has no place at work.
        assert good.code == 0, good.all
        assert d.log.count("by signal 9") == 2 and d.process.poll() is None
        assert f"ring0 resume {bad}" in d.log
        shown = deadly.ring0("ps")
        assert "could not go on: is held" in shown.out and f"ring0 kill {bad}" in shown.out
        row = deadly.ring0("ps", "--json").json["runs"][0]
        assert (row["id"], row["state"], row["paused_by"]) == (bad, "waiting", "ring0")
        assert "2 workers in a row" in row["could_not_go_on"]
        assert "held" in deadly.ring0("recover").out
        assert d.end() == 0
    # It stays held: the next daemon dies of nothing.
    with daemon(deadly) as d:
        d.says("is held")
        assert "by signal" not in d.log
        assert deadly.ring0("kill", bad).code == 0
        assert not deadly.live()
        assert d.end() == 0


def test_many_runs_that_kill_their_workers_one_after_the_other_do_not_end_the_daemon(
    deadly: World,
) -> None:
    with daemon(deadly) as d:
        for number in range(1, limits.WORKER_FAILURES_MAX + 1):
            deadly.ring0("run", "--detach", "deadly.py", "x")  # It may not even hear the answer.
            # The first is started twice; what is held is told of again at each start.
            d.says("is at work", times=number + 2)
        # The last one is being started a second time when the worker after its first says so.
        d.says("may have killed its worker", times=limits.WORKER_FAILURES_MAX)
        d.says("by signal 9", times=limits.WORKER_FAILURES_MAX + 1)
        deadly.until(lambda: {row["paused_by"] for row in deadly.live()} == {"ring0"})
        assert len(deadly.live()) == limits.WORKER_FAILURES_MAX
        assert d.process.poll() is None


def test_a_held_run_goes_on_when_a_person_resumes_it(deadly: World) -> None:
    with daemon(deadly) as d:
        bad = deadly.ring0("run", "--detach", "deadly.py", "x").out.strip()
        d.says("may have killed its worker")
        assert d.end() == 0
    deadly.environment.pop("DEADLY")  # What was wrong is mended.
    with daemon(deadly) as d:
        d.says("is held")
        time.sleep(0.5)
        assert deadly.live()
        assert deadly.ring0("resume", bad, "--json").json == {"resumed": [bad]}
        deadly.until(lambda: not deadly.live())
        assert deadly.ring0("show", bad, "--json").json["run"]["state"] == "done"


def test_a_held_run_ends_at_its_deadline(deadly: World) -> None:
    deadly.write("deadly.py", DEADLY.replace("WALL", "12"))
    with daemon(deadly) as d:
        bad = deadly.ring0("run", "--detach", "deadly.py", "x").out.strip()
        d.says("may have killed its worker")
        assert deadly.live()
        deadly.until(lambda: not deadly.live())
        assert deadly.ring0("show", bad, "--json").json["run"]["state"] == "failed"


def test_a_run_that_can_not_be_started_again_is_listed_with_why_and_ends_at_its_deadline(
    world: World,
) -> None:
    world.write(
        "naps.py",
        "from ring0 import Context, agent\n\n\n"
        '@agent(budget="100 calls, 16 s")\n'
        "async def naps(ctx: Context, task: str):\n    await ctx.sleep(5)\n",
    )
    world.environment["PYTHONPATH"] = str(Path(__file__).parent / "deadly")
    world.environment["PARK_AFTER_S"] = "0.3"
    with daemon(world):
        run = world.ring0("run", "--detach", "naps.py", "x").out.strip()
        world.waits_for("timer")
        assert "waiting (timer" in world.ring0("ps").out
        time.sleep(1.5)
        shutil.rmtree(world.home / "snapshots")
        world.until(lambda: world.live()[0]["could_not_go_on"])
        listed = world.ring0("ps").out
        assert "could not go on" in listed and "timer" not in listed
        assert "could not go on" in world.ring0("top", "--once").out
        again = world.ring0("resume", run, "--json")
        assert again.json == {"resumed": [run]}
        world.until(lambda: not world.live())
        assert world.ring0("show", run, "--json").json["run"]["state"] == "failed"
