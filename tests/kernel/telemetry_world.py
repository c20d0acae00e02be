"""What the tests of telemetry share: real receivers of OTLP, over HTTP and gRPC, and a folder whose
ring0.toml names one. They read what they are sent with their makers' messages, and keep a span once
however often it comes, as backends do.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kernel_world import World

from ring0 import limits
from ring0.kernel.telemetry import making
from ring0.types import Run, RunState

pytest.importorskip("opentelemetry.proto.collector", reason="`make optional` installs it")
pytest.importorskip("grpclib", reason="`make optional` installs it")
otlp: Any = importlib.import_module("ring0.observability.telemetry.otlp")


class Backend:
    """Spans by id, and all that it was sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.spans: dict[bytes, Any] = {}
        self.told = 0
        """Spans that came, those that it had among them."""
        self.status: list[int] = []
        """What it answers; 200 when there is none left."""
        self.poison = ""
        """A batch with a span of this name is not to its liking."""
        self.rejects = 0
        """Of each batch, it says."""
        self.url = ""

    def take(self, request: Any) -> None:
        self.requests.append(request)
        for of_resource in request.resource_spans:
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    self.told += 1
                    self.spans.setdefault(span.span_id, span)

    def names(self) -> list[str]:
        return [span.name for span in self.spans.values()]

    def span(self, name: str) -> Any:
        found = [span for span in self.spans.values() if span.name == name]
        assert len(found) == 1, f"{name}: {self.names()}"
        return found[0]

    def has(self, request: Any, name: str) -> bool:
        return any(
            span.name == name
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        )

    async def until(self, count: int) -> None:
        async with asyncio.timeout(15):
            while len(self.spans) < count:
                await asyncio.sleep(0.01)

    def answer(self) -> Any:
        reply = otlp.RESPONSE()
        if self.rejects:
            reply.partial_success.rejected_spans = self.rejects
            reply.partial_success.error_message = "too old"
        return reply


def attributes(span: Any) -> dict[str, Any]:
    found = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        if kind == "array_value":
            value = [one.string_value for one in value.values]
        found[pair.key] = value
    return found


@contextlib.asynccontextmanager
async def over_http() -> AsyncIterator[Backend]:
    made = Backend()

    async def post(request: web.Request) -> web.Response:
        body = await request.read()
        made.headers.append({name.lower(): value for name, value in request.headers.items()})
        status = made.status.pop(0) if made.status else 200
        asked = otlp.REQUEST()
        asked.ParseFromString(body)
        if made.poison and made.has(asked, made.poison):
            status = 400
        if status != 200:
            return web.Response(status=status, headers={"Retry-After": "0"})
        made.take(asked)
        return web.Response(
            body=made.answer().SerializeToString(), content_type="application/x-protobuf"
        )

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/traces", post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield made
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def over_grpc() -> AsyncIterator[Backend]:
    from grpclib.const import Cardinality, Handler, Status
    from grpclib.exceptions import GRPCError
    from grpclib.server import Server

    made = Backend()

    class Service:
        async def export(self, stream: Any) -> None:
            asked = await stream.recv_message()
            made.headers.append({k: str(v) for k, v in stream.metadata.items()})
            if made.status and made.status.pop(0) != 200:
                raise GRPCError(Status.UNAVAILABLE)
            if made.poison and made.has(asked, made.poison):
                raise GRPCError(Status.INVALID_ARGUMENT)
            made.take(asked)
            await stream.send_message(made.answer())

        def __mapping__(self) -> dict[str, Handler]:
            unary = Cardinality.UNARY_UNARY
            return {otlp.METHOD: Handler(self.export, unary, otlp.REQUEST, otlp.RESPONSE)}

    server = Server([Service()])
    await server.start("127.0.0.1", 0)
    assert server._server is not None
    made.url = f"http://127.0.0.1:{server._server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def configured(home: Path, url: str, *more: str, private: str = '"127.0.0.0/8"') -> Path:
    """A data folder whose [otlp] is that address; `more`: lines of the table."""
    home.mkdir(exist_ok=True)
    lines = [f"[network]\nallow_private = [{private}]\n[otlp]", f'endpoint = "{url}"', *more]
    (home / "ring0.toml").write_text("\n".join(lines) + "\n")
    return home


BOTH = pytest.mark.parametrize("way", [over_http, over_grpc])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OTLP_BACK_S_MAX", 0.02)
    monkeypatch.setattr(limits, "OTLP_POLL_S", 0.01)


def said(way: Any) -> tuple[str, ...]:
    return ('protocol = "grpc"',) if way is over_grpc else ()


async def over(w: World, result: Any = "done") -> Run:
    """Ends the world's run."""
    w.end.set_result(result)
    return await w.until(RunState.DONE)


async def sent(w: World, *runs: str) -> Any:
    return await making.export(w.kernel, runs or (w.run.id,), by="ada")
