"""`storage`, `archive`, `vacuum`, `quota`, `backup`, `restore` and their like, real processes."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from cli_world import World
from serving_world import counting, daemon, journal

from ring0.store import events as ev


def ran(world: World) -> str:
    """A run that has ended."""
    done = world.ring0("run", "agent.py:plain", "what is to be done", "--json")
    assert done.code == 0, done.all
    return str(world.ring0("ps", "--all", "--json").json["runs"][0]["id"])


def is_whole(world: World) -> None:
    """The journal says what was written; who vouches for it is another matter."""
    said = world.ring0("audit", "verify")
    assert "in one unbroken Merkle log" in said.out and "✗" not in said.out, said.all
    assert said.code == 0 or "No anchor vouches" in said.err, said.all


def test_storage_says_who_fills_the_journal_and_when_the_disk_is_full(world: World) -> None:
    assert "nothing has run here yet" in world.ring0("storage").err
    ran(world)
    shown = world.ring0("storage").out
    assert "journal" in shown and "local" in shown and "the disk is full in" in shown
    said = world.ring0("storage", "--json").json
    assert said["file_bytes"] >= (world.home / "journal.db").stat().st_size * 0.9
    assert said["events"] > 5 and said["grows_bytes_a_day"] > 0 and said["full_in_s"] > 0
    (tenant,) = said["tenants"]
    assert tenant["tenant"] == "local" and tenant["quota_bytes"] == 64 * 2**30


def test_a_run_goes_to_the_archive_and_comes_back(world: World) -> None:
    run = ran(world)
    before = world.ring0("show", run, "--json").json
    done = world.ring0("archive", "last")
    assert done.code == 0 and run in done.out and "in a file of" in done.out, done.all
    assert (world.home / "archive" / f"{run}.r0a").is_file()
    is_whole(world)
    assert run in world.ring0("ps", "--all").out
    shown = world.ring0("show", run)
    assert shown.code == 0 and f"ring0 unarchive {run}" in shown.out, shown.all
    listed = world.ring0("archive", "--check", "--json").json["archived"]
    assert [(row["run"], row["whole"]) for row in listed] == [(run, True)]
    replayed = world.ring0("replay", run)
    assert replayed.code != 0 and f"ring0 unarchive {run}" in replayed.err, replayed.all
    back = world.ring0("unarchive", run[:8])
    assert back.code == 0 and "are back" in back.out, back.all
    assert world.ring0("show", run, "--json").json["calls"] == before["calls"]
    assert world.ring0("replay", run).code == 0
    assert "Nothing is archived" in world.ring0("archive", "--list").out
    told = world.ring0("unarchive", run)
    assert told.code == 2 and "is in no archive" in told.err


def test_a_damaged_archive_is_told_and_nothing_comes_back(world: World) -> None:
    run = ran(world)
    world.ring0("archive", run)
    (world.home / "archive" / f"{run}.r0a").write_bytes(b"nothing")
    shown = world.ring0("archive", "--check")
    assert shown.code != 0 and "DAMAGED" in shown.out and "can't be used" in shown.err
    told = world.ring0("unarchive", run)
    assert told.code != 0 and "not the file that was written" in told.err and "Do:" in told.err


def test_what_can_not_be_is_told_in_words(world: World) -> None:
    ran(world)
    for arguments in (
        ("archive",),
        ("archive", "last", "--older", "1d"),
        ("archive", "--older", "soon"),
        ("archive", "--older", "-1d"),
        ("archive", "r-nobody"),
        ("unarchive", "r-nobody"),
        ("quota", "local", "much"),
        ("quota", "local", "0MB"),
        ("quota", "local", "999999999GiB"),
        ("quota", "", "1MB"),
        ("backup", "/proc/nowhere/x"),
        ("restore", "/nowhere"),
    ):
        done = world.ring0(*arguments)
        assert done.code != 0 and "ring0: " in done.err + done.out, (arguments, done.all)
        assert "Do:" in done.err or "→" in done.err or "  " in done.err, (arguments, done.all)
    assert [row["state"] for row in world.ring0("ps", "--all", "--json").json["runs"]] == ["done"]


def test_room_goes_back_and_a_quota_is_shown(world: World) -> None:
    ran(world)
    assert world.ring0("archive", "--older", "0m").code == 0
    assert "given back" in world.ring0("vacuum").out
    assert "may store 500.0 MB" in world.ring0("quota", "local", "500MB").out
    (tenant,) = world.ring0("storage", "--json").json["tenants"]
    assert tenant["quota_bytes"] == 500_000_000
    assert "may store 68.7 GB" in world.ring0("quota", "local", "none").out


def test_a_daemon_at_work_is_backed_up_and_put_back_in_another_folder(world: World) -> None:
    counting(world)
    with daemon(world) as d:
        going = world.start("run", "counting.py:counts", "200")
        run = world.waits_or_runs()
        made = world.ring0("backup", "copy", "--json")
        assert made.code == 0, made.all
        assert made.json["size"] > 3 and len(made.json["root"]) == 64
        assert Path(made.json["folder"]) == world.folder / "copy"
        refused = world.ring0("restore", "copy", "--replace")
        assert refused.code != 0 and "daemon" in refused.err, refused.all
        assert world.ring0("kill", run).code == 0
        world.finish(going)
        assert d.end() == 0
    told = [body for _, body in journal(world) if isinstance(body, ev.BackedUp)]
    assert [one.root for one in told] == [made.json["root"]]

    elsewhere = {**world.environment, "RING0_HOME": str(world.folder / "other")}
    world.environment, mine = elsewhere, world.environment
    done = world.ring0("restore", "copy")
    assert done.code == 0 and "1 run ended" in done.out, done.all
    assert world.live() == []
    again = world.ring0("run", "agent.py:plain", "on it goes")
    assert again.code == 0, again.all
    is_whole(world)
    world.environment = mine
    told_off = world.ring0("restore", "copy")
    assert told_off.code == 2 and "holds a journal already" in told_off.err


def test_an_older_journal_goes_on_under_another_name_once_it_is_put_back(world: World) -> None:
    """What was signed of the newer one speaks against it until `restore` says so."""
    ran(world)
    assert world.ring0("backup", "copy").code == 0
    ran(world)
    for name in ("journal.db", "journal.head"):
        (world.home / name).rename(world.folder / name)
        (world.home / name).write_bytes((world.folder / "copy" / name).read_bytes())
    by_hand = world.ring0("run", "agent.py:plain", "x")
    assert by_hand.code != 0 and "shorter than its anchor" in by_hand.err, by_hand.all
    for name in ("journal.db", "journal.head"):
        (world.folder / name).replace(world.home / name)
    done = world.ring0("restore", "copy", "--replace")
    assert done.code == 0, done.all
    again = world.ring0("run", "agent.py:plain", "x")
    assert again.code == 0, again.all
    is_whole(world)
    (aside,) = world.home.glob("replaced-*")
    assert (aside / "journal.db").is_file()


def test_only_an_admin_may(world: World) -> None:
    ran(world)
    (world.home / "ring0.toml").write_text('[roles]\nviewer = ["somebody else"]\n')
    for arguments in (
        ("archive", "--older", "1d"),
        ("unarchive", "last"),
        ("vacuum",),
        ("quota", "local", "1MB"),
        ("backup", "copy"),
        ("restore", "copy", "--replace"),
    ):
        done = world.ring0(*arguments)
        assert done.code != 0 and "takes the role admin" in done.err, (arguments, done.all)
    assert not (world.folder / "copy").exists()
    assert world.ring0("storage").code == 0, "to look changes nothing"


def test_what_a_back_up_holds_is_for_its_owner_alone(world: World) -> None:
    ran(world)
    old = os.umask(0)
    try:
        assert world.ring0("backup", "copy").code == 0
    finally:
        os.umask(old)
    assert (world.folder / "copy").stat().st_mode & 0o777 == 0o700
    for path in (world.folder / "copy").rglob("*"):
        # Within that folder: sandboxes of a kernel read the code of agents, as it was.
        open_to_others = 0o055 if "snapshots" in path.parts else 0
        assert path.stat().st_mode & 0o077 & ~open_to_others == 0, path
    with sqlite3.connect(world.folder / "copy" / "journal.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
