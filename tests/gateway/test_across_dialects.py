"""A client of one dialect before a provider of another: what is said survives the way and back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from gateway_world import doors
from model_doors import events
from test_messages_door import content_of

from ring0.types import AgentManifest, ModelConfig

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TOOL = {"name": "weather", "description": "", "input_schema": SCHEMA}
ARGS = '{"city":"Oslo"}'
USAGE = {"prompt_tokens": 5, "completion_tokens": 6}

Reply = Callable[[dict[str, Any]], bytes | dict[str, Any]]


@contextlib.asynccontextmanager
async def before(folder: Path, provider: str, reply: Reply) -> AsyncIterator[Any]:
    """A run's doors before a real server of that provider's dialect, and what it was sent."""
    seen: list[dict[str, Any]] = []

    async def on(request: web.Request) -> web.Response:
        seen.append(await request.json())
        found = reply(seen[-1])
        if isinstance(found, bytes):
            return web.Response(body=found, content_type="text/event-stream")
        return web.json_response(found)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", on)
    app.router.add_post("/v1/messages", on)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    model = ModelConfig(provider=provider, model="m", base_url=url)
    folder.mkdir(exist_ok=True)
    try:
        manifest = AgentManifest(name="clerk", models={"default": model})
        async with (
            doors(folder, manifest=manifest) as d,
            aiohttp.ClientSession(f"http://127.0.0.1:{d.port}") as session,
        ):
            yield session, seen
    finally:
        await runner.cleanup()


async def post(session: aiohttp.ClientSession, path: str, body: Any) -> Any:
    async with session.post(path, json=body) as response:
        raw = await response.read()
        assert response.status == 200, raw
        return events(raw) if body.get("stream") else json.loads(raw)


# --- messages before chat --------------------------------------------------------------------


def chat_reply(body: dict[str, Any]) -> bytes | dict[str, Any]:
    """A call first, then a text."""
    over = body["messages"][-1]["role"] == "tool"
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGS}}
    said = {"content": "rain"} if over else {"content": "Let me see.", "tool_calls": [call]}
    finish = "stop" if over else "tool_calls"
    if not body["stream"]:
        choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish}
        return {"model": "m", "choices": [choice], "usage": USAGE}
    calls = [{"index": 0, **one} for one in said.get("tool_calls", [])]
    pieces: list[dict[str, Any]] = [{"content": piece + " "} for piece in said["content"].split()]
    pieces += [{"tool_calls": calls}] if calls else []
    chunks = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": USAGE}]
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks) + DONE


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_messages_client_before_chat_makes_a_tool_round_trip(
    tmp_path: Path, stream: bool
) -> None:
    body = {
        "model": "x",
        "max_tokens": 50,
        "system": [{"type": "text", "text": "be"}],
        "messages": [{"role": "user", "content": "weather?"}],
        "tools": [TOOL],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "stop_sequences": ["X"],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "stream": stream,
    }
    async with before(tmp_path, "openai", chat_reply) as (session, seen):
        found = await post(session, "/v1/messages", body)
        blocks = content_of(found) if stream else found["content"]
        assert [one["type"] for one in blocks] == ["text", "tool_use"]
        assert blocks[1]["name"] == "weather" and blocks[1]["input"] == {"city": "Oslo"}
        result = {"type": "tool_result", "tool_use_id": blocks[1]["id"], "content": "wet"}
        turns = [{"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
        found = await post(session, "/v1/messages", {**body, "messages": body["messages"] + turns})
        blocks = content_of(found) if stream else found["content"]
        assert blocks[0]["text"].strip() == "rain" and len(blocks) == 1
    first, second = seen
    assert first["messages"][0] == {"role": "system", "content": "be"}
    assert first["tool_choice"] == "required" and first["parallel_tool_calls"] is False
    assert first["stop"] == ["X"] and first["max_tokens"] == 50
    assert first["response_format"]["json_schema"]["schema"] == SCHEMA
    assert [one["role"] for one in second["messages"]] == ["system", "user", "assistant", "tool"]
    assert second["messages"][3] == {"role": "tool", "tool_call_id": "call_1", "content": "wet"}


# --- chat before messages --------------------------------------------------------------------


def messages_reply(body: dict[str, Any]) -> bytes | dict[str, Any]:
    """It thinks, then calls; or says what it has found."""
    last = body["messages"][-1]["content"]
    over = any(block["type"] == "tool_result" for block in last)
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": json.loads(ARGS)}
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    blocks = [{"type": "text", "text": "rain"}] if over else [thought, call]
    reason = "end_turn" if over else "tool_use"
    usage = {"input_tokens": 5, "output_tokens": 6}
    if not body["stream"]:
        return {"type": "message", "content": blocks, "stop_reason": reason, "usage": usage}
    found = [{"type": "message_start", "message": {"model": "m", "usage": usage}}]
    for index, block in enumerate(blocks):
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        found.append({"type": "content_block_stop", "index": index})
    found.append({"type": "message_delta", "delta": {"stop_reason": reason}})
    found.append({"type": "message_stop"})
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in found)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_client_before_messages_makes_a_tool_round_trip(
    tmp_path: Path, stream: bool
) -> None:
    body = {
        "model": "x",
        "messages": [
            {"role": "system", "content": "be"},
            {"role": "user", "content": "weather?"},
        ],
        "tools": [CHAT_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "stop": "X",
        "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}},
        "stream": stream,
    }
    async with before(tmp_path, "anthropic", messages_reply) as (session, seen):
        found = await post(session, "/v1/chat/completions", body)
        call = called(found) if stream else found["choices"][0]["message"]["tool_calls"][0]
        assert call["function"] == {"name": "weather", "arguments": ARGS}
        assert "hm" not in json.dumps(found)  # What it thought, the dialect has no place for.
        turns = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "wet"},
        ]
        found = await post(
            session, "/v1/chat/completions", {**body, "messages": body["messages"] + turns}
        )
        assert "rain" in json.dumps(found)
    first, second = seen
    assert first["system"] == "be" and first["stop_sequences"] == ["X"]
    assert first["tool_choice"] == {"type": "tool", "name": "weather"}
    assert first["output_config"]["format"] == {"type": "json_schema", "schema": SCHEMA}
    assert [one["role"] for one in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][2]["content"][0]["tool_use_id"] == "toolu_1"


def called(found: list[Any]) -> dict[str, Any]:
    for one in found:
        if one != "[DONE]" and (calls := one["choices"][0]["delta"].get("tool_calls")):
            return {key: value for key, value in calls[0].items() if key != "index"}
    raise AssertionError("no call")


# --- messages before messages ----------------------------------------------------------------


async def test_in_its_own_dialect_a_request_goes_on_as_it_came(tmp_path: Path) -> None:
    body = {
        "model": "x",
        "max_tokens": 2_000,
        "system": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "weather?"}]},
            {"role": "system", "content": "now", "output_config": {"effort": "low"}},
            {"role": "user", "content": [{"type": "text", "text": "go on"}]},
        ],
        "tools": [{**TOOL, "eager_input_streaming": True}],
        "thinking": {"type": "adaptive", "display": "summarized"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "stream": False,
    }
    async with before(tmp_path, "anthropic", messages_reply) as (session, seen):
        found = await post(session, "/v1/messages", {**body, "metadata": {"user_id": "u"}})
    assert [one["type"] for one in found["content"]] == ["thinking", "tool_use"]
    assert seen == [{**body, "model": "m"}]
