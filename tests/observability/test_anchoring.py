"""A kernel's journal is anchored: each end is signed, what was signed can't be taken back, and
checkpoints leave the machine."""

from __future__ import annotations

import base64
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import apsw
import pytest
from anchored_world import clerk, keep, keys_of, put_back, ran, ring_at, verified

from ring0.errors import StoreDamaged
from ring0.observability.proof import anchors
from ring0.observability.proof.anchors import begin_generation, newest_note, read_notes
from ring0.observability.proof.checkpoints import read_text
from ring0.observability.proof.signer import UID
from ring0.store import merkle
from ring0.store.sqlite import sql


def size_of(note: str) -> int:
    return read_text(note.rpartition("\n\n")[0] + "\n").size


def events_of(home: Path) -> list[Any]:
    connection = apsw.Connection(str(home / "journal.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return list(connection.execute(sql.ALL_EVENTS))
    finally:
        connection.close()


async def test_the_end_of_every_kernel_is_signed_to_its_last_event(tmp_path: Path) -> None:
    for task in ("one", "two"):
        await ran(tmp_path / "home", task)
        report = await verified(tmp_path / "home", keys=tuple(await keys_of(tmp_path / "home")))
        assert report.ok and report.signed == report.events > 5
    assert len(await keys_of(tmp_path / "home")) == 1


async def test_the_signer_has_a_uid_and_a_folder_of_its_own_where_root_starts_it(
    tmp_path: Path,
) -> None:
    async with ring_at(tmp_path / "home") as ring:
        await ring.kernel.anchoring.anchor()
        own = UID if os.geteuid() == 0 else os.geteuid()
        assert ring.kernel.anchoring.uid == own
    folder = tmp_path / "home" / "signer"
    assert folder.stat().st_uid == own and folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "state").stat().st_mode & 0o777 == 0o600


async def test_the_signers_key_is_nowhere_but_in_its_folder(tmp_path: Path) -> None:
    await ran(tmp_path / "home", "one")
    state = anchors.read_state(tmp_path / "home")
    assert state is not None
    for path in (tmp_path / "home").iterdir():
        if path.is_file():
            raw = path.read_bytes()
            assert state.seed not in raw and base64.b64encode(state.seed) not in raw


async def test_at_boot_a_log_shorter_than_its_anchor_opens_read_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await ran(home, "one")
    keep(home, tmp_path / "old")
    await ran(home, "two")
    put_back(home, tmp_path / "old")
    before = events_of(home)
    with pytest.raises(StoreDamaged, match="shorter than its anchor"):
        await ran(home, "three")
    assert events_of(home) == before, "nothing was written"
    report = await verified(home)
    assert not report.ok and "cut short" in report.problems[0]
    assert report.events > 0, "it is read all the same"


async def test_another_journal_of_the_same_length_is_refused_at_boot(tmp_path: Path) -> None:
    for name in ("home", "other"):
        await ran(tmp_path / name, "one")
    keep(tmp_path / "other", tmp_path / "kept")
    put_back(tmp_path / "home", tmp_path / "kept")
    with pytest.raises(StoreDamaged, match="not the one of which"):
        await ran(tmp_path / "home", "two")


async def test_a_folder_that_was_put_back_whole_is_found_by_the_file_elsewhere(
    tmp_path: Path,
) -> None:
    home, config = tmp_path / "home", f'[[checkpoints]]\nfile = "{tmp_path / "kept"}"\n'
    await ran(home, "one", config=config)
    shutil.copytree(home, tmp_path / "old")
    await ran(home, "two")
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "old", home)
    assert (await verified(home)).ok, "it agrees with itself, its own checkpoint too"
    with pytest.raises(StoreDamaged, match="shorter than its anchor"):
        await ran(home, "three")
    keys = tuple(await keys_of(home))
    report = await verified(home, read_notes(tmp_path / "kept"), keys)
    assert not report.ok and "cut short" in report.problems[0]


async def test_a_history_rewritten_under_the_kernel_is_not_signed_and_ends_the_checkpoints(
    tmp_path: Path,
) -> None:
    home, said = tmp_path / "home", []
    async with ring_at(home) as ring:
        anchoring = ring.kernel.anchoring
        anchoring.say = said.append
        await anchoring.anchor()
        signed = anchoring.signed.size
        with apsw.Connection(str(home / "journal.db")) as thief:
            thief.execute("DROP TRIGGER event_is_kept")
            body = b'{"run":"kernel","seq":1}'
            thief.execute(
                "UPDATE event SET body = ?, leaf = ? WHERE idx = 2", (body, merkle.leaf_hash(body))
            )
            tree = merkle.Tree()
            for (leaf,) in thief.execute(sql.LEAVES):
                tree.append(leaf)
            row = (tree.size, b"".join(tree.peaks), 3)
            thief.execute(sql.MOVE_TREE, row)
        with pytest.raises(StoreDamaged, match="not the one of which"):
            await anchoring.anchor()
        assert size_of(newest_note(home)) == signed


