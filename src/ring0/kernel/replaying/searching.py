"""The first of a row of revisions that is not good any more: a binary search, and what git holds.

Not here: what good means. Revisions of a folder are laid out beside it, never checked out in it.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from ring0 import limits
from ring0.errors import InvalidInput, Ring0Error
from ring0.runtime import Runtime
from ring0.types import Frozen

_QUIET: Final = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


class Tried(Frozen, frozen=True, kw_only=True):
    """One revision, and what became of it."""

    revision: str
    why: str = ""
    """What is not good; empty: it is."""


class Found(Frozen, frozen=True, kw_only=True):
    """Where it went wrong."""

    bad: Tried
    good: str
    """The one before it."""
    tried: tuple[Tried, ...]


Check = Callable[[str], Awaitable[str]]
"""Of a revision: what is not good about it; empty: it is good."""


async def first_bad(revisions: Sequence[str], check: Check) -> Found:
    """`revisions`: from one that is good to one that isn't. Raises InvalidInput where that is not
    so."""
    tried: dict[str, Tried] = {}

    async def why(at: int) -> str:
        revision = revisions[at]
        if revision not in tried:
            tried[revision] = Tried(revision=revision, why=await check(revision))
        return tried[revision].why

    if len(revisions) < 2:
        raise InvalidInput(
            "There is nothing between the two.", todo="Name one that is good and a later bad one."
        )
    if no := await why(0):
        raise InvalidInput(
            f"{revisions[0][:12]}, which is said to be good, is not.", why=no, todo="Name another."
        )
    if not await why(len(revisions) - 1):
        raise InvalidInput(
            f"{revisions[-1][:12]}, which is said to be bad, is good.", todo="Name another."
        )
    good, bad = 0, len(revisions) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if await why(middle):
            bad = middle
        else:
            good = middle
    return Found(bad=tried[revisions[bad]], good=revisions[good], tried=tuple(tried.values()))


class Repository:
    """The git work tree that a folder lies in."""

    def __init__(self, top: Path, inside: str, runtime: Runtime) -> None:
        self._top = top
        self.inside = inside
        """Where the folder lies in it."""
        self._runtime = runtime

    @classmethod
    async def around(cls, folder: Path, runtime: Runtime) -> Repository:
        """Raises InvalidInput."""
        there = cls(folder, "", runtime)
        top = Path((await there._git("rev-parse", "--show-toplevel")).decode().strip())
        inside = os.path.relpath(folder.resolve(), top.resolve())
        return cls(top, "" if inside == "." else inside, runtime)

    async def between(self, good: str, bad: str) -> list[str]:
        """Commits from the good one to the bad one, along first parents. Raises InvalidInput."""
        ends = [await self._commit(name) for name in (good, bad)]
        listed = await self._git("rev-list", "--reverse", "--first-parent", "..".join(ends))
        commits = listed.decode().split()
        if not commits or len(commits) > limits.BISECT_REVISIONS_MAX:
            raise InvalidInput(
                f"From {good[:40]} no way leads to {bad[:40]}, or a very long one.",
                why="First parents are followed.",
                todo="Name a commit and a later one on its branch.",
            )
        return [ends[0], *commits]

    async def told(self, commit: str) -> str:
        """The first line of its message."""
        return (await self._git("log", "-1", "--format=%s", commit)).decode("utf-8", "replace")

    async def lay_out(self, commit: str, folder: Path) -> Path:
        """What that commit holds, beneath `folder`; where the folder lies in it. Raises
        InvalidInput."""
        paths = ["--", self.inside] if self.inside else []
        data = await self._git("archive", "--format=tar", commit, *paths)
        with tarfile.open(fileobj=io.BytesIO(data)) as held:
            try:
                held.extractall(folder, filter="data")
            except (tarfile.TarError, OSError) as error:
                raise InvalidInput(
                    f"{commit[:12]} can't be laid out: {str(error)[:300]}.",
                    todo="Name a folder of plain files.",
                ) from None
        return folder / self.inside

    async def _commit(self, name: str) -> str:
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        try:
            return (await self._git(*words)).decode().strip()
        except InvalidInput:
            raise InvalidInput(
                f"git knows no commit {name[:60]!r} here.", todo="`git log` lists them."
            ) from None

    async def _git(self, *words: str) -> bytes:
        """Raises InvalidInput with what git says."""
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                "-c",
                "core.fsmonitor=false",
                "-c",
                "log.showSignature=false",  # Else what a repository names as gpg is started.
                "-c",
                "protocol.allow=never",  # What is not here is not fetched.
                "-C",
                str(self._top),
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=limits.KIB,
                env={**os.environ, **_QUIET},
            )
        except OSError as error:
            raise InvalidInput(
                f"git can't be started: {error.strerror}.", todo="Install it."
            ) from None
        try:
            out, said = await self._runtime.wait_for(
                asyncio.gather(_bounded(process.stdout), _bounded(process.stderr)),
                limits.BISECT_GIT_S_MAX,
            )
        except (TimeoutError, Ring0Error) as error:
            process.kill()
            why = error.why if isinstance(error, Ring0Error) else "it took too long"
            raise InvalidInput(f"git {words[0]} came to no end.", why=why) from None
        finally:
            await process.wait()
        if process.returncode:
            lines = said.decode("utf-8", "replace").strip().splitlines() or [""]
            raise InvalidInput(
                f"git {words[0]} failed.", why=lines[-1][:300], todo="Is this a git work tree?"
            )
        return out


async def _bounded(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None, "it was opened with a pipe"
    found = bytearray()
    while piece := await stream.read(limits.MIB):
        found += piece
        if len(found) > limits.BISECT_TREE_SIZE_BYTES_MAX:
            raise InvalidInput(
                "A revision is too large.",
                why=f"At most {limits.BISECT_TREE_SIZE_BYTES_MAX:,} bytes are laid out.",
            )
    return bytes(found)
