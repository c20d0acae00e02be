"""A provider that turns a question away: what whoever runs the agent is told to do about it."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from aiohttp import web

from ring0.errors import ModelFailed
from ring0.models import parse_request, provider
from ring0.models.refused import TOLD_ON
from ring0.runtime import Runtime
from ring0.types import ModelConfig

KEY = "sk-test-9f8e7d6c5b4a39281706"
REQUEST = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}


class Still(Runtime):
    """Waits for nothing."""

    async def sleep(self, seconds: float) -> None:
        pass


async def failure(code: int, *, secret: str = KEY, words: str = "no", **fields: Any) -> ModelFailed:
    """What comes of a question to a provider that answers with that status."""

    async def answer(request: web.Request) -> web.Response:
        body = {"error": {"message": words}}
        return web.json_response(body, status=code, headers={"Retry-After": "900"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    config = {"provider": "openai", "model": "m-1", **fields}
    made = provider(
        ModelConfig(base_url=f"http://127.0.0.1:{port}/v1", **config), "", secret, Still()
    )
    try:
        with pytest.raises(ModelFailed) as caught:
            await made.answer(parse_request(REQUEST), "r-1/0/3")
    finally:
        await made.close()
        await runner.cleanup()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.as_dict())
    assert not secret or secret not in shown
    return caught.value


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"provider": "openai"}, "OPENAI_API_KEY"),
        ({"provider": "anthropic"}, "ANTHROPIC_API_KEY"),
        ({"provider": "gemini"}, "GEMINI_API_KEY"),
        ({"provider": "openai", "key": "secret://TEAM_KEY"}, "TEAM_KEY"),
    ],
)
async def test_a_key_that_is_refused_is_named_with_its_provider_and_the_command_that_mends_it(
    fields: dict[str, str], key: str, code: int
) -> None:
    error = await failure(code, words=f"Incorrect API key provided: {KEY}", **fields)
    assert fields["provider"] in error.what and f"the key {key}" in error.what
    assert f"ring0 secret set {key}`" in error.todo and f"{key} in the environment" in error.todo
    assert str(code) in error.why and "Incorrect API key" in error.why and error.unspent


async def test_a_provider_that_calls_a_refused_key_a_bad_question_is_understood() -> None:
    error = await failure(400, provider="gemini", words="API key not valid. Please pass another.")
    assert "refused the key GEMINI_API_KEY" in error.what and error.as_dict()["status"] == "400"


async def test_a_provider_that_was_asked_without_a_key_says_so_and_blames_none() -> None:
    error = await failure(401, secret="")
    assert "without a key" in error.what and "ring0 secret set OPENAI_API_KEY`" in error.todo
    error = await failure(401, secret="", provider="ollama")
    assert "without a key" in error.what and 'key = "NAME"' in error.todo


async def test_a_model_that_there_is_not_is_named() -> None:
    error = await failure(404, words="The model `m-1` does not exist")
    assert "has no model 'm-1'" in error.what and "does not exist" in error.why
    assert "[models]" in error.todo and "base_url" in error.todo


async def test_a_question_that_is_refused_is_told_in_the_providers_words() -> None:
    error = await failure(400, words="max_tokens is too large")
    assert "refused the question (status 400)" in error.what and "too large" in error.why


@pytest.mark.parametrize("code", sorted(TOLD_ON))
async def test_the_status_of_a_refusal_is_on_record(code: int) -> None:
    assert (await failure(code)).as_dict()["status"] == str(code)


@pytest.mark.parametrize("code", [302, 405, 408, 409, 418, 500, 503])
async def test_what_says_nothing_of_the_question_is_a_failure_to_answer(code: int) -> None:
    error = await failure(code)
    assert "did not answer" in error.what and "status" not in error.as_dict()
