"""Files beneath one folder that somebody hostile may write to at the same time.

Every name is resolved by the kernel of the machine itself (`openat2`), which refuses what leads
elsewhere: no link is followed, no other mount entered, nothing but a regular file opened. Not for
folders that the caller trusts: there `pathlib` will do.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from ring0 import limits
from ring0.errors import (
    InvalidInput,
    LimitReached,
    NotFound,
    Ring0Error,
    SandboxFailed,
    ToolFailed,
)

_SYS_OPENAT2: Final = 437  # on every machine
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 1, 2, 4, 8
_RESOLVE: Final = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_TRIES: Final = 64
_NOBODY_AT_ALL: Final = 0xFFFFFFFF
"""setfsuid of this changes nothing and gives back who it is."""

_SAFE: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER: Final = _SAFE | os.O_RDONLY | os.O_DIRECTORY
_READ_SIZE_BYTES: Final = 1 * limits.MIB

_LEADS_ELSEWHERE: Final = {
    errno.ELOOP: "a symbolic link",
    errno.EXDEV: "it leads out of the folder",
    errno.ENXIO: "a pipe, a socket or a device",
    errno.EISDIR: "a folder",
    errno.ENOTDIR: "it goes through something that is no folder",
    errno.EEXIST: "something else has taken that name",
    errno.ENAMETOOLONG: "the name is too long",
}

_libc = ctypes.CDLL(None, use_errno=True)

_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


class Entry(NamedTuple):
    """A regular file, by its first name where it has several."""

    path: str
    """Relative. May hold any character that Linux allows, surrogates for what is not UTF-8."""
    size_bytes: int


class LeftOut(NamedTuple):
    """Something that is there and is not handed out."""

    path: str
    why: str


class Listing(NamedTuple):
    """What is beneath a folder. Both are sorted by path."""

    files: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]


class Beneath:
    """The files beneath the folder that `dirfd` is open on. It owns `dirfd` from here on.

    All methods block. Each does its work as the owner of the folder, whoever this process is: so
    it can do no more there than the owner, and a tmpfs of another user namespace takes files from
    nobody else.
    """

    def __init__(self, dirfd: int) -> None:
        status = os.fstat(dirfd)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder")
        self._dirfd = dirfd
        self._owner = status.st_uid, status.st_gid

    def close(self) -> None:
        """Any number of times."""
        if self._dirfd >= 0:
            os.close(self._dirfd)
        self._dirfd = -1

    def read(self, path: str, size_bytes_max: int) -> bytes:
        """The whole of a regular file. Raises NotFound, LimitReached, InvalidInput for anything
        else that is there, ToolFailed where it can't be read."""
        with self._as_owner(path), self._open(path, _SAFE | os.O_RDONLY) as fd:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _unfit(path, _kind(status))
            content = bytearray()
            while len(content) <= size_bytes_max >= status.st_size:
                if not (chunk := os.read(fd, _READ_SIZE_BYTES)):
                    return bytes(content)
                content += chunk
            raise LimitReached(
                f"{path!r} has {max(status.st_size, len(content))} bytes.",
                why=f"A file of {size_bytes_max} bytes is the largest that is read here.",
                todo="Split it.",
            )

    def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """A new file in the place of what had that name; the folders above it are made. Raises
        LimitReached where the folder is full, InvalidInput where the name can't be written."""
        above, _, name = path.rpartition("/")
        self.mkdirs(above)
        with self._as_owner(path), self._open(above, _FOLDER) as folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_name(name), dir_fd=folder)
            # Made here and now: a link that somebody puts in its place meanwhile is an error.
            flags = _SAFE | os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with _opened(folder, name, flags, mode & 0o777) as fd:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(fd, rest) :]

    def mkdirs(self, path: str, mode: int = 0o700) -> None:
        """A folder and those above it; nothing where they are there."""
        made = ""
        for name in path.split("/") if path else ():
            there = contextlib.suppress(FileExistsError)
            with self._as_owner(path), self._open(made, _FOLDER) as folder, there:
                os.mkdir(_name(name), mode & 0o777, dir_fd=folder)
            made = f"{made}/{name}" if made else name
        with self._as_owner(path), self._open(made, _FOLDER):
            pass  # what stands there is a folder, and no link to one

    def remove(self, path: str) -> None:
        """One name that is not a folder's. Raises NotFound, InvalidInput."""
        above, _, name = path.rpartition("/")
        with self._as_owner(path), self._open(above, _FOLDER) as folder:
            os.unlink(_name(name), dir_fd=folder)

    def look(self) -> Listing:
        """Every regular file, and all else that is there, by name. Raises LimitReached where
        there is more than is looked through."""
        files: list[tuple[str, os.stat_result]] = []
        left_out: list[LeftOut] = []
        folders, seen, chars = [""], 0, 0
        while folders:
            above = folders.pop()
            try:
                found = self._folder(above, limits.BENEATH_ENTRIES_MAX - seen, chars)
            except NotFound:  # it has just been removed
                continue
            except (InvalidInput, ToolFailed) as error:
                if not above:
                    raise
                left_out.append(LeftOut(above, error.why))
                continue
            seen += len(found)
            chars += sum(len(path) for path, _ in found)
            for path, status in found:
                if stat.S_ISREG(status.st_mode):
                    files.append((path, status))
                elif not stat.S_ISDIR(status.st_mode):
                    left_out.append(LeftOut(path, _kind(status)))
                elif path.count("/") >= limits.BENEATH_DEPTH_MAX:
                    left_out.append(LeftOut(path, "too deep"))
                else:
                    folders.append(path)
        kept, more = _counted_once(sorted(files))
        return Listing(tuple(kept), tuple(sorted(left_out + more)))

    def _folder(
        self, above: str, most: int, chars: int
    ) -> builtins.list[tuple[str, os.stat_result]]:
        """What one folder holds, by the path from the top. `chars`: of the paths so far."""
        found: builtins.list[tuple[str, os.stat_result]] = []
        with self._as_owner(above), self._open(above, _FOLDER) as fd, os.scandir(fd) as names:
            for entry in names:
                if len(found) >= most:
                    raise LimitReached(
                        f"There are more than {limits.BENEATH_ENTRIES_MAX} files and folders.",
                        why="That is more than is looked through.",
                        todo="Put many small files into one archive.",
                    )
                path = f"{above}/{entry.name}" if above else entry.name
                chars += len(path)
                if chars > limits.BENEATH_PATHS_CHARS_MAX:
                    raise LimitReached(
                        "The paths of the files and folders are too long.",
                        why=f"All together have at most {limits.BENEATH_PATHS_CHARS_MAX}"
                        " characters.",
                        todo="Give them shorter names, or put them into one archive.",
                    )
                with contextlib.suppress(FileNotFoundError):
                    found.append((path, entry.stat(follow_symlinks=False)))
        return found

    @contextlib.contextmanager
    def _open(self, path: str, flags: int) -> Iterator[int]:
        """`path` beneath the folder; the folder itself where it is empty."""
        for name in path.split("/") if path else ():
            _name(name)
        with _opened(self._dirfd, path or ".", flags) as fd:
            yield fd

    @contextlib.contextmanager
    def _as_owner(self, path: str) -> Iterator[None]:
        """This thread's file access, as the folder's owner's; and errors in words."""
        if self._dirfd < 0:
            raise ToolFailed(
                "The folder has been closed.", why="Its sandbox has ended.", todo="Start a new one."
            )
        try:
            if os.geteuid() != 0:
                yield
                return
            try:
                _access_as(*self._owner)
                yield
            finally:
                _access_as(0, os.getegid())
        except OSError as error:
            raise _told(path, error) from None

    # The last one: its name is a type's.
    def list(self) -> list[tuple[str, int]]:
        """Path and size of every regular file, sorted. Raises LimitReached as `look` does."""
        return [(entry.path, entry.size_bytes) for entry in self.look().files]


