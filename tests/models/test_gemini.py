"""The dialect `gemini` at a provider: what it is sent, and what of its answers is believed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_world import doors
from model_servers import Quick, Server

from ring0 import limits
from ring0.errors import CallInvalid, ModelFailed
from ring0.models import Delta, ModelAnswer, ModelRequest, parse_request, provider
from ring0.models.dialects import at_provider, dialect
from ring0.models.names import names_of
from ring0.types import AgentManifest, ModelConfig

KEY = "AIza-9f8e7d6c5b4a39281706"
GEMINI = at_provider("gemini")
USAGE = {
    "promptTokenCount": 7,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 5,
    "cachedContentTokenCount": 2,
    "totalTokenCount": 15,
}
CALL = {
    "functionCall": {"id": "g1", "name": "crm__query", "args": {"q": 1}},
    "thoughtSignature": "c2ln",
}
ASKED: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "well",
            "tool_calls": [
                {"id": "c1", "name": "crm.query", "args": {"q": 1}},
                {"id": "c2", "name": "crm.query", "args": {"q": 2}},
            ],
        },
        {"role": "tool", "content": "no", "tool_call_id": "c1", "is_error": True},
        {"role": "tool", "content": "yes", "tool_call_id": "c2"},
        {"role": "user", "content": "and?"},
        {"role": "system", "content": "be brief"},
    ],
    "tools": [
        {
            "name": "crm.query",
            "description": "d",
            "schema": {"type": "object", "properties": {"q": {"type": "integer"}}},
        },
        {"name": "ping", "schema": {"type": "object", "properties": {}}},
    ],
    "max_tokens": 64,
}


def says(*parts: Any, finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    body = {"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": "gemini-x-001"}
    return {**body, **more}


def read(body: Any) -> ModelAnswer:
    asked = parse_request(ASKED)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return GEMINI.read_answer(raw, asked, "m", names_of(asked))


def streamed(*bodies: Any) -> tuple[list[Delta], ModelAnswer]:
    asked = parse_request(ASKED)
    reader = GEMINI.reader(asked, "m", names_of(asked))
    raw = b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in bodies)
    found = [delta for at in range(0, len(raw), 7) for delta in reader.feed(raw[at : at + 7])]
    return found, reader.end()


def sent(request: ModelRequest, model: str = "gemini-3-x") -> dict[str, Any]:
    return GEMINI.payload(request, model, names_of(request), official=True, stream=False)


# --- what it is sent -------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_is_asked_with_its_key_at_the_models_own_address(stream: bool) -> None:
    answer = says({"text": "good "}, {"text": "day"})
    async with Server([answer] if stream else answer) as server:
        config = ModelConfig(provider="gemini", model="gemini-3-x", base_url=server.address)
        made = provider(config, "", KEY, Quick())
        pieces: list[str] = []

        async def sink(delta: Delta) -> None:
            pieces.append(delta.text)

        found = await made.answer(parse_request(ASKED), "r/0", None, sink if stream else None)
        await made.close()
    assert found.text == "good day" and found.model == "gemini-x-001" and KEY not in repr(made)
    assert pieces == (["good ", "day"] if stream else [])
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert server.paths == [f"/v1/models/gemini-3-x:{method}"]
    assert server.headers[0]["x-goog-api-key"] == KEY and KEY not in server.paths[0]
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("name", ["../../files/x", "m?key=1", "m#x", "a/b:other"])
def test_a_models_name_leads_to_no_other_address(name: str) -> None:
    path = GEMINI.path(name, stream=False)
    assert path.startswith("/models/") and path.endswith(":generateContent")
    assert not set("/?#") & set(path.removeprefix("/models/"))


def test_a_conversation_is_told_in_turns_with_calls_and_what_came_of_them() -> None:
    body = sent(parse_request(ASKED))
    assert body["systemInstruction"] == {"parts": [{"text": "be"}]}
    user, model, after = body["contents"]
    assert user == {"role": "user", "parts": [{"text": "hi"}]}
    assert model["role"] == "model" and model["parts"][0] == {"text": "well"}
    first, second = model["parts"][1:]
    assert first["functionCall"] == {"id": "c1", "name": "crm__query", "args": {"q": 1}}
    assert second["functionCall"]["id"] == "c2"
    responses = [part["functionResponse"] for part in after["parts"][:2]]
    assert responses[0] == {"id": "c1", "name": "crm__query", "response": {"error": "no"}}
    assert responses[1]["response"] == {"output": "yes"} and after["role"] == "user"
    assert after["parts"][2:] == [{"text": "and?"}, {"text": "be brief"}]
    assert body["generationConfig"]["maxOutputTokens"] == 64
    query, ping = body["tools"][0]["functionDeclarations"]
    assert query["parameters"]["properties"] == {"q": {"type": "INTEGER"}}
    assert "parameters" not in ping  # An object without properties is none there.


def test_a_call_without_its_thought_says_so_where_models_want_one() -> None:
    """Google refuses a call without a signature, and clients of other dialects keep none."""
    request = parse_request(ASKED)
    calls = sent(request)["contents"][1]["parts"][1:]
    assert [("thoughtSignature" in call) for call in calls] == [True, False]
    older = sent(request, "gemini-2.5-flash")["contents"][1]["parts"][1:]
    assert not any("thoughtSignature" in call for call in older)


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("tool:crm.query", {"mode": "ANY", "allowedFunctionNames": ["crm__query"]}),
    ],
)
def test_which_tool_may_be_proposed_goes_on(choice: str, config: Any) -> None:
    body = sent(parse_request({**ASKED, "tool_choice": choice}))
    assert body["toolConfig"] == {"functionCallingConfig": config}


def test_how_to_answer_goes_on() -> None:
    more = {
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "effort": "medium",
        "answer_schema": {"type": "object", "properties": {"n": {"const": "a"}}, "$defs": {}},
    }
    config = sent(parse_request({**ASKED, **more}))["generationConfig"]
    assert config["temperature"] == 0.5 and config["topP"] == 0.9
    assert config["stopSequences"] == ["x"] and config["responseMimeType"] == "application/json"
    assert config["responseSchema"]["properties"]["n"] == {"type": "STRING", "enum": ["a"]}
    assert config["thinkingConfig"] == {"thinkingLevel": "MEDIUM"}
    older = sent(parse_request({**ASKED, **more}), "gemini-2.5-pro")["generationConfig"]
    assert older["thinkingConfig"] == {"thinkingBudget": 8_192}


def test_images_sounds_and_files_go_on_with_their_data_and_addresses_do_not() -> None:
    data = {"media_type": "image/png", "data": "aGk="}
    parts = [{"kind": "text", "text": "look"}, {"kind": "image", **data}, {"kind": "file", **data}]
    asked = {"messages": [{"role": "user", "content": "look", "parts": parts}]}
    found = sent(parse_request(asked))["contents"][0]["parts"]
    inline = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    assert found == [{"text": "look"}, inline, inline]
    url = {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}
    chat = dialect("chat").request({"messages": [{"role": "user", "content": [url]}]})
    with pytest.raises(CallInvalid, match="remote_image"):
        sent(chat)


def test_what_is_asked_of_another_provider_beyond_an_answer_is_refused_not_dropped() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "web_search_options": {}}
    with pytest.raises(CallInvalid, match="web_search"):
        sent(dialect("chat").request(body))


async def test_no_door_and_no_agent_speaks_it() -> None:
    with pytest.raises(KeyError):
        dialect("gemini")
    with pytest.raises(CallInvalid):
        parse_request({"dialect": "gemini", "body": {}})


# --- what it says ----------------------------------------------------------------------------


def test_an_answer_is_read_with_its_calls_and_its_counts() -> None:
    thinks = {"text": "hm", "thought": True, "thoughtSignature": "dGg="}
    answer = read(says(thinks, {"text": "good day"}, CALL))
    assert answer.text == "good day" and answer.stop == "tools"
    (call,) = answer.tool_calls
    assert (call.id, call.name, call.args) == ("g1", "crm.query", {"q": 1})
    assert (answer.tokens_in, answer.tokens_out, answer.tokens_reasoning) == (7, 8, 5)
    assert answer.tokens_cached == 2 and not answer.estimated
    assert answer.native is not None and answer.native.body["thoughts"] == "hm"
    assert answer.native.body["signatures"] == {"": "dGg=", "g1": "c2ln"}


def test_pieces_make_the_same_answer_and_calls_are_none_of_them() -> None:
    deltas, answer = streamed(
        says({"text": "good "}, finish=None, usageMetadata={"promptTokenCount": 7}),
        says({"text": "day"}, finish=None),
        says(CALL),
    )
    assert [one.text for one in deltas] == ["good ", "day"]
    assert answer == read(says({"text": "good day"}, CALL))


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("STOP", "end"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "filter"),
        ("RECITATION", "filter"),
        ("PROHIBITED_CONTENT", "filter"),
        ("SOMETHING_NEW", "end"),
    ],
)
def test_why_it_ended_is_told_in_our_words(finish: str, stop: str) -> None:
    assert read(says({"text": "x"}, finish=finish)).stop == stop


def test_a_blocked_question_is_an_answer_that_a_filter_held() -> None:
    body = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}}
    answer = read(body)
    assert answer.stop == "filter" and not answer.text and not answer.tool_calls
    assert (answer.tokens_in, answer.tokens_out, answer.estimated) == (7, 0, False)


def test_without_counts_the_tokens_are_estimated() -> None:
    answer = read({"candidates": says({"text": "x" * 40})["candidates"]})
    assert answer.estimated and answer.tokens_out == 10


def test_what_is_heard_is_paid_for_like_the_dearest() -> None:
    heard = [{"modality": "AUDIO", "tokenCount": 6}, {"modality": "TEXT", "tokenCount": 1}]
    answer = read(says({"text": "x"}, usageMetadata={**USAGE, "promptTokensDetails": heard}))
    assert answer.tokens_in == 7 and answer.tokens_extra == 14


def test_calls_without_ids_get_their_own() -> None:
    call = {"functionCall": {"name": "ping"}}
    answer = read(says(call, call))
    ids = [one.id for one in answer.tool_calls]
    assert len({*ids, "c1", "c2"}) == 4 and all(ids) and answer.tool_calls[0].args == {}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        {"candidates": 3},
        {},
        {"candidates": []},
        says({"text": "x"}, finish=None),
        {"error": {"code": 500, "message": "broke"}},
        says({"executableCode": {"code": "x"}}),
        says({"inlineData": {"mimeType": "image/png", "data": "x"}}),
        says({"functionCall": {"name": ""}}),
        says({"functionCall": {"name": "n" * 200}}),
        says({"functionCall": {"name": "re\u202efund"}}),
        says({"functionCall": {"name": "ping", "args": [1]}}),
        says({"functionCall": {"name": "ping", "willContinue": True}}),
        says(*[CALL] * 65),
        says({"text": "x"}, finish="MALFORMED_FUNCTION_CALL"),
        says(finish="OTHER"),
        {"candidates": [says()["candidates"][0], {"index": 1, "finishReason": "STOP"}]},
    ],
)
def test_what_is_no_answer_is_an_error(body: Any) -> None:
    with pytest.raises(ModelFailed) as caught:
        read(body)
    assert len(str(caught.value)) < 1_000


def test_arguments_that_say_a_thing_twice_are_an_error() -> None:
    raw = json.dumps(says(CALL)).replace('{"q": 1}', '{"q": 1, "q": 2}').encode()
    with pytest.raises(ModelFailed, match="twice"):
        read(raw)


def test_counts_that_lie_are_not_believed() -> None:
    for odd in (-1, limits.MODEL_TOKENS_SAID_MAX + 1):
        answer = read(says({"text": "x"}, usageMetadata={"promptTokenCount": odd}))
        assert answer.estimated and 0 < answer.tokens_in < 10_000


def test_an_answer_without_end_is_an_error() -> None:
    asked = parse_request(ASKED)
    reader = GEMINI.reader(asked, "m", names_of(asked))
    body = json.dumps(says({"text": "x" * limits.MIB}, finish=None)).encode()
    with pytest.raises(ModelFailed, match="larger"):
        for _ in range(5):
            reader.feed(b"data: " + body + b"\n\n")


async def test_a_stream_that_is_cut_short_is_an_error() -> None:
    async with Server([says({"text": "go"}, finish=None)]) as server:
        config = ModelConfig(provider="gemini", model="g", base_url=server.address)
        made = provider(config, "", KEY, Quick())
        heard = asyncio.Queue[Delta]()
        with pytest.raises(ModelFailed, match="can't be read"):
            await made.answer(parse_request(ASKED), "r/0", None, heard.put)
        await made.close()
    assert heard.qsize() == 1


# --- behind a door ---------------------------------------------------------------------------

LOOK = {"functionCall": {"name": "look", "args": {"id": 7}}, "thoughtSignature": "c2ln"}


@contextlib.asynccontextmanager
async def behind(folder: Path, *turns: Any) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    """A run's doors before a Gemini that answers so."""
    async with Server(*turns) as server:
        config = ModelConfig(provider="gemini", model="gemini-3-x", base_url=server.address)
        manifest = AgentManifest(name="clerk", models={"default": config})
        async with (
            doors(folder, manifest=manifest) as d,
            aiohttp.ClientSession(f"http://127.0.0.1:{d.port}") as session,
        ):
            yield server, session


