"""A back-up of a data folder, made while its kernel is at work, and what is looked at before one is
used.

A folder: the journal as it was at one moment, its head, the code of its agents, the archives that
it names, the vault as it is sealed, ring0.toml with the files it names; `backup.json` with the
SHA-256 of each is written last. Keys are in it only where somebody asks for them: without them it
holds no secret in the clear. Not here: putting one back (restoring.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, StoreDamaged, StoreFull
from ring0.identity.keys import KEY_FILE as IDENTITY_KEY
from ring0.identity.vault import KEY_FILE as VAULT_KEY
from ring0.identity.vault import VAULT_FILE
from ring0.kernel.agent.manifests import RING0_TOML
from ring0.kernel.folder import SNAPSHOTS
from ring0.store import Write, archiving
from ring0.store import events as ev
from ring0.store.rows import Head
from ring0.store.sqlite import JOURNAL
from ring0.store.sqlite.copying import copy_journal
from ring0.types import Frozen

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

LIST: Final = "backup.json"
KEYS: Final = (VAULT_KEY, IDENTITY_KEY)
_VERSION: Final = 1
_MODES: Final = 0o755
"""What is kept of a file's mode: nobody but its owner ever writes."""
_AT_WORK: Final = re.compile(
    r"journal\.(head.+|db-.*|checkpoint.*|handovers.*|reserve.*)|otlp\.cursor.*|operator\.code"
    r"|kernel\.(lock|sock)|calls\.sock|serve\.lock|fault\.txt|signer|restoring|replaced-.*",
    re.DOTALL,
)
"""First parts of the names of what belongs to a folder's kernel at work, and is in no back-up."""


class Kept(Frozen, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a back-up."""

    size_bytes: int
    digest: str
    """SHA-256."""
    mode: int = 0o600


class Listed(Frozen, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `backup.json` says."""

    version: int = _VERSION
    made_us: int
    size: int
    """Of the journal's Merkle log, in events."""
    root: str
    files: dict[str, Kept]


class BackedUp(Frozen, frozen=True, kw_only=True):
    """What was made."""

    folder: str
    size: int
    root: str
    files: int
    size_bytes: int
    keys: bool


async def back_up(kernel: Kernel, folder: Path, *, keys: bool, by: str) -> BackedUp:
    """Makes one in a folder that is not there yet; nothing of it stays where it fails. Raises
    InvalidInput, StoreFull, StoreFailed."""
    _check_new(kernel.home, folder)
    beside = folder.with_name(folder.name + ".partial")
    async with kernel.storing:
        await kernel.store.flush()
        try:
            listed = await kernel.runtime.in_thread(_make, kernel, beside, keys)
            await kernel.runtime.in_thread(_stands, beside, folder)
        except OSError as error:
            raise archiving.not_written(folder, error) from None
        finally:
            await kernel.runtime.in_thread(shutil.rmtree, beside, True)
        made = ev.BackedUp(folder=str(folder), size=listed.size, root=listed.root, by=by)
        await kernel.store.append(Write(run=ev.KERNEL, durable=True, events=[made]))
    return BackedUp(
        folder=str(folder),
        size=listed.size,
        root=listed.root,
        files=len(listed.files),
        size_bytes=sum(one.size_bytes for one in listed.files.values()),
        keys=keys,
    )


def _check_new(home: Path, folder: Path) -> None:
    if not folder.is_absolute():
        raise InvalidInput(
            "The back-up's folder is no absolute path.",
            why="The kernel works in another folder than whoever asks.",
            todo="Use the `ring0` command of the same version.",
        )
    if folder.exists() or folder.is_symlink():
        raise InvalidInput(
            f"{folder} is there already.",
            why="A back-up never writes over another.",
            todo="Name a folder that is not there yet.",
        )
    if not folder.parent.is_dir():
        raise InvalidInput(f"There is no folder {folder.parent}.", todo="Make it first.")
    if folder.resolve().is_relative_to(home.resolve()):
        raise InvalidInput(
            "A back-up lies in the data folder itself.",
            why="What takes that folder away takes the back-up with it.",
            todo="Name a folder elsewhere; on another disk, if there is one.",
        )


def _make(kernel: Kernel, beside: Path, keys: bool) -> Listed:
    """Blocks. Raises OSError, StoreFull, StoreDamaged."""
    home = kernel.home
    _check_room(beside.parent, (home / JOURNAL).stat().st_size)
    beside.mkdir(mode=0o700)
    head, archives = copy_journal(home / JOURNAL, beside)
    for row in archives:
        path = archiving.path_of(home, row.run)
        if not archiving.is_whole(path, row.digest):
            raise StoreDamaged(
                f"The archive {path} is not as it was written.",
                why="A back-up without it could not give back all that the journal names.",
                todo=f"Put it back from an older copy; `ring0 unarchive {row.run}` needs it too.",
            )
        copy(path, beside / archiving.FOLDER / path.name)
    for name in _files_of(kernel, keys):
        copy(home / name, beside / name)
    files = {name: kept(beside / name) for name in sorted(_names(beside))}
    listed = Listed(made_us=kernel.runtime.now_us(), size=head.size, root=head.root, files=files)
    _write(beside / LIST, msgspec.json.format(msgspec.json.encode(listed)))
    for path in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
        archiving.sync_folder(path)
    return listed


def _stands(beside: Path, folder: Path) -> None:
    os.rename(beside, folder)
    archiving.sync_folder(folder.parent)


def _files_of(kernel: Kernel, keys: bool) -> Iterator[str]:
    """Names beneath the data folder, without the journal and what belongs to the kernel at work."""
    home = kernel.home
    config = kernel.config
    for name in (RING0_TOML, VAULT_FILE, *config.policy, *config.policy_tests):
        if _is_beneath(name) and (home / name).is_file():
            yield name
    for name in KEYS if keys else ():
        if (home / name).is_file():
            yield name
    for path in sorted((home / SNAPSHOTS).rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(home))


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder))


