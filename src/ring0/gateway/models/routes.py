"""HTTP at the model doors: one question in, one answer out, whole or in pieces.

    POST /v1/chat/completions     the dialect `chat`
    POST /v1/responses            the dialect `responses`
    GET  /v1/responses/ID         an answer in it that this run was given
    POST /v1/embeddings           the dialect `embeddings`: of the model of that name
    POST /v1/messages             the dialect `messages`
    POST /v1/messages/count_tokens       an estimate: no provider is asked
    GET  /v1/models, /v1/models/NAME     what the run may ask for

What comes with a question of credentials is not read: the listener says whose it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from aiohttp import web

from ring0 import limits
from ring0.errors import Busy, Ring0Error, RunDead
from ring0.gateway.bodies import Bodies, BodyRefused, size_of
from ring0.gateway.models import profiles
from ring0.gateway.models.asking import Asking
from ring0.gateway.models.earlier import SPOKEN
from ring0.gateway.models.pieces import Pieces
from ring0.gateway.models.profiles import Profile
from ring0.gateway.models.refusing import part_of
from ring0.gateway.models.streams import keep, kept
from ring0.gateway.told import STATUS, STATUS_ELSE, Told, fault
from ring0.kernel import values
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.models import Delta, ModelAnswer
from ring0.models.dialects import Asked, Dialect, dialect
from ring0.scheduler.buckets import Bucket
from ring0.tools.driver import Said

PATHS: Final = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/embeddings": "embeddings",
}
"""The dialect that is spoken at each."""
ESTIMATED: Final = "x-ring0-estimated"
"""Says of a count that nobody has counted."""
_JSON: Final = "application/json"
_AGAIN: Final = "x-stainless-retry-count"
"""How the clients of OpenAI and Anthropic count their attempts."""
_BEGUN: Final = web.RequestKey("begun", bool)
"""Marks a request of whose answer something is out."""
_encode = msgspec.json.Encoder().encode

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ModelDoors:
    """Those of one run."""

    def __init__(self, gate: Gate, run: LiveRun, bodies: Bodies) -> None:
        self._gate = gate
        self._run = run
        self._bodies = bodies
        self._asking = Asking(gate, run)
        self._counts = Bucket(
            "counts", limits.DOOR_COUNTS_PER_MIN, limits.DOOR_COUNTED_BYTES_PER_MIN
        )

    def add(self, router: web.UrlDispatcher, check: Callable[[web.Request], None]) -> None:
        """`check`: raises for who may not ask here."""
        for path, name in PATHS.items():
            router.add_post(path, self._answered(dialect(name), check, self._answer))
        counting = self._answered(dialect("messages"), check, self._count)
        router.add_post("/v1/messages/count_tokens", counting)
        router.add_get("/v1/responses/{id}", self._answered(SPOKEN, check, self._earlier))
        router.add_get("/v1/models", self._checked(self._models, check))
        router.add_get("/v1/models/{name:.+}", self._checked(self._model, check))

    def _answered(
        self,
        spoken: Dialect,
        check: Callable[[web.Request], None],
        handler: Callable[[web.Request, Dialect], Awaitable[web.StreamResponse]],
    ) -> Handler:
        """Every error is an answer in the dialect's own words, with its status."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                check(request)
                return await handler(request, spoken)
            except Ring0Error as failure:
                if _BEGUN in request:
                    raise ConnectionResetError from failure
                return _refusal(spoken, failure)
            except ConnectionError:
                raise  # Nobody is there to be answered.
            except Exception as error:
                if _BEGUN in request:  # Nothing more fits into half an answer: it breaks off.
                    raise ConnectionResetError from error
                return _refusal(spoken, fault(error), 500)

        return answer

    async def _answer(self, request: web.Request, spoken: Dialect) -> web.StreamResponse:
        asked, headers = await self._asked(request, spoken)
        again = headers.get(_AGAIN, "0") not in ("", "0")
        said = Said(again=again, traceparent=headers.get("traceparent", ""))
        profile = profiles.find(spoken.name, headers, asked.body)
        tell = self._in_pieces if asked.stream else self._whole
        # Parsed, it may take twenty times its bytes, for as long as the answer takes.
        with self._run.weight.kept(len(values.canonical(asked.body))):
            try:
                answer = await tell(request, spoken, asked, said, profile)
            except Ring0Error:
                raise
            except BaseException:
                # Whoever asks for the same next never heard the answer: it is the same call.
                self._run.unheard(said.call)
                raise
        return answer

    async def _asked(self, request: web.Request, spoken: Dialect) -> tuple[Asked, dict[str, str]]:
        """The question, and its headers. What is none is refused on record."""
        body: Any = None
        try:
            body, headers = await self._read(request)
            return spoken.asked(body, headers), headers
        except Ring0Error as failure:
            # Nothing large is kept while it waits for its turn to be refused.
            error, part, body = failure.with_traceback(None), part_of(body), None
        raise await self._asking.refusing.told(error, spoken.name, part)

    async def _read(self, request: web.Request) -> tuple[Any, dict[str, str]]:
        """The body, and the headers by lower-case name."""
        async with self._run.weight.room(size_of(request)):
            headers: dict[str, str] = {}
            for name, value in request.headers.items():  # The same name again goes on in its list.
                key = name.lower()
                headers[key] = f"{headers[key]},{value}" if key in headers else value
            return await self._bodies.read(request), headers

    async def _count(self, request: web.Request, spoken: Dialect) -> web.StreamResponse:
        self._may_count(size_of(request))
        body, headers = await self._read(request)
        asked = spoken.asked(body, headers)
        response = _json({"input_tokens": self._asking.estimate(spoken, asked)})
        response.headers[ESTIMATED] = "true"
        return response

    def _may_count(self, size: int) -> None:
        """It is no call, so no budget bounds it: the clock does, before anything is read. Raises
        Busy."""
        now_us = self._gate.runtime.monotonic_us()
        ready_us = self._counts.ready_us(size, now_us)
        if ready_us > now_us:
            raise Busy(
                "This run has had tokens counted too often.",
                why=f"{limits.DOOR_COUNTS_PER_MIN} times, and"
                f" {limits.DOOR_COUNTED_BYTES_PER_MIN:,} bytes, a minute: it costs no budget.",
                todo="Ask again later; an answer tells how many tokens its question had.",
                after_s=-(-(ready_us - now_us) // 1_000_000),
            )
        self._counts.reserve(size, now_us)

    async def _earlier(self, request: web.Request, spoken: Dialect) -> web.StreamResponse:
        return _json(await self._asking.earlier.answer(request.match_info["id"]))

    # --- whole --------------------------------------------------------------------------------

    async def _whole(
        self,
        request: web.Request,
        spoken: Dialect,
        asked: Asked,
        said: Said,
        profile: Profile | None,
    ) -> web.StreamResponse:
        asking = asyncio.ensure_future(self._asking.answer(spoken, asked, said, profile))
        response: web.StreamResponse | None = None
        try:
            while not (await asyncio.wait({asking}, timeout=limits.DOOR_PING_S))[0]:
                if response is None:
                    # JSON may begin with blanks: they keep alive who waits for a person.
                    response = web.StreamResponse(headers={"Content-Type": _JSON})
                    await response.prepare(request)
                    request[_BEGUN] = True
                await response.write(b" ")
            body, status = self._body(spoken, asked, said, asking)
        finally:
            await _ended(asking)
        if response is None:
            response = _json(body, status)
            await response.prepare(request)
        else:
            await response.write(_encode(body))
        await response.write_eof()
        if status == 200:
            self._run.heard(said.call)
        return response

    def _body(
        self, spoken: Dialect, asked: Asked, said: Said, asking: asyncio.Future[ModelAnswer]
    ) -> tuple[dict[str, Any], int]:
        try:
            answer = asking.result()
            self._gate.handles.check(self._run.handle)  # Of a run that was killed nothing goes out.
            return spoken.write_answer(answer, self._asking.about(asked, said)), 200
        except Ring0Error as failure:
            status = _status(failure)
            return spoken.error(failure, status), status

    # --- in pieces ----------------------------------------------------------------------------

    async def _in_pieces(
        self,
        request: web.Request,
        spoken: Dialect,
        asked: Asked,
        said: Said,
        profile: Profile | None,
    ) -> web.StreamResponse:
        pieces = Pieces(self._gate.secrets, self._gate.runtime, self._gate.answers.masking)
        said.sink = pieces.take
        asking = asyncio.ensure_future(self._asking.answer(spoken, asked, said, profile))
        asking.add_done_callback(lambda _: pieces.close())
        try:
            first = await pieces.next(limits.DOOR_PING_S)
            while first is not None and not said.call:
                first = await pieces.next(limits.DOOR_PING_S)  # It has no name to begin with yet.
            before = [] if first is not None else await kept(self._gate, self._run, said.call)
            if first is None and not before and (failure := _failure(asking)) is not None:
                raise failure  # Nothing is out yet: it has a status of its own.
            out: list[list[Delta]] = []
            writer = spoken.writer(self._asking.about(asked, said))
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            )
            await response.prepare(request)
            request[_BEGUN] = True
            await response.write(writer.begin())
            for group in before:  # As it went out when it came.
                await response.write(b"".join(map(writer.delta, group)) or writer.ping())
            while first is not None and (failure := self._dead()) is None:
                body = b"".join(map(writer.delta, first)) or writer.ping()
                await response.write(body)
                out.append(first)
                first = await pieces.next(limits.DOOR_PING_S)
            if out:
                await keep(self._gate, self._run, said.call, out)
            failure = self._dead() or _failure(asking)
            await response.write(
                writer.error(failure) if failure is not None else writer.end(asking.result())
            )
            await response.write_eof()
            if failure is None:
                self._run.heard(said.call)
            return response
        finally:
            pieces.leave()
            await _ended(asking)

    def _dead(self) -> Ring0Error | None:
        """Of a run that was killed nothing more goes out, though it has come."""
        try:
            self._gate.handles.check(self._run.handle)
        except RunDead as dead:
            return dead
        return None

    # --- which there are ----------------------------------------------------------------------

    def _checked(
        self,
        handler: Callable[[web.Request], web.StreamResponse],
        check: Callable[[web.Request], None],
    ) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                check(request)
                return handler(request)
            except Ring0Error as failure:
                return _json({"error": failure.as_dict()}, _status(failure))

        return answer

    def _models(self, request: web.Request) -> web.StreamResponse:
        names = self._run.named()[1]
        return _json({"object": "list", "data": [_model(name) for name in names]})

    def _model(self, request: web.Request) -> web.StreamResponse:
        return _json(_model(self._asking.model_of(request.match_info["name"])))


