"""A run's files in a sandbox's folder and back: what a program did is what differs afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_world import Doing, World, world

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached, ToolFailed
from ring0.runtime import Runtime
from ring0.tools.driver import Result
from ring0.tools.sandbox.beneath import Beneath
from ring0.tools.workspace.inside import Collected, Laid, LaidOut, collect, lay_out
from ring0.types import CallState, Confidentiality, Effect, Integrity, Label

MADE = Label(integrity=Integrity.UNTRUSTED, sources=("py.run@r/0/1",))


class Desk:
    """A run, and a folder in the place of a sandbox's /work."""

    def __init__(self, here: World, folder: Path) -> None:
        self.world = here
        self.folder = folder
        self.beneath = Beneath(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        self.laid = LaidOut()

    @property
    def workspace(self) -> Any:
        return self.world.run.workspace

    async def write(self, path: str, text: str) -> None:
        outcome = await self.world.call("files.write", {"path": path, "text": text})
        assert outcome.state is CallState.OK, outcome

    async def lay_out(self) -> None:
        self.laid = await lay_out(self.workspace, self.beneath, Runtime(), self.laid)

    async def collect(self) -> Collected:
        return await collect(self.workspace, self.beneath, self.laid, Runtime(), MADE)

    async def changes(self) -> dict[str, bytes | None]:
        return {change.path: change.value for change in (await self.collect()).files}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    (tmp_path / "work").mkdir()
    async with world(tmp_path / "home", tools={"files": {"use": "files"}}) as here:
        made = Desk(here, tmp_path / "work")
        yield made
        made.beneath.close()


async def test_the_files_are_there_and_what_differs_afterwards_is_what_was_changed(
    desk: Desk,
) -> None:
    for name in ("same", "new", "gone", "deep/er"):
        await desk.write(f"{name}.txt", name)
    await desk.lay_out()
    assert (desk.folder / "deep/er.txt").read_text() == "deep/er"
    assert await desk.changes() == {}
    (desk.folder / "new.txt").write_text("newer")
    (desk.folder / "gone.txt").unlink()
    (desk.folder / "made").mkdir()
    (desk.folder / "made/by.bin").write_bytes(b"\0\xff")
    os.utime(desk.folder / "same.txt", (0, 0))
    assert await desk.changes() == {
        "gone.txt": None, "made/by.bin": b"\0\xff", "new.txt": b"newer"
    }  # fmt: skip


async def test_a_change_that_keeps_size_and_time_is_found(desk: Desk) -> None:
    await desk.write("a", "12345")
    await desk.lay_out()
    was = (desk.folder / "a").stat()
    (desk.folder / "a").write_text("12354")
    os.utime(desk.folder / "a", ns=(was.st_atime_ns, was.st_mtime_ns))
    assert await desk.changes() == {"a": b"12354"}


async def test_no_exec_bit_and_no_mode_is_kept(desk: Desk) -> None:
    await desk.write("run.sh", "echo")
    await desk.lay_out()
    assert (desk.folder / "run.sh").stat().st_mode & 0o7777 == 0o600
    (desk.folder / "run.sh").chmod(0o755)
    assert await desk.changes() == {}


async def test_only_regular_files_are_taken_and_all_else_is_named(desk: Desk) -> None:
    await desk.write("link", "was a file")
    await desk.write("folder/in.txt", "beneath")
    await desk.lay_out()
    (desk.folder / "link").unlink()
    (desk.folder / "link").symlink_to("/etc/passwd")
    (desk.folder / "folder/in.txt").unlink()
    (desk.folder / "folder").rmdir()
    (desk.folder / "folder").symlink_to("/etc")
    os.mkfifo(desk.folder / "pipe")
    (desk.folder / "one").write_text("x")
    os.link(desk.folder / "one", desk.folder / "two")
    collected = await desk.collect()
    assert [change.path for change in collected.files] == ["one"]
    assert [tuple(left) for left in collected.left_out] == [
        ("folder", "a symbolic link"),
        ("link", "a symbolic link"),
        ("pipe", "a pipe"),
        ("two", "another name of 'one'"),
    ]


STRANGE = [
    b"back\\slash",
    b"\xff\xfe",
    b"line\nbreak",
    b"\x1b[2J",
    "\u202etxt.exe".encode(),
    b"~home",
    b"a%2fb",
    "\uff0e\uff0e".encode(),
    b"/".join([b"x" * 200] * 3),
]


@pytest.mark.parametrize("name", STRANGE)
async def test_a_path_that_a_workspace_cannot_have_is_left_out(desk: Desk, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(desk.folder) + b"/" + name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("hostile")
    (desk.folder / "fine.txt").write_text("fine")
    collected = await desk.collect()
    assert [change.path for change in collected.files] == ["fine.txt"]
    assert [os.fsencode(left.path) for left in collected.left_out] == [name]


async def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(desk.folder / "big", "wb") as file:
        file.truncate(limits.WORKSPACE_FILE_SIZE_BYTES_MAX + 1)
    monkeypatch.setattr(desk.beneath, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(LimitReached, match="big"):
        await desk.collect()


async def test_the_largest_file_that_fits_comes_back_whole_and_is_undone(desk: Desk) -> None:
    content = os.urandom(1024) * (limits.WORKSPACE_FILE_SIZE_BYTES_MAX // 1024)

    async def program(args: Any, context: Any) -> Result:
        (desk.folder / "big").write_bytes(content)
        collected = await desk.collect()
        return Result(value=1, label=MADE, files=collected.files, undo=collected.undo)

    await _call(desk, program)
    _, stored = await desk.workspace.read("big")
    assert stored == content
    await desk.write("big", "small")  # The evidence of this names 16 MiB, and holds none of them.
    undone = await desk.world.kernel.undo(desk.world.run.id, by="alice")
    assert undone.state == "done"
    assert await desk.workspace.list() == []


async def test_more_files_or_bytes_than_a_workspace_holds_are_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKSPACE_FILES_MAX", 3)
    monkeypatch.setattr(limits, "WORKSPACE_SIZE_BYTES_MAX", 100)
    for number in range(3):
        (desk.folder / f"{number}").write_bytes(b"x" * 33)
    assert len(await desk.changes()) == 3
    (desk.folder / "0").write_bytes(b"x" * 35)
    with pytest.raises(LimitReached, match="101 bytes"):
        await desk.collect()
    (desk.folder / "0").write_bytes(b"")
    (desk.folder / "3").write_bytes(b"")
    with pytest.raises(LimitReached, match="4 files"):
        await desk.collect()


async def test_what_another_call_wrote_meanwhile_is_not_destroyed(desk: Desk) -> None:
    await desk.write("a", "one")
    await desk.lay_out()
    (desk.folder / "a").write_text("mine")
    await desk.write("a", "theirs")
    with pytest.raises(ToolFailed, match="another call"):
        await desk.collect()
    (desk.folder / "a").write_text("one")
    (desk.folder / "b").write_text("mine")
    assert await desk.changes() == {"b": b"mine"}, "one that it left alone is no conflict"
    await desk.write("b", "theirs")
    with pytest.raises(ToolFailed, match="another call"):
        await desk.collect()


async def test_a_workspace_that_is_no_tree_of_files_is_refused_with_the_path(desk: Desk) -> None:
    await desk.write("a", "file")
    await desk.write("a/b", "beneath a file")
    with pytest.raises(CallInvalid, match="'a/b'"):
        await desk.lay_out()


async def test_the_folder_of_the_sandbox_itself_is_never_part_of_the_workspace(desk: Desk) -> None:
    await desk.write(".ring0/egress.pem", "forged by the agent")
    await desk.lay_out()
    assert not (desk.folder / ".ring0").exists()
    (desk.folder / ".ring0").mkdir()
    (desk.folder / ".ring0/egress.pem").write_text("ours")
    (desk.folder / ".ring0/link").symlink_to("/")
    collected = await desk.collect()
    assert (collected.files, collected.left_out) == ((), ())


async def test_what_a_program_could_read_taints_what_it_made(desk: Desk) -> None:
    secret = Label(integrity=Integrity.UNTRUSTED, confidentiality=Confidentiality.SECRET)

    async def program(args: Any, context: Any) -> Result:
        (desk.folder / "key").write_text("s")
        collected = await collect(desk.workspace, desk.beneath, desk.laid, Runtime(), secret)
        return Result(value=1, label=MADE, files=collected.files)

    assert desk.laid.label == Label(integrity=Integrity.USER)
    await _call(desk, program)
    await desk.lay_out()
    assert desk.laid.label.confidentiality is Confidentiality.SECRET
    assert desk.laid.label.integrity is Integrity.UNTRUSTED


async def test_undo_puts_back_all_files_of_a_call_or_none(desk: Desk) -> None:
    for name in ("changed", "removed", "same"):
        await desk.write(name, name)
    await desk.lay_out()
    (desk.folder / "changed").write_text("anew")
    (desk.folder / "removed").unlink()
    (desk.folder / "made").write_text("made")

    async def program(args: Any, context: Any) -> Result:
        collected = await desk.collect()
        return Result(value=1, label=MADE, files=collected.files, undo=collected.undo)

    call = await _call(desk, program)
    assert await _contents(desk) == {"changed": "anew", "made": "made", "same": "same"}
    await desk.write("made", "changed since")
    undo = desk.world.kernel.undo
    assert (await undo(desk.world.run.id, by="alice", only=call)).state == "failed"
    assert await _contents(desk) == {"changed": "anew", "made": "changed since", "same": "same"}
    await desk.write("made", "made")
    assert (await undo(desk.world.run.id, by="alice", only=call)).state == "done"
    assert await _contents(desk) == {"changed": "changed", "removed": "removed", "same": "same"}
    rows = {file.path: file.label for file in await desk.workspace.list()}
    assert rows["changed"].integrity is Integrity.USER, "worth what it was worth before"


async def test_a_sandbox_that_lives_on_is_given_what_others_changed_and_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        await desk.write(name, name)
    await desk.lay_out()
    (desk.folder / "a").write_text("by the server")

    async def program(args: Any, context: Any) -> Result:
        collected = await desk.collect()
        desk.laid = collected.laid
        return Result(value=1, label=MADE, files=collected.files)

    await _call(desk, program)
    await desk.write("b", "by another call")
    await desk.world.call("files.remove", {"path": "c"})
    written = []
    write = desk.beneath.write
    monkeypatch.setattr(
        desk.beneath, "write", lambda path, data: (written.append(path), write(path, data))
    )
    await desk.lay_out()
    assert written == ["b"]
    assert sorted(os.listdir(desk.folder)) == ["a", "b"]
    assert await desk.changes() == {}
    (desk.folder / "a").write_text("again")
    assert await desk.changes() == {"a": b"again"}


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "e/f/g"])
TEXTS = st.text("xy", max_size=3)
DEEDS = st.lists(st.tuples(NAMES, st.none() | TEXTS), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=st.dictionaries(NAMES, TEXTS), deeds=DEEDS)
def test_whatever_a_program_does_its_files_are_taken_and_undo_puts_all_back(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, str], deeds: list[Any]
) -> None:
    asyncio.run(_do_and_undo(tmp_path_factory.mktemp("desk"), before, deeds))


async def _do_and_undo(folder: Path, before: dict[str, str], deeds: list[Any]) -> None:
    work = folder / "work"
    work.mkdir()
    async with world(folder / "home", tools={"files": {"use": "files"}}) as here:
        desk = Desk(here, work)
        for path, text in before.items():
            await desk.write(path, text)
        await desk.lay_out()
        expected = dict(before)
        for path, text in deeds:
            target = work / path
            if text is None:
                target.unlink(missing_ok=True)
                expected.pop(path, None)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                expected[path] = text

        async def program(args: Any, context: Any) -> Result:
            collected = await desk.collect()
            return Result(value=1, label=MADE, files=collected.files, undo=collected.undo)

        call = await _call(desk, program)
        assert await _contents(desk) == expected
        if expected != before:
            assert (await here.kernel.undo(here.run.id, by="alice", only=call)).state == "done"
        assert await _contents(desk) == before
        desk.beneath.close()


async def test_a_cancelled_collection_has_left_the_folder_alone_when_it_is_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        (desk.folder / f"{number:02}").write_text("x")
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    reads: list[str] = []
    busy: set[str] = set()
    real = desk.beneath.read

    def read(path: str, most: int) -> bytes:
        reads.append(path)
        busy.add(path)
        loop.call_soon_threadsafe(begun.set)
        os.stat(desk.folder)
        pause = 0
        while pause < 3_000_000:  # a slow read, which gives the loop its turns
            pause += 1
        busy.discard(path)
        return real(path, most)

    monkeypatch.setattr(desk.beneath, "read", read)
    collecting = asyncio.ensure_future(desk.collect())
    await begun.wait()
    collecting.cancel()
    asyncio.get_running_loop().call_soon(collecting.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await collecting
    assert collecting.cancelled() and not busy
    count = len(reads)
    assert count < 50
    await asyncio.sleep(0.2)
    assert len(reads) == count


async def _call(desk: Desk, act: Callable[..., Any]) -> str:

    desk.world.run.tools.pop("prog", None)
    desk.world.tool(Doing("prog", effect=Effect.IDEMPOTENT, act=act))
    outcome = await desk.world.call("prog")
    assert outcome.state is CallState.OK, outcome
    return str((await desk.world.calls())[-1].id)


async def _contents(desk: Desk) -> dict[str, str]:
    files = await desk.workspace.list()
    return {file.path: (await desk.workspace.content(file.blob)).decode() for file in files}


async def test_many_odd_names_do_not_stop_the_kernel(desk: Desk) -> None:
    label = Label(integrity=Integrity.UNTRUSTED)
    gone = {f"gone/{i}": Laid(blob="", digest="", label=label) for i in range(4_000)}
    (desk.folder / "odd").mkdir()
    for number in range(15_000):
        os.symlink("nowhere", desk.folder / f"odd/{number}")
    desk.laid = LaidOut(files=gone | {"odd/7/file": gone["gone/1"]})
    before = time.process_time()
    changes = await desk.changes()
    assert (
        time.process_time() - before < 2
    )  # each compared with each takes 5 s, and grows by the square
    assert len(changes) == 4_000 and "odd/7/file" not in changes


async def test_files_that_grow_while_they_are_read_are_no_more_than_a_workspace(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(64):
        (desk.folder / f"{number:02}").touch()
    look, held = desk.beneath.look, 0

    def then_grow() -> Any:
        found = look()
        for number in range(64):
            os.truncate(desk.folder / f"{number:02}", 8 * limits.MIB)
        return found

    def read(path: str, most: int) -> bytes:
        nonlocal held
        content = Beneath.read(desk.beneath, path, most)
        held += len(content)
        return content

    monkeypatch.setattr(desk.beneath, "look", then_grow)
    monkeypatch.setattr(desk.beneath, "read", read)
    with pytest.raises(LimitReached, match="grew"):
        await desk.collect()
    assert held <= limits.WORKSPACE_SIZE_BYTES_MAX + 8 * limits.MIB
