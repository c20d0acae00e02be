"""What agents, providers and receivers do to telemetry: none of it stops it, hides in it, or makes
it say more than it may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing, World, world
from telemetry_world import attributes, configured, otlp, over, over_http, quick, sent

from ring0 import limits
from ring0.cli import page, tree
from ring0.errors import ToolFailed
from ring0.kernel.telemetry import making
from ring0.kernel.telemetry.measuring import Measures
from ring0.observability.telemetry.counting import Counts
from ring0.observability.telemetry.projecting import Projection
from ring0.observability.telemetry.prometheus import OTHER, Family, text
from ring0.observability.telemetry.spans import Span
from ring0.types import Confidentiality, Integrity, Label, RunState

__all__ = ["quick"]


@contextlib.asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[str]:
    """A server that says these bytes, one a connection, and the last of them from then on."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(Exception):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            await reader.readexactly(length)
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def caught_up(made: Any) -> None:
    async with asyncio.timeout(10):
        while await made.late():
            await asyncio.sleep(0.01)


async def exporter(w: World, lines: list[str]) -> Any:
    made = making.exporter(w.kernel, lines.append)
    assert made is not None
    made.begin()
    return made


# --- receivers ------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("after", [b"9" * 5_000, b"9" * 40, b"-1", b"\xb2", b"Thu, 01 Jan 1970"])
async def test_a_pause_that_nobody_can_wait_is_no_end_of_telling(
    tmp_path: Path, after: bytes
) -> None:
    busy = b"HTTP/1.1 503 no\r\nContent-Length: 0\r\nRetry-After: " + after + b"\r\n\r\n"
    async with (
        answering(busy, OK) as at,
        world(configured(tmp_path / "home", f"http://{at}/v1/traces")) as w,
    ):
        made = await exporter(w, [])
        await over(w)
        await caught_up(made)
        await made.close()
        assert made.delivery.sent == 1


@pytest.mark.parametrize(
    "garbage", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\xff\xff", b"\x16\x03\x01\x00"]
)
async def test_a_receiver_of_grpc_that_answers_garbage_is_tried_again(
    tmp_path: Path, garbage: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(Exception):
            await reader.read(10)
            writer.write(garbage)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with world(configured(tmp_path / "home", at, 'protocol = "grpc"')) as w:
        lines: list[str] = []
        made = await exporter(w, lines)
        await over(w)
        async with asyncio.timeout(10):
            while not lines:
                await asyncio.sleep(0.01)
        assert "is tried again" in lines[0] and not made._task.done()
        await made.close()
    server.close()


@pytest.mark.parametrize("message", [b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x0f"])
async def test_a_grpc_answer_that_is_no_message_does_not_stop_the_telling(
    tmp_path: Path, message: bytes
) -> None:
    from grpclib.const import Cardinality, Handler
    from grpclib.server import Server

    class Raw:
        def SerializeToString(self) -> bytes:
            return message

    class Service:
        async def export(self, stream: Any) -> None:
            await stream.recv_message()
            await stream.send_message(Raw())

        def __mapping__(self) -> dict[str, Handler]:
            return {otlp.METHOD: Handler(self.export, Cardinality.UNARY_UNARY, otlp.REQUEST, Raw)}

    server = Server([Service()])
    await server.start("127.0.0.1", 0)
    assert server._server is not None
    at = f"http://127.0.0.1:{server._server.sockets[0].getsockname()[1]}"
    async with world(configured(tmp_path / "home", at, 'protocol = "grpc"')) as w:
        lines: list[str] = []
        made = await exporter(w, lines)
        await over(w)
        async with asyncio.timeout(10):
            while not lines and await made.late():
                await asyncio.sleep(0.01)
        assert not made._task.done()
        await made.close()
    server.close()
    await server.wait_closed()


# --- what is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
def test_a_number_that_no_receiver_can_read_is_cut_to_one_that_it_can(value: int) -> None:
    span = Span(
        trace_id="1" * 32, span_id="1" * 16, name="x", start_us=1, end_us=2,
        attributes={"gen_ai.usage.input_tokens": value},
    )  # fmt: skip
    (made,) = otlp.request([span], "ring0").resource_spans[0].scope_spans[0].spans
    assert abs(attributes(made)["gen_ai.usage.input_tokens"]) >= 2**63 - 1


async def test_an_entry_that_can_not_be_told_keeps_back_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Projection.spans

    async def fails(self: Projection, entry: Any) -> list[Span]:
        spans = await real(self, entry)
        if any("bad" in span.name for span in spans):
            raise ValueError("what a provider said")
        return spans

    monkeypatch.setattr(Projection, "spans", fails)
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        lines: list[str] = []
        made = await exporter(w, lines)
        for name in ("a.one", "b.bad", "c.two"):
            w.tool(Doing(name))
            await w.call(name)
        await over(w)
        await caught_up(made)
        await made.close()
        assert len(at.spans) == 3 and made.delivery.refused == 1
        assert len(lines) == 1 and "ValueError" in lines[0]
        assert (await sent(w)).refused == 1


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("a\x00", "a\x01"), ("a" * 200 + "b", "a" * 200 + "c"), ("a\n", "a ")]
)
def test_names_that_are_shown_alike_are_one_series(names: tuple[str, str]) -> None:
    family = Family(name="ring0_x_total", help="x", kind="counter")
    for name in names:
        family.add(1, tool=name)
    samples = [line for line in text([family]).decode().splitlines() if line[0] != "#"]
    assert len(samples) == 1 and samples[0].endswith(" 2")


async def test_an_agent_that_asks_for_tools_of_many_names_hides_no_tool_that_there_is(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        measures = Measures(w.kernel)
        await w.store.flush()
        await measures.begin()
        for number in range(limits.METRICS_LABEL_VALUES_MAX + 5):
            await w.call(f"no.{number}")
        w.tool(Doing("crm.query"))
        await w.call("crm.query")
        await w.store.flush()
        found = (await measures.text()).decode()
        assert 'ring0_tool_calls_total{tool="crm.query",state="ok"} 1' in found
        assert f'tool="{OTHER}",state="refused"' in found
        assert isinstance(measures._counts, Counts)


# --- a page to hand on ----------------------------------------------------------------------------


async def test_words_that_quote_what_is_not_public_are_in_no_page_that_is_handed_on(
    tmp_path: Path,
) -> None:
    private = Label(integrity=Integrity.USER, confidentiality=Confidentiality.PRIVATE)
    async with world(tmp_path / "home") as w:
        w.tool(Doing("crm.read", label=private, act=lambda args, context: "Elm Street 12"))
        await w.call("crm.read")
        await w.call("crm.read", {"Elm Street 12": 1})
        w.end.set_exception(ToolFailed("Nobody lives at Elm Street 12."))
        with contextlib.suppress(ToolFailed):
            await w.until(RunState.FAILED)
        told = await tree.gather(w.store, await w.row())
        head = await w.store.head()
        assert b"Elm Street" not in page.html(told, head, 1, private=False)
        shown = page.html(told, head, 1, private=True)
        assert b"Nobody lives at Elm Street 12." in shown and shown.count(b"Elm Street") > 3


async def test_what_nobody_keeps_back_is_told_in_words(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await w.call("not.there")
        await over(w)
        told = await tree.gather(w.store, await w.row())
        assert b"There is no tool" in page.html(told, await w.store.head(), 1, private=False)
