"""`show`, `report`, `ps` and `logs` of runs whose values are not here any more, real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import World

SAID = "what nobody is to read"


@pytest.fixture
def run(world: World) -> str:
    """A run that has ended, and was told something."""
    done = world.ring0("run", "agent.py:plain", SAID, "--json")
    assert done.code == 0, done.all
    return str(world.ring0("ps", "--all", "--json").json["runs"][0]["id"])


def report(world: World, run: str, file: Path) -> str:
    done = world.ring0("report", run, "--private", "-o", str(file))
    assert done.code == 0, done.all
    return file.read_text()


def test_a_run_in_the_archive_is_shown_with_its_calls_and_the_way_back(
    world: World, run: str, tmp_path: Path
) -> None:
    calls = [call["id"] for call in world.ring0("show", run, "--json").json["calls"]]
    assert world.ring0("archive", run).code == 0
    shown = world.ring0("show", run)
    assert shown.code == 0 and f"ring0 unarchive {run}" in shown.out, shown.all
    assert SAID in shown.out  # Its task outlives its archive.
    told = world.ring0("show", run, "--json").json
    assert [call["id"] for call in told["calls"]] == calls and calls
    assert all(call["outcome"] is None for call in told["calls"])
    assert f"ring0 unarchive {run}" in report(world, run, tmp_path / "page.html")
    assert world.ring0("show", run, "--waterfall").code == 0
    assert world.ring0("unarchive", run).code == 0
    assert world.ring0("show", run, "--json").json["gone"] == ""


def test_a_run_that_was_erased_is_shown_without_a_word_of_what_it_was_told(
    world: World, run: str, tmp_path: Path
) -> None:
    calls = len(world.ring0("show", run, "--json").json["calls"])
    assert world.ring0("audit", "erase", run).code == 0
    page = report(world, run, tmp_path / "page.html")
    for done in (world.ring0("show", run), world.ring0("show", run, "--costs")):
        assert done.code == 0 and SAID not in done.all, done.all
    assert "erased" in world.ring0("show", run).out and "erased" in page and SAID not in page
    assert len(world.ring0("show", run, "--json").json["calls"]) == calls > 0
    listed = world.ring0("ps", "--all")
    assert listed.code == 0 and run in listed.out and SAID not in listed.all
    lines = world.ring0("logs", run)
    assert lines.code == 0 and "values-erased" in lines.out


def test_a_value_that_is_missing_without_a_word_on_record_is_not_passed_over(
    world: World, run: str
) -> None:
    import sqlite3

    with sqlite3.connect(world.home / "journal.db") as journal:
        journal.execute("DELETE FROM blob")
    shown = world.ring0("show", run)
    assert shown.code != 0 and "audit verify" in shown.err, shown.all
