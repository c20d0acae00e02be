"""A run's own listeners: the native door, the small JSON API that the SDK speaks; and, on the same
ones, the model doors (`models/`) and the MCP door (`mcp/`).

Which listener a request came in on is the identity: nothing in a request can name another run.
    POST /v1/call    {kind, name, args, path, counter} -> {value, label} or {error}, with a `notice`
                     where the kernel has something to say: that the run seems to be in a loop
    GET  /v1/run     what this run is, and what it may ask for
    POST /v1/result  {value} or {error}: the end of the agent's work
    GET  /v1/openapi.json     all of this, described
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
from aiohttp import web

from ring0 import limits
from ring0.errors import NotFound, Ring0Error, RunDead
from ring0.gateway import native, openapi, peers
from ring0.gateway.bodies import Bodies, BodyRefused, size_of, traceparent_of
from ring0.gateway.listening import Listening
from ring0.gateway.mcp.http import McpDoor
from ring0.gateway.models.routes import PATHS, ModelDoors
from ring0.gateway.told import STATUS, STATUS_ELSE, Told, fault
from ring0.kernel.gate import Gate
from ring0.kernel.identities import Identities
from ring0.kernel.live import LiveRun
from ring0.tools.sandbox import Sandbox

_encode = msgspec.json.Encoder().encode


class Door:
    """The listeners of one run."""

    def __init__(
        self,
        gate: Gate,
        run: LiveRun,
        uid: int | None,
        identities: Identities | None = None,
        namespace: str = "",
    ) -> None:
        """`identities`: the run can ask here who it is (SPIFFE), where ring0.toml says so.
        `namespace`: the pid namespace that all who connect have to live in; empty: any."""
        self._namespace = namespace
        self._workload = None
        if identities is not None and identities.spiffe:
            from ring0.gateway.workload import Workload

            self._workload = Workload(gate, identities, run)
        self._gate = gate
        self._run = run
        self._uid = uid
        self._listening: Listening | None = None
        self._bodies = Bodies(gate.runtime)
        self._mcp = McpDoor(gate, run, self._bodies)

    async def open(self, *listeners: socket.socket) -> None:
        """Serves on sockets that are bound and listening already."""
        app = web.Application()
        app.router.add_post("/v1/call", self._answered(self.call))
        app.router.add_get("/v1/run", self._answered(self.describe))
        app.router.add_post("/v1/result", self._answered(self.result))
        app.router.add_get("/v1/openapi.json", self._answered(self.openapi))
        ModelDoors(self._gate, self._run, self._bodies).add(app.router, self._check_peer)
        self._mcp.add(app.router, self._check_peer)
        app.router.add_route("HEAD", "/", _here)
        app.router.add_route("*", "/{other:.*}", _not_there)
        self._listening = Listening(
            app,
            connections_max=limits.DOOR_CONNECTIONS_MAX,
            idle_s_max=limits.DOOR_IDLE_S_MAX,
            cancels=True,  # A call goes on without whoever asked: the gate shields it.
            runtime=self._gate.runtime,
            grpc=self._grpc if self._workload is not None else None,
            is_stranger=self._is_stranger,
        )
        await self._listening.open(*listeners)

    async def close(self) -> None:
        if self._workload is not None:
            await self._workload.close()
        self._mcp.close()
        if self._listening is not None:
            await self._listening.close()

    def _answered(self, handler: Any) -> Any:
        """Every error is an answer, with its status; nothing of the kernel's insides goes out."""

        async def answer(request: web.Request) -> web.Response:
            try:
                self._check_peer(request)
                return web.Response(body=await handler(request), content_type="application/json")
            except BodyRefused as failure:
                return _refusal(failure, failure.status)
            except Ring0Error as failure:
                return _refusal(failure)
            except ConnectionError:
                raise  # Nobody is there to be answered.
            except Exception as error:
                return _refusal(fault(error), 500)

        return answer

    def _is_stranger(self, transport: asyncio.Transport) -> bool:
        """Once a connection: whoever is at its other end does not live in the sandbox."""
        if not self._namespace:
            return False
        connection = transport.get_extra_info("socket")
        return not peers.is_of_namespace(connection, self._namespace)

    def _grpc(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """What serves one more connection that asks who the run is; None: nothing does."""
        assert self._workload is not None
        near = self._is_of_sandbox(transport.get_extra_info("socket"))
        return self._workload.protocol() if near else None

    def _is_of_sandbox(self, connection: socket.socket) -> bool:
        """Defence in depth: the process at the other end has the sandbox's own uid."""
        near = self._uid is not None and connection.family == socket.AF_UNIX
        return not near or peers.uid_of(connection) == self._uid

    def _check_peer(self, request: web.Request) -> None:
        connection = request.transport.get_extra_info("socket") if request.transport else None
        if connection is None:
            raise RunDead("The connection is gone.", todo="Connect again.")
        if not self._is_of_sandbox(connection):
            raise RunDead("This door belongs to another process.", todo="Use your own.")

    async def call(self, request: web.Request) -> bytes:
        async with self._run.weight.room(size_of(request)):
            asked = native.to_request(await self._bodies.read(request), traceparent_of(request))
        # Nothing is awaited until the call itself has that weight.
        outcome = await self._gate.call(self._run.handle, asked)
        if outcome.error is not None:
            raise Told(outcome.error, outcome.notice, outcome.mark)
        return native.told(outcome)

    async def describe(self, request: web.Request) -> bytes:
        return _encode(await native.describe(self._gate, self._run))

    async def result(self, request: web.Request) -> bytes:
        """The first result counts; a dead run takes none."""
        self._gate.handles.check(self._run.handle)
        result = native.to_result(await self._bodies.read(request))
        if not self._run.result.done():
            self._run.result.set_result(result)
        return _encode(native.ResultTold())

    async def openapi(self, request: web.Request) -> bytes:
        return openapi.document()


def _refusal(error: Ring0Error, status: int = 0) -> web.Response:
    return web.Response(
        body=native.refusal(error),
        status=status or STATUS.get(error.code, STATUS_ELSE),
        content_type="application/json",
    )


async def _here(request: web.Request) -> web.Response:
    return web.Response()


async def _not_there(request: web.Request) -> web.Response:
    return _refusal(
        NotFound(
            f"This door has no {request.method} {request.path[:80]!r}.",
            todo="It has: POST /v1/call, GET /v1/run, POST /v1/result, GET /v1/openapi.json;"
            f" for models: POST {', '.join(PATHS)}, GET /v1/models; for MCP: /mcp.",
        )
    )


def doors(gate: Gate, identities: Identities | None = None) -> Any:
    """What `Runs` opens for each isolated run."""

    async def open_doors(run: LiveRun, sandbox: Sandbox) -> Door:
        assert sandbox.tcp is not None and sandbox.unix is not None
        # In the other tiers a helper outside of it may stand between.
        own = peers.namespace_of(sandbox.identity.pid) if sandbox.tier == "ns" else ""
        door = Door(gate, run, sandbox.uid, identities, own)
        # Its own: a kill closes the sandbox's while the loop still waits at these, and would go on
        # waiting at their numbers when they are another's.
        await door.open(sandbox.tcp.dup(), sandbox.unix.dup())
        return door

    return open_doors