def _is_beneath(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(path.parts) and "\0" not in name and not path.is_absolute() and ".." not in path.parts
    )


def copy(source: Path, target: Path) -> None:
    """On disk when this returns, with its modes: sandboxes read the code of agents. Raises
    OSError."""
    _make_folder(source.parent, target.parent)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(source, flags), "rb") as file:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(made, "wb") as to:
            shutil.copyfileobj(file, to, limits.ARCHIVE_READ_SIZE_BYTES)
            to.flush()
            os.fchmod(made, stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _MODES)
            os.fsync(made)


def _make_folder(source: Path, target: Path) -> None:
    """Like that one, and those above it that are not there."""
    if not target.is_dir():
        _make_folder(source.parent, target.parent)
        target.mkdir(mode=0o700)
        target.chmod(stat.S_IMODE(source.stat().st_mode) & _MODES)


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def kept(path: Path) -> Kept:
    """What there is to say of a file. Raises OSError."""
    status = path.stat()
    return Kept(
        size_bytes=status.st_size, digest=_digest(path), mode=stat.S_IMODE(status.st_mode) & _MODES
    )


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        while piece := file.read(limits.ARCHIVE_READ_SIZE_BYTES):
            sha.update(piece)
    return sha.hexdigest()


def _check_room(folder: Path, size_bytes: int) -> None:
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < size_bytes:
        raise StoreFull(
            f"There is no room for a back-up in {folder}: {free:,} bytes are free, and the journal"
            f" alone has {size_bytes:,}.",
            why="Nothing was begun.",
            todo="Name a folder on another disk, or free some space.",
        )


# --- before one is used --------------------------------------------------------------------------


def read_list(folder: Path) -> Listed:
    """What a back-up says that it holds, once every file of it was found to be so. Raises
    StoreDamaged, InvalidInput."""
    path = folder / LIST
    try:
        status = path.lstat()
        plain = stat.S_ISREG(status.st_mode)
        if not plain or status.st_size > limits.BACKUP_LIST_SIZE_BYTES_MAX:
            raise damaged(folder, f"its {LIST} is none of ring0's")
        listed = msgspec.json.decode(path.read_bytes(), type=Listed)
    except FileNotFoundError:
        raise InvalidInput(
            f"{folder} is no back-up: it has no {LIST}.",
            why="It is written last: a back-up that was cut off has none.",
            todo="Name a folder that `ring0 backup` has made.",
        ) from None
    except (msgspec.MsgspecError, OSError) as error:
        raise damaged(folder, f"its {LIST} can't be read ({error})") from None
    if listed.version != _VERSION or JOURNAL not in listed.files:
        raise damaged(folder, "another ring0 has made it, or nobody")
    for name, one in listed.files.items():
        _check_file(folder, name, one)
    return listed


def _check_file(folder: Path, name: str, said: Kept) -> None:
    if not _is_beneath(name) or not _is_ever_in_one(name):
        raise damaged(folder, f"it names {name[:80]!r}, which is none of its files")
    path = folder
    try:
        for part in PurePosixPath(name).parts:
            path /= part
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise damaged(folder, f"{name} is a link")
        plain = stat.S_ISREG(status.st_mode) and status.st_size == said.size_bytes
        if not plain or _digest(path) != said.digest:
            raise damaged(folder, f"{name} is not what was put there")
    except OSError as error:
        raise damaged(folder, f"{name[:80]} can't be read ({error.strerror})") from None


def _is_ever_in_one(name: str) -> bool:
    """Whether a back-up may hold a file of that name: another kernel's lock, its signer's key or
    a log beside the journal would be put in the place of this folder's own."""
    path = PurePosixPath(name)
    return name == str(path) and not _AT_WORK.fullmatch(path.parts[0])


def damaged(folder: Path, why: str) -> StoreDamaged:
    """What is told of a back-up that is not as it was made."""
    return StoreDamaged(
        f"The back-up {folder} can't be used: {why}.",
        why="It was changed, cut short or mixed with another; nothing was done.",
        todo="Use another one.",
    )


def head_of(listed: Listed) -> Head:
    return Head(size=listed.size, root=listed.root)
