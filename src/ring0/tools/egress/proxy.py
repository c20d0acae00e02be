"""The inward half: the proxy that a sandbox finds at its loopback port, and nothing else.

Whose requests they are, the listener says: one sandbox has one. Each request is read strictly, put
into its canonical form and asked for (`ask` is the gate); what is answered goes back. Nothing is
resolved, dialled or decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, Ring0Error
from ring0.runtime import Runtime
from ring0.tools.egress.authority import Authority
from ring0.tools.egress.hello import read_hello
from ring0.tools.egress.hosts import is_address, split_authority
from ring0.tools.egress.parse import (
    RequestHead,
    TooLarge,
    one,
    parse_request,
    request_framing,
)
from ring0.tools.egress.refusals import forbidden, malformed
from ring0.tools.egress.request import (
    CONNECT,
    METHODS,
    EgressAnswer,
    EgressRequest,
    canonical,
    split_url,
)
from ring0.tools.egress.rules import Rules
from ring0.tools.egress.targets import canonical_target
from ring0.tools.egress.wire import Messages, PlainWire, TlsWire, Wire

T = TypeVar("T")
Ask: TypeAlias = Callable[[EgressRequest], Awaitable[EgressAnswer]]
"""One request is one call; refusals and failures are raised as Ring0Error."""
Tunnel: TypeAlias = Callable[[str, int, bytes, Wire], Awaitable[None]]
"""`Egress.tunnel`: host, port, the hello that was judged, the sandbox's side."""

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Proxy:
    """A served listener. `close` ends it and all its connections."""

    def __init__(
        self,
        ask: Ask,
        rules: Rules,
        authority: Authority,
        runtime: Runtime,
        tunnel: Tunnel | None,
    ) -> None:
        self.ask = ask
        self.rules = rules
        self.authority = authority
        self.runtime = runtime
        self.tunnel = tunnel
        self.turns = asyncio.Semaphore(limits.EGRESS_ASKS_AT_ONCE_MAX)
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()
        self.tunnels: set[asyncio.Task[None]] = set()
        """Those of them that are opaque, or wait to become so."""

    async def open(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(
            self._accept, sock=listener, limit=limits.EGRESS_PIECE_SIZE_BYTES
        )

    async def close(self) -> None:
        """Closes the listener and every connection. A call that was asked for is the gate's."""
        if self._server is not None:
            self._server.close()
        conversations = list(self._conversations)
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)

    async def close_tunnels(self) -> None:
        """Ends what is not seen request by request, and so can't be refused by request."""
        tunnels = list(self.tunnels)
        for tunnel in tunnels:
            tunnel.cancel()
        await asyncio.gather(*tunnels, return_exceptions=True)

    def count(self) -> int:
        """Connections as they stand."""
        return len(self._conversations)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._conversations) >= limits.EGRESS_CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = self.runtime.start(self._serve(reader, writer), name="egress connection")
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        task.add_done_callback(self.tunnels.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):  # The sandbox went away, or was too slow.
                await Conversation(self, PlainWire(reader, writer)).hold()
                writer.write_eof()
                # What nobody wanted is thrown away, so that the refusal is read and not reset.
                await self.runtime.wait_for(_drain(reader), limits.EGRESS_LINGER_S)
        finally:
            writer.transport.abort()


