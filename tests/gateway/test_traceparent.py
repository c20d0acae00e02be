"""`traceparent`: what comes in is the agent's word, a link; what goes out names the call."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_world import NOW, doors
from kernel_world import Doing
from mcp_doors import spoken
from model_doors import asked, said

from ring0.observability.telemetry import ids

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEADER = f"traceparent: {THEIRS}\r\n"


async def test_the_native_doors_header_goes_on_record_with_the_call(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        assert (await d.ask("/v1/call", NOW, extra=HEADER)).status == 200
        (call,) = await d.w.calls()
        assert call.traceparent == THEIRS


@pytest.mark.parametrize(
    "extra",
    ["", "traceparent: nonsense\r\n", HEADER + HEADER, f"traceparent: {THEIRS}-evil\r\n",
     "traceparent: 00-" + "0" * 32 + "-00f067aa0ba902b7-01\r\n"],
)  # fmt: skip
async def test_what_is_none_is_dropped_and_the_call_goes_on(tmp_path: Path, extra: str) -> None:
    async with doors(tmp_path) as d:
        assert (await d.ask("/v1/call", NOW, extra=extra)).status == 200
        (call,) = await d.w.calls()
        assert call.traceparent == ""


async def test_a_refused_call_keeps_none_so_that_a_flood_of_them_shares_its_line(
    tmp_path: Path,
) -> None:
    async with doors(tmp_path) as d:
        d.w.tool(Doing("db.drop", mutates=True, own=False, changes_schema=True))
        for number, name in enumerate(("not.there", "db.drop"), 1):
            await d.ask(
                "/v1/call", {**NOW, "kind": "tool", "name": name, "counter": number}, extra=HEADER
            )
        found = await d.w.calls()
        assert [(call.state, call.traceparent) for call in found] == [("refused", "")] * 2


async def test_the_same_call_in_another_span_is_the_same_call(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        first = await d.ask("/v1/call", NOW, extra=HEADER)
        again = await d.ask("/v1/call", NOW, extra=HEADER.replace("00f067", "11f067"))
        assert first.json == again.json and len(await d.w.calls()) == 1


async def test_a_model_doors_header_goes_on_record_and_the_provider_gets_the_calls_own(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path, said("hi")) as a:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        status, _ = await a.post("/v1/chat/completions", body, traceparent=THEIRS)
        assert status == 200
        (call,) = [call for call in await a.w.calls() if call.kind == "model"]
        assert call.traceparent == THEIRS
        sent = a.model.asked[0].traceparent
        assert sent == ids.traceparent(await a.w.row(), call.id)
        assert THEIRS.split("-")[1] not in sent, "an agent can't put a provider into its trace"


async def test_what_an_mcp_client_says_of_its_span_goes_on_record(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        s.w.tool(Doing("crm.query"))
        params = {"name": "crm.query", "arguments": {}, "_meta": {"traceparent": THEIRS}}
        status, answer = await s.modern("tools/call", params)
        assert status == 200, answer
        call = (await s.w.calls())[-1]
        assert call.traceparent == THEIRS
        for odd in (7, None, {"x": 1}, "x" * 9_000):
            params = {"name": "crm.query", "arguments": {"x": str(odd)[:9]},
                      "_meta": {"traceparent": odd}}  # fmt: skip
            await s.modern("tools/call", params)
            assert (await s.w.calls())[-1].traceparent == ""
