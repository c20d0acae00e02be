"""The operator's way to a kernel that is at work: JSON on a unix socket that only its owner opens.

Who asks is the peer's uid, as the operating system says it, never a name in the request. A process
in namespaces of its own (a sandbox, which may have our uid) is refused, whatever its uid.
    POST /v1/answer {approval, yes, note}   POST /v1/settle {call, happened, note}
    POST /v1/kill {scope, target}           POST /v1/undo {run, call}
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import msgspec
from aiohttp import web

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, KernelBusy, Ring0Error
from ring0.gateway.door import Told
from ring0.gateway.listening import Listening
from ring0.identity import operator_name
from ring0.kernel import values
from ring0.kernel.boot import Kernel, open_kernel
from ring0.runtime import Runtime
from ring0.types import Approval, Call, Run

SOCKET = "kernel.sock"
_PEER = struct.Struct("3i")
_NAMESPACES: Final = ("user", "pid")
_encode = msgspec.json.Encoder().encode


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    approval: str
    yes: bool
    note: str = ""


class _Settle(msgspec.Struct, forbid_unknown_fields=True):
    call: str
    happened: bool
    note: str = ""


class _Kill(msgspec.Struct, forbid_unknown_fields=True):
    scope: str
    target: str


class _Undo(msgspec.Struct, forbid_unknown_fields=True):
    run: str
    call: str = ""


_BODIES: Final[dict[str, Any]] = {
    "answer": _Answer,
    "settle": _Settle,
    "kill": _Kill,
    "undo": _Undo,
}


class Operations(Protocol):
    """What an operator does, on a kernel at work or on one opened for it."""

    async def answer(self, approval: str, *, yes: bool, note: str = "") -> Approval: ...

    async def settle(self, call: str, *, happened: bool, note: str = "") -> Call: ...

    async def kill(self, scope: str, target: str) -> list[str]: ...

    async def undo(self, run: str, call: str = "") -> Run: ...


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


@contextmanager
def _short(home: Path) -> Iterator[str]:
    """The socket by a short name: an address has room for 107 bytes, a folder may lie deeper."""
    folder = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)


class Remote:
    """Operations on the kernel that has the folder's socket."""

    def __init__(self, home: Path) -> None:
        self._home = home

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

    async def _ask(self, verb: str, body: dict[str, Any]) -> Any:
        try:
            with _short(self._home) as path:
                async with (
                    aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
                    session.post(f"http://kernel/v1/{verb}", data=_encode(body)) as response,
                ):
                    answer = msgspec.json.decode(await response.read())
        except (aiohttp.ClientError, OSError, msgspec.DecodeError):
            raise KernelBusy(
                "Another kernel has this folder, and it does not answer.",
                why="It is starting, ending, or stuck.",
                todo="Try again; `ring0 doctor` shows its process.",
            ) from None
        if "error" in answer:
            raise Told(answer["error"])
        return answer["value"]


class Control:
    """Serves the socket while a kernel is at work."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._listening: Listening | None = None
        self._path = kernel.home / SOCKET

    async def open(self) -> None:
        app = web.Application()
        for verb in _BODIES:
            app.router.add_post(f"/v1/{verb}", self._handler(verb))
        self._listening = Listening(
            app,
            connections_max=limits.CONTROL_CONNECTIONS_MAX,
            idle_s_max=limits.CONTROL_IDLE_S_MAX,
            cancels=False,  # A kill goes on without whoever asked for it.
            is_stranger=_is_stranger,
            strangers_max=limits.CONTROL_STRANGERS_MAX,
        )
        if self._path.exists() and stat.S_ISSOCK(self._path.lstat().st_mode):
            self._path.unlink()  # Of a kernel that was killed: we hold its lock.
        old = os.umask(0o177)
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            with _short(self._path.parent) as path:
                listener.bind(path)
        finally:
            os.umask(old)
        listener.listen(16)
        await self._listening.open(listener)

    async def close(self) -> None:
        if self._listening is not None:
            await self._listening.close()
            self._path.unlink(missing_ok=True)

    def _handler(self, verb: str) -> Any:
        async def handle(request: web.Request) -> web.Response:
            try:
                by = _peer(request.transport)
                body = values.parse(await self._read(request))
                value = await self._do(Direct(self._kernel, by), verb, body)
                answer = {"value": value}
            except Ring0Error as error:
                answer = {"error": error.as_dict()}
            return web.Response(body=_encode(answer), content_type="application/json")

        return handle

    async def _read(self, request: web.Request) -> bytes:
        try:
            return await self._kernel.runtime.wait_for(request.read(), limits.DOOR_BODY_S_MAX)
        except TimeoutError:
            raise CallInvalid("The request's body came too slowly.", todo="Try again.") from None

    async def _do(self, direct: Direct, verb: str, body: Any) -> Any:
        try:
            asked = msgspec.convert(body, _BODIES[verb])
        except msgspec.ValidationError as error:
            # Never a default: a `happened` that is no bool must not become "it did not happen".
            raise CallInvalid(
                f"{verb} was asked for without what it needs.",
                why=str(error),
                todo="Use the `ring0` command of the same version.",
            ) from None
        match asked:
            case _Answer():
                return await direct.answer(asked.approval, yes=asked.yes, note=asked.note)
            case _Settle():
                return await direct.settle(asked.call, happened=asked.happened, note=asked.note)
            case _Kill():
                return await direct.kill(asked.scope, asked.target)
            case _:
                return await direct.undo(asked.run, asked.call)


def _peer(transport: asyncio.BaseTransport | None) -> str:
    """The operator at the other end. Raises CallDenied for a process that can't be one."""
    if transport is None:
        raise CallDenied("The connection is gone.", todo="Connect again.")
    connection = transport.get_extra_info("socket")
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    process, uid, _ = _PEER.unpack(packed)
    try:
        near = all(
            os.readlink(f"/proc/{process}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
            for kind in _NAMESPACES
        )
    except OSError:  # It has ended, or it is not ours to look at.
        near = False
    if not near:
        raise CallDenied(
            "A process of a sandbox operates nothing.",
            why=f"Process {process} (uid {uid}) is not known to be in the kernel's own user and"
            " pid namespaces.",
            todo="Use `ring0` outside of any sandbox or container, beside the kernel.",
        )
    return operator_name(uid)


def _is_stranger(transport: asyncio.Transport) -> bool:
    try:
        _peer(transport)
    except CallDenied:
        return True
    return False


@asynccontextmanager
async def operations(
    home: Path, runtime: Runtime, environment: Mapping[str, str]
) -> AsyncIterator[Operations]:
    """The kernel at work on this folder, or one opened just for this."""
    try:
        kernel = await open_kernel(home, runtime, environment)
    except KernelBusy:
        yield Remote(home)
        return
    try:
        yield Direct(kernel, operator_name(os.getuid()))
    finally:
        await kernel.close()
