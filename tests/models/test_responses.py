"""The provider `openai-responses` against a server on loopback: what it bears."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from ring0 import errors, limits
from ring0.models import Delta, Message, ModelAnswer, parse_request, provider
from ring0.models.dialects import dialect
from ring0.models.names import names_of
from ring0.runtime import Runtime
from ring0.types import ModelConfig

REQUEST = {
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "name": "crm.query", "args": {"q": 1}}]},
        {"role": "tool", "content": "[]", "tool_call_id": "c1"},
    ],
    "tools": [{"name": "crm.query", "schema": {"type": "object"}}],
}
CALL = {"type": "function_call", "call_id": "x1", "name": "crm__query", "arguments": '{"q": 2}'}


def message(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "content": content, **more}


def response(*output: Any, **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 5},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    body = {"id": "resp_1", "status": "completed", "model": "m-1-2026", "usage": usage}
    return {**body, "output": list(output), **more}


def events(*output: Any, said: str | None = None, **more: Any) -> list[Any]:
    """A stream as its maker sends it; `said`: in its pieces, if that is not what its items say."""
    found: list[Any] = [{"type": "response.created", "response": response(status="in_progress")}]
    for index, item in enumerate(output):
        found.append({"type": "response.output_item.added", "output_index": index, "item": item})
        for part in item["content"] if item["type"] == "message" else ():
            text = part.get("text", "") if said is None else said
            pieces = [text[:3], text[3:]] if part["type"] == "output_text" else []
            found += [{"type": "response.output_text.delta", "delta": one} for one in pieces]
        found.append({"type": "response.output_item.done", "output_index": index, "item": item})
    end = response(*output, **more)
    return [*found, {"type": f"response.{end['status']}", "response": end}]


class Server:
    """Says one thing, whole or as events."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.seen: list[Any] = []

    async def on(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(await request.json())
        if not isinstance(self.answer, list | bytes):
            return web.json_response(self.answer)
        if isinstance(self.answer, bytes):
            body = self.answer
        else:
            body = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in self.answer)
        return web.Response(body=body, content_type="text/event-stream")


async def ask(answer: Any) -> tuple[ModelAnswer, list[Delta], Any]:
    """The answer, its pieces where it comes as events, and the body that was sent."""
    server = Server(answer)
    app = web.Application()
    app.router.add_post("/v1/responses", server.on)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    made = provider(
        ModelConfig(provider="openai-responses", model="m-1", base_url=base), "", "", Runtime()
    )
    found: list[Delta] = []

    async def sink(delta: Delta) -> None:
        found.append(delta)

    sinks = () if isinstance(answer, dict) else (sink,)
    try:
        said = await made.answer(parse_request(REQUEST), "r-1/0/3", None, *sinks)
        return said, found, server.seen[-1]
    finally:
        await made.close()
        await runner.cleanup()


BOTH = pytest.mark.parametrize("form", [response, events], ids=["whole", "in pieces"])
Form = Callable[..., Any]


@BOTH
async def test_a_tool_round_trip_maps_names_both_ways(form: Form) -> None:
    answer, _, sent = await ask(form(message("so"), CALL))
    assert [item["type"] for item in sent["input"]] == [
        "message",
        "function_call",
        "function_call_output",
    ]
    assert sent["tools"][0]["name"] == sent["input"][1]["name"] == "crm__query"
    assert sent["store"] is False and sent["max_output_tokens"] > 0
    ((id_, name, args),) = [(one.id, one.name, one.args) for one in answer.tool_calls]
    assert (id_, name, args) == ("x1", "crm.query", {"q": 2})
    assert (answer.text, answer.stop, answer.model) == ("so", "tools", "m-1-2026")
    assert (answer.tokens_in, answer.tokens_out, answer.estimated) == (11, 7, False)
    assert (answer.tokens_cached, answer.tokens_reasoning) == (5, 2) and not answer.parts


