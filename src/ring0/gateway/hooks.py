"""Webhooks: `POST /hooks/NAME` starts a run, once for each delivery that its sender has signed.

Whoever can't sign learns nothing, not even which hooks there are, and costs the journal nothing.
What is delivered is untrusted data: it becomes a file of the run, never words of its task. TLS is
for the reverse proxy in front. Signatures, by the hook's own scheme and no other (a text that is
signed under one could be passed off under the other):
    standard  webhook-id, webhook-timestamp, webhook-signature: v1,BASE64(HMAC-SHA256(ID.TIME.BODY))
              (https://www.standardwebhooks.com)
    github    X-Hub-Signature-256: sha256=HEX(HMAC-SHA256(BODY)). No time: a body starts one run,
              and never another.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from aiohttp import web

from ring0 import limits
from ring0.errors import Busy, CallInvalid, InvalidInput, Ring0Error, StoreFailed, StoreFull
from ring0.gateway.listening import Listening
from ring0.identity import Vault
from ring0.identity.signing import key_of, signature
from ring0.kernel import values
from ring0.kernel.kernel import Kernel
from ring0.scheduler.buckets import Bucket
from ring0.store import GuardFailed
from ring0.types import Hook, HookScheme

_ID: Final = re.compile(rf"[\x21-\x2d\x2f-\x7e]{{1,{limits.HOOK_ID_CHARS_MAX}}}")
"""Without a dot: what is signed could be cut in another place."""
_TIME: Final = re.compile(r"[0-9]{1,12}")
_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """What the sender is told: a status, a word, and when to come back."""

    def __init__(self, status: int, word: str, after_s: int = 0) -> None:
        super().__init__(word)
        self.status = status
        self.word = word
        self.after_s = after_s


NOT_SIGNED: Final = (401, "not signed as it must be")
"""The same for a hook that is not there."""


class Hooks:
    """Serves deliveries while a kernel is at work."""

    def __init__(
        self, kernel: Kernel, hosts: Sequence[str], say: Callable[[str, str], None]
    ) -> None:
        """`hosts`: what a request may call this server, beside its own address."""
        self._kernel = kernel
        self._hosts = {host.lower() for host in hosts}
        self._say = say
        self._reading = asyncio.Semaphore(limits.HOOK_BODIES_AT_ONCE_MAX)
        self._rates: dict[str, Bucket] = {}
        self._beginning: set[str] = set()
        """Runs that are just being started."""
        self._listening: Listening | None = None
        self.is_ending = False
        """No run is started any more."""
        self._listener: socket.socket | None = None
        self.address = ""

    def bind(self, address: str, port: int) -> None:
        """Takes the address; who connects waits. Raises InvalidInput where it can't listen there,
        or should not."""
        self._listener = _listener(address, port, bool(self._hosts))
        port = self._listener.getsockname()[1]
        self.address = f"{_bracketed(address)}:{port}"
        for own in (_bracketed(address), "localhost"):
            self._hosts |= {own, f"{own}:{port}"}

    async def open(self) -> None:
        assert self._listener is not None, "it is bound first"
        app = web.Application(client_max_size=limits.HOOK_BODY_SIZE_BYTES_MAX)
        app.router.add_post("/hooks/{name}", self._handle)
        self._listening = Listening(
            app,
            connections_max=limits.HOOK_CONNECTIONS_MAX,
            idle_s_max=limits.HOOK_IDLE_S_MAX,
            cancels=False,  # A run that is being started is started.
        )
        await self._listening.open(self._listener)

    async def close(self) -> None:
        if self._listening is not None:
            await self._listening.close()
        elif self._listener is not None:
            self._listener.close()

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            run, status = await self._deliver(request)
            return _answer(status, {"run": run})
        except Refused as refused:
            return _answer(refused.status, {"error": refused.word}, refused.after_s)
        except Busy as error:
            return _answer(503, {"error": "busy"}, error.after_s)
        except (StoreFull, StoreFailed):
            return _answer(503, {"error": "nothing can be recorded"}, limits.BUSY_BACK_S_MAX)
        except Ring0Error as error:  # Details are the operator's: who sends is a stranger.
            self._say(f"hook {request.match_info['name'][:64]}: {error.what} {error.why}", "")
            return _answer(500, {"error": error.code})

    async def _deliver(self, request: web.Request) -> tuple[str, int]:
        """The run for a delivery, and the status to answer with."""
        if _one(request, "Host").lower() not in self._hosts:
            raise Refused(421, "this server has another name")
        body = await self._body(request)
        hook = await self._hook(request.match_info["name"])
        secret = self._secret(hook)
        delivery = (
            _github(request, body, secret)
            if hook is not None and hook.scheme is HookScheme.GITHUB
            else _standard(request, body, secret, self._kernel.runtime.now_us())
        )
        if hook is None or delivery is None:
            raise Refused(*NOT_SIGNED)
        self._take_turn(hook)
        try:
            values.parse(body, what="The body")
        except CallInvalid as error:
            raise Refused(400, f"{error.what} {error.why}"[:300]) from None
        return await self._start(hook, delivery, body)

    async def _body(self, request: web.Request) -> bytes:
        length = request.content_length
        if length is None:
            raise Refused(411, "a body has a Content-Length")
        if length > limits.HOOK_BODY_SIZE_BYTES_MAX:
            raise Refused(413, f"at most {limits.HOOK_BODY_SIZE_BYTES_MAX} bytes")
        try:
            return await self._kernel.runtime.wait_for(self._read(request), limits.DOOR_BODY_S_MAX)
        except TimeoutError:
            raise Refused(408, "it came too slowly") from None
        except web.HTTPRequestEntityTooLarge:
            raise Refused(413, f"at most {limits.HOOK_BODY_SIZE_BYTES_MAX} bytes") from None

    async def _read(self, request: web.Request) -> bytes:
        async with self._reading:
            return await request.read()

    async def _hook(self, name: str) -> Hook | None:
        return next((hook for hook in await self._kernel.store.hooks() if hook.name == name), None)

    def _secret(self, hook: Hook | None) -> bytes:
        """Of the vault as it is now. Where there is none, one that nobody knows."""
        kept = Vault(self._kernel.home).values()
        found = kept.get(hook.secret, "") if hook is not None else ""
        return key_of(found) if found else self._kernel.runtime.random_bytes(32)

    def _take_turn(self, hook: Hook) -> None:
        """Before anything is on record: a sender that floods is told to come back."""
        now_us = self._kernel.runtime.monotonic_us()
        rate = self._rates.get(hook.name)
        if rate is None:
            if len(self._rates) >= limits.ORDERS_MAX:
                del self._rates[next(iter(self._rates))]
            rate = Bucket(hook.name, limits.HOOK_DELIVERIES_PER_MIN_MAX)
            self._rates[hook.name] = rate
        ready_us = rate.ready_us(0, now_us)
        if ready_us > now_us:
            raise Refused(429, "too many deliveries", 1 + (ready_us - now_us) // 1_000_000)
        rate.reserve(0, now_us)

    async def _start(self, hook: Hook, delivery: str, body: bytes) -> tuple[str, int]:
        orders, store = self._kernel.orders, self._kernel.store
        run = orders.run_of(hook, delivery)
        if run in self._beginning or await store.run(run) is not None:
            return run, 202  # It came before: the run that it started is the answer.
        if hook.paused_by or self.is_ending:
            raise Refused(503, "it starts nothing now", limits.BUSY_BACK_S_MAX)
        if run in self._beginning:
            return run, 202
        self._beginning.add(run)
        try:
            await orders.deliver(hook, delivery, body)
            self._say(f"hook {hook.name} has started it", run)
        except GuardFailed:
            raise Refused(503, "it was changed just now", 1) from None
        except Ring0Error as error:
            if await store.run(run) is None:
                raise
            self._say(f"hook {hook.name}: {error.what}", run)  # The run is on record, as failed.
        finally:
            self._beginning.discard(run)
        return run, 202


# --- signatures ---------------------------------------------------------------------------------


def _standard(request: web.Request, body: bytes, key: bytes, now_us: int) -> str | None:
    """The delivery's id, where it is signed and of now; None otherwise."""
    name, time = _one(request, "webhook-id"), _one(request, "webhook-timestamp")
    given = _one(request, "webhook-signature").split(" ")[: limits.HOOK_SIGNATURES_MAX]
    right = signature(key, _bytes(name), _bytes(time), body)
    # All of them are compared, whichever fits.
    fits = [hmac.compare_digest(right, _bytes(one)) for one in given]
    if not any(fits) or not _ID.fullmatch(name) or not _TIME.fullmatch(time):
        return None
    late_s = abs(now_us // 1_000_000 - int(time))
    return f"id {name}" if late_s <= limits.HOOK_LATE_S_MAX else None


def _github(request: web.Request, body: bytes, key: bytes) -> str | None:
    """What names the delivery is its body: the id that GitHub sends beside it is not signed."""
    given = _one(request, "X-Hub-Signature-256")
    right = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(right.encode(), _bytes(given)):
        return None
    return f"body {hashlib.sha256(body).hexdigest()}"


def _one(request: web.Request, header: str) -> str:
    """A header that is there once; two of a name could be read differently by two readers."""
    found = request.headers.getall(header, [])
    return found[0] if len(found) == 1 else ""


def _bytes(header: str) -> bytes:
    """A header may hold what is no text: then it fits nothing."""
    return header.encode("utf-8", "replace")


# --- where it listens ---------------------------------------------------------------------------


def place(given: str) -> tuple[str, int]:
    """`ADDRESS:PORT`, as --hooks has it. Raises InvalidInput."""
    host, _, port = given.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        address = str(ipaddress.ip_address(host or "127.0.0.1"))
        number = int(port) if port.isascii() and port.isdigit() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= 65_535:
        raise InvalidInput(
            f"--hooks {given[:60]!r} is no address.",
            todo=f"Write it like 127.0.0.1:{limits.HOOK_PORT}.",
        )
    return address, number


def _listener(address: str, port: int, named: bool) -> socket.socket:
    ip = ipaddress.ip_address(address)
    if not ip.is_loopback and not named:
        raise InvalidInput(
            f"{address} can be reached from other machines.",
            why="Then requests are told from those of a web page by the name they ask for.",
            todo="Say that name: --hooks-host hooks.example.com (or listen on 127.0.0.1).",
        )
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(limits.DOOR_BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"Hooks can't be served on {address}:{port}: {error.strerror}.",
            todo="Give another address with --hooks, or end what listens there.",
        ) from None
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _answer(status: int, body: dict[str, str], after_s: int = 0) -> web.Response:
    headers = {"Retry-After": str(after_s)} if after_s else None
    return web.Response(
        status=status, body=_encode(body), content_type="application/json", headers=headers
    )
