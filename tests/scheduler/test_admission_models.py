"""Models' slots and buckets: what the operator sets holds for every agent, and a provider that says
not to come is left alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kernel_world import World, world

from ring0.kernel.agent.manifests import read_config
from ring0.kernel.steps import slots
from ring0.models import parse_request, provider
from ring0.runtime import Runtime
from ring0.types import Budget, CallKind, CallState, ModelConfig

OPERATORS = """
[scheduler.models.openai]
at_once = 5
[scheduler.models."openai/gpt-5"]
at_once = 2
[models.default]
provider = "openai"
model = "gpt-5"
requests_per_min = 60
tokens_per_min = 9000
[models.again]
provider = "openai"
model = "gpt-5"
requests_per_min = 30
"""


def made(folder: Path, text: str = OPERATORS) -> tuple[slots.ModelSlots, Any]:
    (folder / "ring0.toml").write_text(text)
    config = read_config(folder)
    admission = slots.admission(config, Runtime())
    return slots.ModelSlots(config, admission), admission


def test_a_call_of_a_model_takes_its_providers_slot_and_the_models_own(tmp_path: Path) -> None:
    needs, admission = made(tmp_path)
    found, bucket = needs.of(ModelConfig(provider="openai", model="gpt-5"))
    assert found == ("model:openai", "model:openai/gpt-5") and bucket == "openai/gpt-5"
    found, _ = needs.of(ModelConfig(provider="openai", model="other"))
    assert found == ("model:openai",)
    assert admission._queue._sizes["model:openai"] == 5
    assert admission._queue._sizes["model:openai/gpt-5"] == 2


def test_another_address_is_another_provider(tmp_path: Path) -> None:
    needs, _ = made(tmp_path)
    local = ModelConfig(provider="openai", model="gpt-5", base_url="http://localhost:8000/v1")
    found, bucket = needs.of(local)
    assert found[0] == "model:openai@localhost:8000" and bucket != "openai/gpt-5"


def test_of_two_rates_for_one_model_the_stricter_holds_and_an_agent_loosens_neither(
    tmp_path: Path,
) -> None:
    needs, admission = made(tmp_path)
    _, bucket = needs.of(
        ModelConfig(provider="openai", model="gpt-5", requests_per_min=10**6, tokens_per_min=10**9)
    )
    kept = admission._queue.buckets[bucket]
    assert kept._requests.per_min == 30 and kept._tokens.per_min == 9_000


def test_an_agents_own_rate_holds_where_the_operator_says_nothing(tmp_path: Path) -> None:
    needs, admission = made(tmp_path, "")
    _, bucket = needs.of(ModelConfig(provider="openai", model="m", requests_per_min=7))
    assert admission._queue.buckets[bucket]._requests.per_min == 7


class Busy:
    """A provider that says once not to come for a time, then answers."""

    def __init__(self, after: str) -> None:
        self.after = after
        self.asked = 0

    async def __aenter__(self) -> Busy:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.on)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.runner.cleanup()

    async def on(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.asked == 1:
            return web.json_response({}, status=429, headers={"Retry-After": self.after})
        message = {"role": "assistant", "content": "hello"}
        usage = {"prompt_tokens": 11, "completion_tokens": 7}
        choices = [{"message": message, "finish_reason": "stop"}]
        return web.json_response({"choices": choices, "model": "m", "usage": usage})


REQUEST = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


async def test_a_provider_that_refuses_for_now_says_for_how_long() -> None:
    heard: list[float] = []
    async with Busy("0.05") as busy:
        config = ModelConfig(
            provider="openai", model="m", base_url=f"http://127.0.0.1:{busy.port}/v1"
        )
        asked = provider(config, "", "", Runtime(), heard.append)
        await asked.answer(parse_request(REQUEST), "k")
        await asked.close()
    assert heard == [0.05]


def _config(port: int, more: str = "") -> str:
    return (
        f'[models.default]\nprovider = "openai"\nmodel = "m"\n{more}'
        f'base_url = "http://127.0.0.1:{port}/v1"\n'
        "price_in_microusd_per_mtok = 0\nprice_out_microusd_per_mtok = 0\n"
    )


async def _ask(w: World) -> CallState:
    return (await w.call("default", REQUEST, kind=CallKind.MODEL)).state


async def test_calls_of_a_model_wait_until_its_provider_may_be_asked_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with Busy("0.4") as busy:
        (home / "ring0.toml").write_text(_config(busy.port))
        async with world(home) as w:
            first = asyncio.create_task(_ask(w))
            async with asyncio.timeout(5):
                while not busy.asked:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)  # The refusal has come back.
            second = asyncio.create_task(_ask(w))
            await asyncio.sleep(0.05)
            load = w.kernel.load()
            assert load.queued == 1 and busy.asked == 1
            assert await first is await second is CallState.OK


async def test_what_a_model_really_took_is_what_its_bucket_loses(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with Busy("") as busy:
        busy.asked = 1  # It answers.
        (home / "ring0.toml").write_text(_config(busy.port, "tokens_per_min = 60\n"))
        async with world(home) as w:
            assert await _ask(w) is CallState.OK
            (bucket,) = w.kernel.admission._queue.buckets.values()
            assert bucket._tokens is not None
            lost = (bucket._tokens.capacity - bucket._tokens.units) / 60_000_000
            assert 15 < lost <= 18, f"18 tokens were taken, {lost} are counted"
            assert w.kernel.load().queued == 0


async def test_a_call_that_the_budget_refuses_takes_nothing_of_its_providers_bucket(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with Busy("") as busy:
        busy.asked = 1  # It answers.
        rates = "tokens_per_min = 6000\nrequests_per_min = 60\n"
        (home / "ring0.toml").write_text(_config(busy.port, rates))
        async with world(home, budget=Budget(tokens=1_000)) as w:
            huge = {**REQUEST, "max_tokens": 4_000_000}
            for number in range(40):
                asked = {**huge, "max_tokens": huge["max_tokens"] - number}
                refused = await w.call("default", asked, kind=CallKind.MODEL)
                assert refused.error is not None and refused.error["code"] == "limit_reached"
            (bucket,) = w.kernel.admission._queue.buckets.values()
            now_us = w.kernel.runtime.monotonic_us()
            assert bucket.ready_us(1_000, now_us) == now_us, "others wait for what was never asked"
            assert await _ask(w) is CallState.OK


@pytest.mark.parametrize(
    ("request_bytes", "answer", "tokens"),
    [(0, 0, 0), (0, 7, 7), (1, 0, 1), (4, 0, 1), (5, 0, 2), (4_001, 100, 1_101)],
)
def test_a_bucket_takes_a_token_for_each_four_bytes_begun_and_all_of_the_answer(
    request_bytes: int, answer: int, tokens: int
) -> None:
    assert slots.bucket_tokens(request_bytes, answer) == tokens
