"""Archives on a disk that is really full, and files that a crash has left beside the journal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from kernel_world import Doing, world

from ring0.errors import InvalidInput, StoreFailed, StoreFull, ValueArchived
from ring0.kernel.operating import erasing, storing
from ring0.observability import verify
from ring0.store import archiving
from ring0.types import Budget

MOUNTED_MB = 48


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real one of its own, with room for the journal's reserve and a little more."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MOUNTED_MB}m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, stderr=-3).returncode:
        pytest.skip("only root mounts a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@asynccontextmanager
async def filled(home: Path, size_bytes: int) -> AsyncIterator[Any]:
    """A world whose run has ended, and left so many bytes that nothing packs."""
    async with world(home, budget=Budget(calls=1_000, cost_microusd=1_000)) as w:
        w.tool(Doing("look"))
        for _ in range(size_bytes // 200_000):
            # Its arguments are on record, and what was looked at by (`decision`): twice.
            assert (await w.call("look", {"text": os.urandom(50_000).hex()})).error is None
        w.end.set_result("all looked at")
        await w.kernel.runs.wait(w.run.id)
        await w.store.flush()
        yield w


async def test_an_archive_on_a_disk_that_is_too_full_is_refused_and_the_journal_goes_on(
    small_disk: Path,
) -> None:
    async with filled(small_disk / "home", 10_000_000) as w:
        with pytest.raises(StoreFull, match="can't be archived") as told:
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert "bytes are free" in told.value.what and told.value.todo
        await storing.quota(w.kernel, "local", 10**9, by="ann")
        report = await verify(w.store)
        assert report.ok and report.archived == 0, report.problems


async def test_a_disk_that_fills_in_the_middle_of_an_archive_keeps_the_journal_whole(
    small_disk: Path,
) -> None:
    async with filled(small_disk / "home", 6_000_000) as w:
        status = os.statvfs(small_disk)
        left = status.f_bavail * status.f_frsize
        (small_disk / "others").write_bytes(b"x" * (left - 300_000))
        with (
            mock.patch.object(storing, "_check_room", lambda *_: None),
            pytest.raises(StoreFull, match="no room"),
        ):
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert list((w.home / "archive").iterdir()) == [], "what it took is free again"
        (small_disk / "others").unlink()
        (done,) = await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert done.values
        assert (await verify(w.store)).ok


async def test_what_does_not_fit_stays_in_its_archive(small_disk: Path) -> None:
    async with filled(small_disk / "home", 4_000_000) as w:
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        status = os.statvfs(small_disk)
        left = status.f_bavail * status.f_frsize
        (small_disk / "others").write_bytes(b"x" * (left - 12_000_000))
        with pytest.raises(StoreFull, match="can't come back"):
            await storing.unarchive(w.kernel, w.run.id, by="ann")
        assert len(w.store.storage.archives()) == 1
        (small_disk / "others").unlink()
        await storing.unarchive(w.kernel, w.run.id, by="ann")
        assert w.store.storage.archives() == [] and (await verify(w.store)).ok


async def test_a_file_that_no_event_names_is_gone_with_the_next_archive(tmp_path: Path) -> None:
    """A crash between the file and its event: nobody who erases the run knows of that copy."""
    async with filled(tmp_path / "home", 400_000) as w:
        with (
            mock.patch.object(w.store, "append", side_effect=StoreFailed("killed")),
            pytest.raises(StoreFailed),
        ):
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        path = archiving.path_of(w.home, w.run.id)
        path.with_name(path.name + ".new").write_bytes(b"cut off")
        assert path.exists()
        assert await storing.archive(w.kernel, [], 3_600_000_000, by="ann") == []
        assert list((w.home / "archive").iterdir()) == []


async def test_archives_of_another_data_folder_in_the_same_place_stay(tmp_path: Path) -> None:
    """`archive` may be a link to a folder on another disk, and two may link to the same."""
    (tmp_path / "disk").mkdir()
    for name in ("one", "two"):
        async with filled(tmp_path / name, 400_000) as w:
            (w.home / "archive").symlink_to(tmp_path / "disk")
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
    found = sorted((tmp_path / "disk").iterdir())
    assert len(found) == 2 and all(path.stat().st_size for path in found)


async def test_what_is_erased_leaves_no_file_behind(tmp_path: Path) -> None:
    async with filled(tmp_path / "home", 400_000) as w:
        with (
            mock.patch.object(w.store, "append", side_effect=StoreFailed("killed")),
            pytest.raises(StoreFailed),
        ):
            await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        await erasing.erase(w.kernel, [w.run.id], by="ann")
        assert list((w.home / "archive").iterdir()) == []
        (told,) = await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        assert "erased" in told.kept
        assert (await verify(w.store)).ok


async def test_an_archived_run_is_not_forked(tmp_path: Path) -> None:
    async with filled(tmp_path / "home", 400_000) as w:
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        with pytest.raises(ValueArchived, match="archive of") as told:
            await w.kernel.forking.fork(w.run.id, 3, {}, by="ann")
        assert f"ring0 unarchive {w.run.id}" in told.value.todo


async def test_an_archived_run_is_not_erased_behind_its_archives_back(tmp_path: Path) -> None:
    async with filled(tmp_path / "home", 400_000) as w:
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        with pytest.raises(InvalidInput, match="in an archive"):
            await erasing.erase(w.kernel, [w.run.id], by="ann")
        assert archiving.path_of(w.home, w.run.id).exists()
        await storing.unarchive(w.kernel, w.run.id, by="ann")
        await erasing.erase(w.kernel, [w.run.id], by="ann")
