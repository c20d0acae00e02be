"""A provider's refusal reaches the client as its own library knows it, and no key with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hostile import CHAT, HELLO, hostile, whole

from ring0.types import CallState

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
ASKS: dict[str, dict[str, Any]] = {
    CHAT: HELLO,
    RESPONSES: {"model": "m", "input": "hello"},
    MESSAGES: {"model": "m", "max_tokens": 9, "messages": HELLO["messages"]},
}
REASONS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


def refusal(status: int, words: str = "no luck") -> bytes:
    return whole({"error": {"message": words}}, f"{status} {REASONS[status]}")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("code", REASONS)
async def test_a_client_sees_the_providers_status_in_its_own_dialect(
    tmp_path: Path, code: int, path: str, stream: bool
) -> None:
    async with hostile(tmp_path, refusal(code)) as h:
        body = {**ASKS[path], "stream": stream}
        async with h.session.post(path, json=body) as response:
            told = json.loads(await response.read())
            assert response.status == code and response.headers["x-should-retry"] == "false"
        assert "no luck" in told["error"]["message"] and len(h.provider.asked) == 1
        if path == MESSAGES:
            kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
            assert told["error"]["type"] == kinds.get(code, "invalid_request_error")
        (call,) = await h.w.calls()
        assert call.state is CallState.ERROR and call.cost_microusd == 0


async def test_a_replay_answers_with_the_same_status_and_asks_nobody(tmp_path: Path) -> None:
    async with hostile(tmp_path, refusal(401)) as h:
        first = await h.post()
        run = h.w.run
        run.records = {call.id: call for call in await h.w.calls()}
        run._occurrences.clear()
        assert await h.post() == first and first[0] == 401 and len(h.provider.asked) == 1


async def test_the_native_door_tells_the_fields_that_it_is_described_with(tmp_path: Path) -> None:
    async with hostile(tmp_path, refusal(401)) as h:
        ask = {"messages": [{"role": "user", "content": "hi"}]}
        call = {"kind": "model", "name": "default", "args": ask, "path": "0", "counter": 1}
        answer = await h.d.ask("/v1/call", call)
        assert set(answer.json["error"]) == {"code", "whose", "what", "why", "todo"}
        assert "without a key" in answer.json["error"]["what"]


async def test_what_a_provider_echoes_of_secrets_is_neither_told_nor_kept(tmp_path: Path) -> None:
    secret = "sk-live-0123456789abcdefghij"  # no real one
    async with hostile(tmp_path, refusal(401, f"Incorrect API key: {secret}")) as h:
        h.w.kernel.gate.secrets.replace({"OPENAI_API_KEY": secret})
        _, body = await h.post()
        (call,) = await h.w.calls()
        kept = msgspec.json.decode(await h.w.store.blob(call.outcome))
        assert secret not in json.dumps([body, kept])
