"""What takes a change of the workspace back: which files a call replaced, and by what.

The evidence names contents, it does not hold them: those before the call are in the store still.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from ring0.errors import UndoRefused
from ring0.tools.driver import CallContext, FileChange, Result
from ring0.tools.workspace import Workspace
from ring0.types import File, Frozen, Integrity, Label


class Replaced(Frozen, frozen=True, kw_only=True):
    """One file that a call changed."""

    before: str = ""
    """Address of what it held; empty: it was not there."""
    label: Label | None = None
    """Of what it held."""
    after: str = ""
    """SHA-256 of what it held then; empty: it was gone."""

    @classmethod
    def by(cls, before: File | None, content: bytes | None) -> Replaced:
        """`content` in the place of the file as its row was."""
        return cls(
            before=before.blob if before else "",
            label=before.label if before else None,
            after=digest(content),
        )


class _Evidence(Frozen, frozen=True, kw_only=True):
    path: str
    """The first of them. Evidence with a `path` is about files (see `kernel/undo/undoing.py`)."""
    files: dict[str, Replaced]


def digest(content: bytes | None) -> str:
    """Of a file's content; empty where there is no file."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


def evidence(files: Mapping[str, Replaced]) -> bytes:
    """As a call's outcome keeps it; nothing where no file was changed."""
    if not files:
        return b""
    kept = dict(sorted(files.items()))
    return msgspec.msgpack.encode(_Evidence(path=next(iter(kept)), files=kept))


async def undo(kept: bytes, context: CallContext) -> Result:
    """Puts all files back as they were before the call. Raises UndoRefused, and changes nothing,
    if one of them changed since."""
    files = msgspec.msgpack.decode(kept, type=_Evidence).files
    workspace = context.workspace
    await workspace.turn()
    rows = {file.path: file for file in await workspace.list()}
    changes = []
    for path, replaced in files.items():
        now = await workspace.content(rows[path].blob) if path in rows else None
        if digest(now) != replaced.after:
            raise UndoRefused(
                f"{path!r} has changed since.",
                why="Taking this change back would destroy the newer one.",
                todo="Undo the newer change first.",
            )
        before = await workspace.content(replaced.before) if replaced.before else None
        # What comes back is worth what it was worth before: undo makes nothing trusted.
        changes.append(FileChange(path=path, value=before, label=replaced.label))
    restored = [path for path, replaced in files.items() if replaced.before]
    return Result(
        value={"restored": restored, "removed": [path for path in files if path not in restored]},
        label=Label(integrity=Integrity.SYSTEM),
        files=tuple(changes),
    )


async def rehearse_undo(several: Sequence[bytes], workspace: Workspace) -> list[str]:
    """Of each, one after another: why it can't be taken back; empty where it can. What comes after
    one that can't be is not tried. Nothing is changed."""
    now = {file.path: file.blob for file in await workspace.list()}
    found = [""] * len(several)
    for place, kept in enumerate(several):
        files = msgspec.msgpack.decode(kept, type=_Evidence).files
        for path, replaced in files.items():
            held = await workspace.content(now[path]) if now.get(path) else None
            if digest(held) != replaced.after:
                found[place] = f"{path!r} has changed since."
                return found
        now |= {path: replaced.before for path, replaced in files.items()}
    return found
