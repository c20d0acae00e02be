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
    ) -> None:
        """`cancels`: a handler ends when its peer goes away (what it awaits has to be shielded)."""
        self._most = {False: connections_max, True: strangers_max}
        self._is_stranger = is_stranger
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
                    lambda: _Entrance(self), sock=listener, backlog=limits.DOOR_BACKLOG
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
        stranger = self._is_stranger(transport)
        taken = len(self._strangers) if stranger else len(present) - len(self._strangers)
        if taken >= self._most[stranger]:
            return None
        handler = self._runner.server()
        if stranger:
            self._strangers.add(handler)
        return handler


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
