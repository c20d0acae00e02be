"""What a hostile folder can do to whoever reads and writes beneath it: nothing."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ring0 import limits
from ring0.errors import InvalidInput, LimitReached, NotFound, ToolFailed
from ring0.tools.sandbox.beneath import Beneath, LeftOut

CANARY = "the host's own secret"
TENANT = 2_000_000_007

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "host.txt").write_text(CANARY)
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def beneath(top: Path) -> Iterator[Beneath]:
    opened = Beneath(os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    yield opened
    opened.close()


def read(beneath: Beneath, path: str) -> bytes:
    return beneath.read(path, limits.MIB)


def test_what_is_written_is_read_and_listed(beneath: Beneath, top: Path) -> None:
    beneath.write("answers/0104.md", b"forty-two")
    beneath.write("a", b"")
    assert read(beneath, "answers/0104.md") == b"forty-two"
    assert beneath.list() == [("a", 0), ("answers/0104.md", 9)]
    beneath.remove("a")
    assert beneath.list() == [("answers/0104.md", 9)]
    assert (top / "answers/0104.md").stat().st_mode & 0o7777 == 0o600


def test_a_second_write_takes_the_place_of_the_first(beneath: Beneath) -> None:
    beneath.write("a", b"long, long ago")
    beneath.write("a", b"now")
    assert read(beneath, "a") == b"now"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../host.txt", "a/../../host.txt", "a//b",
                                  "./a", "a/.", "a\0b", "..", "a/"])  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(beneath: Beneath, path: str) -> None:
    for deed in (lambda: read(beneath, path), lambda: beneath.write(path, b"x"),
                 lambda: beneath.remove(path)):  # fmt: skip
        with pytest.raises(InvalidInput):
            deed()
    assert beneath.list() == []


@pytest.mark.parametrize("target", ["../host.txt", "/proc/self/environ", "/etc/passwd", "real"])
def test_a_symbolic_link_is_never_followed(beneath: Beneath, top: Path, target: str) -> None:
    (top / "real").write_text("mine")
    (top / "link").symlink_to(target)
    with pytest.raises(InvalidInput, match="symbolic link"):
        read(beneath, "link")
    assert beneath.list() == [("real", 4)]
    assert beneath.look().left_out == (LeftOut("link", "a symbolic link"),)


def test_a_folder_has_no_second_name_by_a_link(beneath: Beneath, top: Path) -> None:
    (top / "real").mkdir()
    (top / "real/a").write_text("mine")
    (top / "alias").symlink_to("real")
    with pytest.raises(InvalidInput, match="symbolic link"):
        read(beneath, "alias/a")


def test_a_write_puts_nothing_into_what_has_just_taken_its_name(
    beneath: Beneath, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (top / "other").write_text("another's")
    (top / "a").touch()
    unlink = os.unlink

    def swapped(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        os.link(top / "other", top / "a")

    monkeypatch.setattr(os, "unlink", swapped)
    with pytest.raises(InvalidInput, match="taken that name"):
        beneath.write("a", b"mine")
    assert (top / "other").read_text() == "another's"


def test_a_write_replaces_a_link_and_not_what_it_points_to(beneath: Beneath, top: Path) -> None:
    (top / "link").symlink_to("../host.txt")
    beneath.write("link", b"x")
    assert (top.parent / "host.txt").read_text() == CANARY
    assert read(beneath, "link") == b"x"


@pytest.mark.parametrize("path", ["out/host.txt", "self/etc/passwd", "out/new"])
def test_a_folder_that_is_a_link_leads_nowhere(beneath: Beneath, top: Path, path: str) -> None:
    (top / "out").symlink_to("..")
    (top / "self").symlink_to("/proc/self/root")
    for deed in (
        lambda: read(beneath, path),
        lambda: beneath.write(path, b"x"),
        lambda: beneath.remove(path),
        lambda: beneath.mkdirs(path),
    ):
        with pytest.raises(InvalidInput):
            deed()
    assert sorted(os.listdir(top.parent)) == ["host.txt", "work"]
    assert beneath.list() == []


def test_a_link_that_changes_under_the_reader_is_never_followed(
    beneath: Beneath, top: Path
) -> None:
    """A folder that is swapped for a link to the host's, as fast as that goes, while we read."""
    (top / "a").mkdir()
    (top / "a/host.txt").write_text("mine")
    (top / "b").symlink_to("..")
    libc, ended = ctypes.CDLL(None, use_errno=True), threading.Event()
    here = os.fsencode(top)

    def swap() -> None:
        while not ended.is_set():
            assert libc.renameat2(-100, here + b"/a", -100, here + b"/b", 2) == 0

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: set[bytes] = set()
    refused = 0
    try:
        while not (seen and refused) or len(seen) + refused < 2_000:
            try:
                seen.add(read(beneath, "a/host.txt"))
            except (InvalidInput, ToolFailed):
                refused += 1
            if refused > 20_000:
                break
        for _ in range(300):
            for path, _size in beneath.list():
                assert path in ("a/host.txt", "b/host.txt")
    finally:
        ended.set()
        swapper.join()
    assert seen == {b"mine"}
    assert refused > 0