class Conversation:
    """One connection of the sandbox, or the inside of one whose TLS was ended here."""

    def __init__(self, proxy: Proxy, wire: Wire, inside: tuple[str, int] | None = None) -> None:
        """`inside`: host and port of the CONNECT in which this one happens."""
        self._proxy = proxy
        self._wire = wire
        self._inside = inside
        self._messages = Messages(wire)

    async def hold(self) -> None:
        """Request after request, until one side has enough. Raises OSError."""
        while await self._within(self._messages.begin(), limits.EGRESS_IDLE_S_MAX):
            method = ""
            try:
                head = parse_request(
                    await self._within(self._messages.head(), limits.EGRESS_HEAD_S_MAX)
                )
                method = head.method
                if method == CONNECT:
                    await self._connect(head)
                    return
                request = await self._read(head)
            except CallInvalid as error:
                # What follows can't be told from a body: nothing more is read.
                await self._answer(_error(413 if isinstance(error, TooLarge) else 400, error), "")
                return
            except CallDenied as error:
                await self._answer(_error(403, error), "")
                return
            last = (one(head.fields, "connection") or "").lower() == "close"
            async with self._proxy.turns:
                await self._answer(await self._ask(request), method, last=last)
            if last:
                return

    # --- a request ------------------------------------------------------------------------------

    async def _read(self, head: RequestHead) -> EgressRequest:
        """The request in its canonical form, body and all. Raises CallInvalid, CallDenied."""
        scheme, host, port, target = self._place(head)
        framing = request_framing(head)
        path, _ = canonical_target(target)
        own_auth = self._proxy.rules.own_auth(scheme, host, port, head.method, path)

        def request(body: bytes) -> EgressRequest:
            return canonical(
                head.method, scheme, host, port, target, head.fields, body, own_auth=own_auth
            )

        request(b"")  # What is wrong with the head is said before a body is taken.
        if (framing.length or framing.chunked) and head.method in ("GET", "HEAD"):
            raise malformed(f"A {head.method} has no body.")
        expects = one(head.fields, "expect")
        if expects is not None:
            if expects.lower() != "100-continue":
                raise malformed("It expects something that is not known here.")
            await self._wire.send(_CONTINUE)
        body = await self._within(
            self._messages.body(framing, limits.EGRESS_REQUEST_SIZE_BYTES_MAX),
            limits.EGRESS_BODY_S_MAX,
        )
        return request(body)

    def _place(self, head: RequestHead) -> tuple[str, str, int, str]:
        """Scheme, host, port and target, where all that names the host says the same."""
        if head.method not in METHODS:
            raise malformed(f"The method {head.method!r} is not known here.")
        if self._inside is None:
            if not head.target.lower().startswith("http://"):
                raise malformed("A proxy is asked for a whole URL, and for https with CONNECT.")
            scheme, host, port, target = split_url(head.target)
            if "#" in head.target:
                raise malformed("Its URL holds a fragment.")
        else:
            scheme, (host, port), target = "https", self._inside, head.target
        named = one(head.fields, "host")
        if named is None or split_authority(named, scheme) != (host, port):
            raise malformed("Its Host is not the host that it asks for.")
        return scheme, host, port, target

    async def _ask(self, request: EgressRequest) -> EgressAnswer:
        try:
            return await self._proxy.ask(request)
        except CallInvalid as error:
            return _error(400, error)
        except CallDenied as error:
            return _error(403, error)
        except Ring0Error as error:
            return _error(502, error)

    # --- CONNECT --------------------------------------------------------------------------------

    async def _connect(self, head: RequestHead) -> None:
        """TLS is ended here where rules say what may be asked inside; tunnelled where one says so;
        refused otherwise. Raises CallInvalid, CallDenied, OSError."""
        if self._inside is not None:
            raise forbidden("There is no CONNECT within CONNECT.")
        if ":" not in head.target:
            raise malformed("CONNECT is asked with a host and a port.")
        host, port = split_authority(head.target, "https")
        named = one(head.fields, "host")
        if named is not None and split_authority(named, "https") != (host, port):
            raise malformed("Its Host is not the host that it connects to.")
        framing = request_framing(head)
        if framing.length or framing.chunked:
            raise malformed("A CONNECT has no body.")
        if self._proxy.rules.reaches("https", host, port):
            await self._wire.send(_ESTABLISHED)
            await self._end_tls(host, port)
            return
        # On record: a tunnel that is let through, and a place that is not.
        self._proxy.tunnels |= {task for task in (asyncio.current_task(),) if task}
        answer = await self._ask(canonical(CONNECT, "https", host, port, "/"))
        if answer.status != 200 or self._proxy.rules.tunnels(host, port) is None:
            no = forbidden(f"{host}:{port} is not let out to.", why="No rule names it.")
            await self._answer(answer if answer.status != 200 else _error(403, no), "")
        elif self._proxy.tunnel is not None:
            await self._wire.send(_ESTABLISHED)
            await self._tunnel(host, port, self._proxy.tunnel)

    async def _end_tls(self, host: str, port: int) -> None:
        hello = await self._hello(host)
        if hello is None:
            return
        try:
            tls = TlsWire(self._wire, self._proxy.authority.context(host), hello)
            await self._within(tls.handshake(), limits.EGRESS_HEAD_S_MAX)
            await Conversation(self._proxy, tls, (host, port)).hold()
            await self._within(tls.end(), limits.EGRESS_HEAD_S_MAX)
        except ssl.SSLError:
            return  # It does not trust us, or speaks something else: there is nobody to tell.

    async def _tunnel(self, host: str, port: int, tunnel: Tunnel) -> None:
        hello = await self._hello(host)
        if hello is not None:
            with contextlib.suppress(Ring0Error):  # Within TLS there is no way to tell it.
                await tunnel(host, port, hello, self._wire)

    async def _hello(self, host: str) -> bytes | None:
        """The ClientHello and what came with it; None where it is not one for this host."""
        try:
            hello = await self._within(read_hello(self._messages), limits.EGRESS_HEAD_S_MAX)
        except CallInvalid:
            return None
        if hello.hides or hello.name != ("" if is_address(host) else host):
            await self._wire.send(_UNRECOGNIZED_NAME)
            return None
        return hello.raw + self._messages.rest()

    # --- bytes ----------------------------------------------------------------------------------

    async def _answer(self, answer: EgressAnswer, method: str, *, last: bool = True) -> None:
        data = _written(answer, method, last=last)
        await self._within(self._wire.send(data), limits.EGRESS_BODY_S_MAX)

    async def _within(self, awaitable: Awaitable[T], seconds: float) -> T:
        return await self._proxy.runtime.wait_for(awaitable, seconds)


