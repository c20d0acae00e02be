"""Back-ups and restores on a full disk, and killed in the middle."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from backup_world import backed_up, reads, restore
from kernel_world import Doing, world

from ring0.errors import StoreDamaged, StoreFull
from ring0.kernel.operating import backing, restoring
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import events as ev
from ring0.store.sqlite import JOURNAL, open_store


def no_room(path: Any) -> Any:
    found = list(_statvfs(path))
    found[4] = found[3] = 1
    return os.statvfs_result(found)


_statvfs = os.statvfs


async def test_nothing_is_begun_where_there_is_no_room(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        with mock.patch.object(os, "statvfs", no_room), pytest.raises(StoreFull, match="no room"):
            await backed_up(w, tmp_path / "backup")
        assert not list(tmp_path.glob("backup*"))
        await backed_up(w, tmp_path / "backup")
    with mock.patch.object(os, "statvfs", no_room), pytest.raises(StoreFull, match="no room"):
        await restore(tmp_path / "new", tmp_path / "backup")
    assert not (tmp_path / "new" / JOURNAL).exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a small disk")
async def test_a_back_up_that_fills_its_disk_leaves_nothing_there(tmp_path: Path) -> None:
    """A real one: three megabytes, and a journal that seems to fit."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        async with world(tmp_path / "home") as w:
            w.tool(Doing("look"))
            for number in range(60):
                await w.call("look", {"text": f"{number}" + os.urandom(40_000).hex()})
            await w.store.flush()
            with (
                mock.patch.object(backing, "_check_room", lambda *_: None),
                pytest.raises(StoreFull, match="no room") as told,
            ):
                await backed_up(w, small / "backup")
            assert told.value.todo
            assert list(small.iterdir()) == []
            assert (await w.call("look", {"text": "on it goes"})).error is None
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("point", range(8))
def test_a_crash_while_it_is_put_back_leaves_a_whole_journal_or_a_refusal(
    tmp_path: Path, point: int
) -> None:
    """Killed before its n-th step in the folder: the old journal whole, the new one whole, or one
    that no kernel opens; and asking again puts it back."""
    home, folder = tmp_path / "home", tmp_path / "backup"

    async def begin() -> int:
        home.mkdir()
        (home / "ring0.toml").write_text("")
        async with world(home) as w:
            await backed_up(w, folder)
            return int((await w.store.head()).size)

    old = asyncio.run(begin())

    def body() -> None:
        _die_at(point, home)
        asyncio.run(restore(home, folder, replace=True))

    process = multiprocessing.get_context("fork").Process(target=body, daemon=True)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL or (process.exitcode == 0 and point > 5)

    async def look() -> None:
        try:
            store = open_store(home, Runtime(), write=True)
        except StoreDamaged as refused:
            assert refused.todo
        else:
            voided = [e.body async for e in store.entries() if isinstance(e.body, ev.Restored)]
            size = (await store.head()).size
            await store.close()
            assert size > old or voided, "an older journal stands there, and nothing is void"
        await restore(home, folder, replace=True)
        report = await reads(home, verify)
        assert report.ok, report.problems
        assert not (home / restoring.STAGING).exists()

    asyncio.run(look())


def _die_at(point: int, home: Path) -> None:
    steps = 0

    def counted(real: Any) -> Any:
        def step(source: Any, target: Any) -> Any:
            nonlocal steps
            if home in Path(target).parents:
                if steps == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                steps += 1
            return real(source, target)

        return step

    for name in ("rename", "replace", "link"):
        setattr(os, name, counted(getattr(os, name)))
