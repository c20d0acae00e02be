"""Reads the host's files that a manifest names, and nothing else: an agent's code, what is copied.

Every component is opened by itself, beneath a folder that is already open, and no link is followed;
a file is judged and read through one descriptor, so what was judged is what is read. Not here:
folders that a sandbox mounts (processes.py).
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.tools.secretfiles import SECRET_FILES
from ring0.types import Frozen

NEVER_READ = SECRET_FILES
"""What holds secrets is not code: it is refused where it is named and left out of folders."""
LEFT_OUT = frozenset({"__pycache__", ".venv", "venv", "node_modules", ".mypy_cache", ".ruff_cache"})

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_SIZE_BYTES = limits.MIB
_NOTHING_THERE = "There is nothing of that name."
_NO_LINKS = "Correct the path; a link is not followed."


class Taken(Frozen, frozen=True, kw_only=True):
    """What a key of a manifest may take."""

    key: str
    """The key, as an error names it."""
    files_max: int
    file_size_bytes_max: int
    size_bytes_max: int
    """Of all files together."""
    todo: str = "Name less."
    """What to do where it is too much."""


def read(folder: str, names: Iterable[str], taken: Taken, store_folder: Path) -> dict[str, bytes]:
    """The files of that name beneath `folder`, and those in the folders of that name: path to
    content. Nothing is read of ring0's data folder, which is the parent of `store_folder`, its
    snapshots; a folder of one's own in there may hold an agent, as the demo's does.

    Raises ManifestInvalid."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    reader = _Reader(taken, folder, store_folder)
    try:
        top = os.open(folder or ".", _FOLDER)
    except (OSError, ValueError) as error:
        raise reader.invalid(folder, _reason(error), "Correct the manifest's folder.") from None
    try:
        reader.check_start(top)
        for name in wanted:
            reader.take(top, name)
    finally:
        os.close(top)
    return reader.contents


def secret_in(path: Path) -> str:
    """The first file or folder of that tree, its own path included, that is never given away;
    empty: there is none. `path` is resolved."""
    if found := NEVER_READ & set(path.parts):
        return min(found)
    for number, (root, folders, files) in enumerate(os.walk(path)):
        if found := NEVER_READ & {*folders, *files}:
            return str(Path(root) / min(found))
        if number > limits.MOUNT_FOLDERS_MAX:
            return f"more than {limits.MOUNT_FOLDERS_MAX} folders, which can't be looked through"
    return ""


class _Unfit(Exception):
    """There is something of that name, and it is not what is read."""


_Identity = tuple[int, int]


