"""A daemon looks by itself whether its log still is what was signed, and tells."""

from __future__ import annotations

from pathlib import Path

import apsw
from anchored_world import clerk, ran, ring_at

from ring0.kernel.telemetry.watching import Watching


def numbers(watching: Watching) -> dict[str, float]:
    return {family.name: family.values[()] for family in watching.families()}


def rewritten(home: Path, was: bytes, now: bytes) -> None:
    """By whoever owns the machine, under the hashes."""
    database = apsw.Connection(str(home / "journal.db"))
    database.set_busy_timeout(5_000)
    for (name,) in database.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'event'"
    ).fetchall():
        database.execute(f"DROP TRIGGER {name}")
    found = database.execute("SELECT rowid, body FROM event").fetchall()
    changed = [(rowid, bytes(body)) for rowid, body in found if was in bytes(body)]
    assert changed, "there is such an event"
    for rowid, body in changed[:1]:
        told = (body.replace(was, now), rowid)
        database.execute("UPDATE event SET body = ? WHERE rowid = ?", told)
    database.close()


async def test_an_entry_that_was_changed_under_a_kernel_at_work_is_told_once(
    tmp_path: Path,
) -> None:
    home, told = tmp_path / "home", []
    await ran(home, "one")
    async with ring_at(home) as ring:
        await ring.run(clerk, "two")
        watching = Watching(ring.kernel, lambda what, run: told.append(what))
        assert await watching.look() and not told
        assert numbers(watching)["ring0_journal_changed"] == 0
        rewritten(home, b'"agent":"clerk"', b'"agent":"other"')
        assert not await watching.look() and not await watching.look()
        assert numbers(watching)["ring0_journal_changed"] == 1
        (said,) = told
        assert "THE JOURNAL WAS CHANGED" in said and "event" in said
        await watching.close()


async def test_what_no_checkpoint_vouches_for_is_no_alarm(tmp_path: Path) -> None:
    home, told = tmp_path / "home", []
    async with ring_at(home) as ring:
        (home / "journal.checkpoint").unlink(missing_ok=True)
        watching = Watching(ring.kernel, lambda what, run: told.append(what))
        assert await watching.look() and not told


async def test_a_look_that_comes_to_nothing_is_said_and_counts_as_none(tmp_path: Path) -> None:
    home, told = tmp_path / "home", []
    async with ring_at(home) as ring:
        watching = Watching(ring.kernel, lambda what, run: told.append(what))
        watching._looked_us -= 7_200_000_000
        there = home / "journal.db"
        there.rename(home / "aside")
        assert not await watching.look()
        (home / "aside").rename(there)
        assert "can't look" in told[0] and numbers(watching)["ring0_journal_changed"] == 0
        assert numbers(watching)["ring0_journal_looked_at_seconds"] >= 7_200
