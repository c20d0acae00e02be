"""What a receiver of OTLP is told: once, by the rules of the conventions, and nothing secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from approvals_world import CAROL, PAY, payer
from kernel_world import PRIVATE, Doing, world
from msgspec.structs import replace
from spoken import Spoken
from telemetry_world import BOTH, attributes, configured, over, over_http, said, sent

from ring0.errors import InvalidInput, NotFound
from ring0.models import ModelAnswer
from ring0.observability.telemetry import conventions as names
from ring0.observability.telemetry import ids
from ring0.types import AgentManifest, CallKind, CallState, ModelConfig, Request

FREE = ModelConfig(
    provider="anthropic", model="claude-x", price_in_microusd_per_mtok=0,
    price_out_microusd_per_mtok=0,
)  # fmt: skip
# --- exported twice -----------------------------------------------------------------------------


@BOTH
async def test_exporting_twice_adds_nothing(tmp_path: Path, way: Any) -> None:
    async with way() as at, world(configured(tmp_path / "home", at.url, *said(way))) as w:
        w.tool(Doing("crm.query"))
        await w.call("crm.query", {"x": 1})
        await over(w)
        first = await sent(w)
        assert (first.runs, first.spans, first.refused) == (1, 2, 0)
        assert sorted(at.names()) == ["execute_tool crm.query", "invoke_agent clerk"]
        before = {key: span.SerializeToString() for key, span in at.spans.items()}
        await sent(w)
        assert at.told == 4 and len(at.spans) == 2
        twice = at.requests[-1].resource_spans[0].scope_spans[0].spans
        assert {span.span_id: span.SerializeToString() for span in twice} == before


async def test_an_export_is_on_record_with_who_asked_for_it(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        await over(w)
        await sent(w)
        entries = [entry.body async for entry in w.store.entries("kernel")]
        (told,) = [body for body in entries if type(body).__name__ == "Exported"]
        assert (told.runs, told.spans, told.by) == ((w.run.id,), 1, "ada")
        assert told.to == f"{at.url} (http)"


async def test_without_a_place_nothing_is_sent_and_one_is_told_how_to_name_one(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        with pytest.raises(InvalidInput, match="where spans are sent"):
            await sent(w)


async def test_a_run_that_is_not_there_is_not_sent(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        with pytest.raises(NotFound):
            await sent(w, "r-nothere")
        assert at.told == 0


# --- what a span says ---------------------------------------------------------------------------


class Heard(Spoken):
    """Keeps what it is asked."""

    asked: Any = None

    async def answer(self, request: Any, key: str, again: Any = None) -> ModelAnswer:
        self.asked = request
        return await super().answer(request, key, again)


async def test_a_model_call_has_the_names_of_the_conventions(tmp_path: Path) -> None:
    answer = ModelAnswer(
        text="hello SECRETWORD", tokens_in=100, tokens_out=30, model="claude-x-1",
        tokens_cached=40, tokens_reasoning=10,
    )  # fmt: skip
    manifest = AgentManifest(name="clerk", models={"default": FREE})
    async with over_http() as at:
        home = configured(tmp_path / "home", at.url)
        async with world(home, manifest=manifest) as w:
            spoken = Heard(w, answer)
            asked = {"messages": [{"role": "user", "content": "my SECRETWORD"}]}
            outcome = await w.call("default", asked, kind=CallKind.MODEL)
            assert outcome.state is CallState.OK, outcome.error
            await over(w)
            await sent(w)
            span = at.span("chat claude-x")
            found = attributes(span)
            assert span.kind == 3, "it goes out to a provider"
            assert found[names.OPERATION] == "chat"
            assert found[names.PROVIDER] == "anthropic"
            assert (found[names.REQUEST_MODEL], found[names.RESPONSE_MODEL]) == (
                "claude-x", "claude-x-1",
            )  # fmt: skip
            assert found["gen_ai.usage.input_tokens"] == 100
            assert found["gen_ai.usage.output_tokens"] == 30
            assert found["gen_ai.usage.cache_read.input_tokens"] == 40
            assert found["gen_ai.usage.reasoning.output_tokens"] == 10
            assert found["gen_ai.response.finish_reasons"] == ["stop"]
            assert found["ring0.policy.verdict"] == "allow" and found["ring0.policy.rules"]
            assert b"SECRETWORD" not in b"".join(
                request.SerializeToString() for request in at.requests
            ), "content is off unless the operator says so"
            # The provider is told of the span, so that its own hang beneath it.
            row = await w.row()
            assert spoken.asked.traceparent == ids.traceparent(row, f"{w.run.id}/0/1")
            assert spoken.asked.traceparent.split("-")[1:3] == [
                span.trace_id.hex(), span.span_id.hex(),
            ]  # fmt: skip


async def test_what_writes_a_window_and_puts_it_together_is_told_as_memory(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        w.tool(Doing("look"))
        await w.kind(CallKind.MEMORY_SET, {"plan": [{"text": "look"}]})
        await w.call("look", {"x": 1})
        await w.kind(CallKind.MEMORY_COMPACT, {})
        await w.kind(CallKind.MEMORY_ASSEMBLE, {"budget_tokens": 1_000})
        assert [call.state for call in await w.calls()] == [CallState.OK] * 4
        await over(w)
        await sent(w)
        assert sorted(at.names()) == [
            *("execute_tool look", "invoke_agent clerk"),
            *("search_memory", "upsert_memory", "upsert_memory"),
        ]
        assert attributes(at.span("search_memory"))[names.OPERATION] == "search_memory"


async def test_content_is_sent_where_the_operator_says_so_and_only_what_is_public(
    tmp_path: Path,
) -> None:
    async with over_http() as at:
        home = configured(tmp_path / "home", at.url, "content = true")
        async with world(home) as w:
            w.tool(Doing("crm.open", act=lambda args, context: "PUBLICWORD"))
            w.tool(Doing("crm.own", act=lambda args, context: "PRIVATEWORD", label=PRIVATE))
            await w.call("crm.open", {"text": "ASKEDWORD"})
            await w.call("crm.own", {"text": "x"})
            await over(w)
            await sent(w)
            wire = b"".join(request.SerializeToString() for request in at.requests)
            assert b"PRIVATEWORD" not in wire
            # The run has read private data by the end: what it asked for may be made of it.
            assert names.TOOL_RESULT not in attributes(at.span("execute_tool crm.own"))


async def test_content_that_is_public_is_sent_in_the_form_of_the_conventions(
    tmp_path: Path,
) -> None:
    answer = ModelAnswer(text="said <b>", tokens_in=1, tokens_out=1, model="m")
    manifest = AgentManifest(name="clerk", models={"default": FREE})
    async with over_http() as at:
        home = configured(tmp_path / "home", at.url, "content = true")
        async with world(home, manifest=manifest) as w:
            Heard(w, answer)
            w.tool(Doing("crm.open", act=lambda args, context: ["row"]))
            await w.call("crm.open", {"text": "which?"})
            asked = {"messages": [{"role": "user", "content": "a question"}]}
            await w.call("default", asked, kind=CallKind.MODEL)
            await over(w)
            await sent(w)
            tool = attributes(at.span("execute_tool crm.open"))
            assert json.loads(tool[names.TOOL_ARGUMENTS]) == {"text": "which?"}
            assert json.loads(tool[names.TOOL_RESULT]) == ["row"] and tool[names.REASONS]
            model = attributes(at.span("chat claude-x"))
            assert json.loads(model[names.INPUT_MESSAGES]) == [
                {"role": "user", "parts": [{"type": "text", "content": "a question"}]}
            ]
            (told,) = json.loads(model[names.OUTPUT_MESSAGES])
            assert told["parts"] == [{"type": "text", "content": "said <b>"}]
            assert (told["role"], told["finish_reason"]) == ("assistant", "stop")


async def test_a_tool_call_says_which_rule_decided_and_where_its_result_came_from(
    tmp_path: Path,
) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        w.tool(Doing("crm.query"))
        await w.call("crm.query", {"x": 1})
        await over(w)
        await sent(w)
        found = attributes(at.span("execute_tool crm.query"))
        assert found[names.TOOL_NAME] == "crm.query"
        assert found[names.TOOL_CALL] == found[names.CALL] == f"{w.run.id}/0/1"
        assert found[names.VERDICT] == "allow"
        assert len(found[names.POLICY]) == 64
        assert found[names.EFFECT] == "pure" and found[names.INTEGRITY] == "user"


async def test_a_refused_call_is_an_error_with_its_code_and_without_its_words(
    tmp_path: Path,
) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        outcome = await w.call("not.there", {"text": "BADWORD"})
        assert outcome.state is CallState.REFUSED
        await over(w)
        await sent(w)
        span = at.span("execute_tool not.there")
        assert span.status.code == 2 and span.status.message == ""
        assert attributes(span)["error.type"] == outcome.error["code"]
        assert attributes(span)[names.CALL_STATE] == "refused"


async def test_a_call_hangs_beneath_its_run_and_a_tree_is_one_trace(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        w.tool(Doing("crm.query"))
        await w.call("crm.query")
        row = await over(w)
        await sent(w)
        run, call = at.span("invoke_agent clerk"), at.span("execute_tool crm.query")
        assert call.parent_span_id == run.span_id and run.parent_span_id == b""
        assert run.trace_id == call.trace_id == bytes.fromhex(ids.trace_id(row))
        assert run.start_time_unix_nano <= call.start_time_unix_nano
        assert call.end_time_unix_nano <= run.end_time_unix_nano


async def test_an_ask_is_two_moments_of_its_call(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        await w.kernel.answer(approval.id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK
        await over(w)
        await sent(w)
        span = at.span("execute_tool pay")
        assert [event.name for event in span.events] == ["ask", "answer"]
        found = attributes(span)
        assert found[names.APPROVAL] == approval.id and found[names.APPROVAL_STATE] == "approved"
        assert found[names.VERDICT] == "ask" and found[names.RULES]
        assert span.start_time_unix_nano == approval.asked_us * 1_000, "the wait is part of it"


async def test_a_run_that_was_killed_is_an_error(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        await w.kernel.kill("run", w.run.id, by="ada")
        await sent(w)
        span = at.span("invoke_agent clerk")
        assert span.status.code == 2 and attributes(span)[names.RUN_STATE] == "cancelled"


THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_run_that_was_ordered_in_somebodys_span_is_part_of_their_trace(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        row = replace(await w.row(), traceparent=THEIRS)
        assert ids.trace_id(row) == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert ids.trace_id(await w.row()) != ids.trace_id(row)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", THEIRS.upper(), THEIRS + "-x", THEIRS.replace("00-4", "01-4", 1), THEIRS + "\n",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_dropped_and_never_repaired(text: str) -> None:
    assert ids.parsed(text) is None and ids.good(text) == ""
    assert ids.good(THEIRS) == THEIRS


async def test_the_span_that_an_agent_says_it_asks_in_is_a_link_and_no_parent(
    tmp_path: Path,
) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        w.tool(Doing("crm.query"))
        request = Request(
            kind=CallKind.TOOL, name="crm.query", path="0", counter=1, traceparent=THEIRS
        )
        await w.kernel.gate.call(w.run.handle, request)
        await over(w)
        await sent(w)
        span, run = at.span("execute_tool crm.query"), at.span("invoke_agent clerk")
        assert span.parent_span_id == run.span_id and span.trace_id == run.trace_id
        assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [
            ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
        ]
