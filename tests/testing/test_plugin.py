"""The pytest plugin, in a pytest of its own: a recorded run as a test of somebody's project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ring0 import Context, agent, tool
from ring0.kernel.replaying.exporting import export
from ring0.sdk.embedded import NotContained, embedded

PROJECT = """
from ring0 import Context, agent, tool


@tool(effect="pure")
async def double(n: int) -> int:
    return 2 * n


@agent(name="doubler", tools=[double])
async def doubler(ctx: Context, task: str):
    return [await ctx.random(), await ctx.tool("double", n=int(task))]
"""
TEST = """
import project


def test_as_recorded(ring0_replay):
    (run,) = ring0_replay("tape.r0", agent=project.doubler)
    assert run.calls == run.matched == 2


async def _async(ring0_replay):
    return await ring0_replay.play("tape.r0", agent=project.doubler)


def test_in_a_loop(ring0_replay):
    import asyncio
    assert asyncio.run(_async(ring0_replay))[0].ok


def test_no_file(ring0_replay):
    ring0_replay("none.r0")


def test_no_cassette(ring0_replay):
    ring0_replay("project.py")
"""


@tool(effect="pure")
async def double(n: int) -> int:
    return 2 * n


@agent(name="doubler", tools=[double])
async def doubler(ctx: Context, task: str) -> list[float]:
    return [await ctx.random(), await ctx.tool("double", n=int(task))]


def pytest_in(folder: Path) -> str:
    """What a pytest of its own says of that folder, in a HOME where nothing is."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # fmt: skip
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "ring0.testing.plugin", "-p", "no:cacheprovider",
         "-q", "--rootdir", str(folder), str(folder)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return told.stdout + told.stderr


@pytest.mark.filterwarnings("ignore::ring0.sdk.embedded.NotContained")
async def test_a_recorded_run_is_a_test_that_fails_with_the_code(tmp_path: Path) -> None:
    home, project = tmp_path / "home", tmp_path / "project"
    project.mkdir()
    async with embedded(home, {}) as ring:
        row = await ring.start(doubler, "21")
        assert (await ring.result(row.id))[1] == 42
        await ring.kernel.store.flush()
        now = await ring.kernel.store.run(row.id)
        assert now is not None
        done = await export(home, ring.kernel.store, ring.kernel.runtime, now)
    (project / "tape.r0").write_bytes(done.data)
    (project / "project.py").write_text(PROJECT)
    (project / "test_it.py").write_text(TEST)
    said = pytest_in(project)
    assert "2 passed" in said and "2 failed" in said, said
    assert "none.r0" in said and "This is no cassette of ring0" in said
    (project / "project.py").write_text(PROJECT.replace("int(task)", "int(task) + 1"))
    said = pytest_in(project)
    assert "4 failed" in said and "was tool double with other arguments" in said, said
    assert "record the run anew" in said and "Traceback" not in said
    assert NotContained
