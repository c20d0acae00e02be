"""What an operator does, on a kernel in this process or on the one that has the folder's socket.

Each verb is a struct that says what a request for it holds, and does it. Not here: the socket
itself, and who may use it (control.py).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import msgspec

from ring0 import limits
from ring0.errors import Busy, CallInvalid, KernelBusy, Ring0Error
from ring0.gateway import ordering
from ring0.gateway.door import Told
from ring0.gateway.holding import supervisor
from ring0.kernel.boot import Kernel
from ring0.runtime import Runtime
from ring0.types import AgentManifest, Approval, Call, Run

SOCKET: Final = "kernel.sock"
encode = msgspec.json.Encoder().encode


class Operations(Protocol):
    """What an operator does, on a kernel at work or on one opened for it."""

    async def answer(self, approval: str, *, yes: bool, note: str = "") -> Approval: ...

    async def settle(self, call: str, *, happened: bool, note: str = "") -> Call: ...

    async def kill(self, scope: str, target: str) -> list[str]: ...

    async def undo(self, run: str, call: str = "") -> Run: ...

    async def pause(self, run: str, *, tree: bool = False, note: str = "") -> list[str]: ...

    async def resume(self, run: str, *, tree: bool = False) -> list[str]: ...

    async def send(self, run: str, text: str) -> None: ...

    async def budget(self, run: str, more: dict[str, int], *, note: str = "") -> Run: ...

    async def order(self, change: ordering.AnyChange) -> Any: ...

    async def load(self) -> Any: ...


class Direct:
    """Operations on a kernel in this process, by whoever runs it."""

    def __init__(self, kernel: Kernel, by: str) -> None:
        self._kernel = kernel
        self._by = by

    async def answer(self, approval: str, *, yes: bool, note: str = "") -> Approval:
        return await self._kernel.answer(approval, yes=yes, by=self._by, note=note)

    async def settle(self, call: str, *, happened: bool, note: str = "") -> Call:
        return await self._kernel.settle(call, happened=happened, by=self._by, note=note)

    async def kill(self, scope: str, target: str) -> list[str]:
        return await self._kernel.kill(scope, target, by=self._by)

    async def undo(self, run: str, call: str = "") -> Run:
        return await self._kernel.undo(run, by=self._by, only=call)

    async def pause(self, run: str, *, tree: bool = False, note: str = "") -> list[str]:
        return await self._kernel.pause(run, by=self._by, note=note, tree=tree)

    async def resume(self, run: str, *, tree: bool = False) -> list[str]:
        return await self._kernel.resume(run, by=self._by, tree=tree)

    async def send(self, run: str, text: str) -> None:
        await self._kernel.send(run, text, by=self._by)

    async def budget(self, run: str, more: dict[str, int], *, note: str = "") -> Run:
        return await self._kernel.raise_budget(run, more, by=self._by, note=note)

    async def order(self, change: ordering.AnyChange) -> Any:
        """Crons and hooks."""
        return await ordering.do(self._kernel, self._by, change)

    async def load(self) -> Any:
        """What only the kernel's memory holds: slots and their queues, who waits for locks, which
        runs could not go on."""
        kernel = self._kernel
        found: dict[str, Any] = msgspec.to_builtins(kernel.load())
        left = islice(kernel.runs.not_recovered.items(), limits.NOT_RECOVERED_SHOWN_MAX)
        return {
            **found,
            "lock_waits": kernel.locking.snapshot(),
            "not_recovered": {
                run: str(error)[: limits.NOT_RECOVERED_CHARS_MAX] for run, error in left
            },
        }

    async def start(
        self, manifest: AgentManifest, around: tuple[str, ...], task: str, priority: int | None
    ) -> Run:
        """Describes the agent and starts a run of it. Raises what keeps it from starting."""
        if not os.path.isabs(manifest.folder):
            raise CallInvalid(
                "The agent's folder is no absolute path.",
                why="The kernel works in another folder than whoever asks.",
                todo="Use the `ring0` command of the same version.",
            )
        family = prioritised(await self._kernel.describe(manifest, around), priority)
        return await self._kernel.start(family, task, principal=self._by)


def prioritised(family: Any, priority: int | None) -> Any:
    """The family with the priority that the operator gives its first agent."""
    if priority is None:
        return family
    manifest = msgspec.structs.replace(family.manifest, priority=priority)
    return msgspec.structs.replace(family, manifest=manifest)


# --- what a request for a verb holds, and how it is done ---------------------------------------


class _Verb(msgspec.Struct, forbid_unknown_fields=True):
    """Fields that don't fit are refused, never given a default."""


class _Answer(_Verb):
    approval: str
    yes: bool
    note: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.answer(self.approval, yes=self.yes, note=self.note)


class _Settle(_Verb):
    call: str
    happened: bool
    note: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.settle(self.call, happened=self.happened, note=self.note)


class _Kill(_Verb):
    scope: str
    target: str

    async def do(self, to: Direct) -> Any:
        return await to.kill(self.scope, self.target)


class _Undo(_Verb):
    run: str
    call: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.undo(self.run, self.call)


class _Pause(_Verb):
    run: str
    tree: bool = False
    note: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.pause(self.run, tree=self.tree, note=self.note)


class _Resume(_Verb):
    run: str
    tree: bool = False

    async def do(self, to: Direct) -> Any:
        return await to.resume(self.run, tree=self.tree)


class _Send(_Verb):
    run: str
    text: str

    async def do(self, to: Direct) -> Any:
        return await to.send(self.run, self.text)


