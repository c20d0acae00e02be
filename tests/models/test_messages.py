"""The dialect `messages` at a provider: what it is sent, and what of its answers is believed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from ring0 import limits
from ring0.errors import ModelFailed
from ring0.models import Delta, ModelAnswer, ModelRequest, parse_request, provider
from ring0.models.dialects import dialect
from ring0.models.names import names_of
from ring0.runtime import Runtime
from ring0.types import ModelConfig

KEY = "sk-ant-9f8e7d6c5b4a39281706"
MESSAGES = dialect("messages")
USAGE = {"input_tokens": 7, "output_tokens": 3}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "crm__query", "input": {"q": 1}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
ASKED = {
    "messages": [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "name": "crm.query", "args": {"q": 1}}]},
        {"role": "tool", "content": "no", "tool_call_id": "c1", "is_error": True},
        {"role": "user", "content": "and?"},
    ],
    "tools": [{"name": "crm.query", "description": "d", "schema": {"type": "object"}}],
    "max_tokens": 64,
}


def message(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "usage": USAGE,
        **more,
    }


def event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def block(index: int, begins: dict[str, Any], *pieces: dict[str, Any]) -> bytes:
    return (
        event("content_block_start", index=index, content_block=begins)
        + b"".join(event("content_block_delta", index=index, delta=piece) for piece in pieces)
        + event("content_block_stop", index=index)
    )


TEXT = block(
    1,
    {"type": "text", "text": ""},
    {"type": "text_delta", "text": "good "},
    {"type": "text_delta", "text": "day"},
)
THINKS = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "h"},
    {"type": "thinking_delta", "thinking": "m"},
    {"type": "signature_delta", "signature": "c2ln"},
)
CALLS = block(
    2,
    {**CALL, "input": {}},
    {"type": "input_json_delta", "partial_json": ""},
    {"type": "input_json_delta", "partial_json": '{"q"'},
    {"type": "input_json_delta", "partial_json": ": 1}"},
)
BEGINS = event("message_start", message={"model": "claude-x", "usage": {"input_tokens": 7}})
ENDS = event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 3})
WHOLE = BEGINS + event("ping") + THINKS + TEXT + CALLS + ENDS + event("message_stop")


def read(body: Any, request: dict[str, Any] = ASKED) -> ModelAnswer:
    asked = parse_request(request)
    return MESSAGES.read_answer(json.dumps(body).encode(), asked, "m", names_of(asked))


def streamed(*chunks: bytes) -> tuple[list[Delta], ModelAnswer]:
    asked = parse_request(ASKED)
    reader = MESSAGES.reader(asked, "m", names_of(asked))
    found = [delta for chunk in chunks for delta in reader.feed(chunk)]
    return found, reader.end()


def sent(request: ModelRequest) -> dict[str, Any]:
    return MESSAGES.payload(request, "m", names_of(request), official=True, stream=False)


# --- what it is sent -------------------------------------------------------------------------


async def test_a_provider_is_asked_with_its_key_and_nobody_else_sees_it() -> None:
    seen: list[Any] = []

    async def on(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.json()))
        return web.json_response(message({"type": "text", "text": "hi"}))

    app = web.Application()
    app.router.add_post("/v1/messages", on)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        config = ModelConfig(provider="anthropic", model="claude-x", base_url=url)
        made = provider(config, "", KEY, Runtime())
        answer = await made.answer(parse_request(ASKED), "call-1")
        await made.close()
    finally:
        await runner.cleanup()
    headers, body = seen[0]
    assert headers["x-api-key"] == KEY and "Authorization" not in headers
    assert headers["anthropic-version"] == "2023-06-01" and "anthropic-beta" not in headers
    assert body["model"] == "claude-x" and body["max_tokens"] == 64 and answer.text == "hi"
    assert KEY not in repr(made) and KEY not in json.dumps(body)


def test_what_tools_returned_comes_before_what_the_user_says_next() -> None:
    body = sent(parse_request(ASKED))
    assert body["system"] == "be"
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "c1", "name": "crm__query", "input": {"q": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": "no"}],
                    "is_error": True,
                },
                {"type": "text", "text": "and?"},
            ],
        },
    ]
    tool = {"name": "crm__query", "description": "d", "input_schema": {"type": "object"}}
    assert body["tools"] == [tool]


@pytest.mark.parametrize(
    ("field", "value", "there"),
    [
        ("tool_choice", "none", {"tool_choice": {"type": "none"}}),
        ("tool_choice", "required", {"tool_choice": {"type": "any"}}),
        ("tool_choice", "tool:crm.query", {"tool_choice": {"type": "tool", "name": "crm__query"}}),
        ("parallel", False, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        ("stop", ["X"], {"stop_sequences": ["X"]}),
        ("temperature", 0.5, {"temperature": 0.5}),
        ("effort", "minimal", {"output_config": {"effort": "low"}}),
        (
            "answer_schema",
            {"type": "object"},
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        ),
    ],
)
def test_what_is_asked_for_in_our_form_is_asked_for_in_the_dialects(
    field: str, value: Any, there: dict[str, Any]
) -> None:
    body = sent(parse_request({**ASKED, field: value}))
    assert {key: body[key] for key in there} == there


def test_who_wants_any_json_object_is_asked_for_one_in_words() -> None:
    body = sent(parse_request({**ASKED, "answer_schema": {}}))
    assert "JSON object" in body["system"] and "output_config" not in body


def test_an_image_in_what_a_tool_returned_goes_along() -> None:
    parts = [
        {"kind": "text", "text": "see"},
        {"kind": "image", "media_type": "image/png", "data": "aWNo"},
    ]
    asked = {**ASKED, "messages": [*ASKED["messages"]]}  # type: ignore[misc]
    asked["messages"][3] = {**asked["messages"][3], "parts": parts}  # type: ignore[index]
    result = sent(parse_request(asked))["messages"][2]["content"][0]
    assert result["content"][1] == {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "aWNo"},
    }


# --- what of its answers is believed ---------------------------------------------------------


def test_blocks_keep_their_order() -> None:
    answer = read(message(THOUGHT, {"type": "text", "text": "a"}, CALL, stop_reason="tool_use"))
    assert [part.kind for part in answer.parts] == ["opaque", "text", "call"]
    assert answer.parts[0].native == THOUGHT and answer.parts[0].blob == "c2ln"
    assert answer.text == "a" and answer.stop == "tools"
    assert answer.tool_calls[0].name == "crm.query" and answer.tool_calls[0].args == {"q": 1}
    assert (answer.tokens_in, answer.tokens_out, answer.estimated) == (7, 3, False)


def test_what_is_kept_for_later_and_what_was_read_before_has_its_price() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 40,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 3,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    answer = read(message({"type": "text", "text": "a"}, usage=usage))
    assert answer.tokens_in == 150 and answer.tokens_cached == 100
    assert answer.tokens_extra == 5 + 20 and answer.tokens_reasoning == 2


@pytest.mark.parametrize(
    ("said", "stop"),
    [
        ("end_turn", "end"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("refusal", "filter"),
        ("pause_turn", "end"),
        ("of days to come", "end"),
    ],
)
def test_why_it_ended_is_told(said: str, stop: str) -> None:
    assert read(message({"type": "text", "text": "a"}, stop_reason=said)).stop == stop


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        message({"text": "no type"}),
        message({"type": "text"}),
        message({"type": "text", "text": 1}),
        message({"type": "trojan_horse"}),
        message({**CALL, "input": [1]}),
        message({**CALL, "name": ""}),
        message({**CALL, "name": "x" * 200}),
        message(*[{**CALL, "id": str(number)} for number in range(70)]),
        message(*[{"type": "text", "text": "a"}] * 2_000),
        {**message(), "type": "error"},
    ],
)
def test_what_is_no_answer_is_an_error(body: Any) -> None:
    with pytest.raises(ModelFailed, match="can't be read"):
        read(body)


def test_arguments_with_a_key_twice_are_an_error() -> None:
    raw = json.dumps(message(CALL)).replace('{"q": 1}', '{"q": 1, "q": 2}').encode()
    asked = parse_request(ASKED)
    with pytest.raises(ModelFailed, match="twice"):
        MESSAGES.read_answer(raw, asked, "m", names_of(asked))


# --- in pieces -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_pieces_make_the_same_answer_however_they_are_cut(size: int) -> None:
    chunks = [WHOLE[start : start + size] for start in range(0, len(WHOLE), size)]
    deltas, answer = streamed(*chunks)
    whole = read(message(THOUGHT, {"type": "text", "text": "good day"}, CALL))
    assert (answer.parts, answer.tool_calls) == (whole.parts, whole.tool_calls)
    assert (answer.tokens_in, answer.tokens_out) == (7, 3) and answer.stop == "tools"
    assert "".join(delta.text for delta in deltas) == "good day"


def test_thinking_comes_whole_before_the_text_that_follows_it() -> None:
    deltas, _ = streamed(WHOLE)
    assert [(one.kind, one.part.kind if one.part else "") for one in deltas] == [
        ("part", "opaque"),
        ("part", "text"),
        ("text", ""),
        ("text", ""),
    ]
    assert deltas[0].part is not None and deltas[0].part.native == THOUGHT


def test_what_follows_a_call_waits_for_what_is_decided_of_it() -> None:
    later = TEXT.replace(b'"index": 1', b'"index": 3')
    deltas, answer = streamed(BEGINS, THINKS, TEXT, CALLS, later, ENDS, event("message_stop"))
    assert "".join(delta.text for delta in deltas) == "good day"
    assert answer.text == "good daygood day"


def cut_off() -> Sequence[tuple[bytes, ...]]:
    half = CALLS[: CALLS.index(b"event: content_block_stop")]
    return [
        (BEGINS,),
        (BEGINS, THINKS, TEXT),
        (BEGINS, THINKS, TEXT, ENDS),
        (BEGINS, THINKS, TEXT, half),
        (BEGINS, THINKS, TEXT, half, ENDS, event("message_stop")),
        (WHOLE[:-30],),
    ]


@pytest.mark.parametrize("chunks", cut_off())
def test_a_stream_that_is_cut_short_is_an_error_with_its_calls(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(ModelFailed):
        streamed(*chunks)


def test_a_call_whose_arguments_are_cut_off_is_an_error() -> None:
    half = block(0, {**CALL, "input": {}}, {"type": "input_json_delta", "partial_json": '{"q": '})
    with pytest.raises(ModelFailed, match="arguments"):
        streamed(BEGINS, half, ENDS, event("message_stop"))


@pytest.mark.parametrize(
    "chunk",
    [
        TEXT,  # Its index is not the first.
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"}),
        event("content_block_stop", index=0),
        event("content_block_start", index=0, content_block={"type": "trojan_horse"})
        + event("content_block_stop", index=0)
        + event("message_stop"),
        block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": 1}),
        block(0, {"type": "text", "text": ""}, {"type": "trojan_delta", "text": "x"}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}) * 2
        + event("content_block_stop", index=0)
        + event("message_stop"),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        + event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        b"data: [1]\n\n",
        b"data: {\n\n",
        b"data: \xff\xfe\n\n",
    ],
)
def test_a_stream_of_another_shape_is_an_error(chunk: bytes) -> None:
    with pytest.raises(ModelFailed):
        streamed(BEGINS, chunk)


def test_a_stream_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MODEL_ANSWER_SIZE_BYTES_MAX", 1_000)
    endless = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 90})
    begins = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    with pytest.raises(ModelFailed, match="larger"):
        streamed(BEGINS, begins, *[endless] * 20)


def test_an_error_in_the_middle_of_a_stream_is_told_in_the_providers_words() -> None:
    broken = event("error", error={"type": "overloaded_error", "message": "Come back\x1b[2J"})
    with pytest.raises(ModelFailed) as failed:
        streamed(BEGINS, THINKS, broken)
    assert "overloaded_error: Come back" in failed.value.why and "\x1b" not in failed.value.why