class _Reader:
    def __init__(self, taken: Taken, folder: str, store_folder: Path) -> None:
        self.taken = taken
        self.folder = folder
        self.home = _identity_of(store_folder.parent)
        self.snapshots = _identity_of(store_folder)
        self.contents: dict[str, bytes] = {}
        self._size_bytes = 0
        self._looked_at = 0

    def invalid(self, name: str, why: str, todo: str) -> ManifestInvalid:
        return ManifestInvalid(
            f"{self.taken.key} names {name[:200]!r}, which can't be taken from {self.folder}.",
            why=why,
            todo=todo,
        )

    def check_start(self, top: int) -> None:
        """Looks at the folder and at each above, by identity: links may have led to it."""
        above, seen = ".", None
        try:
            while (here := _identity(os.stat(above, dir_fd=top))) != seen:
                if here == self.snapshots or (seen is None and here == self.home):
                    raise self._of_ring0(self.folder)
                above, seen = f"{above}/..", here
        except OSError as error:
            raise self.invalid(self.folder, _reason(error), "Move the agent.") from None

    def take(self, top: int, name: str) -> None:
        """What a manifest names itself: it must be a file or a folder, or it is refused."""
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or NEVER_READ & set(path.parts):
            raise self.invalid(
                name,
                "Only what lies beneath the manifest's folder is taken, and never files that hold"
                " secrets.",
                "Move it, or leave it out.",
            )
        try:
            self._take(top, path.parts, name)
        except _Unfit as error:
            raise self.invalid(name, str(error), _NO_LINKS) from None
        except FileNotFoundError:
            raise self.invalid(name, _NOTHING_THERE, _NO_LINKS) from None
        except (OSError, ValueError) as error:
            raise self.invalid(name, _reason(error), _NO_LINKS) from None

    def _take(self, top: int, parts: tuple[str, ...], name: str) -> None:
        if not parts:
            self._take_folder(top, "")
            return
        at = os.dup(top)
        try:
            for number, part in enumerate(parts, start=1):
                inside = "/".join(parts[:number])
                mode = os.stat(part, dir_fd=at, follow_symlinks=False).st_mode
                if number == len(parts) and stat.S_ISREG(mode):
                    self._take_file(at, part, inside)
                    return
                if not stat.S_ISDIR(mode):
                    raise _Unfit(f"{inside!r} is {_kind(mode)}.")
                beneath = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = beneath
                if self._is_ring0s(at):
                    raise self._of_ring0(name)
            self._take_folder(at, "/".join(parts))
        finally:
            os.close(at)

    def _take_folder(self, at: int, inside: str, depth: int = 0) -> None:
        """The files in an open folder, then those in its folders; all else is left out."""
        if depth > limits.HOST_FOLDERS_DEEP_MAX:
            raise self._too_much(inside)
        folders: list[str] = []
        files: list[str] = []
        for name, mode in self._listed(at, inside):
            if stat.S_ISDIR(mode) and name not in LEFT_OUT:
                folders.append(name)
            elif stat.S_ISREG(mode):
                files.append(name)
        for name in files:
            with self._found(f"{inside}/{name}".lstrip("/")) as path:
                self._take_file(at, name, path)
        for name in folders:
            with self._found(f"{inside}/{name}".lstrip("/")) as path:
                beneath = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
                try:
                    if not self._is_ring0s(beneath):
                        self._take_folder(beneath, path, depth + 1)
                finally:
                    os.close(beneath)

    def _listed(self, at: int, inside: str) -> list[tuple[str, int]]:
        """Names and modes of what is in a folder, sorted; without what holds secrets."""
        room = limits.HOST_ENTRIES_MAX - self._looked_at
        with os.scandir(at) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, room + 1))
        self._looked_at += len(names)
        if len(names) > room:
            raise self._too_much(inside)
        found = []
        for name in names:
            if name not in NEVER_READ:
                with self._found(f"{inside}/{name}".lstrip("/")):
                    mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
                    found.append((name, mode))
        return found

    @contextmanager
    def _found(self, path: str) -> Iterator[str]:
        """Around what a folder held: since it was listed it may have gone or become a link, and is
        left out then. What is there and can't be read is an error: no code goes missing unseen."""
        try:
            yield path
        except (_Unfit, FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            why, todo = _reason(error), "Let this user read it, or leave it out."
            raise self.invalid(path, why, todo) from None

    def _take_file(self, at: int, name: str, inside: str) -> None:
        if inside in self.contents:
            return
        try:
            inside.encode()
        except UnicodeEncodeError:
            raise self.invalid(repr(inside), "Its name is not UTF-8.", "Rename the file.") from None
        try:
            file = os.open(name, _FILE, dir_fd=at)
        except OSError:
            # By what is there now, not by errno: that differs for links, sockets and devices.
            mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
            if not stat.S_ISREG(mode):
                raise _Unfit(f"{inside!r} is {_kind(mode)}.") from None
            raise
        try:
            self.contents[inside] = self._content(file, inside)
        finally:
            os.close(file)

    def _content(self, file: int, inside: str) -> bytes:
        """All of an open file. It may grow while it is read: the bound holds for what is read."""
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise _Unfit(f"{inside!r} is {_kind(status.st_mode)}.")
        room = min(self.taken.file_size_bytes_max, self.taken.size_bytes_max - self._size_bytes)
        if status.st_size > room or len(self.contents) >= self.taken.files_max:
            raise self._too_much(inside)
        content = bytearray()
        # One byte more than there is room for tells a file that has grown from one that fits.
        while chunk := os.read(file, min(_CHUNK_SIZE_BYTES, room + 1 - len(content))):
            content += chunk
            if len(content) > room:
                raise self._too_much(inside)
        self._size_bytes += len(content)
        return bytes(content)

    def _too_much(self, inside: str) -> ManifestInvalid:
        return ManifestInvalid(
            f"{self.taken.key} is too much, at {(inside or self.folder)[:200]!r}.",
            why=f"It takes at most {self.taken.files_max} files of {self.taken.file_size_bytes_max}"
            f" bytes, {self.taken.size_bytes_max} in all, from folders at most"
            f" {limits.HOST_FOLDERS_DEEP_MAX} deep with {limits.HOST_ENTRIES_MAX} entries.",
            todo=self.taken.todo,
        )

    def _is_ring0s(self, at: int) -> bool:
        return _identity(os.fstat(at)) in (self.home, self.snapshots)

    def _of_ring0(self, name: str) -> ManifestInvalid:
        return self.invalid(
            name, "ring0's own data folder is never given to an agent.", "Name less, or move it."
        )


def _identity_of(home: Path) -> _Identity | None:
    """None: there is no such folder, and nothing in it to keep."""
    try:
        return _identity(os.stat(home))
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_ISREG(mode):
        return "a file, not a folder"
    if stat.S_ISDIR(mode):
        return "a folder, not a file"
    return "neither a file nor a folder"


def _reason(error: OSError | ValueError) -> str:
    return f"{error.strerror if isinstance(error, OSError) else error}."
