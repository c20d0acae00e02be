"""A run's files: owned by the kernel, content-addressed, in the journal like everything else.

There is no folder on disk: a path is a key, a file is a blob, so a path can't lead anywhere else.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Mapping
from typing import Any

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached, NotFound
from ring0.store.base import Store
from ring0.types import File


def canonical_path(path: str) -> str:
    """A relative path with single slashes. Raises CallInvalid for anything that leads elsewhere."""
    if not path or len(path) > limits.WORKSPACE_PATH_CHARS_MAX:
        raise _bad(path, f"it must have 1 to {limits.WORKSPACE_PATH_CHARS_MAX} characters")
    if path.startswith(("/", "~")) or "\\" in path:
        raise _bad(path, "paths are relative to the workspace, with forward slashes")
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in path):
        raise _bad(path, "it holds a control or invisible character")
    if "%2f" in path.lower() or "%2e" in path.lower() or "%5c" in path.lower():
        raise _bad(path, "it holds an encoded separator")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    # NFKC is for matching only: `‥` and `．．` would become `..` in a careless reader.
    if not parts or any(set(unicodedata.normalize("NFKC", part)) <= {"."} for part in parts):
        raise _bad(path, "it leads out of the workspace")
    if any("/" in unicodedata.normalize("NFKC", part) for part in parts):
        raise _bad(path, "it holds a character that reads as a slash")
    return "/".join(parts)


class Workspace:
    """The files of one run, as they stand in the store."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._changing: asyncio.Task[Any] | None = None

    async def turn(self) -> None:
        """Waits until no other call changes files; then the turn is the caller's until its task is
        over. A call is one task from its door to its record, so nothing comes between what it read
        and what it writes. Take it late: all other changes wait."""
        own = asyncio.current_task()
        while self._changing not in (None, own) and not self._changing.done():
            await asyncio.wait({self._changing})
        self._changing = own

    async def list(self, under: str = "") -> list[File]:
        """All files, or those under a folder; sorted by path."""
        await self._store.flush()
        files = await self._store.files(self._run)
        prefix = canonical_path(under) + "/" if under not in ("", ".", "./") else ""
        return [file for file in files if file.path.startswith(prefix)]

    async def find(self, path: str) -> File | None:
        await self._store.flush()
        return await self._store.file(self._run, path)

    async def read(self, path: str) -> tuple[File, bytes]:
        """Raises NotFound."""
        file = await self.find(path)
        if file is None:
            raise NotFound(
                f"There is no file {path!r} in the workspace.",
                todo="List the files to see what there is.",
            )
        return file, await self._store.blob(file.blob)

    async def content(self, blob: str) -> bytes:
        """What a file holds, by its row's `blob`: also of a row that has been replaced since."""
        return await self._store.blob(blob)

    async def check_room(self, path: str, size_bytes: int) -> None:
        """Raises LimitReached when the file does not fit."""
        check_fits({file.path: file.size_bytes for file in await self.list()} | {path: size_bytes})


def check_fits(sizes_bytes: Mapping[str, int]) -> None:
    """Is this a workspace: files by path, with their sizes? Raises LimitReached."""
    for path, size_bytes in sizes_bytes.items():
        if size_bytes > limits.WORKSPACE_FILE_SIZE_BYTES_MAX:
            raise LimitReached(
                f"{path[:200]!r} has {size_bytes} bytes, which is too large for a workspace.",
                why=f"A file has at most {limits.WORKSPACE_FILE_SIZE_BYTES_MAX}.",
                todo="Split it.",
            )
    total = sum(sizes_bytes.values())
    if len(sizes_bytes) > limits.WORKSPACE_FILES_MAX or total > limits.WORKSPACE_SIZE_BYTES_MAX:
        raise LimitReached(
            f"{len(sizes_bytes)} files with {total} bytes do not fit into a workspace.",
            why=f"It holds {limits.WORKSPACE_FILES_MAX} files and"
            f" {limits.WORKSPACE_SIZE_BYTES_MAX} bytes.",
            todo="Remove files that are no longer needed.",
        )


def _bad(path: str, why: str) -> CallInvalid:
    return CallInvalid(
        f"{path[:80]!r} is not a path of the workspace.",
        why=why,
        todo="Use a path like `answers/0104.md`.",
    )
