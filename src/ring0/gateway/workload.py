"""The SPIFFE Workload API of one run, on its own door: which listener it is, is the identity.

gRPC, as https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md has it, so that
SPIFFE's own clients get their certificates here. Streams go on until the run ends: what is new is
sent before what was sent is over. Needs the extra `spiffe`; nothing here is imported without.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.gateway.workload_messages import MESSAGES, SERVICE
from ring0.identity import jwts
from ring0.kernel.gate import Gate
from ring0.kernel.identities import Identities
from ring0.kernel.live import LiveRun

_METADATA: Final = "workload.spiffe.io"
_MINUTE_US: Final = 60_000_000
_logger = logging.getLogger("grpclib")
_logger.addHandler(logging.NullHandler())
_logger.propagate = False  # What a broken request is worth is answered, never printed.


class Workload:
    """Who one run is, for whoever asks on its door."""

    def __init__(self, gate: Gate, identities: Identities, run: LiveRun) -> None:
        self._gate = gate
        self._identities = identities
        self._run = run
        self._open: set[_Bounded] = set()
        self._answered: deque[int] = deque()
        self._server = Server([self])

    def __mapping__(self) -> dict[str, Handler]:
        """As grpclib asks for it."""
        methods = (
            ("FetchX509SVID", "X509SVID", self._x509_svid, True),
            ("FetchX509Bundles", "X509Bundles", self._x509_bundles, True),
            ("FetchJWTSVID", "JWTSVID", self._jwt_svid, False),
            ("FetchJWTBundles", "JWTBundles", self._jwt_bundles, True),
            ("ValidateJWTSVID", "ValidateJWTSVID", self._validate, False),
        )
        return {
            f"/{SERVICE}/{method}": Handler(
                self._guarded(answer, streams=streams),
                Cardinality.UNARY_STREAM if streams else Cardinality.UNARY_UNARY,
                MESSAGES[f"{name}Request"],
                MESSAGES[f"{name}Response"],
            )
            for method, name, answer, streams in methods
        }

    def protocol(self) -> asyncio.Protocol | None:
        """What serves one more connection; None where there are too many."""
        if len(self._open) >= limits.WORKLOAD_CONNECTIONS_MAX:
            return None
        return _Bounded(cast(asyncio.Protocol, self._server._protocol_factory()), self._open)

    async def close(self) -> None:
        """Ends every stream."""
        for connection in list(self._open):
            connection.abort()

    # --- the five methods -----------------------------------------------------------------------

    async def _x509_svid(self, asked: Any) -> tuple[Any, float]:
        has = await self._identities.certificate(self._run)
        svid = MESSAGES["X509SVID"](
            spiffe_id=has.name,
            x509_svid=has.chain,
            x509_svid_key=has.private,
            bundle=await self._bundle(),
        )
        left_us = has.expires_us - self._gate.store.now_us()
        # By then half of its time is over, and there is another.
        next_s = left_us / 1_000_000 - limits.CERTIFICATE_S / 2 + 1
        return MESSAGES["X509SVIDResponse"](svids=[svid]), next_s

    async def _x509_bundles(self, asked: Any) -> tuple[Any, float]:
        bundles = {f"spiffe://{self._identities.domain}": await self._bundle()}
        return MESSAGES["X509BundlesResponse"](bundles=bundles), limits.CERTIFICATE_S / 2

    async def _jwt_svid(self, asked: Any) -> tuple[Any, float]:
        name = self._identities.name_of(self._run.row)
        audience = list(asked.audience)
        most = limits.JWT_SVID_AUDIENCE_CHARS_MAX
        if not 0 < len(audience) <= limits.JWT_SVID_AUDIENCES_MAX or not all(
            0 < len(one) <= most for one in audience
        ):
            raise GRPCError(Status.INVALID_ARGUMENT, "the audience is missing or too long")
        if asked.spiffe_id not in ("", name):
            raise GRPCError(Status.PERMISSION_DENIED, "that is somebody else")
        text = await self._gate.runtime.in_thread(
            self._identities.jwts.svid, name, audience, limits.JWT_SVID_S
        )
        svid = MESSAGES["JWTSVID"](spiffe_id=name, svid=text)
        return MESSAGES["JWTSVIDResponse"](svids=[svid]), 0

    async def _jwt_bundles(self, asked: Any) -> tuple[Any, float]:
        bundles = {f"spiffe://{self._identities.domain}": await self._jwks()}
        return MESSAGES["JWTBundlesResponse"](bundles=bundles), limits.JWT_SVID_S / 2

    async def _validate(self, asked: Any) -> tuple[Any, float]:
        if not asked.audience or not asked.svid:
            raise GRPCError(Status.INVALID_ARGUMENT, "the audience or the token is missing")
        keys = await self._gate.runtime.in_thread(self._identities.jwts.public)
        now_s = self._gate.store.now_us() // 1_000_000
        try:
            claims = jwts.verify_svid(asked.svid, keys, asked.audience, now_s)
        except Ring0Error as refused:
            raise GRPCError(Status.INVALID_ARGUMENT, refused.why) from None
        answer = MESSAGES["ValidateJWTSVIDResponse"](spiffe_id=claims["sub"])
        answer.claims.update(claims)
        return answer, 0

    async def _bundle(self) -> bytes:
        return await self._gate.runtime.in_thread(self._identities.certificates.bundle)

    async def _jwks(self) -> bytes:
        return await self._gate.runtime.in_thread(self._identities.jwts.public, "jwt-svid")

    # --- what they have in common -----------------------------------------------------------------

    def _guarded(
        self, answer: Callable[[Any], Awaitable[tuple[Any, float]]], *, streams: bool
    ) -> Callable[[Any], Awaitable[None]]:
        """Asked as SPIFFE wants it, by a run that is live, and not too often: for each answer."""

        async def serve(stream: Any) -> None:
            if stream.metadata.get(_METADATA) != "true":
                raise GRPCError(Status.INVALID_ARGUMENT, f"the metadata {_METADATA} is missing")
            asked = await stream.recv_message()
            if asked is None:
                raise GRPCError(Status.INVALID_ARGUMENT, "nothing was asked")
            while True:
                try:
                    self._gate.handles.check(self._run.handle)
                    self._count()
                    message, next_s = await answer(asked)
                    self._gate.handles.check(self._run.handle)  # It may have taken its time.
                except Ring0Error as error:
                    raise GRPCError(Status.PERMISSION_DENIED, error.what) from None
                await stream.send_message(message)
                if not streams:
                    return
                await self._gate.runtime.sleep(max(1.0, next_s))

        return serve

    def _count(self) -> None:
        now_us = self._gate.runtime.monotonic_us()
        while self._answered and now_us - self._answered[0] > _MINUTE_US:
            self._answered.popleft()
        if len(self._answered) >= limits.WORKLOAD_ANSWERS_PER_MIN_MAX:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "asked too often: come back in a minute")
        self._answered.append(now_us)


class _Bounded(asyncio.Protocol):
    """One connection, that may send so much in all, and whose faults end it and nothing else."""

    def __init__(self, inner: asyncio.Protocol, among: set[_Bounded]) -> None:
        self._inner = inner
        self._among = among
        self._left = limits.WORKLOAD_IN_BYTES_MAX
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._among.add(self)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        try:
            if self._left >= 0:
                self._inner.data_received(data)
                return
        except Exception:  # What can't be understood; a library's fault counts as such.
            _logger.debug("connection ended", exc_info=True)
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._among.discard(self)
        self._inner.connection_lost(error)
