"""Values of ended runs go to files and come back; room goes back; tenants have quotas."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from archive_world import ended
from kernel_world import Doing, world
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import (
    InvalidInput,
    NotFound,
    StoreDamaged,
    StoreFailed,
    StoreFull,
    ValueArchived,
)
from ring0.kernel.operating import storing
from ring0.observability import verify
from ring0.store import Write, address, archiving
from ring0.store import events as ev
from ring0.store.lists import form_of, list_address
from ring0.types import CallState, Effect, Scope


async def values_of(w: Any) -> dict[str, bytes]:
    """All that the run's calls name."""
    found = {}
    for call in await w.store.calls(w.run.id):
        for where in filter(None, (call.args, call.outcome, call.decision)):
            found[where] = await w.store.blob(where)
    return found


async def test_an_ended_runs_values_lie_in_a_file_and_the_journal_is_whole_without_them(
    tmp_path: Path,
) -> None:
    async with ended(tmp_path / "home") as w:
        before = await values_of(w)
        (done,) = await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert done.values >= len(before) and not done.kept
        path = archiving.path_of(w.home, w.run.id)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_size < done.size_bytes / 5, "it is packed"
        for where in before:
            with pytest.raises(ValueArchived, match=f"archive of {w.run.id}") as told:
                await w.store.blob(where)
            assert "ring0 unarchive" in told.value.todo
        report = await verify(w.store)
        assert report.ok and report.archived == done.values, report.problems
        row = await w.row()
        assert (await w.store.blob(row.task)).decode() == "the task"
        assert b"all looked at" in await w.store.blob(row.result)
        events = [entry.body async for entry in w.store.entries(w.run.id)]
        assert isinstance(events[-1], ev.RunArchived) and events[-1].by == "ann"


async def test_what_comes_back_is_what_went(tmp_path: Path) -> None:
    async with ended(tmp_path / "home") as w:
        before, stored = await values_of(w), (await w.row()).stored_bytes
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert (await w.row()).stored_bytes < stored / 5
        await storing.unarchive(w.kernel, w.run.id, by="ann")
        assert await values_of(w) == before
        assert stored <= (await w.row()).stored_bytes < stored + 1_000
        assert w.store.storage.archives() == []
        assert not archiving.path_of(w.home, w.run.id).exists()
        report = await verify(w.store)
        assert report.ok and report.archived == 0, report.problems


async def test_a_tenant_is_not_charged_for_what_is_archived(tmp_path: Path) -> None:
    async with ended(tmp_path / "home") as w:
        tenant = (await w.row()).tenant
        before = (await w.store.tenant(tenant)).stored_bytes
        (done,) = await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        after = (await w.store.tenant(tenant)).stored_bytes
        assert before - done.size_bytes <= after < before - done.size_bytes + 1_000


async def test_a_run_that_goes_on_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        (done,) = await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert "goes on" in done.kept and w.store.storage.archives() == []
        assert await storing.archive(w.kernel, [], 0, by="ann") == []
        with pytest.raises(NotFound, match="There is no run"):
            await storing.archive(w.kernel, ["r-nobody"], 0, by="ann")


async def test_a_run_whose_effect_nobody_knows_the_end_of_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("change", effect=Effect.ONCE))
        tool.hold()
        changing = w.start("change", {"text": "a"})
        await tool.begun.wait()
        await w.kernel.kill("run", w.run.id, by="ann")
        await asyncio.gather(changing, return_exceptions=True)
        (done,) = await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert "ring0 settle" in done.kept


async def test_only_what_ended_long_enough_ago_is_archived_by_age(tmp_path: Path) -> None:
    async with ended(tmp_path / "home") as w:
        assert await storing.archive(w.kernel, [], 3_600_000_000, by="ann") == []
        (done,) = await storing.archive(w.kernel, [], 0, by="ann")
        assert done.run == w.run.id
        assert await storing.archive(w.kernel, [], 0, by="ann") == [], "it is there already"
        (again,) = await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert "already" in again.kept


