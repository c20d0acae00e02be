"""What the attacks on the proxy go for: servers, names, and two proxies before them.

One is ours, for the sandbox. The other lets everything through: the control. Both reach the same
servers, which give the canary away to who gets to ask for what must not be asked for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from ring0 import limits
from ring0.errors import CallDenied
from ring0.runtime import Runtime
from ring0.tools.egress import (
    Addresses,
    Authority,
    Egress,
    EgressAnswer,
    EgressRequest,
    Proxy,
    bind,
    choose,
    parse_rules,
    serve,
)
from ring0.tools.sandbox.sandbox import Sandbox

_OPEN, _OWN = "127.0.0.2", "127.0.0.1"
"""Where the allowed server is, which the operator has allowed; and the machine's own address."""
_NAMES: Final = {
    "allowed.example": _OPEN,
    "secure.example": _OPEN,
    "internal.example": _OWN,
    "mapped.example": f"::ffff:{_OWN}",
    "zero.example": "0.0.0.0",  # noqa: S104  # to be refused
}
_TELLS: Final = (
    b"attackers-key", b"host: internal.example", b"delete", b"upgrade: websocket",
    b"post /open/write", b"/secure", b"connect ", b"/open/works",
)  # fmt: skip
"""What the allowed server must never hear (but for the last: that it may)."""


