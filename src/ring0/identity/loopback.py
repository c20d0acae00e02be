"""Where a login's browser comes back to: one address of this machine, for one login (RFC 8252).

The port is a random one. What comes with another `state` than ours is turned away and ends nothing:
any page in the person's browser can knock here.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from aiohttp import web

from ring0 import limits
from ring0.errors import LoginFailed
from ring0.runtime import Runtime

PATH: Final = "/callback"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SEEN: Final = "Logged in as far as the browser goes. Close this page and look at the terminal.\n"
_TURNED_AWAY: Final = "This is not the answer to a login that was begun here.\n"


class Loopback:
    """`async with Loopback(runtime) as back`: listens for as long as it is entered."""

    redirect_uri: str

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waited_for = ""
        self._came: asyncio.Future[Mapping[str, str]]
        self._runner: web.AppRunner

    async def __aenter__(self) -> Loopback:
        self._came = asyncio.get_running_loop().create_future()
        app = web.Application()
        app.router.add_get(PATH, self._take, allow_head=False)
        # Without a log: a request's line holds the code.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", 0), backlog=limits.LOGIN_CONNECTIONS_MAX)
        self._authority = f"127.0.0.1:{listener.getsockname()[1]}"
        self.redirect_uri = f"http://{self._authority}{PATH}"
        await web.SockSite(self._runner, listener).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def wait(self, state: str) -> Mapping[str, str]:
        """What came back to the login of this `state`. Raises LoginFailed after LOGIN_S_MAX."""
        self._waited_for = state
        try:
            return await self._runtime.wait_for(self._came, limits.LOGIN_S_MAX)
        except TimeoutError:
            raise LoginFailed(
                "Nobody came back from the browser.",
                why=f"For {limits.LOGIN_S_MAX} s.",
                todo="Log in again; with --device where there is no browser on this machine.",
                error="expired_token",
            ) from None

    async def _take(self, request: web.Request) -> web.Response:
        came = request.query
        once = len(came) == len(set(came)) <= limits.OAUTH_REDIRECT_PARAMETERS_MAX
        ours = hmac.compare_digest(came.get("state", "").encode(), self._waited_for.encode())
        # Another Host: a name that was made to point here, and a page of that name could read us.
        if request.host != self._authority or not once or not self._waited_for or not ours:
            return web.Response(status=400, text=_TURNED_AWAY, headers=_HEADERS)
        if not self._came.done():
            self._came.set_result(dict(came))
        return web.Response(text=_SEEN, headers=_HEADERS)