async def test_memory_outlives_its_runs_archive(tmp_path: Path) -> None:
    async with ended(tmp_path / "home", calls=3) as w:
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        row = w.run.row
        scope = Scope(tenant=row.tenant, principal=row.principal, agent=row.agent, run=None)
        remembered = await w.store.records(scope)
        assert len(remembered) >= 4 and all(one.text for one in remembered), "task and results"
        report = await verify(w.store)
        assert report.ok, report.problems


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:-30],
        lambda raw: b"",
        lambda raw: raw + b"\0",
        lambda raw: raw[:100] + bytes([raw[100] ^ 1]) + raw[101:],
        lambda raw: b"ring0-archive-v9\n" + raw[17:],
    ],
)
async def test_an_archive_that_was_changed_brings_nothing_back(tmp_path: Path, change: Any) -> None:
    async with ended(tmp_path / "home") as w:
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        path = archiving.path_of(w.home, w.run.id)
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(StoreDamaged, match="can't be used"):
            await storing.unarchive(w.kernel, w.run.id, by="ann")
        assert len(w.store.storage.archives()) == 1 and (await verify(w.store)).ok


async def test_an_archive_that_is_a_link_or_gone_brings_nothing_back(tmp_path: Path) -> None:
    async with ended(tmp_path / "home") as w:
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        path = archiving.path_of(w.home, w.run.id)
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(StoreDamaged, match="gone"):
            await storing.unarchive(w.kernel, w.run.id, by="ann")
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StoreDamaged, match="can't be read"):
            await storing.unarchive(w.kernel, w.run.id, by="ann")
        path.unlink()
        (tmp_path / "elsewhere").rename(path)
        await storing.unarchive(w.kernel, w.run.id, by="ann")


def test_a_value_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    """A few kilobytes that would be sixteen megabytes, or sixteen gigabytes."""
    bomb = b"\0" * limits.BLOB_SIZE_BYTES_MAX
    path = tmp_path / "archive" / "r-1.r0a"
    where = address(b"k", bomb)
    with archiving.Writing(path) as writing:
        writing.add([(where, False, bomb)])
        writing.finish()
    raw = path.read_bytes()
    assert len(raw) < 100_000
    for said in (10, limits.BLOB_SIZE_BYTES_MAX + 1, 0):
        at = raw.index(bytes.fromhex(where)) + 36
        path.write_bytes(raw[:at] + said.to_bytes(4, "big") + raw[at + 4 :])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(StoreDamaged, match="can't be used"):
            list(archiving.read(path, digest, b"k"))


def test_a_value_is_not_unpacked_further_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "archive" / "r-1.r0a"
    with archiving.Writing(path) as writing:
        writing.add([(address(b"k", b"\0" * 1_000), False, b"\0" * 1_000)])
        writing.finish()
    raw = path.read_bytes()
    at = raw.index(address_bytes := bytes.fromhex(address(b"k", b"\0" * 1_000))) + 32
    bomb = zlib.compress(b"\0" * 2**28, 9)
    head = len(bomb).to_bytes(4, "big") + (1_000).to_bytes(4, "big")
    path.write_bytes(raw[:at] + head + bomb + b"\0" * 41)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(address_bytes) == 32
    tracemalloc.start()
    try:
        with pytest.raises(StoreDamaged, match="not as long as it says"):
            list(archiving.read(path, digest, b"k"))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


