"""`GET /metrics` for Prometheus: on an address of this machine, for who shows the token.

Who may ask on the operators' socket is a matter of roles (control.py). Nothing is changed here, and
nobody who has no token learns more than that something listens.
"""

from __future__ import annotations

import hmac
import socket
from typing import Final

from aiohttp import web

from ring0 import limits
from ring0.errors import InvalidInput, Ring0Error
from ring0.gateway.listening import Listening
from ring0.kernel.agent.config_telemetry import listening_at
from ring0.kernel.kernel import Kernel
from ring0.kernel.telemetry.measuring import Measures
from ring0.observability.telemetry.prometheus import CONTENT_TYPE

_AGES: Final = "no-store"


class MetricsDoor:
    """Serves the numbers of one kernel while it is at work. `bind` it, `open` it, `close` it."""

    def __init__(self, kernel: Kernel, measures: Measures) -> None:
        assert kernel.config.metrics is not None, "ring0.toml says where"
        self._kernel = kernel
        self._measures = measures
        self._table = kernel.config.metrics
        self._listener: socket.socket | None = None
        self._listening: Listening | None = None
        self._hosts: frozenset[str] = frozenset()
        self.address = ""

    def bind(self) -> None:
        """Takes the address. Raises InvalidInput."""
        address, port = listening_at(self._table)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(limits.DOOR_BACKLOG)
        except OSError as error:
            listener.close()
            raise InvalidInput(
                f"[metrics] listen: {self._table.listen} can't be listened at: {error.strerror}.",
                todo="Name a port that is free.",
            ) from None
        shown = f"[{address}]" if ":" in address else address
        self.address = f"{shown}:{port}"
        self._hosts = frozenset({self.address, f"localhost:{port}"})
        self._listener = listener

    async def open(self) -> None:
        assert self._listener is not None, "it is bound first"
        app = web.Application(client_max_size=limits.KIB)
        app.router.add_get("/metrics", self._metrics)
        self._listening = Listening(
            app,
            connections_max=limits.METRICS_CONNECTIONS_MAX,
            idle_s_max=limits.METRICS_IDLE_S_MAX,
            cancels=True,
            runtime=self._kernel.runtime,
        )
        await self._listening.open(self._listener)

    async def close(self) -> None:
        if self._listening is not None:
            await self._listening.close()
        elif self._listener is not None:
            self._listener.close()

    async def _metrics(self, request: web.Request) -> web.Response:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return web.Response(status=421, text="this server has another name\n")
        if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
            return web.Response(status=403, text="no web page asks here\n")
        if not self._shows_the_token(request):
            return web.Response(
                status=401, text="show the token\n", headers={"WWW-Authenticate": "Bearer"}
            )
        return await answer(self._measures)

    def _shows_the_token(self, request: web.Request) -> bool:
        """By the vault as it is now: one that was taken back counts no more."""
        right = self._kernel.secret(self._table.token)
        said = request.headers.getall("Authorization", [])
        kind, _, shown = said[0].partition(" ") if len(said) == 1 else ("", "", "")
        long_enough = len(right) >= limits.METRICS_TOKEN_CHARS_MIN
        same = hmac.compare_digest(
            right.encode("utf-8", "replace"), shown.encode("utf-8", "surrogateescape")
        )
        return same and long_enough and kind.lower() == "bearer"


async def answer(measures: Measures) -> web.Response:
    """The numbers, or that there are none just now."""
    try:
        body = await measures.text()
    except Ring0Error as error:
        return web.Response(status=503, text=f"{error.code}\n")
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": _AGES})
