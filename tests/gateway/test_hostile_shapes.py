"""Questions and answers with anything anywhere: each is taken or refused, and none is a fault."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hostile import ASKED, STREAM, Hostile, hostile, sse, whole

from ring0 import limits

TRIES: Final = 120
ODD: Final[list[Any]] = [
    None, True, False, 0, -1, 1.5, 10**18, 2**63 - 1, "", "x", "\x1b[31m", "\n", "é" * 50, "\u202e",
    [], {}, [None], [[]], [{}], ["x"], {"a": None}, {"type": "text"}, {"type": 7}, {"type": []},
    {"": ""}, {"__entity": {"type": "Run", "id": "x"}}, "data:image/png;base64,AAAA",
    {"type": "tool_use"}, [{"type": "text", "text": "x"}],
]  # fmt: skip
USAGE: Final = {
    "input_tokens": 3,
    "output_tokens": 4,
    "cache_read_input_tokens": 1,
    "cache_creation_input_tokens": 1,
    "cache_creation": {"ephemeral_1h_input_tokens": 1},
    "output_tokens_details": {"thinking_tokens": 1, "reasoning_tokens": 1},
}
LOOK: Final = {"name": "look", "arguments": '{"a":1}'}
ITEMS: Final[list[Any]] = [
    {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "x"}],
        "encrypted_content": "e",
    },
    {
        "type": "message",
        "phase": "final",
        "content": [{"type": "output_text", "text": "hi", "annotations": [{"type": "x"}]}],
    },
    {"type": "function_call", "call_id": "c1", "status": "completed", **LOOK},
    {"type": "web_search_call", "id": "w", "status": "completed", "action": {}},
]
WHOLE: Final[dict[str, Any]] = {
    "chat": {
        "choices": [
            {
                "index": 0,
                "message": {
                    "content": "hi",
                    "refusal": None,
                    "tool_calls": [{"id": "c1", "type": "function", "function": LOOK}],
                },
                "finish_reason": "tool_calls",
                "logprobs": {"content": []},
            }
        ],
        "model": "m",
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    },
    "messages": {
        "type": "message",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "hi", "citations": [{"a": 1}]},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
            {"type": "server_tool_use", "id": "s1", "name": "web", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "stop_details": None,
        "usage": USAGE,
        "context_management": {"applied_edits": []},
    },
    "responses": {
        "status": "completed",
        "model": "m",
        "output": ITEMS,
        "usage": USAGE,
        "incomplete_details": None,
        "error": None,
    },
}


def _begins(index: int, block: Any) -> Any:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _goes_on(index: int, **delta: Any) -> Any:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _ends(index: int) -> Any:
    return {"type": "content_block_stop", "index": index}


def _piece(**delta: Any) -> Any:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "model": "m"}


STREAMS: Final[dict[str, list[Any]]] = {
    "chat": [
        _piece(role="assistant", content="h"),
        _piece(
            content="i",
            tool_calls=[{"index": 0, "id": "c1", "function": {**LOOK, "arguments": "{"}}],
        ),
        _piece(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ],
    "messages": [
        {"type": "message_start", "message": {"model": "m", "usage": USAGE}},
        _begins(0, {"type": "thinking", "thinking": "", "signature": ""}),
        _goes_on(0, type="thinking_delta", thinking="hm"),
        _goes_on(0, type="signature_delta", signature="s"),
        _ends(0),
        _begins(1, {"type": "text", "text": ""}),
        _goes_on(1, type="text_delta", text="hi"),
        _goes_on(1, type="citations_delta", citation={"a": 1}),
        _ends(1),
        _begins(2, {"type": "tool_use", "id": "t1", "name": "look", "input": {}}),
        _goes_on(2, type="input_json_delta", partial_json="{}"),
        _ends(2),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": USAGE},
        {"type": "message_stop"},
    ],
    "responses": [
        {"type": "response.created", "response": {"status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message"}},
        {"type": "response.output_text.delta", "output_index": 1, "delta": "hi"},
        *(
            {"type": "response.output_item.done", "output_index": index, "item": item}
            for index, item in enumerate(ITEMS)
        ),
        {"type": "response.completed", "response": WHOLE["responses"]},
    ],
}


BARE: Final = {"tools": [{"type": "function"}], "include": [[]], "stop": [{}], "input": [{}]}
"""Fields that lack what all others have in them."""


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All that can be put in the place of, by how it is reached."""
    if at:
        yield at
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, one in inner:
        yield from places(one, (*at, key))


