"""The outward half: sends one request that was judged, to an address that was judged.

One connection a request, nothing of the environment (no proxies, no cookies, no .netrc), no
redirect followed. Credentials are put in here and taken out of the answer here: no other part of
ring0, and no sandbox, sees them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid, InvalidInput, Ring0Error
from ring0.runtime import Runtime
from ring0.tools.egress import clean, kept
from ring0.tools.egress.address import Addresses
from ring0.tools.egress.credential import Credential
from ring0.tools.egress.echo import Echoes, values_of
from ring0.tools.egress.kept import Keeper
from ring0.tools.egress.parse import AnswerHead, answer_framing, parse_answer
from ring0.tools.egress.refusals import cut_off, failed, forbidden, malformed
from ring0.tools.egress.request import (
    CONNECT,
    IDEMPOTENT_METHODS,
    EgressAnswer,
    EgressRequest,
    canonical,
)
from ring0.tools.egress.rules import Rule
from ring0.tools.egress.wire import Closed, Messages, PlainWire, Wire

Hear: TypeAlias = Callable[[bytes], bool]
_EVENTS: Final = "text/event-stream"
_RANGES: Final = frozenset({"range", "if-range"})
_ESTABLISHED: Final = EgressAnswer(status=200)


class _Dropped:
    """A keeper that keeps nothing: where nobody gives another, cookies and tokens end here."""

    def keep(self, origin: str, name: str, value: str) -> str:
        return "dropped"

    def find(self, origin: str, handle: str) -> str | None:
        return None


class _Progress(msgspec.Struct):
    """How far a request came: what can be said of its effect when it is cut off."""

    repeatable: bool
    begun: bool = False
    answered: bool = False


class Egress:
    """Sends what was judged. One for the whole kernel; it holds no credential between requests."""

    def __init__(
        self,
        runtime: Runtime,
        addresses: Addresses,
        *,
        trust: ssl.SSLContext | None = None,
        plain_credentials: Iterable[str] = (),
        models: Iterable[str] = (),
    ) -> None:
        """`trust`: a client's context; default: the system's roots. `plain_credentials`: hosts that
        an operator lets have credentials without TLS. `models`: hosts beside the well-known ones
        that are asked at the model door only. Raises InvalidInput for a lax context."""
        self._runtime = runtime
        self._addresses = addresses
        self._trust = _strict(trust or ssl.create_default_context())
        self._plain_credentials = frozenset(plain_credentials)
        self._models = frozenset(models)

    async def send(
        self,
        request: EgressRequest,
        rule: Rule,
        credential: Credential | None = None,
        *,
        keeper: Keeper | None = None,
        repeatable: bool = False,
        by: Any = None,
        hear: Hear | None = None,
    ) -> EgressAnswer:
        """The answer, without anybody's credentials. `by`: the call that it is in, for whose run
        the credential is.

        `hear`: is given each piece of a stream of events as it comes, raw, credentials that it
        may quote included, and says whether it has heard enough: only to find out that.

        `repeatable`: the host was promised to carry it out once however often it is sent (a key of
        idempotency), so that a cut-off is a failure and nothing unknown.

        Raises CallDenied and CallInvalid before a byte went out; ToolFailed where the world did
        not do its part; EffectUnknown where a request that is not idempotent was cut off.
        """
        self.check(request, rule)
        if request.method == CONNECT:
            return _ESTABLISHED
        keeper = keeper or _Dropped()
        headers, hidden = kept.put_back(request, keeper)
        value = ""
        if credential is not None and credential.fits(request):
            credential.check(request)
            self._check_is_private(request)
            # A range could bring an echo in pieces, each too short to be told from plain words.
            headers = {name: value for name, value in headers.items() if name not in _RANGES}
            value = await credential.value(by)  # Before anything goes out: it may be refused.
            headers[credential.header] = credential.rendered(value)
            hidden += credential.forms(value)
        addresses = await self._addresses.find(request.host, request.port)
        answer = await self._carry_out(request, headers, addresses, repeatable, hear)
        if value and credential is not None and credential.refused and answer.status == 401:
            credential.refused(value)
        if rule.own_auth and not hidden:
            return answer  # The program's own: what it sent, it may hear.
        return await self._runtime.in_thread(_cleaned, answer, request.origin, keeper, hidden)

    def check(self, request: EgressRequest, rule: Rule) -> None:
        """Raises CallDenied, CallInvalid where this request is not what the rule allows."""
        same = canonical(
            request.method,
            request.scheme,
            request.host,
            request.port,
            request.target,
            request.headers.items(),
            request.body,
            own_auth=rule.own_auth,
        )
        if same != request:
            raise malformed("It is not in its canonical form.")
        self._check_is_no_model(request.host)
        if not rule.allows(request):
            raise forbidden(
                f"{request.method} {request.url[:200]} is not let out.",
                why="No rule of the tool's `egress` allows it.",
            )

    async def tunnel(self, host: str, port: int, hello: bytes, wire: Wire) -> None:
        """Joins a sandbox's connection to a host, unseen, within bounds. Never with a credential.

        `hello`: what was read of it and judged. Raises CallDenied, ToolFailed.
        """
        self._check_is_no_model(host)
        addresses = await self._addresses.find(host, port)
        try:
            reader, writer = await self._dial(addresses, port, None, host)
        except OSError as error:
            raise failed(f"{host} could not be reached.", why=_why(error)) from None
        try:
            await self._join(wire, PlainWire(reader, writer), hello)
        finally:
            writer.transport.abort()

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connection to a canonical host, for what of ring0's own speaks something else than one
        request over HTTP/1. Raises CallDenied, ToolFailed."""
        self._check_is_no_model(host)
        addresses = await self._addresses.find(host, port)
        last: OSError = Closed("no address could be reached")
        for address in addresses[: limits.EGRESS_DIALS_MAX]:
            try:
                return await self._runtime.wait_for(
                    _connected(address, port), limits.EGRESS_DIAL_S_MAX
                )
            except OSError as error:
                last = error
        raise failed(f"{host} could not be reached.", why=_why(last))

    async def _join(self, inside: Wire, outside: Wire, hello: bytes) -> None:
        await outside.send(hello)
        copies = [
            self._runtime.start(_copy(inside, outside), name="egress tunnel out"),
            self._runtime.start(_copy(outside, inside), name="egress tunnel in"),
        ]
        try:
            ends = asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            await self._runtime.wait_for(ends, limits.EGRESS_TUNNEL_S_MAX)
        except TimeoutError:
            pass  # Its time is over: it is closed like any other.
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)

    def _check_is_no_model(self, host: str) -> None:
        if host in self._models:
            raise forbidden(
                f"{host} is not let out to.",
                why="A model is there: it is asked at the model door, where it is counted.",
            )

    def _check_is_private(self, request: EgressRequest) -> None:
        if request.scheme == "https" or request.host in self._plain_credentials:
            return
        raise forbidden(
            f"{request.host} gets no credential over plain HTTP.",
            why="Everybody on the way could read it.",
            todo="Use https.",
        )

    async def _carry_out(
        self,
        request: EgressRequest,
        headers: dict[str, str],
        addresses: list[str],
        repeatable: bool,
        hear: Hear | None,
    ) -> EgressAnswer:
        progress = _Progress(repeatable=repeatable or request.method in IDEMPOTENT_METHODS)
        try:
            head, body = await self._runtime.wait_for(
                self._converse(request, headers, addresses, progress, hear),
                limits.EGRESS_ANSWER_S_MAX,
            )
        except OSError as error:  # Closed, time-outs and TLS among them.
            raise _broken(request, progress, _why(error)) from None
        except CallInvalid as error:
            raise _broken(request, progress, f"its answer is not good: {error.why}") from None
        return EgressAnswer(
            status=head.status, headers=clean.kept_fields(head.fields, request), body=body
        )

    async def _converse(
        self,
        request: EgressRequest,
        headers: dict[str, str],
        addresses: list[str],
        progress: _Progress,
        hear: Hear | None,
    ) -> tuple[AnswerHead, bytes]:
        context = self._trust if request.scheme == "https" else None
        reader, writer = await self._dial(addresses, request.port, context, request.host)
        try:
            wire = PlainWire(reader, writer)
            progress.begun = True
            await wire.send(_written(request, headers))
            messages = Messages(wire)
            head = await _final_head(messages)
            progress.answered = True
            encoding = [value for name, value in head.fields if name == "content-encoding"]
            if any(value.strip().lower() not in ("", "identity") for value in encoding):
                raise malformed("It is compressed, although it was asked not to be")
            framing = answer_framing(head, request.method)
            most = limits.EGRESS_BODY_SIZE_BYTES_MAX
            if hear is not None and _is_events(head):
                return head, await messages.stream(framing, most, hear)
            return head, await messages.body(framing, most, trailers=True)
        finally:
            writer.transport.abort()

    async def _dial(
        self, addresses: list[str], port: int, context: ssl.SSLContext | None, host: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to one of exactly these addresses. Raises OSError."""
        last: OSError = Closed("no address could be reached")
        for address in addresses[: limits.EGRESS_DIALS_MAX]:
            try:
                return await self._runtime.wait_for(
                    _connect(address, port, context, host), limits.EGRESS_DIAL_S_MAX
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                last = error
        raise last


def _cleaned(
    answer: EgressAnswer, origin: str, keeper: Keeper, hidden: Iterable[str]
) -> EgressAnswer:
    """Without cookies, tokens and credentials. It may take a while: an answer is megabytes."""
    return Echoes(values_of(hidden)).take_out(kept.take_in(answer, origin, keeper))


async def _connected(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect(
    address: str, port: int, context: ssl.SSLContext | None, host: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = await _connected(address, port)
    try:
        return await asyncio.open_connection(
            sock=connection,
            ssl=context,
            server_hostname=host if context else None,
            limit=limits.EGRESS_PIECE_SIZE_BYTES,
        )
    except BaseException:
        connection.close()
        raise


def _is_events(head: AnswerHead) -> bool:
    kinds = [value for name, value in head.fields if name == "content-type"]
    return head.status == 200 and kinds[:1] != [] and kinds[0].lower().startswith(_EVENTS)


async def _final_head(messages: Messages) -> AnswerHead:
    """The head of the real answer, behind those that only say that it will come."""
    for _ in range(limits.EGRESS_INTERIM_MAX + 1):
        head = parse_answer(await messages.head())
        if head.status == 101:
            raise malformed("It changes to another protocol")
        if head.status >= 200:
            return head
    raise malformed("It says over and over that it will come")


def _written(request: EgressRequest, headers: dict[str, str]) -> bytes:
    """The request as it goes out. What comes in it was checked; nothing else can begin a line."""
    fields = {
        "host": request.authority,
        **headers,
        "accept-encoding": "identity",
        "connection": "close",
    }
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        fields["content-length"] = str(len(request.body))
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    text = "\r\n".join(lines)
    assert text.count("\r") == text.count("\n") == len(lines) - 1
    return text.encode("ascii") + b"\r\n\r\n" + request.body


async def _copy(source: Wire, target: Wire) -> None:
    left = limits.EGRESS_TUNNEL_SIZE_BYTES_MAX
    while data := await source.receive():
        left -= len(data)
        if left < 0:
            return
        await target.send(data)


def _broken(request: EgressRequest, progress: _Progress, why: str) -> Ring0Error:
    why = why.rstrip(".")
    if not progress.begun:
        return failed(f"{request.host} could not be reached.", why=f"{why}.")
    if progress.answered or progress.repeatable:
        return failed(f"The answer of {request.host} can't be taken.", why=f"{why}.")
    return cut_off(request.method, request.host, why)


def _why(error: OSError) -> str:
    """In a few words of ours: a peer's words could be anything."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"Its certificate is not good: {error.verify_message}."
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'no common ground'}."
    if isinstance(error, TimeoutError):
        return "It took too long."
    if isinstance(error, Closed):
        return f"{error}."
    return f"{error.strerror or type(error).__name__}."


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise InvalidInput(
            "TLS without verification is not used.", todo="Give a context that verifies."
        )
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.set_alpn_protocols(["http/1.1"])
    return context
