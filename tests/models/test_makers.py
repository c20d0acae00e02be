"""Providers that speak another maker's dialect: Ollama, vLLM, OpenRouter, and their quirks."""

from __future__ import annotations

from typing import Any

import pytest
from model_servers import END, Quick, Server, chat, piece

from ring0.errors import ManifestInvalid, ModelFailed
from ring0.models import (
    OVER_HTTP,
    Delta,
    ModelAnswer,
    parse_request,
    price_of,
    prices,
    provider,
)
from ring0.models.dialects import at_provider
from ring0.models.http import HttpProvider
from ring0.models.makers import Maker
from ring0.types import ModelConfig

ASKED = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 64}


async def streamed(*pieces: Any) -> tuple[str, ModelAnswer]:
    """What was heard of it, and the answer."""
    heard: list[str] = []

    async def sink(delta: Delta) -> None:
        heard.append(delta.text)

    async with Server(list(pieces)) as server:
        config = ModelConfig(provider="vllm", model="m", base_url=server.address)
        made = provider(config, "", "", Quick())
        try:
            return "".join(heard), await made.answer(parse_request(ASKED), "r/0", None, sink)
        finally:
            await made.close()


@pytest.mark.parametrize("name", sorted(OVER_HTTP))
def test_each_provider_can_be_made_and_speaks_a_dialect_that_there_is(name: str) -> None:
    made = provider(ModelConfig(provider=name, model="m"), "", "", Quick())
    assert OVER_HTTP[name].base_url.split("//")[1] in repr(made)
    assert at_provider(OVER_HTTP[name].dialect).path("m", stream=False).startswith("/")


def test_a_provider_that_there_is_not_is_an_error_that_lists_them() -> None:
    with pytest.raises(ManifestInvalid, match=r"ollama.*vllm"):
        provider(ModelConfig(provider="olama", model="m"), "", "", Quick())


def test_what_runs_here_is_free_and_what_nobody_knows_has_no_price() -> None:
    def price(name: str, model: str, **more: Any) -> prices.Price | None:
        return price_of(ModelConfig(provider=name, model=model, **more))

    assert price("ollama", "qwen3") == prices.FREE == price("vllm", "any")
    assert price("ollama", "qwen3", base_url="https://gpu.example/v1") is None
    assert price("openrouter", "openai/gpt-5-mini") is None
    assert price("openrouter", "gpt-5-mini") is None
    gemini = price("gemini", "gemini-2.5-pro")
    assert gemini is not None and gemini.cost_microusd(1_000_000, 0) == 2_500_000
    assert price("gemini", "gemini-2.5-pro", base_url="https://resold.example/v1") is None


@pytest.mark.parametrize("made", [True, False])
async def test_only_the_maker_of_a_dialect_is_sent_its_newest_fields(made: bool) -> None:
    async with Server(chat()) as server:
        maker = Maker(dialect="chat", base_url=server.address, made=made)
        asked = HttpProvider(ModelConfig(provider="x", model="m"), at_provider("chat"), maker, "",
                             Quick())  # fmt: skip
        await asked.answer(parse_request(ASKED), "r/0")
        await asked.close()
    (body,) = server.asked
    assert ("max_completion_tokens" in body, "store" in body) == (made, made)
    assert ("max_tokens" in body) is not made


async def test_a_stream_that_tells_no_counts_is_estimated() -> None:
    _, answer = await streamed(piece("good "), piece("day"), END)
    assert answer.text == "good day" and answer.estimated and answer.tokens_out == 2


async def test_counts_at_the_end_of_a_stream_are_taken_wherever_they_stand() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 6}
    for last in ({"choices": [], "usage": usage}, {**END, "usage": usage}, {"usage": usage}):
        _, answer = await streamed(piece("x"), END, last)
        assert (answer.tokens_in, answer.tokens_out, answer.estimated) == (5, 6, False)


async def test_an_error_in_the_middle_of_a_stream_breaks_it() -> None:
    with pytest.raises(ModelFailed, match="overloaded"):
        await streamed(piece("x"), {"error": {"code": 502, "message": "overloaded"}, "choices": []})


async def test_calls_that_all_have_the_first_place_stay_apart() -> None:
    def calls(name: str, id_: str, args: str) -> dict[str, Any]:
        function = {"name": name, "arguments": args}
        return piece(tool_calls=[{"index": 0, "id": id_, "function": function}])

    _, answer = await streamed(calls("a", "c1", '{"x":1}'), calls("b", "c2", '{"x":2}'), END)
    assert [(one.id, one.name, one.args) for one in answer.tool_calls] == [
        ("c1", "a", {"x": 1}),
        ("c2", "b", {"x": 2}),
    ]
    # One that comes in pieces is still one, whether its id is said again or not.
    _, answer = await streamed(calls("a", "c1", '{"x"'), calls("", "", ":1"), calls("", "c1", "}"),
                               END)  # fmt: skip
    assert [(one.id, one.args) for one in answer.tool_calls] == [("c1", {"x": 1})]