async def test_a_chat_client_has_a_tool_round_trip_with_it(tmp_path: Path) -> None:
    first, second = says({"text": "let me see"}, LOOK), says({"text": "it is there"})
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    hello = {"role": "user", "content": "where?"}
    async with behind(tmp_path, first, [second]) as (server, session):
        body: dict[str, Any] = {"model": "x", "messages": [hello], "tools": [tool]}
        async with session.post("/v1/chat/completions", json=body) as response:
            said = (await response.json())["choices"][0]["message"]
        (call,) = said["tool_calls"]
        assert said["content"] == "let me see" and call["function"]["arguments"] == '{"id":7}'
        result = {"role": "tool", "tool_call_id": call["id"], "content": "shelf 3"}
        body |= {"messages": [hello, said, result], "stream": True}
        async with session.post("/v1/chat/completions", json=body) as response:
            assert "it is there" in await response.text()
    (user, model, after) = server.asked[1]["contents"]
    assert user["parts"] == [{"text": "where?"}] and model["parts"][0] == {"text": "let me see"}
    asked, came = model["parts"][1]["functionCall"], after["parts"][0]["functionResponse"]
    assert asked["args"] == {"id": 7} and came["response"] == {"output": "shelf 3"}
    assert asked["id"] == came["id"] == call["id"] and asked["name"] == came["name"] == "look"


async def test_a_messages_client_hears_its_calls_and_that_a_filter_held_it(tmp_path: Path) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
    tool = {"name": "look", "input_schema": {"type": "object"}}
    body = {
        "model": "x",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "where?"}],
        "tools": [tool],
    }
    async with behind(tmp_path, says(LOOK), blocked) as (_, session):
        async with session.post("/v1/messages", json=body) as response:
            found = await response.json()
        assert found["stop_reason"] == "tool_use" and found["content"][0]["input"] == {"id": 7}
        async with session.post("/v1/messages", json={**body, "tools": []}) as response:
            assert (await response.json())["stop_reason"] == "refusal"