@BOTH
async def test_thoughts_and_texts_keep_their_order(form: Form) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    items = (thought, message("one", phase="commentary"), CALL, message("two"))
    answer, pieces, _ = await ask(form(*items))
    assert [part.kind for part in answer.parts] == ["opaque", "text", "call", "text"]
    assert answer.parts[0].blob == "sealed" and answer.parts[1].native["phase"] == "commentary"
    assert answer.text == "onetwo"
    if pieces:
        told = [one.text or (one.part and one.part.kind) for one in pieces]
        assert told == ["opaque", "text", "one", "text", "two"]


@BOTH
async def test_a_refusal_is_a_text_that_says_it_is_one(form: Form) -> None:
    no = {"type": "message", "content": [{"type": "refusal", "refusal": "I won't."}]}
    answer, _, _ = await ask(form(no))
    assert answer.text == "I won't." and answer.parts[0].native == {"refused": True}


@BOTH
async def test_an_answer_that_was_cut_short_says_why(form: Form) -> None:
    for reason, stop in (("max_output_tokens", "length"), ("content_filter", "filter")):
        details = {"incomplete_details": {"reason": reason}, "status": "incomplete"}
        answer, _, _ = await ask(form(message("so fa"), **details))
        assert (answer.text, answer.stop) == ("so fa", stop)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({**response(), "status": "failed", "error": {"message": "on fire"}}, "on fire"),
        (response(status="queued"), "queued"),
        (response({"type": "computer_call", "call_id": "c"}), "computer_call"),
        (response({**CALL, "arguments": '{"q": 1'}), "crm.query"),
        (response({**CALL, "arguments": '{"q": 1, "q": 2}'}), "twice"),
        (response({**CALL, "arguments": "[]"}), "not an object"),
        (response({**CALL, "status": "incomplete"}), "cut short"),
        (response({**CALL, "name": ""}), "names no tool"),
        (response(*({**CALL, "call_id": str(n)} for n in range(100))), "more than 64"),
        (response({"type": "message", "content": "text"}), "item 0"),
        (response(["message"]), "output"),
        (events(message("one"))[:-1], "cut short"),
        (events(message("one"), said="two"), "pieces"),
        ([*events(message("a"))[:-1], *events(message("b"))], "done twice"),
        ([{"type": "error", "code": "x", "message": "slow\x1b[31m down"}], "slow"),
        ([{"type": "response.failed", "response": response(status="failed")}], "failed"),
        ([{"type": "response.output_text.delta", "delta": {"a": 1}}], "piece"),
        (b"data: {not json\n\n", "JSON"),
        (b'data: {"type": "response.completed", "response": 7}\n\n', "response"),
        (b'data: {"type": "response.output_text.delta", "delta": "\xff"}\n\n', "read"),
    ],
)
async def test_what_is_no_answer_is_an_error_that_says_why(answer: Any, why: str) -> None:
    with pytest.raises(errors.ModelFailed) as caught:
        await ask(answer)
    assert why in str(caught.value) and "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1_000


async def test_a_stream_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MODEL_ANSWER_SIZE_BYTES_MAX", 3_000)
    piece = {"type": "response.output_text.delta", "delta": "x" * 90}
    with pytest.raises(errors.ModelFailed, match="larger than"):
        await ask([piece] * 100)


async def test_what_comes_after_its_end_is_nothing() -> None:
    more = {"type": "response.output_text.delta", "delta": "and more"}
    answer, pieces, _ = await ask([*events(message("one")), more, "[DONE]"])
    assert answer.text == "one" and "".join(one.text for one in pieces) == "one"


def test_the_kernels_word_comes_last_and_what_the_client_wrote_stays_as_it_is() -> None:
    spoken = dialect("responses")
    body = {
        "instructions": "Be kind.",
        "input": [
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "summary": [], "encrypted_content": "sealed"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
            {"role": "user", "content": "and?"},
        ],
    }
    request = spoken.request(spoken.asked(body, {}).body)
    word = Message(role="system", content="You repeat yourself.")
    told = replace(request, messages=(*request.messages, word))
    sent = spoken.payload(told, "m", names_of(told), official=True, stream=False)
    assert [one.get("content") for one in sent["input"]] == [
        "hi",
        None,
        [{"type": "output_text", "text": "so"}],
        "and?",
        "You repeat yourself.",
    ]
    assert sent["instructions"] == "Be kind." and sent["input"][-1]["role"] == "system"
