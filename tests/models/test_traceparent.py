"""A provider is told of the span that it is asked in, as a header beside the question."""

from __future__ import annotations

from model_servers import Server

from ring0.models import parse_request, provider
from ring0.runtime import Runtime
from ring0.types import ModelConfig

OURS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ANSWER = {
    "model": "m",
    "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}


async def test_the_span_goes_along_as_a_header_and_not_in_the_question() -> None:
    from msgspec.structs import replace

    async with Server(ANSWER) as server:
        config = ModelConfig(provider="openai", model="m", base_url=server.address)
        made = provider(config, "", "sk-test-9f8e7d6c5b4a39281706", Runtime())
        request = parse_request({"messages": [{"role": "user", "content": "hi"}]})
        await made.answer(replace(request, traceparent=OURS), "r-1/0/1")
        await made.answer(request, "r-1/0/2")
        await made.close()
    with_it, without = ({k.lower(): v for k, v in h.items()} for h in server.headers)
    assert with_it["traceparent"] == OURS and "traceparent" not in without
    assert server.asked[0] == server.asked[1]
