"""What is done to checkpoints, to the signer and to a journal that is given as evidence, by whoever
wants a green answer, and by disks that are full or fail midway."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest
from anchored_world import clerk, keys_of, ran, ring_at, verified
from test_pushing import PRIVATE, place, until, witness

from ring0.errors import StoreDamaged
from ring0.kernel.pushing import append
from ring0.observability.proof import logs
from ring0.observability.proof import signer as signing
from ring0.observability.proof.anchors import Anchors, newest_note, read_notes
from ring0.observability.proof.link import SignerGone
from ring0.observability.proof.signer import Answer, Ask, Signer
from ring0.observability.proof.tiles import root_of
from ring0.store import merkle
from ring0.store.sqlite import sql

LEAVES = [merkle.leaf_hash(b"entry %d" % number) for number in range(40)]


def extend(begin: int, end: int) -> Ask:
    return Ask(
        say="extend", leaves=b"".join(LEAVES[begin:end]), size=end, root=root_of(LEAVES[:end])
    )


# --- the signer -----------------------------------------------------------------------------------


async def test_a_signer_whose_disk_is_full_is_no_damage_of_the_journal(tmp_path: Path) -> None:
    async with ring_at(tmp_path / "home") as ring:
        anchoring = ring.kernel.anchoring
        await anchoring.anchor()
        link, real = anchoring._link, anchoring._link.ask

        async def full(ask: Ask) -> Answer:
            if ask.say == "extend":
                return Answer(refused=os.strerror(errno.ENOSPC))
            return await real(ask)

        link.ask = full  # type: ignore[method-assign]
        with pytest.raises(SignerGone, match="No space left"):
            await anchoring.anchor()
        assert anchoring.damage is None, "the journal is what it was"
        del link.ask
        assert await ring.run(clerk, "one") == "did one"
        await anchoring.anchor()
    report = await verified(tmp_path / "home")
    assert report.ok and report.signed == report.events


def test_a_signer_that_can_not_keep_its_state_says_that_and_not_that_the_journal_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    signer = Signer(folder)
    signer.answer(extend(0, 7))

    def full(folder: int, state: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(signing, "keep", full)
        with pytest.raises(OSError, match="No space"):
            signer.answer(extend(7, 9))
    assert not signer.answer(extend(7, 9)).refused
    told = signer.answer(extend(7, 9))
    assert told.refused and told.changed, "and this is another journal"
    os.close(folder)


def test_leaves_of_a_question_that_was_given_up_are_forgotten_with_it(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    signer = Signer(folder)
    signer.answer(Ask(say="leaves", leaves=b"".join(LEAVES[:9])))
    signer.answer(Ask(say="state"))  # The kernel begins anew.
    assert signer.answer(extend(0, 20)).note
    os.close(folder)


def _signer_process(folder: Path) -> tuple[subprocess.Popen[bytes], Any]:
    import socket

    own, other = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ring0.observability.proof.signer", folder,
         str(other.fileno())],
        pass_fds=(other.fileno(),),
    )  # fmt: skip
    other.close()
    return process, own


def test_two_signers_never_sign_for_one_folder_at_a_time(tmp_path: Path) -> None:
    first, to_first = _signer_process(tmp_path / "signer")
    to_first.sendall(b'{"say":"state"}\n')
    assert to_first.recv(4096)
    second, to_second = _signer_process(tmp_path / "signer")
    to_second.settimeout(1)
    to_second.sendall(b'{"say":"state"}\n')
    with pytest.raises(TimeoutError):
        to_second.recv(4096)
    to_first.close()
    assert first.wait(10) == 0
    to_second.settimeout(10)
    assert b'"key"' in to_second.recv(4096), "it waits until the other has ended"
    to_second.close()
    assert second.wait(10) == 0


async def test_a_kernel_ends_whole_where_its_last_checkpoint_can_not_be_written(
    tmp_path: Path,
) -> None:
    home, said = tmp_path / "home", []
    async with ring_at(home) as ring:
        ring.kernel.anchoring.say = said.append
        await ring.kernel.anchoring.anchor()
        (home / "journal.checkpoint").unlink()
        (home / "journal.checkpoint").mkdir()
    assert any("no last checkpoint" in line for line in said)
    (home / "journal.checkpoint").rmdir()
    await ran(home, "two")


async def test_a_signer_that_was_taken_away_is_not_replaced_without_a_word(tmp_path: Path) -> None:
    home, said = tmp_path / "home", []
    await ran(home, "one")
    shutil.rmtree(home / "signer")
    async with ring_at(home) as ring:
        ring.kernel.anchoring.say = said.append
        await ring.kernel.anchoring.anchor()
    first, second = await keys_of(home)
    assert first.name != second.name
    assert any(first.name in line and "is gone" in line for line in said)


# --- anchors --------------------------------------------------------------------------------------


async def test_a_folder_put_back_to_before_a_change_of_keys_is_found_by_the_file_elsewhere(
    tmp_path: Path,
) -> None:
    home, config = tmp_path / "home", f'[[checkpoints]]\nfile = "{tmp_path / "kept"}"\n'
    await ran(home, "one", config=config)
    shutil.copytree(home, tmp_path / "old")
    async with ring_at(home) as ring:
        await ring.kernel.anchoring.rotate("ann")
    await ran(home, "two")
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "old", home)
    with pytest.raises(StoreDamaged, match="shorter than its anchor"):
        await ran(home, "three")


async def test_a_checkpoint_cut_off_at_the_end_of_the_file_hides_none_before_it(
    tmp_path: Path,
) -> None:
    home, kept = tmp_path / "home", tmp_path / "kept"
    config = f'[[checkpoints]]\nfile = "{kept}"\n'
    await ran(home, "one", config=config)
    shutil.copytree(home, tmp_path / "old")
    await ran(home, "two")
    with kept.open("ab") as file:
        file.write(newest_note(home).encode()[:50])
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "old", home)
    with pytest.raises(StoreDamaged, match="shorter than its anchor"):
        await ran(home, "three")


@pytest.mark.parametrize("cut", [1, 30, 60, 90, 120, -1])
async def test_a_checkpoint_that_a_crash_cut_off_spoils_neither_the_file_nor_the_next_one(
    tmp_path: Path, cut: int
) -> None:
    home, kept = tmp_path / "home", tmp_path / "kept"
    config = f'[[checkpoints]]\nfile = "{kept}"\n'
    await ran(home, "one", config=config)
    with kept.open("ab") as file:
        file.write(newest_note(home).encode()[:cut])
    keys = tuple(await keys_of(home))
    assert (await verified(home, read_notes(kept), keys)).ok
    await ran(home, "two")
    report = await verified(home, read_notes(kept), keys)
    assert report.ok and report.signed == report.events, report.problems


def test_a_checkpoint_that_did_not_fit_the_disk_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, raw: real(file, raw[:20]))
    with pytest.raises(OSError, match="cut off"):
        append(str(tmp_path / "kept"), "name\n1\nroot\n\n— name sig\n", 1)


# --- a journal as evidence ------------------------------------------------------------------------


def _evidence(monkey: pytest.MonkeyPatch, path: Path, *rows: tuple[Any, Any, Any]) -> Path:
    connection = apsw.Connection(str(path))
    """A table that takes anything, and calls itself ours."""
    connection.execute("CREATE TABLE event (idx, run, seq, leaf, body)")
    for index, leaf, body in rows:
        connection.execute("INSERT INTO event VALUES (?, 'r', 1, ?, ?)", (index, leaf, body))
    connection.execute("PRAGMA writable_schema = ON").fetchall()
    ours = sql.SCHEMA[sql.SCHEMA.index("CREATE TABLE event") :].partition(";")[0]
    plain = ours.replace("PRIMARY KEY", "").replace(",\n    UNIQUE (run, seq)", "")
    connection.execute("UPDATE sqlite_schema SET sql = ?", (plain,))
    monkey.setattr(logs, "_table", lambda: plain)
    connection.close()
    return path


@pytest.mark.parametrize(
    "row",
    [
        (0, None, b"{}"),
        (0, merkle.leaf_hash(b"{}"), None),
        (0, merkle.leaf_hash(b"{}"), "{}"),
        (0, 32, b"{}"),
        (0, merkle.leaf_hash(b"{}"), 1 << 50),
        ("none", merkle.leaf_hash(b"{}"), b"{}"),
        (None, merkle.leaf_hash(b"{}"), b"{}"),
        (0.5, merkle.leaf_hash(b"{}"), b"{}"),
    ],
)
def test_a_hostile_file_that_is_given_as_a_journal_is_a_problem_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: tuple[Any, Any, Any]
) -> None:
    path = _evidence(monkeypatch, tmp_path / "journal.db", row)
    report = logs.check_log(logs.entries_of(path), Anchors((), ()))
    assert not report.ok and report.problems


def test_a_journal_whose_events_are_made_up_as_they_are_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "CREATE VIEW event (idx, run, seq, leaf, body) AS WITH RECURSIVE n(i) AS (SELECT 0 UNION"
        " ALL SELECT i + 1 FROM n) SELECT i, 'r', i, zeroblob(32), zeroblob(9) FROM n"
    )
    connection.close()
    with pytest.raises(StoreDamaged, match="no log"):
        logs.check_log(logs.entries_of(path), Anchors((), ()))


def test_a_line_of_an_export_has_a_bound(tmp_path: Path) -> None:
    from ring0 import limits

    (tmp_path / logs.LOG).write_bytes(b"x" * (limits.LOG_LINE_SIZE_BYTES_MAX + 2) + b"\n")
    report = logs.check_log(logs.entries_of(tmp_path), Anchors((), ()))
    assert not report.ok and "too long" in report.problems[0]


@pytest.mark.parametrize(
    "column, value", [("body", "{}"), ("leaf", 7), ("run", b"r"), ("seq", "x")]
)
async def test_values_of_no_kind_that_ring0_writes_are_a_problem_and_no_traceback(
    tmp_path: Path, column: str, value: Any
) -> None:
    home = tmp_path / "home"
    await ran(home, "one")
    with apsw.Connection(str(home / "journal.db")) as thief:
        schema = dict(thief.execute("SELECT name, sql FROM sqlite_schema").fetchall())
        thief.execute("DROP TRIGGER event_is_kept")
        thief.execute("PRAGMA writable_schema = ON").fetchall()
        loose = schema["event"].replace(" STRICT", "").replace(" TEXT", "").replace(" BLOB", "")
        loose = loose.replace(" INTEGER NOT NULL", "").replace("CHECK (length(leaf) = 32)", "")
        thief.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'event'", (loose,))
    with apsw.Connection(str(home / "journal.db")) as thief:
        thief.execute(f"UPDATE event SET {column} = ? WHERE idx = 3", (value,))
        thief.execute("PRAGMA writable_schema = ON").fetchall()
        thief.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'event'", (schema["event"],))
        thief.execute(schema["event_is_kept"])
    report = await verified(home)
    assert not report.ok and report.problems


async def test_what_is_restored_on_another_machine_goes_on_under_a_name_of_its_own(
    tmp_path: Path,
) -> None:
    from ring0.kernel.operating import backing, restoring
    from ring0.runtime import Runtime

    home, kept = tmp_path / "home", tmp_path / "kept"
    config = f'[[checkpoints]]\nfile = "{kept}"\n'
    async with ring_at(home, config) as ring:
        await ring.run(clerk, "one")
        await ring.kernel.anchoring.anchor()
        await backing.back_up(ring.kernel, tmp_path / "backup", keys=False, by="ann")
        await ring.run(clerk, "two")
    other = tmp_path / "other"
    done = await restoring.restore(other, tmp_path / "backup", Runtime(), by="ann")
    assert done.log.endswith("/2")
    await ran(other, "three", config=config)
    assert newest_note(other).startswith(done.log)


# --- witnesses ------------------------------------------------------------------------------------


async def test_each_witness_that_signed_stands_in_the_newest_checkpoint_and_stays_there(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with place() as one, place() as two:
        two.key = two.key.__class__(name="other.example/w", kind=4, public=two.key.public)
        tables = [witness(at).removeprefix(PRIVATE) for at in (one, two)]
        async with ring_at(home, PRIVATE + "".join(tables)) as ring:
            anchoring = ring.kernel.anchoring
            await anchoring.anchor()
            pushing = anchoring.pushing
            await until(lambda: all(map(pushing._has_newest, pushing._places)))
            for _ in range(2):
                assert all(at.key.name in newest_note(home) for at in (one, two))
                await anchoring.anchor()  # Nothing has happened since: it is the same one.
