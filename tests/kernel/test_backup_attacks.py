"""Back-ups that a stranger made, restored twice, or into a folder that can't be changed."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from backup_world import backed_up, reads, restore
from kernel_world import world
from test_backup_void import open_things

import journals
from ring0.errors import StoreDamaged, StoreFailed
from ring0.kernel.operating import backing, restoring
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store.sqlite import HEAD, JOURNAL, open_store
from ring0.store.sqlite.copying import copy_journal


def listed(folder: Path, **more: Any) -> None:
    """Its list, as a stranger makes it: of all that is there now, and more."""
    said = msgspec.json.decode((folder / backing.LIST).read_bytes())
    there = [path for path in folder.rglob("*") if path.is_file() and path.name != backing.LIST]
    said["files"] = {str(path.relative_to(folder)): backing.kept(path) for path in there}
    said["files"].update(more)
    (folder / backing.LIST).write_bytes(msgspec.json.encode(said))


@pytest.mark.parametrize(
    "name",
    [
        "kernel.lock",
        "serve.lock",
        "signer/state",
        "journal.db-wal",
        "journal.checkpoint",
        "otlp.cursor",
        "restoring/x",
        "replaced-1/x",
        "fault.txt",
    ],
)
async def test_a_back_up_puts_nothing_in_the_place_of_what_is_a_kernels_own(
    tmp_path: Path, name: str
) -> None:
    home, folder = tmp_path / "home", tmp_path / "backup"
    async with world(home) as w:
        await backed_up(w, folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"a stranger's")
    listed(folder)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with pytest.raises(StoreDamaged, match="none of its files"):
        await restore(home, folder, replace=True)
    after = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    before.pop(home / "kernel.lock"), after.pop(home / "kernel.lock")
    assert after == before


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", ".", "./ring0.toml", "a//b"])
async def test_a_name_that_no_file_has_is_told_as_such(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "backup"
    async with world(tmp_path / "home") as w:
        await backed_up(w, folder)
    listed(folder, **{name: {"size_bytes": 0, "digest": "0" * 64}})
    with pytest.raises(StoreDamaged):
        await restore(tmp_path / "new", folder)


@pytest.mark.parametrize("name", [backing.LIST, "policy.cedar"])
async def test_nobody_waits_for_a_pipe_in_a_back_up(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "backup"
    async with world(tmp_path / "home") as w:
        await backed_up(w, folder)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    listed(folder, **{"policy.cedar": {"size_bytes": 0, "digest": empty}})
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(StoreDamaged):
        await asyncio.wait_for(restore(tmp_path / "new", folder), 5)


async def test_a_back_up_that_is_put_back_twice_gives_no_number_twice(tmp_path: Path) -> None:
    """What was given out after the first time is none of what is given out after the second."""
    folder = tmp_path / "backup"
    async with world(tmp_path / "home") as w:
        await backed_up(w, folder)
    given = []
    for name in ("first", "second"):
        await restore(tmp_path / name, folder)
        store = open_store(tmp_path / name, Runtime(), write=True)
        fence = await store.newest_fence() + 1
        await store.append(journals.queued("r-new"))
        await store.append(journals.locked("r-new", "table:x", fence))
        given.append((await store.newest_fence(), await store.kill_generation()))
        await store.close()
    assert given[1][0] > given[0][0] and given[1][1] > given[0][1]


async def test_a_process_of_a_run_that_had_just_ended_is_another_kernels(tmp_path: Path) -> None:
    """Else the kernel of the restored folder would look for it, and kill it."""
    before, folder = tmp_path / "before", tmp_path / "backup"
    before.mkdir()
    folder.mkdir()
    store = open_store(before, Runtime(), write=True)
    await open_things(store)
    await store.append(journals.queued("r-over"))
    await store.append(journals.moved("r-over", epoch=1))
    await store.append(journals.sandboxed("r-over", "s-over"))
    await store.append(journals.over("r-over", epoch=2))
    head, _ = copy_journal(before / JOURNAL, folder)
    await store.close()
    made = backing.Listed(made_us=1, size=head.size, root=head.root, files={})
    (folder / backing.LIST).write_bytes(msgspec.json.encode(made))
    listed(folder)
    await restore(tmp_path / "home", folder)
    assert await reads(tmp_path / "home", lambda store: store.sandboxes_alive()) == []


@pytest.mark.parametrize("stuck", ["ring0.toml", JOURNAL, "snapshots"])
async def test_a_folder_that_can_not_be_changed_is_as_it_was(tmp_path: Path, stuck: str) -> None:
    """As where one of its files is a mount of its own."""
    home, folder = tmp_path / "home", tmp_path / "backup"
    home.mkdir()
    (home / "ring0.toml").write_text("")
    async with world(home) as w:
        (home / "snapshots" / "x").mkdir(parents=True)
        (home / "snapshots" / "x" / "y").write_text("y")
        await backed_up(w, folder)
        size = (await w.store.head()).size
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if Path(source) == home / stuck:
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(source, target)

    before = sorted(os.listdir(home)), (home / JOURNAL).read_bytes(), (home / HEAD).read_bytes()
    with mock.patch.object(os, "rename", rename), pytest.raises(StoreFailed, match="busy"):
        await restore(home, folder, replace=True)
    after = sorted(os.listdir(home)), (home / JOURNAL).read_bytes(), (home / HEAD).read_bytes()
    assert after == before and not (home / restoring.STAGING).exists()
    report = await reads(home, verify)
    assert report.ok and report.events >= size
