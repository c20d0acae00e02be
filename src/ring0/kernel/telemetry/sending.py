"""One batch of spans to the place of `[otlp]`, over HTTP or gRPC, by the rules of the way out.

An address is judged before it is dialled, nothing of the environment counts, no redirect is
followed. Not here: what is sent (observability/telemetry), what becomes of a no (delivering.py).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from ring0 import limits
from ring0.errors import CallInvalid, Ring0Error
from ring0.kernel.agent.config_telemetry import Target
from ring0.observability.telemetry.spans import Span
from ring0.runtime import Runtime
from ring0.tools.egress import Egress
from ring0.tools.egress.request import canonical
from ring0.types import Frozen

_TOO_MUCH: Final = frozenset({400, 413, 422})
"""What was sent is not to its liking: less of it may be."""
_DIGITS_MAX: Final = 9


class Answer(Frozen, frozen=True, kw_only=True):
    """What a receiver made of a batch."""

    taken: bool
    refused: int = 0
    """Of a batch that was taken, spans that were not."""
    unfit: bool = False
    """It was not taken, and never will be as it is."""
    why: str = ""
    after_s: int = 0
    """It asks for so long a pause."""


class Sender(Protocol):
    """The way to one receiver."""

    async def send(self, spans: Sequence[Span]) -> Answer:
        """Never raises for what the world does."""
        ...


def sender(
    target: Target,
    egress: Callable[[], Egress],
    trust: Callable[[], ssl.SSLContext],
    runtime: Runtime,
) -> Sender:
    """`trust`: makes a client's context, for gRPC. Needs the extra `otel`."""
    if target.table.protocol == "grpc":
        return _OverGrpc(target, egress, trust, runtime)
    return _OverHttp(target, egress)


class _OverHttp:
    """Protobuf over HTTP/1.1, a connection a batch."""

    def __init__(self, target: Target, egress: Callable[[], Egress]) -> None:
        self._target = target
        self._egress = egress

    async def send(self, spans: Sequence[Span]) -> Answer:
        from ring0.observability.telemetry import otlp

        table, rule = self._target.table, self._target.rule
        body = otlp.encoded(spans, table.service, table.attributes)
        headers = [("content-type", "application/x-protobuf"), *self._target.headers.items()]
        try:
            request = canonical(
                "POST", rule.scheme, rule.host, rule.port, self._target.target, headers, body,
                own_auth=True,
            )  # fmt: skip
        except CallInvalid as error:  # Before a byte went out: it is too large.
            return Answer(taken=False, unfit=True, why=error.why or error.what)
        try:
            # A span has the same id however often it comes: twice is once.
            answer = await self._egress().send(request, rule, repeatable=True)
        except Ring0Error as error:
            return Answer(taken=False, why=f"{error.what} {error.why}".strip()[:300])
        if 200 <= answer.status < 300:
            refused, why = otlp.rejected(answer.body)
            return Answer(taken=True, refused=min(refused, len(spans)), why=why)
        return Answer(
            taken=False,
            unfit=answer.status in _TOO_MUCH,
            why=f"it answers {answer.status}",
            after_s=_after_s(answer.headers),
        )


class _OverGrpc:
    """The same as gRPC over HTTP/2, a connection a batch."""

    def __init__(
        self,
        target: Target,
        egress: Callable[[], Egress],
        trust: Callable[[], ssl.SSLContext],
        runtime: Runtime,
    ) -> None:
        self._target = target
        self._egress = egress
        self._trust = trust
        self._runtime = runtime
        self._context: ssl.SSLContext | None = None

    async def send(self, spans: Sequence[Span]) -> Answer:
        from grpclib.const import Status
        from grpclib.exceptions import GRPCError

        from ring0.kernel.telemetry.grpc import Channel, export
        from ring0.observability.telemetry import otlp

        table, rule = self._target.table, self._target.rule
        if rule.scheme == "https" and self._context is None:
            self._context = await self._runtime.in_thread(_for_http2, self._trust)
        request = otlp.request(spans, table.service, table.attributes)
        if request.ByteSize() > limits.EGRESS_REQUEST_SIZE_BYTES_MAX:
            return Answer(taken=False, unfit=True, why="it is too large")
        channel: Any = Channel(self._egress(), rule.host, rule.port, self._context)
        try:
            reply = await self._runtime.wait_for(
                export(channel, request, self._target.headers), limits.OTLP_ANSWER_S_MAX
            )
        except GRPCError as error:
            unfit = error.status in (Status.INVALID_ARGUMENT, Status.OUT_OF_RANGE)
            return Answer(taken=False, unfit=unfit, why=f"it answers {error.status.name}")
        except Ring0Error as error:
            return Answer(taken=False, why=f"{error.what} {error.why}".strip()[:300])
        except Exception as error:  # Whatever its bytes do to the libraries that read them.
            return Answer(taken=False, why=f"{type(error).__name__}: {error}"[:300])
        finally:
            channel.close()
        refused, why = otlp.rejected(reply)
        return Answer(taken=True, refused=min(refused, len(spans)), why=why)


def _after_s(headers: Iterable[tuple[str, str]]) -> int:
    """The pause that it asks for; 0: none, or none that is a number of seconds."""
    for name, value in headers:
        if name.lower() == "retry-after" and value.isascii() and value.isdigit():
            return min(int(value[:_DIGITS_MAX]), limits.OTLP_BACK_S_MAX)
    return 0


def _for_http2(trust: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = trust()
    context.set_alpn_protocols(["h2"])
    return context