def test_pipes_sockets_and_folders_are_no_files_and_block_nobody(
    beneath: Beneath, top: Path
) -> None:
    os.mkfifo(top / "pipe")
    (top / "folder").mkdir()
    here = os.getcwd()
    os.chdir(top)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock")
    os.chdir(here)
    for path in ("pipe", "sock", "folder"):
        with pytest.raises(InvalidInput):
            read(beneath, path)
    assert beneath.look().left_out == (LeftOut("pipe", "a pipe"), LeftOut("sock", "a socket"))


@as_root
def test_a_device_is_no_file(beneath: Beneath, top: Path) -> None:
    os.mknod(top / "zero", 0o20666, os.makedev(1, 5))
    with pytest.raises((InvalidInput, ToolFailed)):
        read(beneath, "zero")
    assert beneath.look().left_out == (LeftOut("zero", "a device"),)


@as_root
def test_another_file_system_is_not_entered(beneath: Beneath, top: Path) -> None:
    (top / "mnt").mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"/proc", os.fsencode(top / "mnt"), None, 4096, None) != 0:
        pytest.skip("no mount may be made here")
    try:
        with pytest.raises(InvalidInput, match="leads out"):
            read(beneath, "mnt/version")
        assert beneath.list() == []
        assert beneath.look().left_out == (LeftOut("mnt", "it leads out of the folder"),)
    finally:
        assert libc.umount2(os.fsencode(top / "mnt"), 2) == 0


def test_a_hard_link_is_counted_once(beneath: Beneath, top: Path) -> None:
    (top / "b").write_bytes(b"12345")
    for name in ("a", "c"):
        os.link(top / "b", top / name)
    assert beneath.list() == [("a", 5)]
    assert beneath.look().left_out == (
        LeftOut("b", "another name of 'a'"),
        LeftOut("c", "another name of 'a'"),
    )