class Outlets:
    """Servers, names and proxies. Open it within a running loop; `close` it."""

    def __init__(self, canary: str, runtime: Runtime) -> None:
        self.ports: dict[str, int] = {}
        self._canary = canary
        self._runtime = runtime
        self._stack = contextlib.AsyncExitStack()
        self._looked_up: list[str] = []

    async def open(self) -> None:
        authority = Authority(
            parse_rules(["allowed.example", "internal.example"], ""), self._runtime
        )
        context = authority.context("allowed.example")
        context.sni_callback = _note_name
        await self._listen("internal", _OWN, lambda _, __: self._canary.encode())
        await self._listen("plain", _OPEN, self._answer)
        await self._listen("tls", _OPEN, self._answer, context)
        await self._listen_open()
        trust = ssl.create_default_context(cadata=authority.certificate_pem.decode())
        addresses = Addresses(self._runtime, allow_private=[f"{_OPEN}/32"], look_up=self._look_up)
        self._egress = Egress(
            self._runtime, addresses, trust=trust, plain_credentials=["allowed.example"]
        )
        allowed = f"http://allowed.example:{self.ports['plain']}/open"
        self._credentials = [bind("selftest", self._canary, f"GET {allowed}/echo/*", "selftest")]
        self._rules = parse_rules(self._texts(), "selftest")

    async def close(self) -> None:
        await self._stack.aclose()

    def _texts(self) -> list[str]:
        inner, plain, tls = (self.ports[name] for name in ("internal", "plain", "tls"))
        by_name = ("internal", "mapped", "zero", "rebind")
        return [
            f"GET http://allowed.example:{plain}/open/*",
            f"POST http://allowed.example:{plain}/smuggle/*",
            f"GET https://allowed.example:{tls}/*",
            f"GET https://secure.example:{plain}/*",
            *(f"GET http://{name}.example:{inner}/*" for name in by_name),
        ]

    # --- the sandbox's proxy --------------------------------------------------------------------

    async def serve(self, sandbox: Sandbox) -> Proxy:
        """Ours, as the kernel serves it. Close it."""
        assert sandbox.proxy is not None, "its spec asked for one"

        async def ask(request: EgressRequest) -> EgressAnswer:
            rule = self._rules.allows(request)
            if rule is None:
                raise CallDenied(f"{request.method} {request.url[:200]} is not let out.")
            credential = choose(self._credentials, request)
            return await self._egress.send(request, rule, credential)

        authority = Authority(self._rules, self._runtime)
        return await serve(
            sandbox.proxy, ask, self._rules, authority, self._runtime, tunnel=self._egress.tunnel
        )

    async def _look_up(self, host: str, port: int) -> list[str]:
        self._looked_up.append(host)
        if host == "rebind.example":
            return [_OWN if self._looked_up.count(host) % 2 == 0 else _OPEN]
        if host in _NAMES:
            return [_NAMES[host]]
        raise socket.gaierror("no such name")

    # --- the careless one -----------------------------------------------------------------------

    async def _listen_open(self) -> None:
        server = await asyncio.start_server(self._relay, _OWN, 0)
        self._stack.callback(server.close)
        self.ports["open_proxy"] = server.sockets[0].getsockname()[1]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Dials what it is asked for and hands on what it hears."""
        with contextlib.suppress(OSError, ValueError, IndexError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ", 2)
            place = target if method == "CONNECT" else target.split("/", 3)[2]
            host, _, port = place.rpartition("@")[2].rpartition(":")
            ours, theirs = await asyncio.open_connection(await self._careless(host), int(port))
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3] if target.count("/") > 2 else "/"
                head = head.replace(target.encode("latin-1"), path.encode("latin-1"), 1)
                if path.startswith("/open/echo/"):
                    head = head[:-2] + f"Authorization: Bearer {self._canary}\r\n\r\n".encode()
                theirs.write(head)
            await asyncio.gather(_copy(reader, theirs), _copy(ours, writer))
        writer.close()

    async def _careless(self, host: str) -> str:
        """Where a C program would go: up to a NUL, and by any form of an address."""
        name = host.partition("\0")[0].strip("[]")
        self._looked_up.append(name)
        if name == "rebind.example" or name not in _NAMES:
            with contextlib.suppress(OSError):
                return socket.inet_ntoa(socket.inet_aton(name))
            return name if ":" in name else _OWN
        return _NAMES[name]

    # --- the servers ----------------------------------------------------------------------------

    async def _listen(
        self, name: str, address: str, answers: Callable[[bytes, str], bytes],
        context: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
                heard = await self._runtime.wait_for(_hear(reader), limits.SELFTEST_HEAR_S_MAX)
                tls = writer.get_extra_info("ssl_object")
                body = answers(heard, getattr(tls, "ring0_name", ""))
                location = f"http://internal.example:{self.ports['internal']}/"
                status = "302 Found" if b"/open/redirect" in heard else "200 OK"
                writer.write(
                    f"HTTP/1.1 {status}\r\nLocation: {location}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve_one, address, 0, ssl=context)
        self._stack.callback(server.close)
        self.ports[name] = server.sockets[0].getsockname()[1]

    def _answer(self, heard: bytes, name: str) -> bytes:
        """The allowed server's: harmless, or the canary to who got too far."""
        lower, line = heard.lower(), heard.split(b"\r\n")[0]
        if b"/open/echo/" in line:
            return _echoed(heard, line)
        name_asked = line.partition(b"/open/asked/")[2].partition(b" ")[0].decode("latin-1")
        asked = name_asked and any(host.startswith(name_asked) for host in self._looked_up)
        closed = b"closed" in line or b"/smuggled" in lower or name == "internal.example"
        if asked or closed or any(tell in lower for tell in _TELLS):
            return self._canary.encode()
        return b"harmless"


def _note_name(tls: Any, name: str | None, _: ssl.SSLContext) -> None:
    tls.ring0_name = name or ""


async def _hear(reader: asyncio.StreamReader) -> bytes:
    """One request and, where it says that there is a body, as a careless server takes it: of a
    chunked one nothing past the end is its own, whatever else the head says."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding" not in lower or b"chunked" not in lower:
        lengths = [line for line in lower.split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0].partition(b":")[2]) if lengths else 0
        body = await reader.readexactly(length)
        if len(lengths) < 2:
            return head  # a body of that length is a body
        return head + body + await reader.read(4096)
    await reader.readuntil(b"0\r\n\r\n")
    return head + await reader.read(4096)


def _echoed(heard: bytes, line: bytes) -> bytes:
    """The Authorization that came, in the letters that are asked for."""
    fields = [part for part in heard.split(b"\r\n") if part.lower().startswith(b"authorization:")]
    value = fields[0].partition(b":")[2].strip() if fields else b""
    if b"/base64" in line:
        return base64.b64encode(value)
    if b"/hex" in line:
        return value.hex().encode()
    if b"/url" in line:
        return "".join(f"%{byte:02x}" for byte in value).encode()
    return value


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()
    target.write_eof() if target.can_write_eof() else target.close()
