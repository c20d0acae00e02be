"""What a manifest can take from the host: the files beneath its folder, never what a link, a pipe
or a race would put in their place, and never more than there is room for.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.kernel.agent import agents, inputs
from ring0.kernel.agent.agents import Family
from ring0.types import AgentManifest, Integrity

Take = Callable[..., dict[str, bytes]]
SECRET = b"root:a-hash-of-the-host"


def code(folder: Path, *names: str) -> dict[str, bytes]:
    store = folder.parent / "home" / "snapshots"
    manifest = AgentManifest(name="a", code=names, folder=str(folder))
    taken = agents.snapshot(Family(manifest=manifest), store)
    assert taken.code is not None
    return {
        str(path.relative_to(taken.code)): path.read_bytes()
        for path in taken.code.rglob("*")
        if path.is_file()
    }


def copy(folder: Path, *names: str) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    manifest = AgentManifest(name="a", imports=names, folder=str(folder))
    deltas = inputs.copied(manifest, b"k" * 32, blobs, folder.parent / "home" / "snapshots")
    assert all(delta.label.integrity is Integrity.UNTRUSTED for delta in deltas)
    assert len({delta.path for delta in deltas}) == len(deltas)
    return {delta.path: blobs[delta.blob or ""] for delta in deltas}


@pytest.fixture(params=[code, copy], ids=["code", "copy"])
def take(request: pytest.FixtureRequest) -> Take:
    found: Take = request.param
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An agent's folder; beside it ring0's data folder, and a folder of the host's."""
    for name in ("agent/src/deep", "home/snapshots", "etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/shadow").write_bytes(SECRET)
    (tmp_path / "home/journal").write_bytes(SECRET)
    (tmp_path / "agent/src/a.py").write_bytes(b"a")
    (tmp_path / "agent/src/deep/b.py").write_bytes(b"b")
    return tmp_path / "agent"


@pytest.fixture(autouse=True)
def nothing_hangs_or_leaks() -> Iterator[None]:
    """A read that blocks for ever ends the test by an alarm; every descriptor is closed again."""

    def ring(*_: Any) -> None:
        raise AssertionError("it hangs")

    before = set(os.listdir("/proc/self/fd"))
    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 20)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def refused(take: Take, folder: Path, *names: str) -> ManifestInvalid:
    with pytest.raises(ManifestInvalid) as caught:
        take(folder, *names)
    assert caught.value.what and caught.value.why and caught.value.todo
    assert SECRET.decode() not in str(caught.value)
    return caught.value


WHOLE = {"src/a.py": b"a", "src/deep/b.py": b"b"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["src"], WHOLE),
        (["."], WHOLE),
        (["./src//deep/", "src/a.py"], WHOLE),
        (["src", "src", "src/a.py"], WHOLE),
        (["src/deep/b.py"], {"src/deep/b.py": b"b"}),
        ([], {}),
    ],
)
def test_files_and_folders_are_taken_once_each(
    take: Take, folder: Path, names: list[str], expected: dict[str, bytes]
) -> None:
    assert take(folder, *names) == expected


def test_the_entry_is_code_too(folder: Path) -> None:
    manifest = AgentManifest(name="a", entry="src/a.py:a", code=("src/a.py",), folder=str(folder))
    assert agents.code_files(manifest, folder.parent / "home/snapshots") == {"src/a.py": b"a"}


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["link/shadow", "src/link/shadow", "link/../src/a.py"])
def test_a_link_in_the_middle_of_a_path_is_refused(take: Take, folder: Path, name: str) -> None:
    (folder / "link").symlink_to(folder.parent / "etc")
    (folder / "src/link").symlink_to("../../etc")
    refused(take, folder, name)


def test_a_link_to_a_folder_within_is_refused_too(take: Take, folder: Path) -> None:
    (folder / "link").symlink_to("src")
    assert "a link" in refused(take, folder, "link/a.py").why


@pytest.mark.parametrize("target", ["../etc/shadow", "../etc", "src/a.py", "nowhere"])
def test_a_link_at_the_end_is_refused_where_named_and_left_out_of_a_folder(
    take: Take, folder: Path, target: str
) -> None:
    (folder / "link").symlink_to(target)
    assert "a link" in refused(take, folder, "link").why
    assert take(folder, ".") == WHOLE


@pytest.mark.parametrize("name", ["../etc/shadow", "src/../../etc/shadow", "..", "/etc/passwd"])
def test_no_path_leads_out(take: Take, folder: Path, name: str) -> None:
    refused(take, folder, name)


@pytest.mark.parametrize("name", ["missing", "src/missing", "src/a.py/b", "src/\0", "x" * 300])
def test_what_is_not_there_is_refused(take: Take, folder: Path, name: str) -> None:
    refused(take, folder, name)


def test_a_folder_of_the_manifest_that_is_gone_is_refused(take: Take, tmp_path: Path) -> None:
    refused(take, tmp_path / "gone", "a.py")


