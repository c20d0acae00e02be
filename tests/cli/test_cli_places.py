"""What a sandbox can't be shown is told before anything starts, with what to do about it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import World


@pytest.fixture
def beneath_tmp() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ring0-places-") as folder:
        yield Path(folder)


def test_an_environment_beneath_tmp_is_told_at_once_with_where_to_make_it(
    world: World, beneath_tmp: Path
) -> None:
    made = ["/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable]
    subprocess.run([*made, "-m", "venv", "--without-pip", beneath_tmp / "venv"], check=True)
    world.write("x.py", "print('hello')")
    world.environment["PATH"] = f"{beneath_tmp}/venv/bin:{world.environment['PATH']}"
    done = world.ring0("run", "--", "python", "x.py")
    told = " ".join(done.err.split())
    assert done.code == 2 and f"The Python environment of {beneath_tmp}/venv/bin/python" in told
    assert "beneath /tmp, of which each sandbox has its own" in told
    assert "python -m venv ~/venvs/NAME" in told
    assert not (world.home / "journal.db").exists(), "nothing was begun"


def test_a_link_to_an_environment_beneath_tmp_is_no_way_around(
    world: World, beneath_tmp: Path
) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", beneath_tmp / "venv"], check=True
    )
    (world.folder / "venv").symlink_to(beneath_tmp / "venv")
    world.write("x.py", "print('hello')")
    done = world.ring0("run", "--", "./venv/bin/python", "x.py")
    assert done.code == 2 and "can't be shown to a sandbox" in done.err


def test_what_a_manifest_names_there_is_told_by_its_name(world: World, beneath_tmp: Path) -> None:
    data = f'[sandbox]\nread = ["{beneath_tmp}"]\n'
    world.write("agent.toml", f'name = "p"\ncommand = ["python3", "x.py"]\n{data}')
    world.write("x.py", "print('hello')")
    done = world.ring0("run", "--manifest", "agent.toml", "the task")
    told = " ".join(done.err.split())
    assert done.code == 2 and f"[sandbox] read names '{beneath_tmp}'" in told
    assert "beneath /tmp" in told and "Put it elsewhere" in told