async def test_what_a_list_shares_with_the_task_stays_where_it_is(tmp_path: Path) -> None:
    async with ended(tmp_path / "home") as w:
        key, task = await w.store.run_key(w.run.id), (await w.row()).task
        other = address(key, b"said besides")
        form = form_of([task, other])
        (call, *_) = await w.store.calls(w.run.id)
        refused = replace(
            call, id=f"{w.run.id}/9/9", state=CallState.REFUSED, args=list_address(key, form)
        )
        blobs = {other: b"said besides", refused.args: form}
        await w.store.append(
            Write(run=w.run.id, durable=True, events=[ev.CallRefused(call=refused)], blobs=blobs)
        )
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert await w.store.blob(task) == b"the task"
        report = await verify(w.store)
        assert report.ok, report.problems
        await storing.unarchive(w.kernel, w.run.id, by="ann")
        assert await w.store.blob(refused.args) == b"the tasksaid besides"


def test_a_value_of_another_run_is_not_taken_from_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "archive" / "r-1.r0a"
    with archiving.Writing(path) as writing:
        writing.add([(address(b"another key", b"x"), False, b"x")])
        digest = writing.finish()
    with pytest.raises(StoreDamaged, match="not what was archived"):
        list(archiving.read(path, digest, b"k"))


@pytest.mark.parametrize("run", ["../r-1", "r-1/x", "", ".", "-x", "r\0", "r-1.r0a", "x" * 200])
def test_the_name_of_a_run_is_never_a_path(tmp_path: Path, run: str) -> None:
    with pytest.raises(InvalidInput):
        archiving.path_of(tmp_path, run)


async def test_a_crash_before_it_is_on_record_leaves_both(tmp_path: Path) -> None:
    async with ended(tmp_path / "home") as w:
        before = await values_of(w)
        with (
            mock.patch.object(w.store, "append", side_effect=StoreFailed("killed")),
            pytest.raises(StoreFailed, match="killed"),
        ):
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert archiving.path_of(w.home, w.run.id).exists() and await values_of(w) == before
        (done,) = await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert done.values, "the next time it takes the file's place"


async def test_what_comes_back_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with mock.patch.object(limits, "ARCHIVE_BATCH_SIZE_BYTES", 20_000):
        async with ended(tmp_path / "home") as w:
            before = await values_of(w)
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
            append, count = w.store.append, 0

            async def some(write: Any) -> Any:
                nonlocal count
                count += 1
                if count == 3:
                    raise StoreFailed("killed")
                return await append(write)

            with (
                mock.patch.object(w.store, "append", some),
                pytest.raises(StoreFailed, match="killed"),
            ):
                await storing.unarchive(w.kernel, w.run.id, by="ann")
            report = await verify(w.store)
            assert report.ok and report.archived > 0, report.problems
            await storing.unarchive(w.kernel, w.run.id, by="ann")
            assert await values_of(w) == before and w.store.storage.archives() == []


# --- a full disk -------------------------------------------------------------------------------


@pytest.fixture
def full_disk() -> Iterator[None]:
    real = os.statvfs

    def full(path: Any) -> Any:
        found = list(real(path))
        found[4] = found[3] = 10
        return os.statvfs_result(found)

    with mock.patch.object(os, "statvfs", full):
        yield


async def test_nothing_is_begun_on_a_disk_that_has_no_room_for_it(
    tmp_path: Path, full_disk: None
) -> None:
    async with ended(tmp_path / "home") as w:
        with pytest.raises(StoreFull, match="can't be archived"):
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert not (w.home / "archive").exists()
        with pytest.raises(StoreFull, match="given back"):
            await storing.give_back(w.kernel, by="ann")
        assert (await verify(w.store)).ok


async def test_a_file_that_the_disk_has_no_room_for_is_taken_away(tmp_path: Path) -> None:
    async with ended(tmp_path / "home") as w:
        before = await values_of(w)
        with (
            mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")),
            pytest.raises(StoreFull, match="no room"),
        ):
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert list((w.home / "archive").iterdir()) == []
        assert await values_of(w) == before
        assert (await w.store.append(journal_entry(w))) > 0, "the journal goes on"


def journal_entry(w: Any) -> Any:
    return Write(run=ev.KERNEL, durable=True, events=[ev.RoomGivenBack(pages=0, by="ann")])
