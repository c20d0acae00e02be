"""A back-up of a kernel at work, and what is void when it is put back."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from approvals_world import CAROL
from backup_world import backed_up, reads, restore
from kernel_world import Doing, world

from ring0 import limits
from ring0.errors import InvalidInput, KernelBusy, StoreDamaged
from ring0.identity import Vault
from ring0.kernel.boot import open_kernel
from ring0.kernel.operating import backing, storing
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.sqlite import HEAD, JOURNAL
from ring0.types import LIVE, ApprovalState, Budget, Effect, Login, RunState

ASKS = """
@id("looked-at") @reason("Somebody looks at it.")
forbid (principal, action in Action::"tool", resource) unless { context.approved };
"""


async def test_a_back_up_is_the_journal_of_one_moment_while_calls_go_on(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=5_000)) as w:
        w.tool(Doing("look"))
        going_on = True

        async def work() -> int:
            count = 0
            while going_on:
                assert (await w.call("look", {"text": f"call {count}"})).error is None
                count += 1
            return count

        working = asyncio.create_task(work())
        await asyncio.sleep(0.1)
        made = [await backed_up(w, tmp_path / f"backup-{number}") for number in range(3)]
        going_on = False
        assert await working > 20
        told = [e.body async for e in w.store.entries() if isinstance(e.body, ev.BackedUp)]
        assert [(one.size, one.root) for one in told] == [(one.size, one.root) for one in made]
        assert made[0].size < made[2].size
    for number, one in enumerate(made):
        folder = tmp_path / f"backup-{number}"
        report = await reads(folder, verify)
        assert report.ok and (report.events, report.root) == (one.size, one.root), report.problems
        assert report.anchored == one.size
        backing.read_list(folder)


async def test_a_back_up_holds_no_secret_in_the_clear_unless_keys_are_asked_for(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        Vault(w.home).set("crm", "hunter2-hunter2", 1)
        await backed_up(w, tmp_path / "plain")
        await backed_up(w, tmp_path / "keyed", keys=True)
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert "vault.json" in names and not {"vault.key", "identity.key", "signer"} & names
    assert all(
        b"hunter2" not in path.read_bytes()
        for path in (tmp_path / "plain").rglob("*")
        if path.is_file()
    )
    assert (tmp_path / "keyed" / "vault.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o700
    await restore(tmp_path / "new", tmp_path / "keyed")
    assert Vault(tmp_path / "new").value("crm") == "hunter2-hunter2"


@pytest.mark.parametrize("where", ["there", "home/inside", "missing/backup", "link"])
async def test_a_back_up_goes_to_a_new_folder_outside(tmp_path: Path, where: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    async with world(tmp_path / "home") as w:
        with pytest.raises(InvalidInput):
            await backed_up(w, tmp_path / where)
        with pytest.raises(InvalidInput, match="absolute"):
            await backed_up(w, Path("backup"))


async def test_what_was_open_in_a_back_up_is_void_when_it_is_put_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home, policy=ASKS) as w:
        w.tool(Doing("change", effect=Effect.ONCE))
        first = w.start("change", {"text": "a"})
        approval = await w.pending()
        login = Login(key="k" * 64, name="ann (x)", how="oidc", uid=1, begun_us=1, expires_us=2**60)
        await w.store.append(Write(run=ev.KERNEL, durable=True, events=[ev.LoggedIn(login=login)]))
        await backed_up(w, tmp_path / "backup")
        run, epoch = w.run.id, w.run.row.epoch
        fence, generation = await w.store.newest_fence(), await w.store.kill_generation()
        # What people said yes to since is not in it, and was used up in the world.
        await w.kernel.answer(approval.id, yes=True, by=CAROL)
        assert (await first).error is None
    done = await restore(home, tmp_path / "backup", replace=True)
    assert (done.runs, done.approvals, done.logins) == (1, 1, 1)

    async def look(store: Any) -> None:
        row = await store.run(run)
        assert row.state is RunState.CANCELLED and row.epoch > epoch
        assert (await store.approval(approval.id)).state is ApprovalState.REVOKED
        assert await store.logins() == [] and await store.runs(states=LIVE) == []
        assert await store.newest_fence() >= fence + limits.RESTORED_FENCES
        assert await store.kill_generation() >= generation + limits.RESTORED_GENERATIONS
        assert b"restored from a back-up" in await store.blob(row.result)
        report = await verify(store)
        assert report.ok, report.problems
        restored = [e.body async for e in store.entries() if isinstance(e.body, ev.Restored)]
        assert [(one.size, one.root) for one in restored] == [(done.size, done.root)]

    await reads(home, look)
    kernel = await open_kernel(home, Runtime(), {})
    try:
        assert await kernel.recover() == [], "nothing of it goes on"
    finally:
        await kernel.close()


async def test_an_effect_that_was_under_way_in_a_back_up_is_unknown_and_its_run_too(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        tool = w.tool(Doing("change", effect=Effect.ONCE))
        gate = tool.hold()
        changing = w.start("change", {"text": "a"})
        await tool.begun.wait()
        await backed_up(w, tmp_path / "backup")
        gate.set()
        assert (await changing).error is None
        run = w.run.id
    await restore(home, tmp_path / "backup", replace=True)
    row = await reads(home, lambda store: store.run(run))
    assert row.state is RunState.UNKNOWN, "nobody knows whether it happened: it is not run again"


async def test_a_journal_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        await backed_up(w, tmp_path / "backup")
        with pytest.raises(KernelBusy):
            await restore(home, tmp_path / "backup", replace=True)
    before = (home / JOURNAL).read_bytes()
    with pytest.raises(InvalidInput, match="holds a journal already"):
        await restore(home, tmp_path / "backup")
    assert (home / JOURNAL).read_bytes() == before
    done = await restore(home, tmp_path / "backup", replace=True)
    assert (Path(done.aside) / JOURNAL).read_bytes() == before
    assert (await reads(Path(done.aside), verify)).ok, "what was there is whole where it lies now"


async def test_archives_come_along_and_back(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("look"))
        await w.call("look", {"text": "x" * 3_000})
        (call,) = await w.calls()
        w.end.set_result(1)
        await w.kernel.runs.wait(w.run.id)
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        await backed_up(w, tmp_path / "backup")
        (w.home / "archive" / f"{w.run.id}.r0a").write_bytes(b"")
        with pytest.raises(StoreDamaged, match="not as it was written"):
            await backed_up(w, tmp_path / "second")
        assert not list(tmp_path.glob("second*"))
        run = w.run.id
    await restore(tmp_path / "new", tmp_path / "backup")
    kernel = await open_kernel(tmp_path / "new", Runtime(), {})
    try:
        await storing.unarchive(kernel, run, by="ann")
        assert b"xxx" in await kernel.store.blob(call.args)
    finally:
        await kernel.close()


def _edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return edit


def _list(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / backing.LIST
        said = msgspec.json.decode(path.read_bytes())
        change(said)
        path.write_bytes(msgspec.json.encode(said))

    return edit


def _outside(folder: Path) -> None:
    (folder / "evil").symlink_to("/etc/hostname")

    def change(said: dict[str, Any]) -> None:
        content = Path("/etc/hostname").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        said["files"]["evil"] = {"size_bytes": len(content), "digest": digest}

    _list(change)(folder)


def _beyond(folder: Path) -> None:
    """A file that is there, with the right digest, and above the back-up."""
    (folder.parent / "above").write_bytes(b"above")
    kept = msgspec.to_builtins(backing.kept(folder.parent / "above"))
    _list(lambda said: said["files"].update({"../above": kept}))(folder)


def _through_a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "x").write_bytes(b"elsewhere")
    (folder / "within").symlink_to(folder.parent / "elsewhere")
    kept = msgspec.to_builtins(backing.kept(folder / "within" / "x"))
    _list(lambda said: said["files"].update({"within/x": kept}))(folder)


def _forged(folder: Path) -> None:
    """Somebody has said yes in the copy, and made its list anew."""
    db = apsw.Connection(str(folder / JOURNAL))
    db.execute(
        "UPDATE tenant SET row = CAST(replace(CAST(row AS TEXT), 'local', 'lucky') AS BLOB)"
    ).fetchall()
    db.close()
    kept = backing.kept(folder / JOURNAL)
    _list(lambda said: said["files"].update({JOURNAL: msgspec.to_builtins(kept)}))(folder)


def _of_another(folder: Path) -> None:
    _list(lambda said: said.update(root="0" * 64))(folder)


@pytest.mark.parametrize(
    "change",
    [
        _edit(JOURNAL, lambda raw: raw[:-4_096]),
        _edit(JOURNAL, lambda raw: raw[:5_000] + b"\xff" + raw[5_001:]),
        _edit(HEAD, lambda raw: raw.replace(b"0", b"1", 1)),
        _edit(backing.LIST, lambda raw: raw[:-10]),
        _edit(backing.LIST, lambda raw: b"{}"),
        lambda folder: (folder / JOURNAL).unlink(),
        lambda folder: (folder / backing.LIST).unlink(),
        _list(lambda said: said["files"].pop(JOURNAL)),
        _list(lambda said: said.update(version=2)),
        _list(lambda said: said["files"].update({"../x": {"size_bytes": 1, "digest": "a"}})),
        _list(lambda said: said["files"].update({"/etc/x": {"size_bytes": 1, "digest": "a"}})),
        _outside,
        _beyond,
        _through_a_link,
        _forged,
        _of_another,
    ],
)
async def test_a_back_up_that_was_changed_is_not_put_back(
    tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        await backed_up(w, tmp_path / "backup")
    before = sorted(os.listdir(home)), (home / JOURNAL).read_bytes()
    change(tmp_path / "backup")
    with pytest.raises((StoreDamaged, InvalidInput)) as told:
        await restore(home, tmp_path / "backup", replace=True)
    assert told.value.todo
    assert (sorted(os.listdir(home)), (home / JOURNAL).read_bytes()) == before
