"""The door for tokens: other processes call in the name of a run, as far as their token goes.

The native call API with `Authorization: Bearer TOKEN`, on a unix socket in the data folder (there
once a token was given out) and, where ring0.toml says so, on a loopback port. A token's signature
and scope are looked at once, whether it is live on every request; `Gate.call` does the rest.
    POST /v1/call    as at a run's own door; what is asked for without a path is never recalled
    GET  /v1/run     which run it is, and what of it the token names
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

from ring0 import limits
from ring0.errors import (
    CallDenied,
    LimitReached,
    NotFound,
    Ring0Error,
    TokenDead,
    TokenInvalid,
)
from ring0.gateway import native
from ring0.gateway.bodies import Bodies, BodyRefused, size_of, traceparent_of
from ring0.gateway.listening import Listening
from ring0.gateway.told import STATUS, STATUS_ELSE, Told, fault
from ring0.identity.tokens import Scope
from ring0.kernel.agent.config_identity import listening_at
from ring0.kernel.kernel import Kernel
from ring0.kernel.operating import checking
from ring0.runtime import Runtime

SOCKET: Final = "calls.sock"
_STATUS: Final = {**STATUS, TokenInvalid.code: 401, TokenDead.code: 401}
_encode = msgspec.json.Encoder().encode


class CallDoor:
    """The listeners of one kernel at which tokens are shown."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._gate = kernel.gate
        self._present: dict[str, _Present] = {}
        """By run, those whose tokens are shown just now."""
        self._path = kernel.home / SOCKET
        self._listening: dict[str, Listening] = {}
        self._hosts: frozenset[str] = frozenset()

    async def open(self) -> None:
        """Serves on the port that ring0.toml names, if it names one. Raises InvalidInput."""
        where = listening_at(self._kernel.config.identity)
        if where is None:
            return
        address, port = where
        own = f"[{address}]" if ":" in address else address
        self._hosts = frozenset({f"{own}:{port}", f"localhost:{port}"})
        listener = checking.listener(self._kernel.config.identity)
        assert listener is not None, "it names a port"
        await self._serve("tcp", listener)

    async def open_local(self) -> str:
        """Serves on the socket in the data folder, from the first token on; its path."""
        if "unix" not in self._listening:
            if self._path.exists() and stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()  # Of a kernel that was killed: we hold its lock.
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            old = os.umask(0o177)
            try:
                # By a short name: an address has room for 107 bytes.
                listener.bind(f"/proc/self/fd/{folder}/{SOCKET}")
            finally:
                os.umask(old)
                os.close(folder)
            await self._serve("unix", listener)
        return str(self._path)

    async def close(self) -> None:
        for listening in self._listening.values():
            await listening.close()
        if self._listening.pop("unix", None) is not None:
            self._path.unlink(missing_ok=True)

    async def _serve(self, name: str, listener: socket.socket) -> None:
        app = web.Application()
        app.router.add_post("/v1/call", self._answered(self._call))
        app.router.add_get("/v1/run", self._answered(self._describe))
        app.router.add_route("*", "/{other:.*}", self._answered(_not_there))
        listening = self._listening[name] = Listening(
            app,
            connections_max=limits.TOKEN_CONNECTIONS_MAX,
            idle_s_max=limits.TOKEN_IDLE_S_MAX,
            cancels=True,  # A call goes on without whoever asked: the gate shields it.
            runtime=self._gate.runtime,
        )
        listener.listen(limits.DOOR_BACKLOG)
        await listening.open(listener)

    def _answered(self, handler: Any) -> Any:
        """Every error is an answer. Nothing is read of whoever shows no token that is live."""

        async def answer(request: web.Request) -> web.Response:
            try:
                self._check_place(request)
                scope = self._kernel.granting.tokens.scope(_shown(request))
                body = await handler(request, scope)
                return web.Response(body=body, content_type="application/json")
            except Ring0Error as failure:
                status = failure.status if isinstance(failure, BodyRefused) else 0
                return _refusal(failure, status)
            except ConnectionError:
                raise  # Nobody is there to be answered.
            except Exception as error:
                return _refusal(fault(error), 500)

        return answer

    def _check_place(self, request: web.Request) -> None:
        """No web page asks here, also not by a name of its own for this machine. Raises
        CallDenied."""
        connection = request.transport.get_extra_info("socket") if request.transport else None
        if connection is None:
            raise CallDenied("The connection is gone.", todo="Connect again.")
        near = connection.family == socket.AF_UNIX
        hosts = request.headers.getall("Host", [])
        if not near and (len(hosts) != 1 or hosts[0].lower() not in self._hosts):
            raise CallDenied("This is not the host that was asked for.", todo="Use its address.")
        if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
            raise CallDenied("No web page calls here.", todo="Call from a program.")

    async def _call(self, request: web.Request, scope: Scope) -> bytes:
        run = self._gate.live.get(scope.issued.run)
        if run is None:  # It is just being let go of.
            raise TokenDead("The token is dead.", why="Its run has ended.", todo="Nothing.")
        with self._room(run.id) as bodies:
            async with run.weight.room(size_of(request)):
                asked = native.to_request(await bodies.read(request), traceparent_of(request))
            scope.check()  # The body may have taken its time.
            outcome = await self._gate.call(run.handle, asked, scope=scope)
        if outcome.error is not None:
            raise Told(outcome.error, outcome.notice, outcome.mark)
        return native.told(outcome)

    @contextmanager
    def _room(self, run: str) -> Iterator[Bodies]:
        """For one request of a run. Raises LimitReached where too many of it are there."""
        present = self._present.setdefault(run, _Present(self._kernel.runtime))
        if present.requests >= limits.TOKEN_REQUESTS_PER_RUN_MAX:
            raise LimitReached(
                f"{present.requests} requests with tokens of {run} are under way.",
                why="The tokens of one run keep out none of the others.",
                todo="Wait until some of them have an answer.",
            )
        present.requests += 1
        try:
            yield present.bodies
        finally:
            present.requests -= 1
            if not present.requests:
                del self._present[run]

    async def _describe(self, request: web.Request, scope: Scope) -> bytes:
        run = self._gate.live.get(scope.issued.run)
        if run is None:
            raise TokenDead("The token is dead.", why="Its run has ended.", todo="Nothing.")
        return _encode(await native.describe(self._gate, run, scope))


class _Present:
    """What is under way at this door with tokens of one run."""

    def __init__(self, runtime: Runtime) -> None:
        self.bodies = Bodies(runtime)
        self.requests = 0


async def _not_there(request: web.Request, scope: Scope) -> bytes:
    raise NotFound(
        f"This door has no {request.method} {request.path[:80]!r}.",
        todo="It has: POST /v1/call, GET /v1/run.",
    )


def _shown(request: web.Request) -> str:
    """The token that came with a request. Raises TokenInvalid."""
    said = request.headers.getall("Authorization", [])
    kind, _, value = said[0].partition(" ") if len(said) == 1 else ("", "", "")
    if kind.lower() != "bearer" or not value:
        raise TokenInvalid(
            "No token was shown.",
            todo="Send `Authorization: Bearer TOKEN` (`ring0 token give RUN`).",
        )
    return value


def _refusal(error: Ring0Error, status: int = 0) -> web.Response:
    return web.Response(
        body=native.refusal(error),
        status=status or _STATUS.get(error.code, STATUS_ELSE),
        content_type="application/json",
    )
