"""Responses at a run's door: whole and in pieces, gone on from by id, whoever is behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from model_doors import Asked, asked, events, proposes, said

from ring0.errors import ModelFailed
from ring0.gateway.door import Door
from ring0.gateway.models.asking import Asking
from ring0.models import Delta, provider
from ring0.models.base import Part
from ring0.runtime import Runtime
from ring0.types import CallKind, ModelConfig, Operator

PATH = "/v1/responses"
HELLO = {"model": "gpt-x", "input": "hello"}
TOOL = {"type": "function", "name": "refund", "parameters": {"type": "object"}, "strict": True}
THOUGHT = Part(
    kind="opaque",
    name="responses",
    native={"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    blob="sealed-1",
)


def text_of(body: Any) -> str:
    messages = [one for one in body["output"] if one["type"] == "message"]
    return "".join(part["text"] for one in messages for part in one["content"])


def told(request: Any) -> list[tuple[str, str]]:
    """What a model is asked with, message by message."""
    return [
        (one.role, one.content or ",".join(call.name for call in one.tool_calls))
        for one in request.messages
    ]


def types(found: list[Any]) -> list[str]:
    return [one["type"].removeprefix("response.") for one in found]


# --- an answer ---------------------------------------------------------------------------------


async def test_an_answer_comes_whole_and_repeats_what_was_asked(tmp_path: Path) -> None:
    async with asked(tmp_path, said("good day")) as a:
        extra = {"instructions": "Be kind.", "metadata": {"a": "b"}, "max_output_tokens": 40}
        status, body = await a.post(PATH, {**HELLO, **extra, "tools": [TOOL]})
        assert status == 200 and body["object"] == "response" and body["status"] == "completed"
        assert text_of(body) == "good day" and body["usage"]["total_tokens"] == 7
        assert body["id"].startswith("resp_") and body["model"] == "m-1"
        assert body["metadata"] == {"a": "b"} and body["tools"] == [TOOL]
        assert body["instructions"] == "Be kind." and body["error"] is None
        (request,) = a.model.asked
        assert told(request) == [("system", "Be kind."), ("user", "hello")]
        assert request.max_tokens == 40 and request.tools[0].name == "refund"
        (call,) = await a.w.calls()
        assert call.kind is CallKind.MODEL and "/~" in call.id


async def test_a_stream_has_all_events_in_their_order_each_with_its_number(tmp_path: Path) -> None:
    async with asked(tmp_path, said("good day to you", proposes("look", at="x"))) as a:
        found = await a.stream(PATH, {**HELLO, "tools": [TOOL], "stream": True})
        assert [one["sequence_number"] for one in found] == list(range(len(found)))
        names = types(found)
        assert names.count("output_text.delta") > 1
        in_order = [name for number, name in enumerate(names) if name not in names[:number]]
        assert in_order == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "completed",
        ]
        deltas = [one["delta"] for one in found if one["type"].endswith("output_text.delta")]
        assert "".join(deltas) == "good day to you"
        done = [one["item"] for one in found if one["type"].endswith("output_item.done")]
        full = found[-1]["response"]
        assert full["output"] == done and full["usage"]["total_tokens"] == 7
        assert full["id"] == found[0]["response"]["id"] and found[0]["response"]["output"] == []
        assert [one["type"] for one in done] == ["message", "function_call"]
        assert json.loads(done[1]["arguments"]) == {"at": "x"} and done[1]["call_id"] == "c1"


async def test_a_stream_that_breaks_says_so_as_failed(tmp_path: Path) -> None:
    async with asked(tmp_path, said("one")) as a:

        async def breaks(request: Any, key: str, again: Any = None, sink: Any = None) -> Any:
            await sink(Delta(text="half"))
            await asyncio.sleep(0.05)
            raise ModelFailed("It broke.", why="Its fault.")

        a.model.answer = breaks  # type: ignore[method-assign]
        found = await a.stream(PATH, {**HELLO, "stream": True})
        assert types(found)[-1] == "failed" and types(found)[0] == "created"
        assert "Its fault." in found[-1]["response"]["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_short_is_incomplete(tmp_path: Path, stream: bool) -> None:
    turn = said("too lo", stop="length")
    async with asked(tmp_path, turn) as a:
        body = await full_of(a, HELLO, stream)
        assert body["status"] == "incomplete"
        assert body["incomplete_details"] == {"reason": "max_output_tokens"}
        assert body["output"][0]["status"] == "incomplete" and text_of(body) == "too lo"


async def full_of(a: Asked, body: Any, stream: bool) -> Any:
    """The whole answer, however it came."""
    if stream:
        return (await a.stream(PATH, {**body, "stream": True}))[-1]["response"]
    status, found = await a.post(PATH, body)
    assert status == 200, found
    return found


async def test_whole_and_in_pieces_are_the_same_answer(tmp_path: Path) -> None:
    parts = (
        THOUGHT,
        Part(kind="text", text="first", name="responses", native={"phase": "commentary"}),
        Part(kind="call", text="c1"),
    )
    found = []
    for stream in (False, True):
        turn = said("first", proposes("look"), parts=parts)
        async with asked(tmp_path / str(stream), turn) as a:
            found.append(strip((await full_of(a, HELLO, stream))["output"]))
    assert found[0] == found[1]
    assert [one["type"] for one in found[0]] == ["reasoning", "message", "function_call"]
    assert found[0][0]["encrypted_content"] == "sealed-1" and found[0][1]["phase"] == "commentary"


def strip(items: list[Any]) -> list[Any]:
    return [{key: value for key, value in one.items() if key != "id"} for one in items]


async def test_a_thought_is_told_before_the_text_that_follows_it(tmp_path: Path) -> None:
    async with asked(tmp_path, said("x")) as a:

        async def thinks(request: Any, key: str, again: Any = None, sink: Any = None) -> Any:
            await sink(Delta(kind="part", part=THOUGHT))
            await sink(Delta(text="so it is"))
            parts = (THOUGHT, Part(kind="text", text="so it is"))
            return said("so it is", parts=parts)

        a.model.answer = thinks  # type: ignore[method-assign]
        found = await a.stream(PATH, {**HELLO, "stream": True})
        names = types(found)
        assert names.index("reasoning_summary_text.done") < names.index("output_text.delta")
        output = found[-1]["response"]["output"]
        assert [one["type"] for one in output] == ["reasoning", "message"]


# --- what may be asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"trick": 1}, "trick"),
        ({"tools": [{"type": "computer_use_preview"}]}, "computer_use"),
        ({"tools": [{"type": "local_shell"}]}, "local_shell"),
        ({"tools": [{"type": "odd"}]}, "odd"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "video"),
        ({"input": [{"role": "pope", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "call_id": "c9", "output": ""}]}, "c9"),
        ({"include": ["everything"]}, "include"),
        ({"reasoning": {"effort": "heroic"}}, "reasoning.effort"),
        ({"temperature": True}, "temperature"),
    ],
)
async def test_what_is_not_in_the_table_is_an_error_that_names_it(
    tmp_path: Path, extra: dict[str, Any], named: str
) -> None:
    async with asked(tmp_path) as a:
        status, body = await a.post(PATH, {**HELLO, **extra})
        assert status == 422 and named in body["error"]["message"], body
        assert body["error"]["type"] == "invalid_request_error" and not a.model.asked


def image(**fields: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_image", **fields}]}]}


def file(**fields: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_file", **fields}]}]}


@pytest.mark.parametrize(
    ("extra", "feature"),
    [
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tools": [{"type": "web_search_preview"}]}, "web_search"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "file_search"),
        ({"tools": [{"type": "code_interpreter", "container": "c"}]}, "code_interpreter"),
        ({"tools": [{"type": "image_generation"}]}, "image_generation"),
        ({"tools": [{"type": "mcp", "server_url": "https://x.example"}]}, "mcp"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"prompt": {"id": "pmpt_1"}}, "provider_prompt"),
        (image(image_url="https://x.example/i"), "remote_image"),
        (image(file_id="f"), "provider_file"),
        (file(file_id="f"), "provider_file"),
        (file(file_url="https://x.example/f"), "remote_file"),
    ],
)
async def test_provider_side_tools_are_not_ours_each_is_for_the_policy(
    tmp_path: Path, extra: dict[str, Any], feature: str
) -> None:
    async with asked(tmp_path, said("x")) as a:
        status, body = await a.post(PATH, {**HELLO, **extra})
        assert status == 403 and not a.model.asked
        assert feature in body["error"]["message"]
    policy = (
        '@id("may")\n@reason("may")\npermit (principal, action == Action::"model", resource)\n'
        f'when {{ context.features == ["{feature}"] }};'
    )
    async with asked(tmp_path / "two", said("x"), policy=policy) as a:
        status, body = await a.post(PATH, {**HELLO, **extra})
        assert status == 200, body


async def test_a_client_that_wants_its_answers_kept_asks_nothing_of_the_provider(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path, said("x")) as a:
        status, body = await a.post(PATH, {**HELLO, "store": True})
        assert status == 200 and body["store"] is True
        (request,) = a.model.asked
        assert not request.features and request.native is not None
        assert "store" not in request.native.body


# --- tools -------------------------------------------------------------------------------------


async def test_a_tool_round_trip_judges_the_proposal_and_takes_in_the_result(
    tmp_path: Path,
) -> None:
    once = {"refund": {"use": "agent", "effect": "once"}}
    turns = said("", proposes("refund", id=7)), said("done")
    async with asked(tmp_path, *turns, tools=once) as a:
        answering = asyncio.ensure_future(a.post(PATH, {**HELLO, "tools": [TOOL]}))
        approval = await a.w.pending()
        assert not answering.done()
        await a.w.kernel.answer(approval.id, yes=True, by=Operator(name="ada"))
        _, body = await answering
        (call,) = body["output"]
        assert (call["type"], call["name"], call["arguments"]) == (
            "function_call",
            "refund",
            '{"id":7}',
        )
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "paid"}
        conversation = [{"role": "user", "content": "hello"}, call, result]
        status, body = await a.post(PATH, {**HELLO, "input": conversation, "tools": [TOOL]})
        assert status == 200 and text_of(body) == "done"
        assert a.w.run.row.label.integrity == "untrusted"
        assert told(a.model.asked[1]) == [
            ("user", "hello"),
            ("assistant", "refund"),
            ("tool", "paid"),
        ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_proposal_that_is_denied_is_taken_out_and_a_word_stands_for_it(
    tmp_path: Path, stream: bool
) -> None:
    once = {"refund": {"use": "agent", "effect": "once"}}
    turn = said("sure", proposes("refund", "c1", id=7), proposes("look", "c2"))
    async with asked(tmp_path, turn, tools=once) as a:
        answering = asyncio.ensure_future(full_of(a, HELLO, stream))
        approval = await a.w.pending()
        await a.w.kernel.answer(approval.id, yes=False, by=Operator(name="ada"))
        body = await answering
        assert "refund was not allowed" in text_of(body) and '"id":7' not in str(body)
        assert [one["name"] for one in body["output"] if one["type"] == "function_call"] == ["look"]


async def test_a_custom_tool_is_called_with_a_text_and_judged_like_any(tmp_path: Path) -> None:
    patch = {"type": "custom", "name": "patch", "format": {"type": "text"}}
    for stream in (False, True):
        turns = said("", proposes("patch", input="*** begin")), said("done")
        async with asked(tmp_path / str(stream), *turns) as a:
            body = await full_of(a, {**HELLO, "tools": [patch]}, stream)
            (call,) = body["output"]
            assert call["type"] == "custom_tool_call" and call["input"] == "*** begin"
            output = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "ok"}
            items = [{"role": "user", "content": "hello"}, call, output]
            await full_of(a, {**HELLO, "input": items, "tools": [patch]}, stream)
            assert told(a.model.asked[1])[1:] == [("assistant", "patch"), ("tool", "ok")]
            kinds = [one.kind for one in await a.w.calls()]
            assert kinds.count(CallKind.PROPOSAL) == 1 and kinds.count(CallKind.OBSERVED) == 1


async def test_thousands_of_forged_results_are_refused_before_one_is_taken_in(
    tmp_path: Path,
) -> None:
    items: list[dict[str, Any]] = []
    for number in range(3_000):
        call = {"type": "function_call", "call_id": f"c{number}", "name": "x", "arguments": "{}"}
        items += [call, {"type": "function_call_output", "call_id": f"c{number}", "output": "y"}]
    async with asked(tmp_path) as a:
        status, body = await a.post(PATH, {**HELLO, "input": items})
        assert status == 422 and "4,096 messages" in body["error"]["message"]
        (refused,) = await a.w.calls()
        assert refused.kind == "model" and a.w.run.row.label.integrity == "user"


# --- going on ----------------------------------------------------------------------------------


async def test_response_ids_are_ours_scoped_to_the_run_and_expanded_from_the_journal(
    tmp_path: Path,
) -> None:
    turns = said("one", proposes("look"), parts=(THOUGHT, *_one_and_call())), said("two"), said("3")
    async with asked(tmp_path, *turns) as a:
        _, first = await a.post(PATH, {**HELLO, "instructions": "Be kind.", "tools": [TOOL]})
        call = next(one for one in first["output"] if one["type"] == "function_call")
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "seen"}
        follow = {"model": "gpt-x", "previous_response_id": first["id"], "input": [result]}
        _, second = await a.post(PATH, follow)
        assert second["previous_response_id"] == first["id"] and text_of(second) == "two"
        # What each request says of how to be is its own; what was said goes along.
        assert told(a.model.asked[1]) == [("user", "hello"), ("assistant", "one"), ("tool", "seen")]
        thought = a.model.asked[1].messages[1].parts[0]
        assert thought.kind == "opaque" and thought.blob == "sealed-1"
        third = {"model": "gpt-x", "previous_response_id": second["id"], "input": "and?"}
        await a.post(PATH, third)
        assert told(a.model.asked[2])[2:] == [
            ("tool", "seen"),
            ("assistant", "two"),
            ("user", "and?"),
        ]
        native = a.model.asked[2].native
        assert native is not None and "previous_response_id" not in native.body


def _one_and_call() -> Iterator[Part]:
    yield Part(kind="text", text="one")
    yield Part(kind="call", text="c1")


async def test_another_runs_response_id_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with asked(tmp_path / "one", said("secret of one")) as a:
        _, foreign = await a.post(PATH, HELLO)
    async with asked(tmp_path / "two", said("x")) as b:
        for id_ in (foreign["id"], "resp_" + "0" * 24, "resp_", "x" * 500):
            status, body = await b.post(PATH, {**HELLO, "previous_response_id": id_})
            assert status == 404 and "no answer of this run" in body["error"]["message"]
            assert len(body["error"]["message"]) < 1_000
        async with b.session.get(f"{PATH}/{foreign['id']}") as response:
            assert response.status == 404
        assert not b.model.asked


async def test_an_answer_is_gone_on_from_by_its_id_after_a_restart(tmp_path: Path) -> None:
    async with asked(tmp_path, said("one"), said("two"), said("three")) as a:
        _, first = await a.post(PATH, HELLO)
        follow = {"model": "gpt-x", "previous_response_id": first["id"], "input": "and?"}
        _, second = await a.post(PATH, follow)
        await restarted(a)
        # Its process asks for the same again, and goes on from where it was.
        assert (await a.post(PATH, HELLO))[1]["id"] == first["id"]
        assert (await a.post(PATH, follow))[1] == second and len(a.model.asked) == 2
        last = {"model": "gpt-x", "previous_response_id": second["id"], "input": "so?"}
        _, third = await a.post(PATH, last)
        assert text_of(third) == "three" and told(a.model.asked[2]) == [
            ("user", "hello"),
            ("assistant", "one"),
            ("user", "and?"),
            ("assistant", "two"),
            ("user", "so?"),
        ]


async def restarted(a: Asked) -> None:
    """All that was in memory of the run and its door is made anew from the journal."""
    run, door = a.w.run, a.d.door
    assert door is not None
    run.records = {call.id: call for call in await a.w.calls()}
    run.unmet = set(run.records)
    run._occurrences.clear()
    await a.session.close()
    await door.close()
    a.d.path.unlink(missing_ok=True)
    await a.d.open()
    assert isinstance(a.d.door, Door)
    a.session = type(a.session)(f"http://127.0.0.1:{a.d.port}")


async def test_what_a_person_denied_is_not_in_what_an_answer_is_gone_on_from(
    tmp_path: Path,
) -> None:
    once = {"refund": {"use": "agent", "effect": "once"}}
    turns = said("sure", proposes("refund", id=7)), said("two")
    async with asked(tmp_path, *turns, tools=once) as a:
        answering = asyncio.ensure_future(a.post(PATH, {**HELLO, "tools": [TOOL]}))
        approval = await a.w.pending()
        await a.w.kernel.answer(approval.id, yes=False, by=Operator(name="ada"))
        _, first = await answering
        follow = {"model": "gpt-x", "previous_response_id": first["id"], "input": "go on"}
        status, _ = await a.post(PATH, follow)
        assert status == 200
        ((_, _), (role, text), (_, _)) = told(a.model.asked[1])
        assert role == "assistant" and "refund was not allowed" in text
        assert not a.model.asked[1].messages[1].tool_calls


async def test_an_answer_that_is_none_yet_or_of_another_dialect_is_not_gone_on_from(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path, said("one"), said("two")) as a:
        a.model.go = asyncio.Event()
        async with a.session.post(PATH, json={**HELLO, "stream": True}) as response:
            line = await response.content.readuntil(b"\n\n")
            begun = events(line)[0]["response"]["id"]
            status, _ = await a.post(PATH, {**HELLO, "previous_response_id": begun})
            assert status == 404
            a.model.go.set()
            await response.read()
        chat_body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        _, completion = await a.post("/v1/chat/completions", chat_body)
        id_ = completion["id"].replace("chatcmpl-", "resp_")
        assert (await a.post(PATH, {**HELLO, "previous_response_id": id_}))[0] == 404


async def test_a_stream_begins_with_the_id_that_its_answer_is_known_by_however_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ring0.limits.DOOR_PING_S", 0.02)
    before = Asking._take_in

    async def slowly(self: Asking, request: Any) -> None:
        await asyncio.sleep(0.2)
        await before(self, request)

    monkeypatch.setattr(Asking, "_take_in", slowly)
    async with asked(tmp_path, said("one")) as a:
        found = await a.stream(PATH, {**HELLO, "stream": True})
        async with a.session.get(f"{PATH}/{found[0]['response']['id']}") as response:
            assert response.status == 200


async def test_an_answer_is_given_once_more_by_its_id(tmp_path: Path) -> None:
    async with asked(tmp_path, said("one")) as a:
        _, first = await a.post(PATH, HELLO)
        async with a.session.get(f"{PATH}/{first['id']}") as response:
            again = await response.json()
        assert again["output"] == first["output"] and again["id"] == first["id"]


async def test_a_conversation_that_grew_too_large_by_ids_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ring0.limits.CALL_BODY_SIZE_BYTES_MAX", 3_000)
    async with asked(tmp_path, said("one"), said("two")) as a:
        _, first = await a.post(PATH, {**HELLO, "input": "a" * 2_000})
        follow = {"model": "m", "previous_response_id": first["id"], "input": "b" * 2_000}
        status, body = await a.post(PATH, follow)
        assert status == 422 and "too large" in body["error"]["message"]


# --- before a provider of another dialect ------------------------------------------------------


class Stub:
    """A provider on loopback that says what a test says, and remembers what it was asked."""

    def __init__(self, path: str, *answers: Any) -> None:
        self.path = path
        self.answers = list(answers)
        self.seen: list[Any] = []

    async def __aenter__(self) -> Stub:
        app = web.Application()
        app.router.add_post(self.path, self._on)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _on(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(await request.json())
        answer = self.answers.pop(0)
        if not self.seen[-1].get("stream"):
            return web.json_response(answer)
        lines = [f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in answer]
        return web.Response(body="".join(lines), content_type="text/event-stream")


def behind(a: Asked, **config: Any) -> Any:
    """Puts a real provider there."""
    made = provider(ModelConfig(model="m-1", **config), "", "", Runtime())
    driver: Any = a.w.kernel.gate.kinds[CallKind.MODEL].driver
    driver._ports.provider = lambda run, name: made
    return made


def completion(text: str | None, *calls: Any) -> Any:
    message = {"role": "assistant", "content": text, "tool_calls": list(calls) or None}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def chunks(*pieces: Any) -> list[Any]:
    found = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    return [*found, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, "[DONE]"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_responses_before_a_provider_of_chat_completions(
    tmp_path: Path, stream: bool
) -> None:
    call = {
        "id": "x1",
        "type": "function",
        "function": {"name": "refund", "arguments": '{"id": 7}'},
    }
    answers = (
        (
            chunks({"tool_calls": [{"index": 0, **call}]}),
            chunks({"content": "al"}, {"content": "l"}),
        )
        if stream
        else (completion(None, call), completion("all"))
    )
    async with asked(tmp_path) as a, Stub("/v1/chat/completions", *answers) as stub:
        made = behind(a, provider="openai", base_url=stub.base)
        asks = {
            **HELLO,
            "instructions": "Be kind.",
            "tools": [TOOL],
            "text": {"format": {"type": "json_schema", "name": "t", "schema": {"type": "object"}}},
            "reasoning": {"effort": "low"},
            "tool_choice": {"type": "function", "name": "refund"},
            "parallel_tool_calls": False,
        }
        first = await full_of(a, asks, stream)
        (item,) = first["output"]
        assert item["type"] == "function_call" and item["call_id"] == "x1"
        result = {"type": "function_call_output", "call_id": "x1", "output": "paid"}
        follow = {**HELLO, "input": [result], "previous_response_id": first["id"], "tools": [TOOL]}
        assert text_of(await full_of(a, follow, stream)) == "all"
        one, two = stub.seen
        assert [message["role"] for message in one["messages"]] == ["system", "user"]
        assert one["tool_choice"] == {"type": "function", "function": {"name": "refund"}}
        assert one["reasoning_effort"] == "low" and one["parallel_tool_calls"] is False
        assert one["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert [message["role"] for message in two["messages"]] == ["user", "assistant", "tool"]
        assert two["messages"][1]["tool_calls"][0]["id"] == "x1"
        await made.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_chat_completions_before_a_provider_of_responses(
    tmp_path: Path, stream: bool
) -> None:
    call = {
        "type": "function_call",
        "call_id": "x1",
        "name": "refund",
        "arguments": '{"id": 7}',
    }
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    answers: Any = ([thought, call], [message("al", "l")])
    answers = [as_events(one) if stream else as_response(one) for one in answers]
    async with asked(tmp_path) as a, Stub("/v1/responses", *answers) as stub:
        made = behind(a, provider="openai-responses", base_url=stub.base)
        tool = {"type": "function", "function": {"name": "refund", "parameters": {}}}
        asks: dict[str, Any] = {
            "model": "gpt-x",
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [{"type": "text", "text": "hello"}, PICTURE]},
            ],
            "tools": [tool],
            "tool_choice": "required",
            "stream": stream,
        }
        told = await chat(a, asks)
        assert told["tool_calls"] == [("x1", "refund", '{"id":7}')] and not told["content"]
        called = {"id": "x1", "type": "function"}
        called["function"] = {"name": "refund", "arguments": '{"id":7}'}  # type: ignore[assignment]
        asks["messages"] += [
            {"role": "assistant", "content": "let me", "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "x1", "content": "paid"},
        ]
        assert (await chat(a, asks))["content"] == "all"
        one, two = stub.seen
        assert one["store"] is False and one["stream"] is stream and one["model"] == "m-1"
        assert one["tools"][0]["strict"] is False and one["tool_choice"] == "required"
        assert one["input"][0] == {"type": "message", "role": "system", "content": "Be kind."}
        assert [part["type"] for part in one["input"][1]["content"]] == [
            "input_text",
            "input_image",
        ]
        assert two["input"][2:] == [
            {"type": "message", "role": "assistant", "content": "let me"},
            {**call, "arguments": '{"id":7}'},
            {"type": "function_call_output", "call_id": "x1", "output": "paid"},
        ]
        status, body = await a.post(
            "/v1/chat/completions", {**asks, "stream": False, "stop": ["x"]}
        )
        assert status == 502 and "`stop`" in body["error"]["message"] and len(stub.seen) == 2
        await made.close()


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


async def chat(a: Asked, asks: dict[str, Any]) -> dict[str, Any]:
    """What a client of chat completions gets, however it comes."""
    if not asks["stream"]:
        status, body = await a.post("/v1/chat/completions", asks)
        assert status == 200, body
        said = body["choices"][0]["message"]
        calls = said.get("tool_calls") or []
        content = said["content"]
    else:
        found = await a.stream("/v1/chat/completions", asks)
        deltas = [one["choices"][0]["delta"] for one in found if one != "[DONE]"]
        content = "".join(one.get("content") or "" for one in deltas)
        calls = [call for one in deltas for call in one.get("tool_calls", ())]
    functions = [(call["id"], call["function"]) for call in calls]
    return {
        "content": content,
        "tool_calls": [(id_, one["name"], one["arguments"]) for id_, one in functions],
    }


def message(*texts: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content, **more}


def as_response(output: list[Any], **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 3, "output_tokens": 4}
    body = {"id": "resp_there", "object": "response", "status": "completed", "usage": usage}
    return {**body, "model": "m-1-2026", "output": output, **more}


def as_events(output: list[Any]) -> list[Any]:
    found: list[Any] = [{"type": "response.created", "response": as_response([])}]
    for index, item in enumerate(output):
        found.append({"type": "response.output_item.added", "output_index": index, "item": item})
        for part in item["content"] if item["type"] == "message" else ():
            found.append({"type": "response.output_text.delta", "delta": part["text"]})
        found.append({"type": "response.output_item.done", "output_index": index, "item": item})
    return [*found, {"type": "response.completed", "response": as_response(output)}]


@pytest.mark.parametrize("stream", [False, True])
async def test_before_a_provider_of_responses_nothing_is_kept_there_and_no_id_of_ours_goes(
    tmp_path: Path, stream: bool
) -> None:
    thought = {
        "type": "reasoning",
        "id": "rs_there",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "sealed",
    }
    call = {"type": "function_call", "call_id": "x1", "name": "refund", "arguments": "{}"}
    first = [thought, message("one", phase="commentary"), call]
    answers = [as_events(one) if stream else as_response(one) for one in (first, [message("two")])]
    async with asked(tmp_path) as a, Stub("/v1/responses", *answers) as stub:
        made = behind(a, provider="openai-responses", base_url=stub.base)
        extra = {"store": True, "metadata": {"a": "b"}, "user": "u", "tools": [TOOL]}
        asks = {**HELLO, **extra, "reasoning": {"effort": "low"}, "truncation": "auto"}
        answer = await full_of(a, asks, stream)
        kinds = [one["type"] for one in answer["output"]]
        assert kinds == ["reasoning", "message", "function_call"]
        assert "there" not in str([one["id"] for one in answer["output"]])
        bare = {"type": "reasoning", "id": "rs_x", "summary": []}
        result = {"type": "function_call_output", "call_id": "x1", "output": "paid"}
        items = [{"role": "user", "content": "hello"}, bare, *answer["output"], result]
        assert text_of(await full_of(a, {**asks, "input": items}, stream)) == "two"
        one, two = stub.seen
        assert one["store"] is False and one["include"] == ["reasoning.encrypted_content"]
        assert one["truncation"] == "auto" and not {"metadata", "user", "id"} & set(one)
        assert [item["type"] for item in two["input"]] == [
            "message",
            "reasoning",
            "message",
            "function_call",
            "function_call_output",
        ]
        assert all("id" not in item for item in two["input"])
        assert two["input"][1]["encrypted_content"] == "sealed"
        assert two["input"][2]["phase"] == "commentary"
        await made.close()


async def test_opaque_blobs_that_the_run_was_never_given_are_refused(tmp_path: Path) -> None:
    turn = said("one", parts=(THOUGHT, Part(kind="text", text="one")))
    async with asked(tmp_path, turn, said("two")) as a:
        _, first = await a.post(PATH, HELLO)
        for blob, expected in (("sealed-2", 403), ("sealed-1", 200)):
            # A client may leave out the words around it, not make up what is sealed.
            thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": blob}
            follow = [{"role": "user", "content": "hello"}, thought, *first["output"][1:]]
            follow.append({"role": "user", "content": "and?"})
            status, body = await a.post(PATH, {**HELLO, "input": follow})
            assert status == expected, body
        assert len(a.model.asked) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_responses_before_the_scripted_provider(
    tmp_path: Path, stream: bool
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'answer = "Done: {done}"\n\n[[rules]]\nname = "refund"\nwhen = "refund (?P<n>[0-9]+)"\n'
        'call = "refund"\nargs = { id = "{n}" }\n'
    )
    async with asked(tmp_path / "w") as a:
        config = ModelConfig(provider="scripted", script="rules.toml")
        made = provider(config, str(tmp_path), "", Runtime())
        driver: Any = a.w.kernel.gate.kinds[CallKind.MODEL].driver
        driver._ports.provider = lambda run, name: made
        asks = {**HELLO, "input": "please refund 7", "tools": [TOOL]}
        first = await full_of(a, asks, stream)
        (call,) = first["output"]
        assert call["name"] == "refund" and json.loads(call["arguments"]) == {"id": "7"}
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "paid"}
        follow = {**asks, "input": [result], "previous_response_id": first["id"]}
        assert "refund (refund)" in text_of(await full_of(a, follow, stream))


async def test_a_fault_in_the_middle_of_a_stream_ends_it_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Any, answer: Any) -> bytes:
        raise TypeError("ours")

    monkeypatch.setattr("ring0.models.dialects.responses.telling.ResponsesWriter.end", breaks)
    async with asked(tmp_path, said("one"), said("two")) as a:
        async with asyncio.timeout(10):
            with pytest.raises(aiohttp.ClientError):
                await a.stream(PATH, {**HELLO, "stream": True})
        # Whoever asks again gets what was paid for.
        assert text_of((await a.post(PATH, HELLO))[1]) == "one"
