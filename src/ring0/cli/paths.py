"""Which files a command means, and their bytes: read as whoever types, and never through a link or
a pipe that lies in a folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ring0 import limits
from ring0.errors import InvalidInput, NotFound
from ring0.memory.documents import parser_of, unreadable

_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules"})


def found(said: Sequence[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """By the document's name: the file; and what is left out, with why. A folder means all in it
    but what is hidden. Raises NotFound, InvalidInput."""
    files: dict[str, Path] = {}
    skipped: dict[str, str] = {}
    if said and not any(os.path.exists(one) for one in said):
        raise NotFound(f"There is no file {said[0][:200]!r}.", todo="Look at how it is written.")
    for one in said:
        path = Path(one)
        if not path.is_dir():  # One that is not there fails when it is read, and keeps none out.
            _add(files, _name(path), path)
            continue
        for inner, why in _within(path):
            if why:
                skipped[str(inner)] = why
            else:
                _add(files, _name(inner, path), inner)
    return files, skipped


def read(path: Path) -> bytes:
    """All of it. Raises DocumentUnreadable where it is no file, is too large, or can't be read."""
    most = limits.DOCUMENT_SIZE_BYTES_MAX
    try:
        # One that is no file must not keep us waiting.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise unreadable(
                    str(path),
                    "it is no file, but a pipe, a socket or a device",
                    "Write what it gives into a file first.",
                )
            data = file.read(most + 1)
    except OSError as error:
        why = f"it can't be read: {error.strerror}"
        raise unreadable(str(path), why, "Look at who may read it.") from None
    if len(data) > most:
        why = f"it is too large: no more than {most:,} bytes are read of one file"
        raise unreadable(str(path), why, "Split it.")
    return data


def _within(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file beneath it, in order, and why it is left out."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in _LEFT_OUT
        )
        for name in sorted(names):
            path = Path(here, name)
            if name.startswith("."):
                continue
            if path.is_symlink():
                yield path, "a link: name what it leads to"
            elif not path.is_file():
                yield path, "no file"
            elif not parser_of(name):
                yield path, "of no kind that is read"
            else:
                yield path, ""


def _add(files: dict[str, Path], name: str, path: Path) -> None:
    if name in files and files[name] != path and not _is_same(files[name], path):
        raise InvalidInput(
            f"{name[:120]!r} would be two documents: {files[name]} and {path}.",
            why="A document is known by its name, and the second would supersede the first.",
            todo="Ingest their folder, or one of them with --as NAME.",
        )
    files[name] = path
    if len(files) > limits.DOCUMENT_FILES_MAX:
        raise InvalidInput(
            f"There are more than {limits.DOCUMENT_FILES_MAX:,} files.",
            todo="Ingest their folders one by one.",
        )


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _name(path: Path, folder: Path | None = None) -> str:
    """The way down from here, however it was typed; else from the folder's own name on."""
    name = os.path.relpath(path)
    if name.split(os.sep)[0] == os.pardir:
        name = path.name
        if folder is not None:
            own = os.path.basename(os.path.realpath(folder))
            name = os.path.join(own, os.path.relpath(path, folder))
    return name.encode("utf-8", "replace").decode()
