"""`ring0 workspace`: what a run did to its files, shown to people, and how they leave ring0."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cli_world import World

from ring0.cli.comparing import compare, visible

AGENT = """
from ring0 import agent


@agent(builtins={"files": {"use": "files"}})
async def writer(ctx, task):
    write = lambda path, text: ctx.tool("files.write", path=path, text=text)
    await write("note.txt", "one\\ntwo\\nthree\\n")
    await write("gone.txt", "short-lived")
    await write("note.txt", "one\\n2\\nthree\\nfour")
    await ctx.tool("files.remove", path="gone.txt")
    await write("evil\\u0301 [red]x[/red].txt", "\\x1b[2J\\u202e[bold]gpj.exe[/bold]\\r\\x07\\n")
    await write(".git/hooks/pre-commit", "#!/bin/sh\\nevil")
    await write("sub/conftest.py", "import os")
    await write("sub/CONFTEST.py", "import os")
    await write("x.pth", "import os")
    await write("run.sh", "#!/bin/sh\\necho")
    return "written"
"""


@pytest.fixture
def here(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.write("writer.py", AGENT)
    done = made.ring0("run", "writer.py", "write")
    assert done.code == 0, done.all
    return made


def test_the_diff_of_a_run_is_from_its_start_to_now(here: World) -> None:
    done = here.ring0("workspace", "diff", "last")
    assert done.code == 0, done.all
    lines = done.out.splitlines()
    assert "gone.txt" not in done.out
    start = lines.index(
        "--- /dev/null  nothing", lines.index("+++ b/evil\u0301 [red]x[/red].txt  30 bytes")
    )
    assert lines[start : start + 8] == [
        "--- /dev/null  nothing",
        "+++ b/note.txt  16 bytes",
        "@@ -0,0 +1,4 @@",
        "+one",
        "+2",
        "+three",
        "+four",
        "\\ No newline at end of file",
    ]


def test_the_diff_of_a_call_is_what_that_call_did(here: World) -> None:
    done = here.ring0("workspace", "diff", "last", "--call", "0/3")
    assert done.out.splitlines()[1:] == [
        "--- a/note.txt  14 bytes",
        "+++ b/note.txt  16 bytes",
        "@@ -1,3 +1,4 @@",
        " one",
        "-two",
        "+2",
        " three",
        "+four",
        "\\ No newline at end of file",
    ]
    removed = here.ring0("workspace", "diff", "last", "--call", "0/4", "--json").json
    [file] = removed["files"]
    assert (file["path"], file["after"], file["before"]["size_bytes"]) == ("gone.txt", None, 11)


def test_a_call_that_was_undone_is_shown_as_it_was_and_the_run_as_it_is(here: World) -> None:
    done = here.ring0("undo", "last")
    assert done.code == 0, done.all
    assert here.ring0("workspace", "diff", "last", "--json").json["files"] == []
    [file] = here.ring0("workspace", "diff", "last", "--call", "0/3", "--json").json["files"]
    assert file["lines"][2] == "-two"


def test_hostile_names_and_contents_are_seen_and_not_obeyed(here: World) -> None:
    done = here.ring0("workspace", "diff", "last")
    assert "+\\x1b[2J\\u202e[bold]gpj.exe[/bold]\\r\\x07" in done.out.splitlines()
    for raw in ("\x1b[2J", "\u202e", "\x07", "\r"):
        assert raw not in done.out


def test_what_leaves_is_regular_files_that_nobody_executes(here: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = here.ring0("workspace", "export", "last", str(out))
    assert done.code == 0, done.all
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert left == ["evil\u0301 [red]x[/red].txt", "note.txt", "run.sh"]
    assert all(path.stat().st_mode & 0o111 == 0 for path in out.rglob("*") if path.is_file())
    assert (out / "note.txt").read_text() == "one\n2\nthree\nfour"
    for name in (".git/hooks/pre-commit", "sub/conftest.py", "sub/CONFTEST.py", "x.pth"):
        assert f"left out  {name}" in done.out


def test_dotfiles_leave_only_where_they_are_asked_for(here: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    done = here.ring0("workspace", "export", "last", str(out), "--with-dotfiles", "--json")
    assert done.json["left_out"] == []
    hook = out / ".git/hooks/pre-commit"
    assert hook.read_text() == "#!/bin/sh\nevil"
    assert hook.stat().st_mode & 0o111 == 0


def test_an_export_never_writes_beside_what_is_there_already(here: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    done = here.ring0("workspace", "export", "last", str(out))
    assert done.code == 2 and "not empty" in done.err
    assert os.listdir(out) == ["mine"]


def test_an_export_follows_no_link(here: World, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    done = here.ring0("workspace", "export", "last", str(tmp_path / "link"))
    assert done.code == 2, done.all
    assert os.listdir(tmp_path / "real") == []


@pytest.mark.parametrize("name", ["nowhere/out", "agent.py"])
def test_an_export_to_what_is_no_folder_says_so(here: World, name: str) -> None:
    done = here.ring0("workspace", "export", "last", str(here.folder / name))
    assert done.code == 2 and "Do:" in done.err


def test_a_binary_file_is_told_by_its_size() -> None:
    one = compare("data", b"\0" * 10, b"\0" * 20)
    assert (one.before_bytes, one.after_bytes, one.lines) == (10, 20, ())
    assert one.note


def test_a_hostile_pair_of_texts_costs_no_more_time_than_any_other() -> None:
    began = time.process_time()
    lines = ["a\n" if number % 7 else f"{number % 90}\n" for number in range(900)]
    compare("slow", "".join(lines).encode(), "".join(reversed(lines)).encode())
    same = b"x\n" * 300_000
    assert len(compare("long", same + b"a\n" + same[:600], same + b"b\n" + same[:600]).lines) == 9
    assert compare("far", b"a\n" * 20_000, b"b\n" * 20_000).note
    assert time.process_time() - began < 10


def test_line_numbers_count_from_the_beginning_of_the_file() -> None:
    old = [f"{number}\n" for number in range(100)]
    new = [*old[:49], "changed\n", *old[50:]]
    one = compare("numbers", "".join(old).encode(), "".join(new).encode())
    assert one.lines[0] == "@@ -47,7 +47,7 @@"
    assert one.lines[4:6] == ("-49", "+changed")
    assert compare("new", None, b"a\nb\n").lines == ("@@ -0,0 +1,2 @@", "+a", "+b")


def test_every_character_that_nobody_sees_is_written_out() -> None:
    assert visible("a\tb\u200b\U000e0041\ufe0f\xa0\ud800é漢") == (
        "a\tb\\u200b\\U000e0041\\ufe0f\\xa0\\ud800é漢"
    )
    assert visible("x" * 5000).startswith("x" * 2000 + "… (5000")
