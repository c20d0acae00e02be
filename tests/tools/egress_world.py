"""Real servers on loopback, names for them, and a proxy before them with a real sender behind.

Nothing here pretends: bytes go through sockets, TLS is TLS, and the servers say what a test tells
them to, byte by byte.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ring0.errors import CallDenied
from ring0.runtime import Runtime
from ring0.tools.egress import (
    Addresses,
    Authority,
    Credential,
    Egress,
    EgressAnswer,
    EgressRequest,
    Kept,
    Proxy,
    bind,
    choose,
    parse_rules,
    serve,
)

CANARY = "sk-canary/7f+3a=19~Zq"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Says = Callable[[bytes], bytes | Awaitable[bytes]]


class WorldAuthority:
    """A certificate authority of the test's world, for its servers."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "world")])
        self.certificate = self._sign(self.name, self.key, ca=True)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def server(self, names: Iterable[str]) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._sign(x509.Name([]), key, names=names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(leaf.public_bytes(serialization.Encoding.PEM))
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _sign(self, subject, key, *, names=(), ca=False):
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Server:
    """One server on loopback. `heard` holds each request as it came, in bytes."""

    def __init__(self, says: Says, context: ssl.SSLContext | None) -> None:
        self.heard: list[bytes] = []
        self.connections = 0
        self._says = says
        self._context = context

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            request = head + await reader.readexactly(length)
            self.heard.append(request)
            answer = self._says(request)
            writer.write(answer if isinstance(answer, bytes) else await answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def close(self) -> None:
        self._server.close()


class World:
    """Names, servers, one sender; made by the fixture `world`."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.authority = WorldAuthority()
        self.names: dict[str, list[list[str]]] = {}
        """Name to what each look-up answers; the last one stays."""
        self.looked_up: list[str] = []
        self.asked: list[EgressRequest] = []
        self._open: list[Server] = []
        self._proxies: list[Proxy] = []
        self.kept = Kept(self.runtime)

    async def server(self, says: Says | bytes = OK, *names: str, tls: bool = True) -> Server:
        """A server that goes by these names."""
        context = self.authority.server(names) if tls else None
        server = Server(says if callable(says) else lambda _: says, context)
        await server.open()
        self._open.append(server)
        for name in names:
            self.names[name] = [["127.0.0.1"]]
        return server

    async def look_up(self, host: str, port: int) -> list[str]:
        self.looked_up.append(host)
        answers = self.names.get(host)
        if answers is None:
            raise socket.gaierror("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def egress(self, allow_private: Iterable[str] = ("127.0.0.0/8",), **options) -> Egress:
        addresses = Addresses(
            self.runtime,
            allow_private=allow_private,
            look_up=self.look_up,
            own=options.pop("own", ()),
        )
        trust = ssl.create_default_context(cadata=self.authority.pem)
        return Egress(self.runtime, addresses, trust=trust, **options)

    async def proxy(
        self,
        *rules: str,
        credentials: Iterable[Credential] = (),
        egress: Egress | None = None,
        ask: Callable[[EgressRequest], Awaitable[EgressAnswer]] | None = None,
    ) -> Served:
        """A proxy with these rules; what it asks for is sent for real where a rule allows it."""
        read = parse_rules(rules, "egress")
        sender = egress or self.egress()

        async def gate(request: EgressRequest) -> EgressAnswer:
            self.asked.append(request)
            rule = read.allows(request)
            if rule is None:
                raise CallDenied("No rule allows it.")
            credential = choose(credentials, request)
            return await sender.send(request, rule, credential, keeper=self.kept)

        authority = Authority(read, self.runtime)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        proxy = await serve(
            listener, ask or gate, read, authority, self.runtime, tunnel=sender.tunnel
        )
        self._proxies.append(proxy)
        return Served(proxy, port, authority)

    def credential(self, rule: str, value: str = CANARY, **options) -> Credential:
        return bind("CANARY", value, rule, "binding", **options)

    async def close(self) -> None:
        for proxy in self._proxies:
            await proxy.close()
        for server in self._open:
            server.close()


class Served:
    """A proxy as a sandbox sees it."""

    def __init__(self, proxy: Proxy, port: int, authority: Authority) -> None:
        self.proxy = proxy
        self.port = port
        self.authority = authority

    async def say(self, *pieces: bytes) -> bytes:
        """Sends bytes as they are, hears all until the proxy hangs up (or falls silent)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            return await hear(reader)
        finally:
            writer.close()

    async def connect(self, target: str, head: bytes | None = None):
        """CONNECT; the stream and the proxy's answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        named = f"Host: {target}\r\n".encode() if head is None else head
        writer.write(f"CONNECT {target} HTTP/1.1\r\n".encode() + named + b"\r\n")
        return reader, writer, await reader.readuntil(b"\r\n\r\n")

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority.certificate_pem.decode())

    async def secure(
        self, target: str, data: bytes, *, name: str | None = None, check: bool = True
    ) -> bytes:
        """CONNECT, TLS with `name` in its hello, bytes in, bytes out."""
        reader, writer, answer = await self.connect(target)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        context = self.client()
        if not check:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        await writer.start_tls(context, server_hostname=name or target.partition(":")[0])
        try:
            writer.write(data)
            await writer.drain()
            return await hear(reader)
        finally:
            writer.transport.abort()


async def hear(reader: asyncio.StreamReader, seconds: float = 5) -> bytes:
    heard = b""
    try:
        async with asyncio.timeout(seconds):
            while piece := await reader.read(65_536):
                heard += piece
    except (TimeoutError, ConnectionError):
        pass
    return heard


async def shop(world: World, says=OK, to: str = "GET,POST https://{where}", **options):
    """A server, a proxy that lets everything through to it, and a credential bound to `to`."""
    server = await world.server(says, "shop.test")
    where = f"shop.test:{server.port}"
    credential = world.credential(to.format(where=where), **options)
    rules = f"GET,POST,PUT,PATCH,DELETE https://{where}"
    return server, await world.proxy(rules, credentials=[credential]), where


def went_out(server) -> bool:
    return any(CANARY.encode() in heard for heard in server.heard)


async def plain(world: World, says=OK, *rules: str):
    """A plain server called shop.test, and a proxy that lets GET and POST through to it."""
    server = await world.server(says, "shop.test", tls=False)
    place = f"http://shop.test:{server.port}"
    served = await world.proxy(*(rules or (f"GET,HEAD,POST,PUT {place}",)))
    return server, served, place


def ask(place: str, path: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    host = place.removeprefix("http://")
    lines = [f"{method} {place}{path} HTTP/1.1", f"Host: {host}", "Connection: close", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(host: str, path: str = "/", *fields: str) -> bytes:
    """A GET as it is said within CONNECT; the connection ends with it."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def post(host: str, path: str, body: bytes, *fields: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *fields,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def answer(body: bytes = b"", *fields: bytes, status: bytes = b"200 OK") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 " + status, length, *fields]) + b"\r\n\r\n" + body


def status(heard: bytes) -> int:
    """Of an answer of the proxy; 0: it hung up without one."""
    return int(heard.split(b" ", 2)[1]) if heard.startswith(b"HTTP/1.1 ") else 0


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