class _Budget(_Verb):
    run: str
    more: dict[str, int]
    note: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.budget(self.run, self.more, note=self.note)


class _Load(_Verb):
    async def do(self, to: Direct) -> Any:
        return await to.load()


class _Order(_Verb):
    change: ordering.AnyChange

    async def do(self, to: Direct) -> Any:
        return await to.order(self.change)


class _Start(_Verb):
    manifest: AgentManifest
    task: str
    around: tuple[str, ...] = ()
    priority: ordering.Priority | None = None

    async def do(self, to: Direct) -> Any:
        return await to.start(self.manifest, self.around, self.task, self.priority)


VERBS: Final[dict[str, Any]] = {
    "answer": _Answer,
    "settle": _Settle,
    "kill": _Kill,
    "undo": _Undo,
    "pause": _Pause,
    "resume": _Resume,
    "send": _Send,
    "budget": _Budget,
    "load": _Load,
    "order": _Order,
    "run": _Start,
}


def asked_for(verb: str, body: Any) -> Any:
    """The request for a verb. Raises CallInvalid."""
    try:
        return msgspec.convert(body, VERBS[verb])
    except msgspec.ValidationError as error:
        # Never a default: a `happened` that is no bool must not become "it did not happen".
        raise CallInvalid(
            f"{verb} was asked for without what it needs.",
            why=str(error),
            todo="Use the `ring0` command of the same version.",
        ) from None


# --- the other end ------------------------------------------------------------------------------


@contextmanager
def short(home: Path) -> Iterator[str]:
    """The socket by a short name: an address has room for 107 bytes, a folder may lie deeper."""
    folder = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)


class Remote:
    """Operations on the kernel that has the folder's socket."""

    def __init__(self, home: Path, runtime: Runtime | None = None) -> None:
        self._home = home
        self._runtime = runtime or Runtime()

    async def answer(self, approval: str, *, yes: bool, note: str = "") -> Approval:
        body = {"approval": approval, "yes": yes, "note": note}
        return msgspec.convert(await self._ask("answer", body), Approval)

    async def settle(self, call: str, *, happened: bool, note: str = "") -> Call:
        body = {"call": call, "happened": happened, "note": note}
        return msgspec.convert(await self._ask("settle", body), Call)

    async def kill(self, scope: str, target: str) -> list[str]:
        return msgspec.convert(
            await self._ask("kill", {"scope": scope, "target": target}), list[str]
        )

    async def undo(self, run: str, call: str = "") -> Run:
        return msgspec.convert(await self._ask("undo", {"run": run, "call": call}), Run)

    async def pause(self, run: str, *, tree: bool = False, note: str = "") -> list[str]:
        body = {"run": run, "tree": tree, "note": note}
        return msgspec.convert(await self._ask("pause", body), list[str])

    async def resume(self, run: str, *, tree: bool = False) -> list[str]:
        return msgspec.convert(await self._ask("resume", {"run": run, "tree": tree}), list[str])

    async def send(self, run: str, text: str) -> None:
        await self._ask("send", {"run": run, "text": text})

    async def budget(self, run: str, more: dict[str, int], *, note: str = "") -> Run:
        body = {"run": run, "more": more, "note": note}
        return msgspec.convert(await self._ask("budget", body), Run)

    async def order(self, change: ordering.AnyChange) -> Any:
        return await self._ask("order", {"change": change})

    async def load(self) -> Any:
        return await self._ask("load", {})

    async def start(
        self, manifest: AgentManifest, around: tuple[str, ...], task: str, priority: int | None
    ) -> Run:
        body = {"manifest": manifest, "around": around, "task": task, "priority": priority}
        ends_us = self._runtime.monotonic_us() + limits.CONTROL_RECONNECT_S_MAX * 1_000_000
        while True:
            try:
                return msgspec.convert(await self._ask("run", body), Run)
            except Told as error:
                # Too many are being started just now: nothing was begun.
                if error.code != Busy.code or self._runtime.monotonic_us() > ends_us:
                    raise
                await self._runtime.sleep(limits.BEAT_S)

    async def printed(self, run: str, *, since_start: bool) -> AsyncIterator[tuple[str, str]]:
        """(run, text) of what a run and all beneath it print, until the kernel ends."""
        query = {"run": run, "all": str(int(since_start))}
        try:
            async with (
                self._session() as session,
                session.get("http://kernel/v1/printed", params=query) as response,
            ):
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
                timeout=aiohttp.ClientTimeout(total=None),  # An undo takes as long as it takes.
                read_bufsize=limits.RUN_OUTPUT_SIZE_BYTES_MAX,  # One line holds what came at once.
            ) as session:
                yield session

    async def _ask(self, verb: str, body: dict[str, Any]) -> Any:
        ends_us = self._runtime.monotonic_us() + limits.CONTROL_RECONNECT_S_MAX * 1_000_000
        while True:
            try:
                async with (
                    self._session() as session,
                    session.post(f"http://kernel/v1/{verb}", data=encode(body)) as response,
                ):
                    answer = msgspec.json.decode(await response.read())
                break
            except aiohttp.ClientConnectorError:
                # Nothing was sent. Where a daemon is, its worker is being replaced.
                if supervisor(self._home) is None or self._runtime.monotonic_us() > ends_us:
                    raise _silent() from None
                await self._runtime.sleep(limits.BEAT_S)
            except (aiohttp.ClientError, OSError, msgspec.DecodeError):
                raise _silent() from None
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
