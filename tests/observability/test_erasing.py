"""A run's values are erased for good, and every proof stands as it stood."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from anchored_world import clerk, keys_of, ran, ring_at, verified
from msgspec.structs import replace

from ring0.errors import InvalidInput, StoreDamaged
from ring0.kernel.operating.erasing import erase
from ring0.observability.proof import checkpoints, proofs
from ring0.observability.proof.anchors import newest_note
from ring0.observability.proof.checkpoints import Receipt
from ring0.observability.proof.tiles import Tiles
from ring0.store import address
from ring0.types import Scope

SECRET = "the patient is called Zebedee Quux"


async def test_erasing_a_payload_leaves_every_proof_valid(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await ran(home, "before", SECRET)
    note, keys = newest_note(home), tuple(await keys_of(home))
    async with ring_at(home) as ring:
        store = ring.kernel.store
        (row,) = [run for run in await store.runs() if await said(ring, run.task) == SECRET]
        made = []
        size = checkpoints.read_text(note.rpartition("\n\n")[0] + "\n").size
        for index, _, _, _, body in store.stored(row.id):
            steps = proofs.inclusion(Tiles(store.leaves).nodes, index, size)
            made.append((Receipt(index=index, proof=tuple(steps), note=note), body))
        (done,) = await erase(ring.kernel, [row.id], by="ann", note="asked for")
        assert done.values >= 2 and done.records >= 1 and done.wiped
        with pytest.raises(StoreDamaged):
            await store.blob(row.task)
    for receipt, body in made:
        checkpoints.check_receipt(receipt, body, keys)
    report = await verified(home, keys=keys)
    assert report.ok, report.problems
    assert report.signed == report.events
    old = await verified(home, [note], keys)
    assert old.ok and old.signed == size, "what was signed before holds too"


async def said(ring, where: str) -> str:  # type: ignore[no-untyped-def]
    try:
        return (await ring.kernel.store.blob(where)).decode()
    except StoreDamaged:
        return ""


async def test_what_was_erased_is_nowhere_in_the_files_after_the_kernels_end(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with ring_at(home) as ring:
        for number in range(3):
            await ring.run(clerk, f"{number}: something else")
        run = await ring.start(clerk, SECRET)
        await ring.result(run.id)
        key = await ring.kernel.store.run_key(run.id)
        scope = Scope(tenant=run.tenant, principal=run.principal, agent=run.agent, run=None)
        of = replace(scope, run=run.id)
        assert any(SECRET in one.text for one in await ring.kernel.store.records(of))
        (erased,) = await erase(ring.kernel, [run.id], by="ann")
        assert erased.wiped and await ring.kernel.store.records(of) == []
        assert any("something" in one.text for one in await ring.kernel.store.records(scope))
        for path in home.rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), f"{path}: at work, too"
    for path in home.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            assert SECRET.encode() not in raw, path
            assert b"zebede" not in raw.lower(), f"{path}: not as a word of the index either"
            assert key not in raw, f"{path}: who has it could try what an address was of"
    assert address(key, SECRET.encode()) == run.task, "its address stands in the events"
    assert (await verified(home)).ok


async def test_a_run_that_goes_on_or_was_erased_is_not_erased_and_nothing_else_is(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with ring_at(home) as ring:
        done = await ring.start(clerk, "one")
        await ring.result(done.id)
        other = await ring.start(clerk, "two")
        await ring.result(other.id)
        await erase(ring.kernel, [done.id], by="ann")
        with pytest.raises(InvalidInput, match="was erased before"):
            await erase(ring.kernel, [other.id, done.id], by="ann")
        assert await said(ring, other.task) == "two"
    assert (await verified(home)).ok


async def test_a_value_that_comes_back_after_it_was_erased_is_found(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with ring_at(home) as ring:
        run = await ring.start(clerk, "one")
        await ring.result(run.id)
        await erase(ring.kernel, [run.id], by="ann")
    with apsw.Connection(str(home / "journal.db")) as thief:
        thief.execute("INSERT INTO blob VALUES (?, 0, ?)", (run.task, b"two"))
    report = await verified(home)
    assert not report.ok and "was erased, and is there" in report.problems[0]


async def test_a_value_that_is_gone_without_a_word_is_found_as_before(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with ring_at(home) as ring:
        run = await ring.start(clerk, "one")
        await ring.result(run.id)
    with apsw.Connection(str(home / "journal.db")) as thief:
        thief.execute("DELETE FROM blob WHERE address = ?", (run.task,))
    report = await verified(home)
    assert not report.ok and "which is gone" in report.problems[0]