async def test_a_signer_that_was_killed_is_started_again_and_runs_go_on(tmp_path: Path) -> None:
    async with ring_at(tmp_path / "home") as ring:
        anchoring = ring.kernel.anchoring
        await anchoring.anchor()
        process = anchoring._link._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert await ring.run(clerk, "one") == "did one"
    report = await verified(tmp_path / "home")
    assert report.ok and report.signed == report.events


async def test_every_256_events_a_checkpoint_is_signed_without_waiting_for_the_second(
    tmp_path: Path,
) -> None:
    async with ring_at(tmp_path / "home") as ring:
        anchoring, runtime = ring.kernel.anchoring, ring.kernel.runtime
        while not anchoring.signed.size:
            await runtime.sleep(0.01)
        for number in range(60):
            await ring.run(clerk, f"{number}")
        size = (await ring.kernel.store.head()).size
        begun = runtime.monotonic_us()
        while anchoring.signed.size < size and runtime.monotonic_us() - begun < 5_000_000:
            await runtime.sleep(0.01)
        assert anchoring.signed.size >= size


# --- keys -----------------------------------------------------------------------------------------


async def test_after_two_changes_of_the_key_the_first_one_still_proves_all_of_it(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    await ran(home, "one")
    for number in range(2):
        async with ring_at(home) as ring:
            await ring.kernel.anchoring.rotate("ann")
            await ring.run(clerk, f"{number}")
    keys = await keys_of(home)
    assert len(set(map(str, keys))) == 3
    for key in keys[:1]:
        report = await verified(home, keys=(key,))
        assert report.ok and report.signed == report.events
    stranger = keys[0].__class__(name=keys[0].name, kind=keys[0].kind, public=bytes(32))
    assert not (await verified(home, keys=(stranger,))).ok


async def test_a_key_that_the_journal_names_but_no_anchor_vouches_for_is_not_trusted(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with ring_at(home) as ring:
        await ring.kernel.anchoring.rotate("ann")
    keys = await keys_of(home)
    (home / anchors.HANDOVERS).unlink()
    report = await verified(home, keys=(keys[0],))
    assert not report.ok and "No key that is trusted" in report.problems[0]


async def test_a_restored_journal_goes_on_under_a_name_of_its_own(tmp_path: Path) -> None:
    home, config = tmp_path / "home", f'[[checkpoints]]\nfile = "{tmp_path / "kept"}"\n'
    await ran(home, "one", config=config)
    keep(home, tmp_path / "old")
    note = newest_note(home)
    await ran(home, "two")
    put_back(home, tmp_path / "old")
    with pytest.raises(StoreDamaged, match="shorter than its anchor"):
        await ran(home, "three")
    name = begin_generation(home)
    assert name.endswith("/2")
    await ran(home, "three")
    assert newest_note(home).startswith(f"{name}\n")
    assert begin_generation(home) == name[:-1] + "3"
    keys = await keys_of(home)
    assert [key.name for key in keys] == [name[:-2], name]
    report = await verified(home, [note], (keys[0],))
    assert report.signed == size_of(note), "what was signed before still holds of what is there"


# --- places ---------------------------------------------------------------------------------------


async def test_a_file_that_can_not_be_written_is_said_once_and_holds_nothing_up(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    config = '[[checkpoints]]\nfile = "/proc/nowhere/kept"\n'
    async with ring_at(tmp_path / "home", config) as ring:
        ring.kernel.anchoring.say = said.append
        await ring.kernel.anchoring.anchor()
        assert await ring.run(clerk, "one") == "did one"
        await ring.kernel.anchoring.anchor()
        await ring.kernel.runtime.sleep(0.1)
        assert ring.kernel.anchoring.pushing.failing
    assert sum("is tried again" in line for line in said) == 1


async def test_every_checkpoint_of_a_file_holds_and_the_file_only_grows(tmp_path: Path) -> None:
    home, kept = tmp_path / "home", tmp_path / "kept"
    config = f'[[checkpoints]]\nfile = "{kept}"\n'
    raw = b""
    for task in ("one", "two", "three"):
        await ran(home, task, config=config)
        assert kept.read_bytes().startswith(raw) and len(kept.read_bytes()) > len(raw)
        raw = kept.read_bytes()
    report = await verified(home, read_notes(kept), tuple(await keys_of(home)))
    assert report.ok and report.signed == report.events