def _counted_once(
    files: list[tuple[str, os.stat_result]],
) -> tuple[list[Entry], list[LeftOut]]:
    """Each file under its first name: the others would count its bytes again."""
    kept: list[Entry] = []
    more: list[LeftOut] = []
    first: dict[tuple[int, int], str] = {}
    for path, status in files:
        if status.st_nlink > 1:
            name = first.setdefault((status.st_dev, status.st_ino), path)
            if name != path:
                more.append(LeftOut(path, f"another name of {name!r}"))
                continue
        kept.append(Entry(path, status.st_size))
    return kept, more


@contextlib.contextmanager
def _opened(dirfd: int, path: str, flags: int, mode: int = 0) -> Iterator[int]:
    fd = _openat2(dirfd, path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def _openat2(dirfd: int, path: str, flags: int, mode: int) -> int:
    how = (ctypes.c_uint64 * 3)(flags, mode, _RESOLVE)
    for _ in range(_TRIES):
        fd: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_long(dirfd),
            os.fsencode(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return fd
        # EAGAIN: something was renamed while the path was walked.
        if (number := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number))
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _access_as(uid: int, gid: int) -> None:
    """For this thread alone; neither call says whether it worked, so each is asked after."""
    for change, wanted in ((_libc.setfsgid, gid), (_libc.setfsuid, uid)):
        change(ctypes.c_uint(wanted))
        if ctypes.c_uint(change(ctypes.c_uint(_NOBODY_AT_ALL))).value != wanted:
            raise SandboxFailed(
                "The files of the sandbox can't be reached as their owner.",
                why=f"This process may not act as uid {uid}, gid {gid}.",
                todo="Give it CAP_SETUID and CAP_SETGID, or run ring0 as an ordinary user.",
            )


def _name(name: str) -> str:
    """One part of a path: the machine's kernel refuses `..` too, but without a word on why."""
    if name in ("", ".", "..") or "\0" in name or "/" in name:
        raise InvalidInput(
            f"{name[:80]!r} is not part of a path beneath the folder.",
            why="It is empty, leads elsewhere or holds a NUL.",
            todo="Use a relative path like `answers/0104.md`.",
        )
    return name


def _kind(status: os.stat_result) -> str:
    return next((word for is_it, word in _KINDS if is_it(status.st_mode)), "no regular file")


def _unfit(path: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path[:200]!r} is no regular file beneath the folder.",
        why=what,
        todo="Name a regular file; links are not followed.",
    )


def _told(path: str, error: OSError) -> Ring0Error:
    """An errno in words."""
    shown = repr(path[:200])
    if error.errno == errno.ENOENT:
        return NotFound(f"There is no {shown} beneath the folder.", todo="List the files.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return LimitReached(
            f"{shown} does not fit: the folder is full.",
            why=os.strerror(error.errno),
            todo="Remove files, or raise the sandbox's `tmp`.",
        )
    if (words := _LEADS_ELSEWHERE.get(error.errno or 0)) is not None:
        return _unfit(path, words)
    return ToolFailed(
        f"{shown} can't be reached.",
        why=os.strerror(error.errno or 0),
        todo="See who owns it and its mode.",
    )
