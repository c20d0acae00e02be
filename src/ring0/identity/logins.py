"""A login's value: made by the kernel, kept by whoever logged in, on record only as its digest.

Not here: who may log in (oidc.py, kernel/operating/entering.py), what a login may do (roles.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput
from ring0.runtime import Runtime

PREFIX: Final = "r0l_"
"""So that whoever finds one in a wrong place can tell what it is."""
_VALUE: Final = re.compile(PREFIX + r"[0-9a-f]{64}")


class LoginOver(CallDenied):
    """The login has ended: its time is over, or somebody logged out."""

    code = "login_over"


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies in the file. Its `repr` does not show the value."""

    value: str
    name: str
    expires_us: int

    def __repr__(self) -> str:
        return f"Kept({self.name!r})"


def new_value(runtime: Runtime) -> str:
    """256 bits."""
    return PREFIX + runtime.random_bytes(32).hex()


def key_of(value: str) -> str:
    """What the journal knows it by. Raises LoginOver for what can be no value."""
    if not _VALUE.fullmatch(value):
        raise LoginOver(
            "That is no login.",
            why="A login's value is made by the kernel.",
            todo="`ring0 login`; or `ring0 logout`, and be known by your uid.",
        )
    return hashlib.sha256(value.encode()).hexdigest()


# --- where whoever logged in keeps it -----------------------------------------------------------


def place(home: Path, environment: Mapping[str, str]) -> Path:
    """The file for one data folder: beside no data, since who may read those need not be one."""
    configured = environment.get("XDG_CONFIG_HOME") or ""
    base = Path(configured) if os.path.isabs(configured) else None
    if base is None:
        base = Path(environment.get("HOME") or os.path.expanduser("~")) / ".config"
    folder = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:32]
    return base / "ring0" / "logins" / folder


def keep(path: Path, kept: Kept) -> None:
    """Readable by its owner alone. Raises InvalidInput."""
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(fd)
        os.replace(beside, path)
    except OSError as error:
        raise InvalidInput(
            f"{path} can't be written: {error.strerror}.",
            why="The login would be lost with this command.",
            todo="Set XDG_CONFIG_HOME to a folder of yours.",
        ) from None


def kept(path: Path) -> Kept | None:
    """What was kept; None where nothing is. Raises InvalidInput where others could read it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unfit(path, f"it can't be read: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            raise _unfit(path, "it is no plain file of yours")
        if status.st_mode & 0o077:
            raise _unfit(path, "others may read or write it")
        content = os.read(fd, limits.LOGIN_FILE_BYTES_MAX)
    finally:
        os.close(fd)
    try:
        return msgspec.json.decode(content, type=Kept)
    except msgspec.MsgspecError:  # Its message could quote the value.
        raise _unfit(path, "it is not what ring0 wrote") from None


def forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def _unfit(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        "The login that is kept is not used.",
        why=f"{path}: {why}.",
        todo=f"Remove it: rm {path}",
    )
