"""The operator's way to a kernel that is at work: JSON on a unix socket that only its owner opens.

Who asks is the peer's uid, as the operating system says it, or the login whose value it shows,
never a name in the request; what each may ask for is in roles.py. A process in namespaces of its
own (a sandbox, which may have our uid) is refused, whatever its uid.
    POST /v1/VERB              what each verb takes is in operations.py
    GET  /v1/printed?run=&all= what the run's processes print, a JSON row each, as it comes
    GET  /metrics              its numbers, as Prometheus reads them
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from ring0 import limits
from ring0.errors import Busy, CallDenied, CallInvalid, KernelBusy, LimitReached, Ring0Error
from ring0.gateway import door, metrics, roles
from ring0.gateway.calls import CallDoor
from ring0.gateway.holding import supervisor
from ring0.gateway.listening import Listening
from ring0.gateway.operations import STARTING, VERBS, Direct, Operations, asked_for
from ring0.gateway.printed import Printed
from ring0.gateway.remote import SOCKET, Remote, encode, presented_of, short
from ring0.kernel import values
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.telemetry.measuring import Measures
from ring0.runtime import Runtime

_PEER = struct.Struct("3i")
_NAMESPACES: Final = ("user", "pid")


class Control:
    """Serves the socket while a kernel is at work."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._listening: Listening | None = None
        self._path = kernel.home / SOCKET
        self.measures = Measures(kernel)
        self._printed = Printed(kernel.runtime, self._root_of)
        self._followers = 0
        self._beginning = 0
        """Runs that are just being described and started."""
        self.is_ending = False
        """Runs are started no more: the kernel is about to end."""

    async def open(self, *, runs: bool = False) -> None:
        """`runs`: those may be started through it, and what they print is handed on."""
        app = web.Application()
        for verb in VERBS:
            if runs or verb not in STARTING:
                app.router.add_post(f"/v1/{verb}", self._handler(verb))
        if runs:
            app.router.add_get("/v1/printed", self._print)
            self._kernel.runs.heard = self._printed.heard
        app.router.add_get("/metrics", self._metrics)
        await self.measures.begin()
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
            with short(self._path.parent) as path:
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
                uid, presented = _peer(request.transport), _presented(request)
                by = await self._kernel.logins.operator(uid, presented)
                roles.check(by, verb)
                asked = asked_for(verb, values.parse(await self._read(request)))
                async with self._room_for(verb):
                    answer = {
                        "value": await asked.do(
                            Direct(self._kernel, by, uid=uid, presented=presented)
                        )
                    }
            except Ring0Error as error:
                answer = {"error": error.as_dict()}
            return web.Response(body=encode(answer), content_type="application/json")

        return handle

    @asynccontextmanager
    async def _room_for(self, verb: str) -> AsyncIterator[None]:
        """A few runs are begun at the same time, so that a kill always finds a connection."""
        if verb not in STARTING:
            yield
            return
        if self.is_ending:
            raise _ending()
        if self._beginning >= limits.RUNS_BEGUN_AT_ONCE_MAX:
            raise _busy()
        self._beginning += 1
        try:
            yield
        finally:
            self._beginning -= 1

    async def _read(self, request: web.Request) -> bytes:
        try:
            return await self._kernel.runtime.wait_for(request.read(), limits.DOOR_BODY_S_MAX)
        except TimeoutError:
            raise CallInvalid("The request's body came too slowly.", todo="Try again.") from None

    async def _print(self, request: web.Request) -> web.StreamResponse:
        """Hands on what a tree of runs prints, until who asked goes away."""
        try:
            uid, presented = _peer(request.transport), _presented(request)
            await self._check_looks_on(uid, presented)
            if self._followers >= limits.PRINTED_FOLLOWERS_MAX:
                raise _too_many()
        except Ring0Error as error:
            return web.Response(body=encode({"error": error.as_dict()}), status=403)
        run = await self._kernel.store.run(request.query.get("run", ""))
        root = run.root if run is not None else ""
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        self._followers += 1
        try:
            await answer.prepare(request)
            since_start = request.query.get("all") == "1"
            async for told in self._printed.of(root, since_start=since_start):
                # Each time: the login may be over, the roles may have changed.
                await self._check_looks_on(uid, presented)
                await answer.write((encode(told) if told else b"") + b"\n")
        except (ConnectionError, CallDenied):
            pass  # Nobody looks on any more, or nobody who may.
        finally:
            self._followers -= 1
        return answer

    async def _metrics(self, request: web.Request) -> web.Response:
        """As Prometheus reads them, for who may look."""
        try:
            by = await self._kernel.logins.operator(_peer(request.transport), _presented(request))
            roles.check(by, "metrics")
        except Ring0Error as error:
            return web.Response(body=encode({"error": error.as_dict()}), status=403)
        return await metrics.answer(self.measures)

    async def _check_looks_on(self, uid: int, presented: str) -> None:
        """Raises LoginOver, RoleMissing."""
        roles.check(await self._kernel.logins.operator(uid, presented), "printed")

    def _root_of(self, run: str) -> str:
        live = self._kernel.gate.live.get(run)
        return live.row.root if live is not None else run


