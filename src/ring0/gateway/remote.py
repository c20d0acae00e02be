"""Operations on the kernel that has the folder's socket, from a process of its own.

What each verb's request holds, and how it is done there, is in operations.py and beside it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from ring0 import limits
from ring0.errors import Busy, KernelBusy, Ring0Error
from ring0.gateway import ordering
from ring0.gateway.holding import supervisor
from ring0.gateway.told import Told
from ring0.identity import logins
from ring0.runtime import Runtime
from ring0.types import AgentManifest, Approval, Call, Run

SOCKET: Final = "kernel.sock"
encode = msgspec.json.Encoder().encode


@contextmanager
def short(home: Path) -> Iterator[str]:
    """The socket by a short name: an address has room for 107 bytes, a folder may lie deeper."""
    folder = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)


def presented_of(home: Path, environment: Mapping[str, str]) -> str:
    """The value of the login that this person keeps for the folder; empty: none. Raises
    InvalidInput."""
    kept = logins.kept(logins.place(home, environment))
    return kept.value if kept else ""


def remote(home: Path, runtime: Runtime, environment: Mapping[str, str]) -> Remote:
    """The kernel at work there, by the login that is kept for it, or else by the uid."""
    return Remote(home, runtime, presented_of(home, environment))


class Remote:
    """Operations on the kernel that has the folder's socket."""

    def __init__(self, home: Path, runtime: Runtime | None = None, presented: str = "") -> None:
        """`presented`: the value of a login; without one, who asks is this process's uid."""
        self._home = home
        self._runtime = runtime or Runtime()
        self._headers = {"Authorization": f"Bearer {presented}"} if presented else {}

    async def answer(self, approval: str, *, yes: bool, note: str = "") -> Approval:
        body = {"approval": approval, "yes": yes, "note": note}
        return msgspec.convert(await self.ask("answer", body), Approval)

    async def settle(self, call: str, *, happened: bool, note: str = "") -> Call:
        body = {"call": call, "happened": happened, "note": note}
        return msgspec.convert(await self.ask("settle", body), Call)

    async def kill(self, scope: str, target: str) -> list[str]:
        body = {"scope": scope, "target": target}
        # Where the worker ends in the middle: what it had on disk holds, and twice is nothing.
        return msgspec.convert(await self.ask("kill", body, twice=True), list[str])

    async def undo(self, run: str, call: str = "") -> Run:
        return msgspec.convert(await self.ask("undo", {"run": run, "call": call}), Run)

    async def pause(self, run: str, *, tree: bool = False, note: str = "") -> list[str]:
        body = {"run": run, "tree": tree, "note": note}
        return msgspec.convert(await self.ask("pause", body), list[str])

    async def resume(self, run: str, *, tree: bool = False) -> list[str]:
        return msgspec.convert(await self.ask("resume", {"run": run, "tree": tree}), list[str])

    async def send(self, run: str, text: str) -> None:
        await self.ask("send", {"run": run, "text": text})

    async def budget(self, run: str, more: dict[str, int], *, note: str = "") -> Run:
        body = {"run": run, "more": more, "note": note}
        return msgspec.convert(await self.ask("budget", body), Run)

    async def order(self, change: ordering.AnyChange) -> Any:
        return await self.ask("order", {"change": change})

    async def load(self) -> Any:
        return await self.ask("load", {})

    async def start(
        self,
        manifest: AgentManifest,
        around: tuple[str, ...],
        task: str,
        priority: int | None,
        only: tuple[str, ...] | None = None,
        traceparent: str = "",
    ) -> Run:
        body: dict[str, Any] = {"manifest": manifest, "around": around, "task": task}
        body |= {"priority": priority, "only": only, "traceparent": traceparent}
        ends_us = self._runtime.monotonic_us() + limits.CONTROL_RECONNECT_S_MAX * 1_000_000
        while True:
            try:
                return msgspec.convert(await self.ask("run", body), Run)
            except Told as error:
                # Too many are being started just now: nothing was begun.
                if error.code != Busy.code or self._runtime.monotonic_us() > ends_us:
                    raise
                await self._runtime.sleep(limits.BEAT_S)

    async def printed(self, run: str, *, since_start: bool) -> AsyncIterator[tuple[str, str]]:
        """(run, text) of what a run and all beneath it print, until the kernel ends. Raises Told
        where who asks may not look on."""
        query = {"run": run, "all": str(int(since_start))}
        try:
            async with (
                self._session() as session,
                session.get("http://kernel/v1/printed", params=query) as response,
            ):
                if response.status == HTTPStatus.FORBIDDEN:
                    raise _as_told(msgspec.json.decode(await response.read())["error"])
                async for row in response.content:
                    if row.strip():  # Else it only looks whether we are still here.
                        yield msgspec.json.decode(row, type=tuple[str, str])
        except (aiohttp.ClientError, OSError, ValueError, msgspec.DecodeError):
            return

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        with short(self._home) as path:
            async with aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),  # An undo takes as long as it takes.
                read_bufsize=limits.RUN_OUTPUT_SIZE_BYTES_MAX,  # One line holds what came at once.
            ) as session:
                yield session

    async def ask(self, verb: str, body: Any, *, twice: bool = False) -> Any:
        """Any verb. `twice`: to do it twice is to do it once, so it is asked again where no answer
        came. Raises Told, KernelBusy."""
        ends_us = self._runtime.monotonic_us() + limits.CONTROL_RECONNECT_S_MAX * 1_000_000
        while True:
            try:
                async with (
                    self._session() as session,
                    session.post(f"http://kernel/v1/{verb}", data=encode(body)) as response,
                ):
                    answer = msgspec.json.decode(await response.read())
                break
            except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
                # Where a daemon is, its worker is being replaced.
                sent = not isinstance(error, aiohttp.ClientConnectorError)
                over = self._runtime.monotonic_us() > ends_us or supervisor(self._home) is None
                if over or (sent and not twice):
                    raise _silent() from None
                await self._runtime.sleep(limits.BEAT_S)
        if "error" in answer:
            raise _as_told(answer["error"])
        return answer["value"]


def _as_told(error: dict[str, str]) -> Told:
    """What the kernel said, with the exit code that its kind of error has here too."""
    told = Told(error)
    kinds: list[type[Ring0Error]] = [Ring0Error]
    for kind in kinds:  # It grows as it is gone through.
        kinds += kind.__subclasses__()
        if kind.code == told.code and kind is not Told:
            told.exit_code = kind.exit_code  # type: ignore[misc]
            break
    return told


def _silent() -> KernelBusy:
    return KernelBusy(
        "Another kernel has this folder, and it does not answer.",
        why="It is starting, ending, or stuck.",
        todo="Try again; `ring0 doctor` shows its process.",
    )
