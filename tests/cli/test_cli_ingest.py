"""`ring0 memory ingest`: files as an operator gives them, one bad one among good ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import World

from ring0.cli import paths
from ring0.errors import InvalidInput, NotFound

HANDBOOK = "# Handbook\n\n## Refunds\n\nWe refund within 30 days.\n\n## Shipping\n\nBy mail.\n"


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_documents_are_ingested_again_only_where_they_changed(w: World) -> None:
    pytest.importorskip("pypdf", reason="`make optional` installs it")
    (w.folder / "docs").mkdir()
    w.write("docs/handbook.md", HANDBOOK)
    w.write("docs/broken.pdf", "%PDF-1.4 broken\x1b[31m")
    w.write("docs/photo.png", "no text")
    done = w.ring0("memory", "ingest", "docs", "--agent", "desk")
    assert done.code == 2 and "1 of 2 files were not ingested" in done.err
    assert "docs/handbook.md  2 passages: 2 new" in done.out
    assert "FAILED     docs/broken.pdf" in done.out and "\x1b[31m" not in done.all
    assert "docs/photo.png  of no kind that is read" in done.out
    assert "Labelled untrusted" in done.out

    w.write("docs/handbook.md", HANDBOOK.replace("30", "14"))
    again = w.ring0("memory", "ingest", "docs/handbook.md", "--agent", "desk", "--json").json
    [row] = again["documents"]
    assert (row["state"], row["written"], row["kept"], row["superseded"]) == ("changed", 1, 1, 1)
    same = w.ring0("memory", "ingest", "docs/handbook.md", "--agent", "desk")
    assert same.code == 0 and "unchanged  docs/handbook.md  2 passages" in same.out

    some = w.ring0("memory", "ingest", "none.md", "docs/handbook.md", "--agent", "desk")
    assert some.code == 2 and "FAILED     none.md" in some.out and "unchanged" in some.out

    listed = w.ring0("memory", "documents", "--agent", "desk", "--json").json["documents"]
    assert [(one["document"], one["passages"]) for one in listed] == [("docs/handbook.md", 2)]
    bad = w.ring0("memory", "ingest", "docs/broken.pdf", "--agent", "desk")
    assert bad.code == 2 and "no PDF" in bad.err and "Do:" in bad.err
    verified = w.ring0("audit", "verify")  # Sound, though nobody has signed it.
    assert "rebuild from the events" in verified.out and "No anchor vouches" in verified.err


def test_a_folder_means_all_in_it_but_links_and_what_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.md").write_text("outside")
    folder = tmp_path / "docs"
    for name in ("a.md", ".hidden.md", ".git/b.md", "deep/er/c.py", "node_modules/d.js", "e.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "round").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.md")
    found, skipped = paths.found(["docs"])
    assert list(found) == ["docs/a.md", "docs/deep/er/c.py"]
    assert set(skipped) == {"docs/e.bin", "docs/link.md", "docs/pipe.md"}
    elsewhere, _ = paths.found([str(folder)])
    assert list(elsewhere) == list(found), "the same document, wherever one stands"
    whole, _ = paths.found([str(folder / "a.md"), "docs/deep/../a.md"])
    assert list(whole) == ["docs/a.md"], "one file is one document, however it is named"
    assert list(paths.found(["docs/none.md", "secret.md"])[0]) == ["docs/none.md", "secret.md"]
    named, _ = paths.found(["docs/link.md", "secret.md"])
    assert list(named) == ["docs/link.md", "secret.md"], "who names a link means what it leads to"
    with pytest.raises(NotFound):
        paths.found(["docs/none.md"])


def test_two_files_are_never_taken_for_one_document(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "readme.md").write_text(name)
    with pytest.raises(InvalidInput, match="two documents"):
        paths.found([str(tmp_path / "a" / "readme.md"), str(tmp_path / "b" / "readme.md")])
    same, _ = paths.found([str(tmp_path / "a" / "readme.md")] * 2)
    assert list(same) == ["readme.md"]


def test_what_is_no_file_is_refused_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    for path in (tmp_path / "pipe.md", Path("/dev/zero"), tmp_path, tmp_path / "none"):
        with pytest.raises(InvalidInput, match="not ingested"):
            paths.read(path)


def test_a_file_that_is_too_large_is_not_even_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.md"
    huge.touch()
    os.truncate(huge, 1 << 40)
    with pytest.raises(InvalidInput) as refused:
        paths.read(huge)
    assert "too large" in refused.value.why