def _ending() -> KernelBusy:
    return KernelBusy(
        "No run is started: the daemon is stopping.",
        why="What goes on is kept and goes on at its next start.",
        todo="Try again when it is at work.",
    )


def _busy() -> Busy:
    return Busy(
        f"{limits.RUNS_BEGUN_AT_ONCE_MAX} runs are just being started.",
        why="Each agent is described in a sandbox first.",
        todo="Try again in a second.",
        after_s=1,
    )


def _too_many() -> LimitReached:
    return LimitReached(
        f"{limits.PRINTED_FOLLOWERS_MAX} commands look on already.",
        why="Each holds a connection, and a kill must find one that is free.",
        todo="End one of them.",
    )


def _presented(request: web.Request) -> str:
    """The value of a login, where one came along. Raises CallInvalid for anything else."""
    said = request.headers.getall("Authorization", [])
    if not said:
        return ""
    kind, _, value = said[0].partition(" ")
    if len(said) > 1 or kind != "Bearer" or not value:
        raise CallInvalid("Who asks is said in no way that is known.", todo="Bearer, or nothing.")
    return value


def _peer(transport: asyncio.BaseTransport | None) -> int:
    """The uid at the other end. Raises CallDenied for a process that can't be one."""
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
    return int(uid)


def _is_stranger(transport: asyncio.Transport) -> bool:
    try:
        _peer(transport)
    except CallDenied:
        return True
    return False


@asynccontextmanager
async def at_work(
    home: Path, runtime: Runtime, environment: Mapping[str, str], *, runs: bool = False
) -> AsyncIterator[tuple[Kernel, Control]]:
    """A kernel with its doors and its control socket; `runs`: others may start runs on it."""
    kernel = await open_kernel(home, runtime, environment)
    kernel.runs.doors = door.doors(kernel.gate, kernel.identities)
    kernel.anchoring.begin()
    kernel.memory.begin()
    control, calls = Control(kernel), CallDoor(kernel)
    kernel.granting.open_door = calls.open_local
    try:
        await calls.open()
        await control.open(runs=runs)
        yield kernel, control
    finally:
        await control.close()
        await calls.close()
        await kernel.close()


async def here(kernel: Kernel, environment: Mapping[str, str]) -> Direct:
    """Operations on a kernel of this process, by whoever runs it. Raises LoginOver."""
    presented = presented_of(kernel.home, environment)
    by = await kernel.logins.operator(os.getuid(), presented)
    return Direct(kernel, by, presented=presented)


@asynccontextmanager
async def operations(
    home: Path, runtime: Runtime, environment: Mapping[str, str], *, as_login: bool = True
) -> AsyncIterator[Operations]:
    """The kernel at work on this folder, or one opened just for this. `as_login`: by the login
    that this person keeps for the folder, if there is one; else by the uid.

    Where a daemon is, none is opened though its worker may be gone just now: it has the folder.
    """
    presented = presented_of(home, environment) if as_login else ""
    if supervisor(home) is not None:
        yield Remote(home, runtime, presented)
        return
    try:
        kernel = await open_kernel(home, runtime, environment)
    except KernelBusy:
        yield Remote(home, runtime, presented)
        return
    try:
        by = await kernel.logins.operator(os.getuid(), presented)
        yield Direct(kernel, by, presented=presented)
    finally:
        await kernel.close()


__all__ = ["SOCKET", "Control", "Direct", "Operations", "Remote", "at_work", "here", "operations"]
