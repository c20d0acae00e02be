"""The answer to one request, on its way: JSON where it comes at once, and a stream of events where
somebody has to wait for it or is told something before."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.gateway.mcp import messages
from ring0.gateway.mcp.messages import SERVER_ERROR, STATUS, Id, Refused
from ring0.gateway.mcp.sessions import Session
from ring0.gateway.mcp.stateless import Client
from ring0.gateway.told import fault
from ring0.models import sse

_JSON: Final = "application/json"
_STREAM: Final = "text/event-stream"


class GivenUp(Exception):
    """The client said that it wants no answer any more."""


class Reply:
    """What goes back for one request."""

    def __init__(
        self, request: web.Request, number: Id, client: Client, session: Session | None, token: Any
    ) -> None:
        """`session`: None in the stateless era. `token`: by which the client knows progress; None:
        it wants none."""
        self.client = client
        self.session = session
        self._request = request
        self._number = number
        self._token = token
        self._stream: web.StreamResponse | None = None
        self.traceparent = ""
        """The span that its client says it asks in."""
        self.calls: list[str] = []
        """Of the gate, that were made for it."""
        self.is_unheard = False
        """Its client has to come back for the outcome of the last of them."""
        self.is_told = False
        """A server tells of its progress: its numbers are not mixed with ours."""
        self._pings = 0
        self._gone = asyncio.Event()
        if session is not None:
            session.given_up[number] = self._gone

    def forget(self) -> None:
        if self.session is not None:
            self.session.given_up.pop(self._number, None)

    # --- on the way ---------------------------------------------------------------------------

    async def kept_alive(self, waiting: asyncio.Future[Any]) -> None:
        """Waits for it, at most as long as until the next sign of life. Raises GivenUp."""
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            done, _ = await asyncio.wait(
                {waiting, gone}, timeout=limits.DOOR_PING_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            gone.cancel()
        if waiting in done:
            return
        if self._gone.is_set():
            raise GivenUp
        await self._ping()

    async def _ping(self) -> None:
        self._pings += 1
        if self._token is None or self.is_told:
            await self._write(sse.PING)
            return
        params = {"progressToken": self._token, "progress": self._pings, "message": "ring0: waits"}
        await self.tell("notifications/progress", params)

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        await self._write(messages.event(messages.notification(method, params)))

    async def note(self, method: str, params: dict[str, Any]) -> None:
        """What a server said during the call, as its client may hear it."""
        if method == "notifications/progress":
            if self._token is None:
                return
            params = {**params, "progressToken": self._token}
        await self.tell(method, params)

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        """A server's question to the client itself, in the handshake era. Raises Refused,
        GivenUp."""
        assert self.session is not None, "the stateless era asks by its answer"
        number, answer = self.session.asks()
        await self._write(messages.event(messages.request(number, method, params)))
        try:
            async with asyncio.timeout(limits.MCP_DOOR_ANSWER_S_MAX):
                while not answer.done():
                    await self.kept_alive(answer)
            over = answer.cancelled()  # The session was ended.
        except TimeoutError:
            over = True
        finally:
            answer.cancel()
        if over:
            raise Refused(SERVER_ERROR, f"The client did not answer {method}.")
        said = answer.result()
        if said.error is not None:
            raise Refused(SERVER_ERROR, f"The client refuses {method}.", said.error)
        return said.result

    # --- its end ------------------------------------------------------------------------------

    async def end(self, result: dict[str, Any]) -> web.StreamResponse:
        return await self._last(messages.answer(self._number, result), 200)

    async def refuse(self, refused: Refused) -> web.StreamResponse:
        status = STATUS.get(refused.code, 200) if self.session is None else 200
        return await self._last(messages.refusal(self._number, refused), status)

    async def leave(self) -> web.StreamResponse:
        """Ends it without an answer: nobody wants one."""
        await self._open()
        assert self._stream is not None
        await self._stream.write_eof()
        return self._stream

    async def _last(self, body: bytes, status: int) -> web.StreamResponse:
        if self._stream is None:
            return web.Response(body=body, status=status, content_type=_JSON)
        await self._write(messages.event(body))
        await self._stream.write_eof()
        return self._stream

    async def _write(self, data: bytes) -> None:
        await self._open()
        assert self._stream is not None
        await self._stream.write(data)

    async def _open(self) -> None:
        if self._stream is None:
            self._stream = stream()
            await self._stream.prepare(self._request)


def stream() -> web.StreamResponse:
    headers = {"Content-Type": _STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return web.StreamResponse(headers=headers)


def refusal(refused: Refused, number: Id | None = None, status: int = 0) -> web.Response:
    """An error with a status of its own: nothing was streamed yet."""
    return web.Response(
        body=messages.refusal(number, refused),
        status=status or STATUS.get(refused.code, 400),
        content_type=_JSON,
    )


def refused_of(error: Exception) -> Refused:
    """Whatever went wrong, as the protocol has it."""
    if isinstance(error, Refused):
        return error
    return Refused.of(error if isinstance(error, Ring0Error) else fault(error))