def _model(name: str) -> dict[str, Any]:
    # Read by clients of either maker: OpenAI's fields, then Anthropic's.
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "ring0",
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }


def _failure(asking: asyncio.Future[ModelAnswer]) -> Ring0Error | None:
    """What it failed with, as far as it is over. A fault of ours is raised."""
    if not asking.done() or (error := asking.exception()) is None:
        return None
    if isinstance(error, Ring0Error):
        return error
    raise error


async def _ended(asking: asyncio.Future[ModelAnswer]) -> None:
    """Nobody is left behind: a call that is under way goes on in the gate without it."""
    asking.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await asking


def _status(failure: Ring0Error) -> int:
    if isinstance(failure, BodyRefused):
        return failure.status
    if isinstance(failure, Told) and failure.status:
        return failure.status
    return STATUS.get(failure.code, STATUS_ELSE)


def _refusal(spoken: Dialect, failure: Ring0Error, status: int = 0) -> web.Response:
    status = status or _status(failure)
    return _json(spoken.error(failure, status), status)


def _json(body: Any, status: int = 200) -> web.Response:
    # To try again what was refused is no use: clients of either maker listen to this.
    headers = {} if status == 200 else {"x-should-retry": "false"}
    return web.Response(body=_encode(body), status=status, content_type=_JSON, headers=headers)
