"""Serves an aiohttp application on sockets of ours, within bounds: a peer can't take the kernel's
memory, its descriptors or its operator's terminal.

Not for deciding who may ask for what: that is for the handlers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web

from ring0 import limits
from ring0.runtime import Runtime


def _silent() -> logging.Logger:
    """Writes nothing: what a broken request is worth is answered, never printed."""
    logger = logging.Logger("ring0.gateway", logging.CRITICAL + 1)
    logger.disabled = True
    return logger


SILENT: Final = _silent()


class Listening:
    """An application on its listeners, with at most `connections_max` peers at once.

    `is_stranger` says of a new connection whether its peer can't be one that is answered. Strangers
    have `strangers_max` connections of their own, so that they can't use up those of the others.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        connections_max: int,
        idle_s_max: float,
        cancels: bool,
        is_stranger: Callable[[asyncio.Transport], bool] = lambda _: False,
        strangers_max: int = 0,
        grpc: Callable[[asyncio.Transport], asyncio.Protocol | None] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """`cancels`: a handler ends when its peer goes away (what it awaits has to be shielded).
        `grpc`: what serves a connection that begins as HTTP/2 does; None from it: it is
        not served. `runtime`: ends the connection of who does not read what is written to it; None:
        of nobody."""
        self.grpc = grpc
        self.runtime = runtime
        self.undecided = 0
        """Connections that have not said yet what they speak."""
        self.connections_max = connections_max
        self.idle_s_max = idle_s_max
        self._most = {False: connections_max, True: strangers_max}
        self.is_stranger = is_stranger
        self._strangers: set[Any] = set()
        self._listeners: list[asyncio.Server] = []
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=SILENT,
            handle_signals=False,
            handler_cancellation=cancels,
            shutdown_timeout=0.5,
            # Counts from the last answer until the next request's headers are complete.
            keepalive_timeout=idle_s_max,
            lingering_time=limits.DOOR_LINGER_S,
            read_bufsize=limits.DOOR_BUFFER_SIZE_BYTES,
            max_line_size=limits.DOOR_HEADER_SIZE_BYTES_MAX,
            max_field_size=limits.DOOR_HEADER_SIZE_BYTES_MAX,
            max_headers=limits.DOOR_HEADERS_MAX,
            auto_decompress=False,  # A few bytes must not become many.
        )

    async def open(self, *listeners: socket.socket) -> None:
        """Serves on sockets that are bound and listening already."""
        await self._runner.setup()
        for listener in listeners:
            self._listeners.append(
                await asyncio.get_running_loop().create_server(
                    lambda: _Entrance(self) if self.grpc is None else _Choice(self),
                    sock=listener,
                    backlog=limits.DOOR_BACKLOG,
                )
            )

    async def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        await self._runner.cleanup()

    def admit(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """What serves a new connection; None where there are too many."""
        if self._runner.server is None:  # Closed meanwhile.
            return None
        # One is counted until its handler has ended too, since that is what holds memory.
        present = self._runner.server.connections
        self._strangers.intersection_update(present)
        stranger = self.is_stranger(transport)
        taken = len(self._strangers) if stranger else len(present) - len(self._strangers)
        if taken >= self._most[stranger]:
            return None
        server = self._runner.server
        handler = _Handler(server, loop=asyncio.get_running_loop(), **server._kwargs)
        handler.runtime = self.runtime
        if stranger:
            self._strangers.add(handler)
        return handler


class _Handler(web.RequestHandler):
    """Writes to no client for ever. However slowly one reads: what was held back for it (64 KiB, of
    aiohttp's) has to be gone in time."""

    __slots__ = ("_late", "runtime")

    runtime: Runtime | None
    _late: asyncio.Task[None] | None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.runtime is not None:
            self._late = self.runtime.start(self._give_up(self.runtime), name="unread answer")

    def resume_writing(self) -> None:
        self._let_be()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._let_be()
        super().connection_lost(exc)

    async def _give_up(self, runtime: Runtime) -> None:
        await runtime.sleep(limits.DOOR_WRITE_S_MAX)
        if self.transport is not None:
            self.transport.abort()

    def _let_be(self) -> None:
        if (late := getattr(self, "_late", None)) is not None:
            late.cancel()
            self._late = None


class _Entrance(asyncio.Protocol):
    """The first moment of a connection: it is handed to the server, or closed at once."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast(asyncio.Transport, transport)  # uvloop's does not derive from asyncio's.
        handler = self._listening.admit(accepted)
        if handler is None:
            accepted.abort()
        else:
            accepted.set_protocol(handler)
            handler.connection_made(accepted)


_PREFACE: Final = b"PRI * HTTP/2.0"


class _Choice(asyncio.Protocol):
    """The first words of a connection: HTTP/2 with prior knowledge is gRPC, all else is HTTP/1."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        self._said = b""
        self._transport: asyncio.Transport | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast(asyncio.Transport, transport)
        full = self._listening.undecided >= self._listening.connections_max
        if full or self._listening.is_stranger(accepted):
            accepted.abort()
            return
        self._listening.undecided += 1
        self._transport = accepted
        late_s = self._listening.idle_s_max
        self._late = asyncio.get_running_loop().call_later(late_s, accepted.abort)

    def data_received(self, data: bytes) -> None:
        self._said += data
        if len(self._said) < len(_PREFACE) and _PREFACE.startswith(self._said):
            return
        transport = self._transport
        self._decided()
        if transport is None:
            return
        grpc = self._listening.grpc if self._said.startswith(_PREFACE) else None
        handler = grpc(transport) if grpc is not None else self._listening.admit(transport)
        if handler is None:
            transport.abort()
            return
        transport.set_protocol(handler)
        handler.connection_made(transport)
        handler.data_received(self._said)

    def connection_lost(self, error: Exception | None) -> None:
        self._decided()

    def _decided(self) -> None:
        if self._transport is not None:
            self._listening.undecided -= 1
            self._transport = None
        if self._late is not None:
            self._late.cancel()