def inside(value: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        value = value[key]
    return value


def changed(value: Any, luck: random.Random) -> Any:
    """With one to three things that do not belong there."""
    value = copy.deepcopy(value)
    for _ in range(luck.choice((1, 1, 1, 2, 3))):
        every = list(places(value))
        if not every:
            break
        *before, key = luck.choice(every)
        holder = inside(value, tuple(before))
        match luck.randrange(8):
            case 0:
                holder.pop(key)
            case 1:
                holder[key] = copy.deepcopy(inside(value, luck.choice(every)))
            case 2 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case _:
                holder[key] = copy.deepcopy(luck.choice(ODD))
    return value


def answered(dialect: str, luck: random.Random) -> tuple[bytes, bool]:
    """What the provider sends, and whether that is a stream."""
    if luck.random() < 0.5:
        return whole(changed(WHOLE[dialect], luck)), False
    raw = bytearray(sse(*changed(STREAMS[dialect], luck)))
    for _ in range(luck.choice((0, 0, 3))):
        raw[luck.randrange(len(raw))] = luck.randrange(256)
    return STREAM + bytes(raw) + (sse(b"[DONE]") if dialect == "chat" else b""), True


async def ask(h: Hostile, path: str, body: Any) -> bytes:
    async with asyncio.timeout(20), h.session.post(path, json=body) as response:
        raw = await response.read()
        assert response.status in (200, 400, 403, 422, 429, 502), raw
        if response.content_type == "text/event-stream":
            ends = (b"[DONE]", b"message_stop", b"error", b"response.completed")
            assert any(end in raw for end in (*ends, b"response.incomplete")), raw
        else:
            json.loads(raw)
        return raw


def is_no_fault(raw: bytes) -> bool:
    return b"fault of ring0" not in raw and b"failed to answer" not in raw


@pytest.mark.parametrize("client", ASKED)
@pytest.mark.parametrize("provider", WHOLE)
async def test_an_answer_with_anything_anywhere_is_no_fault(
    tmp_path: Path, provider: str, client: str
) -> None:
    path, body = ASKED[client]
    async with hostile(tmp_path, b"", dialect=provider) as h:
        for number in range(TRIES):
            luck = random.Random(f"answer {provider} {client} {number}")
            sent, stream = answered(provider, luck)
            h.provider.answers = [sent]
            short = {**body, "stream": stream, "temperature": number / TRIES}
            raw = await ask(h, path, {**short, **_only_question(client)})
            assert is_no_fault(raw), (number, sent, raw)
        assert h.w.run.weight.bytes == 0 and not h.w.run.result.done()


@pytest.fixture
def often_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """How often one may be refused is another test's: here nobody waits for it."""
    monkeypatch.setattr(limits, "REFUSALS_BURST_MAX", 10_000)
    monkeypatch.setattr(limits, "TENANT_REFUSALS_BURST_MAX", 10_000)


@pytest.mark.parametrize("client", ASKED)
async def test_a_question_with_anything_anywhere_is_no_fault(
    often_refused: None, tmp_path: Path, client: str
) -> None:
    path, body = ASKED[client]
    async with hostile(tmp_path, whole(WHOLE["chat"])) as h:
        for number in range(4 * TRIES):
            luck = random.Random(f"question {client} {number}")
            sent = {**changed(body, luck), "stream": luck.random() < 0.3}
            raw = await ask(h, path, sent)
            assert is_no_fault(raw), (number, json.dumps(sent), raw)
        for field, value in BARE.items():
            raw = await ask(h, path, {**body, field: value})
            assert is_no_fault(raw), (field, raw)
        assert h.w.run.weight.bytes == 0 and not h.w.run.result.done()


def _only_question(client: str) -> dict[str, Any]:
    """Without what the answer would have to go on from."""
    if client == "responses":
        return {"input": "go"}
    return {"messages": [{"role": "user", "content": "go"}]}
