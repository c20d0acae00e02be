"""The vault: secrets by name, kept beside the journal and never in it.

A first, small one: one file that only its owner can read, and the environment variables that the
operator names. Who may use a secret, and where, is not decided here.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, NotFound, Ring0Error, StoreDamaged

VAULT_FILE: Final = "vault.json"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One secret. Its `repr` does not show it."""

    value: str
    set_us: int

    def __repr__(self) -> str:
        return "Secret(«hidden»)"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    secrets: dict[str, Secret]

    def __repr__(self) -> str:
        return f"vault({', '.join(self.secrets)})"


class Vault:
    """The secrets of one data folder, as they were when it was opened. `repr` shows names only."""

    def __init__(self, home: Path) -> None:
        """Raises StoreDamaged where the file can't be read or others may read it."""
        self._path = home / VAULT_FILE
        self._secrets = _read(self._path)

    def __repr__(self) -> str:
        return f"Vault({', '.join(self._secrets)})"

    def names(self) -> dict[str, int]:
        """Every name, with when it was set (microseconds since 1970)."""
        return {name: secret.set_us for name, secret in sorted(self._secrets.items())}

    def values(self) -> Mapping[str, str]:
        """Every value by name, for the kernel's far side and its redactor."""
        return {name: secret.value for name, secret in self._secrets.items()}

    def set(self, name: str, value: str, now_us: int) -> None:
        """Keeps a secret; on disk when this returns. Raises InvalidInput, StoreDamaged."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name[:40]!r} is no name for a secret.",
                todo="Use a letter, then letters, digits, `.`, `_` and `-`: GITHUB_TOKEN.",
            )
        if not limits.SECRET_CHARS_MIN <= len(value) <= limits.SECRET_CHARS_MAX:
            raise InvalidInput(
                f"A secret has {limits.SECRET_CHARS_MIN} to {limits.SECRET_CHARS_MAX} characters.",
                why="A shorter one could not be told from ordinary text, and so not be kept in.",
                todo="Give the whole value, without the line's end.",
            )
        if not value.isascii() or not value.isprintable():
            raise InvalidInput(
                "The secret holds characters that no header can carry.",
                todo="Give the value alone: no quotes, no line's end, nothing invisible.",
            )
        with self._alone():
            if name not in self._secrets and len(self._secrets) >= limits.SECRETS_MAX:
                raise InvalidInput(
                    f"The vault holds {limits.SECRETS_MAX} secrets already.",
                    todo="Remove one: `ring0 secret remove NAME`.",
                )
            self._write({**self._secrets, name: Secret(value, now_us)})

    def remove(self, name: str) -> None:
        """Forgets a secret. Raises NotFound."""
        with self._alone():
            if name not in self._secrets:
                raise NotFound(
                    f"The vault holds no secret {name[:40]!r}.",
                    todo="`ring0 secret list` names them.",
                )
            self._write({key: secret for key, secret in self._secrets.items() if key != name})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While it is entered nobody else writes, and what they wrote before is here."""
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _not_written(self._path, error) from None
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
            except OSError as error:
                raise _not_written(self._path, error) from None
            self._secrets = _read(self._path)
            yield
        finally:
            os.close(folder)

    def _write(self, secrets: dict[str, Secret]) -> None:
        """A new file takes the old one's place, whole or not at all."""
        content = msgspec.json.encode(_File(version=1, secrets=secrets))
        beside = self._path.with_name(VAULT_FILE + ".new")
        try:
            beside.unlink(missing_ok=True)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
            os.replace(beside, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _not_written(self._path, error) from None
        self._secrets = secrets


def _read(path: Path) -> dict[str, Secret]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _damaged(path, f"it can't be read: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            raise _damaged(path, "it is no plain file of yours")
        if status.st_mode & 0o077:
            raise _damaged(path, "others may read or write it", f"chmod 600 {path}")
        content = os.read(fd, limits.BLOB_SIZE_BYTES_MAX)
    finally:
        os.close(fd)
    try:
        found = msgspec.json.decode(content, type=_File)
    except msgspec.MsgspecError:  # Its message could quote a value.
        raise _damaged(path, "it is not what ring0 wrote") from None
    if found.version != 1:
        raise _damaged(path, f"it is of version {found.version}, which this ring0 can't read")
    return found.secrets


def _not_written(path: Path, error: OSError) -> Ring0Error:
    return StoreDamaged(
        f"{path} can't be written: {error.strerror}.",
        why="What it held before is still there.",
        todo="Look at the disk and at the folder's rights.",
    )


def _damaged(path: Path, why: str, todo: str = "") -> Ring0Error:
    return StoreDamaged(
        "The vault is not opened.",
        why=f"{path}: {why}.",
        todo=todo or "Put it right, or move it away and set the secrets again.",
    )
