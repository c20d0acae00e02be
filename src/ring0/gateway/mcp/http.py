"""Streamable HTTP at a run's listeners: `POST`, `GET` and `DELETE /mcp`.

    POST    one message of a client: a request is answered, with JSON or a stream of events
    GET     what goes to a client of the handshake era by itself
    DELETE  the end of its session

Which listener it came in on says whose it is: what a client shows as its identity is not read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, Ring0Error
from ring0.gateway.bodies import Bodies, BodyRefused, size_of
from ring0.gateway.mcp import messages, stateless
from ring0.gateway.mcp.answering import ME, Answering
from ring0.gateway.mcp.calling import progress_token
from ring0.gateway.mcp.messages import (
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    SERVER_ERROR,
    SESSION_NOT_FOUND,
    Message,
    Refused,
)
from ring0.gateway.mcp.reply import GivenUp, Reply, refusal, refused_of, stream
from ring0.gateway.mcp.sessions import HEADER, Session, Sessions
from ring0.gateway.mcp.stateless import Client
from ring0.gateway.mcp.table import HANDSHAKE, METHODS, method_of
from ring0.kernel import values
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.models import sse

PATH: Final = "/mcp"
_NEAR: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class McpDoor:
    """Of one run."""

    def __init__(self, gate: Gate, run: LiveRun, bodies: Bodies) -> None:
        self._gate = gate
        self._run = run
        self._bodies = bodies
        self._sessions = Sessions(gate.runtime)
        self._answering = Answering(gate, run, self._sessions)

    def add(self, router: web.UrlDispatcher, check: Callable[[web.Request], None]) -> None:
        """`check`: raises for who may not ask here."""
        router.add_post(PATH, self._checked(self._post, check))
        router.add_get(PATH, self._checked(self._get, check), allow_head=False)
        router.add_delete(PATH, self._checked(self._delete, check))

    def close(self) -> None:
        self._sessions.close_all()

    def _checked(self, handler: Handler, check: Callable[[web.Request], None]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                check(request)
                _check_place(request)
                return await handler(request)
            except Refused as refused:
                return refusal(refused)
            except BodyRefused as error:
                return refusal(Refused.of(error, PARSE_ERROR), status=error.status)
            except CallInvalid as error:
                return refusal(Refused.of(error, PARSE_ERROR))
            except Ring0Error as error:
                return refusal(Refused.of(error), status=403)
            except ConnectionError:
                raise  # Nobody is there to be answered.
            except Exception as error:
                return refusal(refused_of(error), status=500)

        return answer

    # --- messages -----------------------------------------------------------------------------

    async def _post(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            raise Refused(INVALID_REQUEST, "The body is sent as `application/json`.")
        async with self._run.weight.room(size_of(request)):
            message = messages.read(await self._bodies.read(request))
        # All of it stays for as long as it is answered; in between nothing is awaited.
        size = request.content_length or len(values.canonical(message.params))
        with self._run.weight.kept(size):
            if _is_stateless(request, message):
                return await self._stateless(request, message)
            return await self._in_session(request, message)

    async def _stateless(self, request: web.Request, message: Message) -> web.StreamResponse:
        if message.method and message.id is None:  # There is nothing that one could tell us.
            stateless.check_version(request.headers.get(stateless.VERSION_HEADER, ""))
            return web.Response(status=202)
        if not message.method or message.id is None:
            raise Refused(INVALID_REQUEST, "A client answers nothing in this era.")
        try:
            client = stateless.client_of(message, request)
        except Refused as refused:
            return refusal(refused, message.id)
        return await self._answered(request, message, client, None)

    async def _in_session(self, request: web.Request, message: Message) -> web.StreamResponse:
        if message.method == "initialize" and message.id is not None:
            return self._initialize(message)
        session = self._session(request)
        if session is None:
            return refusal(_no_session(request), message.id, status=_session_status(request))
        version = request.headers.get(stateless.VERSION_HEADER, session.version)
        if version != session.version:
            what = f"The session speaks {session.version}, and the request {version[:40]!r}."
            return refusal(Refused(INVALID_REQUEST, what), message.id)
        if not message.method:
            known = session.answered(message)
            if not known:
                return refusal(Refused(INVALID_REQUEST, "Nobody asked that."), message.id)
            return web.Response(status=202)
        if message.id is None:
            self._notified(session, message)
            return web.Response(status=202)
        return await self._answered(request, message, session.client, session)

    def _initialize(self, message: Message) -> web.Response:
        try:
            self._gate.handles.check(self._run.handle)
            session = self._sessions.open(message.params)
        except (Refused, Ring0Error) as error:
            return refusal(refused_of(error), message.id)
        assert message.id is not None
        result = {
            "protocolVersion": session.version,
            "serverInfo": ME,
            **self._answering.described(stateless=False),
        }
        body = messages.answer(message.id, result)
        headers = {HEADER: session.name}
        return web.Response(body=body, content_type="application/json", headers=headers)

    def _notified(self, session: Session, message: Message) -> None:
        if message.method == "notifications/cancelled":
            number = message.params.get("requestId")
            gone = session.given_up.get(number) if isinstance(number, str | int) else None
            if gone is not None:
                gone.set()

    async def _answered(
        self, request: web.Request, message: Message, client: Client, session: Session | None
    ) -> web.StreamResponse:
        assert message.id is not None
        if method_of(message.method, "handshake" if session else "stateless") is None:
            status = 200 if session else 404
            return refusal(_no_method(message.method), message.id, status=status)
        token = progress_token(message.params)
        reply = Reply(request, message.id, client, session, token)
        try:
            return await self._written(message, reply)
        except GivenUp:
            self._undelivered(reply)
            return await reply.leave()
        except (asyncio.CancelledError, ConnectionError):
            self._undelivered(reply)
            raise
        finally:
            reply.forget()

    async def _written(self, message: Message, reply: Reply) -> web.StreamResponse:
        try:
            result = await self._answering.answer(message, reply)
        except (GivenUp, ConnectionError):
            raise
        except Exception as error:
            return await reply.refuse(refused_of(error))
        if reply.is_unheard:
            self._undelivered(reply)
        return await reply.end(result)

    def _undelivered(self, reply: Reply) -> None:
        """Whoever asks for the same next never heard the answer: it is the same call."""
        self._run.undelivered.update(reply.calls[-1:])

    # --- what goes to a client by itself ------------------------------------------------------

    async def _get(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        if session is None:
            if HEADER not in request.headers:
                return web.Response(status=405, headers={"Allow": "POST"})
            return refusal(_no_session(request), status=404)
        if "text/event-stream" not in request.headers.get("Accept", ""):
            return web.Response(status=406)
        if session.streaming:
            return refusal(
                Refused(SERVER_ERROR, "The session has such a stream already."), status=409
            )
        session.streaming = True
        response = stream()
        try:
            await response.prepare(request)
            while not session.over:
                news = session.told()
                await response.write(b"".join(map(messages.event, news)) or sse.PING)
                try:
                    await self._gate.runtime.wait_for(session.news.wait(), limits.DOOR_PING_S)
                except TimeoutError:
                    pass
            await response.write_eof()
        finally:
            session.streaming = False
        return response

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        if session is None:
            return refusal(_no_session(request), status=_session_status(request))
        self._sessions.close(session.name)
        return web.Response(status=200)

    def _session(self, request: web.Request) -> Session | None:
        named = request.headers.getall(HEADER, [])
        return self._sessions.find(named[0]) if len(named) == 1 else None


def _is_stateless(request: web.Request, message: Message) -> bool:
    """The header says it; where there is none, the body does."""
    version = request.headers.get(stateless.VERSION_HEADER)
    meta: Any = message.params.get("_meta")
    if version is None:
        return isinstance(meta, dict) and stateless.VERSION in meta
    return version not in HANDSHAKE


def _no_method(name: str) -> Refused:
    what = f"This door has no method {name[:80]!r}."
    why = METHODS[name].why if name in METHODS else ""
    return Refused(METHOD_NOT_FOUND, f"{what} {why}".strip())


def _no_session(request: web.Request) -> Refused:
    if HEADER in request.headers:
        return Refused(SESSION_NOT_FOUND, "There is no such session here: begin with `initialize`.")
    return Refused(INVALID_REQUEST, f"{HEADER} is missing: begin with `initialize`.")


def _session_status(request: web.Request) -> int:
    return 404 if HEADER in request.headers else 400


def _check_place(request: web.Request) -> None:
    """No web page asks here, also not by a name of its own for this machine. Raises Refused."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    near = connection is not None and connection.family == socket.AF_UNIX
    hosts = request.headers.getall("Host", [])
    if not near and (len(hosts) != 1 or _name_of(hosts[0]) not in _NEAR):
        raise CallDenied("This is not the host that was asked for.", todo="Use `localhost`.")
    origin = request.headers.get("Origin")
    if origin is not None and _name_of(origin.rpartition("//")[2]) not in _NEAR:
        raise CallDenied("No web page calls here.", todo="Call from a program.")


def _name_of(host: str) -> str:
    """Without its port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()