async def serve(
    listener: socket.socket,
    ask: Ask,
    rules: Rules,
    authority: Authority,
    runtime: Runtime,
    *,
    tunnel: Tunnel | None = None,
) -> Proxy:
    """Serves one sandbox's proxy on its listener. Without `tunnel` no opaque one is opened."""
    proxy = Proxy(ask, rules, authority, runtime, tunnel)
    await proxy.open(listener)
    return proxy


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(limits.EGRESS_PIECE_SIZE_BYTES):
        pass


_UNRECOGNIZED_NAME: Final = bytes((21, 3, 3, 0, 2, 2, 112))
"""The alert of TLS for a name that nobody here has."""


def _written(answer: EgressAnswer, method: str, *, last: bool) -> bytes:
    """The answer as it goes back. A field that could begin another line is left out."""
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
    lines += [
        f"{name}: {value}"
        for name, value in answer.headers
        if not any(ord(character) < 32 and character != "\t" for character in name + value)
    ]
    has_body = method != "HEAD" and answer.status not in (204, 304)
    if has_body:
        lines.append(f"content-length: {len(answer.body)}")
    lines.append(f"connection: {'close' if last else 'keep-alive'}")
    head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
    return head + answer.body if has_body else head


def _error(status: int, error: Ring0Error) -> EgressAnswer:
    return EgressAnswer(
        status=status,
        headers=(
            ("content-type", "text/plain; charset=utf-8"),
            ("x-ring0-error", error.code),
        ),
        body=f"{error}\n".encode(),
    )


__all__ = ["Ask", "Conversation", "Proxy", "Tunnel", "serve"]
