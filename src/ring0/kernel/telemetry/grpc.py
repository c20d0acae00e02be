"""gRPC over a connection that egress has opened: to an address that was judged, and bounded.

Made of grpclib, which speaks asyncio: its way of connecting is the one thing that is replaced.
grpcio was looked at: 6 MB of C++ that resolves names itself and heeds the environment's proxies, so
that no rule of ours could hold. Imported only by who sends over gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Final

from grpclib import client
from grpclib.client import UnaryUnaryMethod

from ring0 import limits
from ring0.observability.telemetry import otlp
from ring0.tools.egress import Egress

_logger: Final = logging.getLogger("grpclib")
_logger.addHandler(logging.NullHandler())
_logger.propagate = False  # What a broken answer is worth is told as one, never printed.


class Channel(client.Channel):  # type: ignore[misc]
    """One connection, made when it is first used."""

    def __init__(
        self, egress: Egress, host: str, port: int, context: ssl.SSLContext | None
    ) -> None:
        super().__init__(host, port, ssl=context)
        self._egress = egress

    async def _create_connection(self) -> Any:
        """As grpclib asks for it."""
        connection = await self._egress.connect(self._host, self._port)
        spoken = self._protocol_factory()
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _Bounded(spoken),
                sock=connection,
                ssl=self._ssl,
                server_hostname=self._host if self._ssl else None,
            )
        except BaseException:
            connection.close()
            raise
        return spoken


class _Bounded(asyncio.Protocol):
    """Hands on what comes, up to what an answer may have."""

    def __init__(self, spoken: asyncio.Protocol) -> None:
        self._spoken = spoken
        self._transport: asyncio.BaseTransport | None = None
        self._left = limits.OTLP_ANSWER_SIZE_BYTES_MAX

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._spoken.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self._spoken.data_received(data)
        elif isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    def pause_writing(self) -> None:
        self._spoken.pause_writing()

    def resume_writing(self) -> None:
        self._spoken.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._spoken.connection_lost(error)


async def export(channel: Channel, request: Any, headers: Mapping[str, str]) -> Any:
    """The answer to one ExportTraceServiceRequest. Raises what grpclib raises, OSError, what
    egress refuses."""
    method: Any = UnaryUnaryMethod(channel, otlp.METHOD, otlp.REQUEST, otlp.RESPONSE)
    return await method(request, metadata=dict(headers))
