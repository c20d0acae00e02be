"""`ring0 audit`: what proves a journal away from its kernel, what is said where nothing does."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from cli_world import World
from serving_world import daemon


@pytest.fixture
def ran(world: World) -> World:
    """A folder in which a run has ended."""
    assert world.ring0("run", "agent.py:plain", "hello").code == 0
    return world


def key_of(world: World) -> str:
    return world.ring0("audit", "key").out.split()[-1]


def test_a_run_ends_with_a_checkpoint_that_vouches_for_all_of_it(ran: World) -> None:
    done = ran.ring0("audit", "verify")
    assert done.code == 0 and "0 came after it" in done.out
    assert "this folder's own" in " ".join(done.out.split()), "the limit is said"
    told = ran.ring0("audit", "verify", "--json").json
    assert told["signed"] == told["events"] and told["anchored_by"]["checkpoints"] == 1


def test_audit_verify_without_an_anchor_exits_non_zero_and_says_why(ran: World) -> None:
    (ran.home / "journal.checkpoint").unlink()
    for extra in ([], ["--log-only"]):
        done = ran.ring0("audit", "verify", *extra)
        assert done.code == 5 and "No anchor vouches" in done.err
        assert "This folder holds no checkpoint" in done.err
    assert ran.ring0("audit", "verify", "--json").code == 5


def test_a_journal_and_an_old_checkpoint_and_a_key_are_all_that_is_needed(
    ran: World, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.write_text(ran.ring0("audit", "checkpoint").out)
    key = key_of(ran)
    assert ran.ring0("run", "agent.py:plain", "again").code == 0
    away = tmp_path / "away"
    away.mkdir()
    shutil.copy(ran.home / "journal.db", away)
    good = ("audit", "verify", "--journal", str(away / "journal.db"), "--anchor", str(kept))
    done = ran.ring0(*good, "--key", key)
    assert done.code == 0, done.all
    assert "is what was signed" in done.out and "this folder's own" not in done.out
    other = key[:-4] + ("AAAA" if not key.endswith("AAAA") else "BBBB")
    assert ran.ring0(*good, "--key", other).code != 0
    with sqlite3.connect(away / "journal.db") as connection:
        connection.execute("DROP TRIGGER event_stays")
        connection.execute("DELETE FROM event WHERE idx >= 4")
    done = ran.ring0(*good, "--key", key)
    assert done.code == 5 and "cut short" in done.err


def test_a_checkpoint_of_another_journal_vouches_for_nothing(ran: World, tmp_path: Path) -> None:
    key = key_of(ran)
    stranger = key.replace("ring0.local/", "ring0.local/f")
    kept = tmp_path / "kept"
    kept.write_text(ran.ring0("audit", "checkpoint").out.replace("ring0.local/", "ring0.local/f"))
    done = ran.ring0("audit", "verify", "--anchor", str(kept), "--key", key)
    assert done.code == 5 and "other logs" in done.err
    assert ran.ring0("audit", "verify", "--anchor", str(kept), "--key", stranger).code != 0


def test_a_receipt_is_checked_without_any_journal(ran: World, tmp_path: Path) -> None:
    out = tmp_path / "third"
    assert ran.ring0("audit", "prove", "last#3", "-o", str(out)).code == 0
    proof, entry = f"{out}.tlog-proof", f"{out}.entry"
    key = key_of(ran)
    check = ("audit", "receipt", proof, "--entry", entry)
    shutil.rmtree(ran.home)
    assert ran.ring0(*check, "--key", key).code == 0
    assert ran.ring0(*check).code == 2, "a receipt proves nothing without a key"
    body = Path(entry).read_bytes()
    assert json.loads(body)["seq"] == 3
    Path(entry).write_bytes(body.replace(b'"seq":3', b'"seq":4'))
    assert ran.ring0(*check, "--key", key).code == 5


@pytest.mark.parametrize("seq", ["-1", "99999", "nine", "last#0", "last#999", "#", "１"])
def test_a_place_that_is_none_is_no_fault_of_ring0(ran: World, seq: str) -> None:
    done = ran.ring0("audit", "prove", "--", seq)
    assert done.code in (1, 2) and "ring0:" in done.err and "Do:" in done.err


def test_an_export_proves_itself_and_holds_no_value(ran: World, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    assert ran.ring0("audit", "export", str(folder)).code == 0
    assert b"hello" not in (folder / "log.jsonl").read_bytes()
    verify = ("audit", "verify", "--journal", str(folder))
    assert ran.ring0(*verify, "--key", key_of(ran)).code == 0
    log = folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    for bad in (lines[:-2], [*lines[:3], lines[2], *lines[3:]], [*lines[:2], *lines[3:]]):
        log.write_bytes(b"".join(bad))
        assert ran.ring0(*verify).code == 5
    log.write_bytes(b"".join(lines)[:-5])
    assert ran.ring0(*verify).code == 5
    assert ran.ring0("audit", "export", str(folder)).code == 2, "it writes over nothing"


def test_a_key_is_changed_on_record_and_the_old_one_still_proves_all(ran: World) -> None:
    old = key_of(ran)
    keys = ran.ring0("audit", "key", "--rotate", "--json").json["keys"]
    assert keys[0] == old and len(keys) == 2
    assert ran.ring0("run", "agent.py:plain", "again").code == 0
    done = ran.ring0("audit", "verify", "--key", old)
    assert done.code == 0 and "0 came after it" in done.out
    assert "signer" in ran.ring0("audit", "changes").out


def test_who_trusts_the_first_key_follows_to_a_checkpoint_under_the_newest(
    ran: World, tmp_path: Path
) -> None:
    old, kept, folder = key_of(ran), tmp_path / "kept", tmp_path / "log"
    assert ran.ring0("audit", "key", "--rotate").code == 0
    kept.write_text(ran.ring0("audit", "checkpoint", "--sign").out)
    assert ran.ring0("audit", "export", str(folder)).code == 0
    away = ["--journal", str(folder)]
    for where in ([], ["--log-only"], ["--journal", str(ran.home / "journal.db")], away):
        done = ran.ring0("audit", "verify", *where, "--anchor", str(kept), "--key", old)
        assert done.code == 0, done.all
    (ran.home / "journal.handovers").unlink()
    assert ran.ring0("audit", "verify", "--anchor", str(kept), "--key", old).code == 5


@pytest.mark.parametrize("rotated", [False, True])
def test_a_restored_journal_is_vouched_for_again_by_its_next_checkpoint(
    ran: World, tmp_path: Path, rotated: bool
) -> None:
    assert ran.ring0("backup", str(tmp_path / "kept")).code == 0
    if rotated:
        assert ran.ring0("audit", "key", "--rotate").code == 0
    assert ran.ring0("restore", str(tmp_path / "kept"), "--replace").code == 0
    assert ran.ring0("audit", "checkpoint", "--sign").code == 0
    keys = ["--key", key_of(ran)] if rotated else []  # No journal names the one that came since.
    for extra in ([], ["--log-only"]):
        done = ran.ring0("audit", "verify", *extra, *keys)
        assert done.code == 0 and "0 came after it" in done.out, done.all


def test_a_checkpoint_is_signed_when_it_is_asked_for(ran: World) -> None:
    before = ran.ring0("audit", "checkpoint", "--json").json["size"]
    assert ran.ring0("audit", "checkpoint", "--sign", "--json").json["size"] > before


def test_erasing_a_run_goes_on_record_and_its_proofs_stand(ran: World) -> None:
    run = ran.ring0("ps", "--all", "--json").json["runs"][0]["id"]
    done = ran.ring0("audit", "erase", run, "--note", "asked for", "--json").json["erased"]
    assert done[0]["run"] == run and done[0]["values"] > 2
    assert ran.ring0("audit", "checkpoint", "--sign").code == 0
    assert ran.ring0("audit", "verify").code == 0
    assert ran.ring0("audit", "erase", run).code == 2
    shown = ran.ring0("show", run)
    assert "hello" not in shown.all and "Traceback" not in shown.all
    assert b"hello" not in (ran.home / "journal.db").read_bytes()


def test_an_erased_run_is_no_damaged_journal_to_any_verb(ran: World, tmp_path: Path) -> None:
    run = ran.ring0("ps", "--all", "--json").json["runs"][0]["id"]
    assert ran.ring0("audit", "erase", run, "--note", "asked for").code == 0
    for verb in (
        ("replay", run), ("export", "run", run, "-o", str(tmp_path / "file")), ("labels", run),
        ("fork", run, "--at", "2"), ("diff", run, run), ("policy", "explain", run, "0/1"),
        ("whatif", run, "0/1"), ("workspace", "diff", run),
        ("workspace", "export", run, str(tmp_path / "out")),
    ):  # fmt: skip
        done = ran.ring0(*verb)
        assert done.code == 2 and "was erased, for good" in done.err, (verb, done.all)
        assert "asked for" in done.err and "audit verify" not in done.err
    assert ran.ring0("show", run).code == 0


def test_a_file_that_is_no_anchor_is_no_fault_of_ring0(ran: World, tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe", b"x\n" * 50, "ring0\n1\nAAAA\n\n— x y\n".encode()):
        file = tmp_path / "anchor"
        file.write_bytes(content)
        done = ran.ring0("audit", "verify", "--anchor", str(file))
        assert done.code == 5 and "ring0:" in done.err
    assert ran.ring0("audit", "verify", "--anchor", str(tmp_path / "none")).code == 5
    assert ran.ring0("audit", "verify", "--key", "nonsense").code == 5
    assert ran.ring0("audit", "verify", "--journal", str(tmp_path / "none")).code == 6


# --- under a daemon -------------------------------------------------------------------------------


def test_a_daemon_signs_what_happens_within_moments_and_when_it_is_asked(world: World) -> None:
    with daemon(world) as d:
        assert world.ring0("run", "agent.py:plain", "hello").code == 0
        world.until(lambda: "; 0 came after it" in world.ring0("audit", "verify").out)
        size = world.ring0("audit", "checkpoint", "--json").json["size"]
        assert world.ring0("audit", "checkpoint", "--sign", "--json").json["size"] >= size
        keys = world.ring0("audit", "key", "--rotate", "--json").json["keys"]
        assert len(keys) == 2
        assert world.ring0("audit", "verify", "--key", keys[0]).code in (0, 5), "it may be behind"
        assert d.end() == 0
    done = world.ring0("audit", "verify", "--key", keys[0])
    assert done.code == 0 and "; 0 came after it" in done.out


def test_a_worker_whose_signed_journal_is_rewritten_under_it_ends_and_says_why(
    world: World,
) -> None:
    with daemon(world) as d:
        world.until(lambda: world.ring0("audit", "checkpoint").code == 0)
        world.until(lambda: "; 0 came after it" in world.ring0("audit", "verify").out)
        with sqlite3.connect(world.home / "journal.db") as thief:
            thief.execute("DROP TRIGGER event_is_kept")
            thief.execute("UPDATE event SET body = x'7b7d', leaf = zeroblob(32) WHERE idx = 1")
            peaks = thief.execute("SELECT peaks FROM tree").fetchone()[0]
            thief.execute("UPDATE tree SET peaks = ?", (bytes(32) + peaks[32:],))
        world.ring0("audit", "checkpoint", "--sign")
        d.says("is not the one of which")
        d.says("has ended with exit code 6")
        assert world.ring0("audit", "verify").code == 5