def test_a_large_file_is_refused_before_it_is_read(
    beneath: Beneath, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(top / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with monkeypatch.context() as patched, pytest.raises(LimitReached, match="1099511627776"):
        patched.setattr(os, "read", lambda *_: pytest.fail("it was read"))
        read(beneath, "sparse")
    (top / "fits").write_bytes(b"x" * 100)
    assert beneath.read("fits", 100) == b"x" * 100
    with pytest.raises(LimitReached):
        beneath.read("fits", 99)


def test_a_file_that_grows_under_the_reader_is_refused_at_the_bound(
    beneath: Beneath, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = top / "log"
    path.write_bytes(b"x" * 10)
    real = os.read

    def growing(fd: int, count: int) -> bytes:
        with open(path, "ab") as file:
            file.write(b"y" * 60)
        return real(fd, count)

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(LimitReached):
        beneath.read("log", 100)


def test_too_many_files_are_an_error_and_not_a_long_wait(
    beneath: Beneath, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BENEATH_ENTRIES_MAX", 10)
    for number in range(6):
        (top / f"a{number}").touch()
    (top / "b").mkdir()
    for number in range(3):
        (top / f"b/{number}").touch()
    assert len(beneath.list()) == 9
    (top / "b/one-more").touch()
    with pytest.raises(LimitReached, match="more than 10"):
        beneath.list()


def test_paths_that_fill_the_memory_of_who_looks_are_an_error(
    beneath: Beneath, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BENEATH_PATHS_CHARS_MAX", 2_000)
    for folder in ("a", "b"):
        (top / (folder * 20)).mkdir()
        for number in range(10):
            (top / (folder * 20) / f"{number:040}").touch()
    assert len(beneath.list()) == 20
    monkeypatch.setattr(limits, "BENEATH_PATHS_CHARS_MAX", 1_000)
    with pytest.raises(LimitReached, match="too long"):
        beneath.look()


def test_a_tree_that_is_too_deep_is_named_and_left_out(beneath: Beneath, top: Path) -> None:
    here = top
    for _ in range(limits.BENEATH_DEPTH_MAX + 2):
        here = here / "d"
        here.mkdir()
        (here / "file").touch()
    listing = beneath.look()
    assert len(listing.files) == limits.BENEATH_DEPTH_MAX
    assert [left.why for left in listing.left_out] == ["too deep"]


def test_a_name_that_is_no_text_is_listed_and_read(beneath: Beneath, top: Path) -> None:
    (Path(os.fsdecode(os.fsencode(top) + b"/\xff\xfe"))).write_bytes(b"odd")
    [(path, size)] = beneath.list()
    assert (size, read(beneath, path)) == (3, b"odd")


def test_what_is_not_there_is_said_to_be_not_there(beneath: Beneath, top: Path) -> None:
    for path in ("a", "a/b"):
        with pytest.raises(NotFound):
            read(beneath, path)
        with pytest.raises(NotFound):
            beneath.remove(path)


def test_a_folder_is_not_removed_and_not_overwritten(beneath: Beneath, top: Path) -> None:
    (top / "folder").mkdir()
    for deed in (lambda: beneath.remove("folder"), lambda: beneath.write("folder", b"x")):
        with pytest.raises((InvalidInput, ToolFailed)):
            deed()
    assert (top / "folder").is_dir()


def test_after_close_nothing_is_reached(beneath: Beneath) -> None:
    beneath.close()
    beneath.close()
    with pytest.raises(ToolFailed, match="closed"):
        beneath.list()


@as_root
def test_root_does_there_what_the_owner_could_do_and_no_more(top: Path) -> None:
    (top / "roots").write_text(CANARY)
    (top / "roots").chmod(0o600)
    (top / "shut").mkdir()
    (top / "shut").chmod(0)
    os.chown(top / "shut", TENANT, TENANT)
    os.chown(top, TENANT, TENANT)
    beneath = Beneath(os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        beneath.write("deep/mine", b"x")
        status = (top / "deep/mine").stat()
        assert (status.st_uid, status.st_gid) == (TENANT, TENANT)
        assert (top / "deep").stat().st_uid == TENANT
        with pytest.raises(ToolFailed, match="can't be reached"):
            read(beneath, "roots")
        assert beneath.look().left_out == (LeftOut("shut", "Permission denied"),)
        with pytest.raises(NotFound):
            read(beneath, "deep/nothing")
    finally:
        beneath.close()
    # This process is itself again, also after errors.
    assert (top.parent / "host.txt").read_text() == CANARY
    (top / "roots").write_text("again")
    assert (top / "roots").stat().st_uid == 0