def swap_after_stat(
    monkeypatch: pytest.MonkeyPatch, name: str, swap: Callable[[], None]
) -> list[str]:
    """Runs `swap` when `name` has been judged by name, and is not open yet."""
    real, swapped = os.stat, list[str]()

    def watched(path: Any, **more: Any) -> os.stat_result:
        found = real(path, **more)
        if path == name and not swapped:
            swapped.append(name)
            swap()
        return found

    monkeypatch.setattr(os, "stat", watched)
    return swapped


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing"])
def test_a_file_that_is_swapped_after_it_was_listed_is_not_read(
    take: Take, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "src/a.py"

    def swap() -> None:
        path.unlink()
        match kind:
            case "link":
                path.symlink_to(folder.parent / "etc/shadow")
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()

    swapped = swap_after_stat(monkeypatch, "a.py", swap)
    assert take(folder, "src") == {"src/deep/b.py": b"b"}
    assert swapped
    monkeypatch.undo()
    path.rmdir() if kind == "folder" else path.unlink(missing_ok=True)
    path.write_bytes(b"a")
    swapped = swap_after_stat(monkeypatch, "a.py", swap)
    refused_when_folder_or_not(take, folder, kind)
    assert swapped


def refused_when_folder_or_not(take: Take, folder: Path, kind: str) -> None:
    error = refused(take, folder, "src/a.py")
    assert {"link": "a link", "pipe": "neither", "folder": "a folder", "nothing": "nothing"}[
        kind
    ] in error.why


def test_a_folder_that_is_swapped_for_a_link_is_not_entered(
    take: Take, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = folder / "src/deep"

    def swap() -> None:
        deep.rename(folder / "src/aside")
        deep.symlink_to(folder.parent / "etc")

    swapped = swap_after_stat(monkeypatch, "deep", swap)
    refused(take, folder, "src/deep/shadow")
    assert swapped
    deep.unlink()
    (folder / "src/aside").rename(deep)
    swapped = swap_after_stat(monkeypatch, "deep", swap)
    assert take(folder, "src") == {"src/a.py": b"a"}
    assert swapped


def test_a_folder_above_that_is_swapped_after_it_was_opened_changes_nothing(
    take: Take, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap() -> None:
        (folder / "src").rename(folder / "aside")
        (folder / "src").symlink_to(folder.parent / "etc")

    (folder.parent / "etc/a.py").write_bytes(SECRET)
    swapped = swap_after_stat(monkeypatch, "a.py", swap)
    assert take(folder, "src/a.py") == {"src/a.py": b"a"}
    assert swapped


# --- what is no file ------------------------------------------------------------------------------


def make(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    else:
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
        except PermissionError:
            pytest.skip("only root makes a device")


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_refused_where_named_and_left_out_of_a_folder(
    take: Take, folder: Path, kind: str
) -> None:
    make(folder / "src/odd", kind)
    assert "neither a file nor a folder" in refused(take, folder, "src/odd").why
    refused(take, folder, "src/odd/beneath")
    assert take(folder, ".") == WHOLE


def test_a_device_is_not_even_opened(
    take: Take, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder / "src/odd", "device")
    opened, real = [], os.open

    def watched(path: Any, *args: Any, **more: Any) -> int:
        opened.append(path)
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", watched)
    take(folder, "src")
    refused(take, folder, "src/odd")
    assert "a.py" in opened
    assert "odd" not in opened


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["src", "src/huge"])
def test_a_huge_file_is_refused_before_a_byte_is_read(
    take: Take, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "src/a.py").unlink()
    with open(folder / "src/huge", "wb") as file:
        file.truncate(1 << 40)

    def read(*_: Any) -> bytes:
        raise AssertionError("it reads")

    monkeypatch.setattr(os, "read", read)
    begun = time.monotonic()
    assert "too much" in refused(take, folder, name).what
    assert time.monotonic() - begun < 5


def test_a_file_that_grows_while_it_is_read_is_bounded(
    take: Take, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def endless(_: int, size: int) -> bytes:
        nonlocal asked
        asked += size
        return b"x" * size

    monkeypatch.setattr(os, "read", endless)
    assert "too much" in refused(take, folder, "src/a.py").what
    assert asked <= limits.SNAPSHOT_SIZE_BYTES_MAX + 1


@pytest.mark.parametrize("spare", [0, 1])
def test_there_is_a_bound_on_bytes_in_all(
    take: Take, folder: Path, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, size_bytes_max=1 + spare)
    if spare:
        assert take(folder, "src") == WHOLE
    else:
        refused(take, folder, "src")


@pytest.mark.parametrize("spare", [0, 1])
def test_there_is_a_bound_on_the_number_of_files(
    take: Take, folder: Path, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, files_max=1 + spare)
    if spare:
        assert take(folder, "src", "src/a.py") == WHOLE
    else:
        refused(take, folder, "src/a.py", "src/deep/b.py")


def shrink(monkeypatch: pytest.MonkeyPatch, **bounds: int) -> None:
    monkeypatch.setattr(agents, "_CODE", replace(agents._CODE, **bounds))
    monkeypatch.setattr(inputs, "_COPY", replace(inputs._COPY, **bounds))


def test_folders_have_a_bound_on_entries_and_depth(
    take: Take, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HOST_ENTRIES_MAX", 3)
    assert take(folder, "src") == WHOLE
    (folder / "src/link").symlink_to("nowhere")
    assert "too much" in refused(take, folder, "src").what
    monkeypatch.undo()
    (folder / "src" / "/".join("d" * (limits.HOST_FOLDERS_DEEP_MAX + 1))).mkdir(parents=True)
    assert "too much" in refused(take, folder, "src").what


# --- secrets, ring0's own, and what can't be read -------------------------------------------------


@pytest.mark.parametrize("name", sorted(agents.NEVER_READ))
@pytest.mark.parametrize("as_folder", [False, True])
def test_what_holds_secrets_is_refused_where_named_and_left_out_of_a_folder(
    take: Take, folder: Path, name: str, as_folder: bool
) -> None:
    path = folder / "src" / name
    if as_folder:
        path.mkdir()
        (path / "config").write_bytes(SECRET)
        refused(take, folder, f"src/{name}/config")
    else:
        path.write_bytes(SECRET)
    refused(take, folder, f"src/{name}")
    assert take(folder, ".") == WHOLE


@pytest.mark.parametrize("name", sorted(agents.LEFT_OUT))
def test_what_tools_leave_behind_is_left_out_of_a_folder_but_may_be_named(
    take: Take, folder: Path, name: str
) -> None:
    (folder / "src" / name).mkdir()
    (folder / "src" / name / "c").write_bytes(b"c")
    assert take(folder, "src") == WHOLE
    assert take(folder, f"src/{name}") == {f"src/{name}/c": b"c"}


def test_ring0s_data_folder_is_refused_where_named_and_left_out_of_a_folder(
    take: Take, folder: Path
) -> None:
    around = folder.parent
    for name in ("home", "home/journal", "home/snapshots"):
        why = refused_from(take, around, around / "home", name).why
        assert "data folder" in why
    found = taken_from(take, around, around / "home", ".")
    assert set(found) == {"agent/src/a.py", "agent/src/deep/b.py", "etc/shadow"}


@pytest.mark.parametrize("place", ["home", "home/snapshots", "home/snapshots/digest", "link"])
def test_an_agent_in_ring0s_data_folder_is_refused(take: Take, folder: Path, place: str) -> None:
    home = folder.parent / "home"
    (home / "snapshots/digest").mkdir()
    (home / "snapshots/digest/a.py").write_bytes(SECRET)
    (folder.parent / "link").symlink_to("home")
    for name in (".", "journal", "a.py"):
        assert "data folder" in refused_from(take, folder.parent / place, home, name).why


def test_a_folder_of_ones_own_in_there_may_hold_an_agent(take: Take, folder: Path) -> None:
    own = folder.parent / "home/world"
    folder.rename(own)
    assert taken_from(take, own, own.parent, "src") == WHOLE


def taken_from(take: Take, folder: Path, home: Path, *names: str) -> dict[str, bytes]:
    store = home / "snapshots"
    if take is code:
        manifest = AgentManifest(name="a", code=names, folder=str(folder))
        return agents.code_files(manifest, store)
    blobs: dict[str, bytes] = {}
    manifest = AgentManifest(name="a", imports=names, folder=str(folder))
    deltas = inputs.copied(manifest, b"k" * 32, blobs, store)
    return {delta.path: blobs[delta.blob or ""] for delta in deltas}


def refused_from(take: Take, folder: Path, home: Path, name: str) -> ManifestInvalid:
    return refused(lambda at, *names: taken_from(take, at, home, *names), folder, name)


@pytest.mark.parametrize("name", ["src", "src/a.py"])
@pytest.mark.parametrize("unreadable", ["a.py", "src", "deep"])
def test_what_cannot_be_read_is_a_clear_error(
    take: Take, folder: Path, name: str, unreadable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def guarded(path: Any, *args: Any, **more: Any) -> int:
        if path == unreadable:  # As the kernel answers; the tests may run as root.
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", guarded)
    if name == "src/a.py" and unreadable == "deep":
        assert take(folder, name) == {"src/a.py": b"a"}
        return
    assert "Permission denied" in refused(take, folder, name).why


def test_a_name_that_is_not_utf8_is_a_clear_error(take: Take, folder: Path) -> None:
    with open(os.fsencode(folder / "src") + b"/\xff.py", "wb"):
        pass
    assert "UTF-8" in refused(take, folder, "src").why
