"""`model = "*"`: the operator lets clients say which model of a provider they mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from gateway_world import doors
from kernel_world import World, world
from model_doors import Model, said
from model_servers import Server, chat

from ring0.errors import ManifestInvalid
from ring0.kernel.agent.declared import _within_its_folder
from ring0.kernel.agent.manifests import Config
from ring0.kernel.steps.slots import ModelSlots, admission
from ring0.runtime import Runtime
from ring0.types import AgentManifest, Budget, CallKind, ModelConfig

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
SECRET = "tok-5f1e9a7c3b"


class Door:
    """The chat door of a run."""

    def __init__(self, w: World, session: aiohttp.ClientSession) -> None:
        self.w = w
        self.session = session

    async def ask(self, **more: Any) -> tuple[int, Any]:
        async with self.session.post("/v1/chat/completions", json={**HELLO, **more}) as response:
            return response.status, await response.json()


@asynccontextmanager
async def door(folder: Path, config: ModelConfig, **fields: Any) -> AsyncIterator[Door]:
    folder.mkdir(exist_ok=True)
    budget = Budget(cost_microusd=1_000_000)
    manifest = AgentManifest(name="clerk", models={"default": config}, budget=budget)
    async with (
        doors(folder, manifest=manifest, **fields) as d,
        aiohttp.ClientSession(f"http://127.0.0.1:{d.port}") as session,
    ):
        yield Door(d.w, session)


def anything(server: Server | None = None, **more: Any) -> ModelConfig:
    address = server.address if server else ""
    return ModelConfig(provider="openai", model="*", base_url=address, **more)


async def test_the_clients_own_name_goes_to_the_provider_and_on_record(tmp_path: Path) -> None:
    async with Server(chat()) as server, door(tmp_path, anything(server)) as d:
        for name in ("gpt-5-mini", "meta/llama-4:free"):
            status, _ = await d.ask(model=name)
            assert status == 200 and server.asked[-1]["model"] == name
        first, _ = await d.w.calls()
        assert first.name == "default"
        args = msgspec.json.decode(await d.w.store.blob(first.args))
        assert args["model"] == "gpt-5-mini"
        # Hostile names would make providers, each with its connections, without end.
        assert len(d.w.kernel.providers._made) == 1


async def test_where_the_operator_names_a_model_the_clients_name_changes_nothing(
    tmp_path: Path,
) -> None:
    async with Server(chat()) as server:
        config = ModelConfig(provider="openai", model="m", base_url=server.address)
        async with door(tmp_path, config) as d:
            assert (await d.ask(model="gpt-9-dear"))[0] == 200
            assert server.asked[0]["model"] == "m"


async def test_the_price_is_that_of_the_name_and_one_that_nobody_knows_is_refused(
    tmp_path: Path,
) -> None:
    async with door(tmp_path, anything()) as d:
        driver: Any = d.w.kernel.gate.kinds[CallKind.MODEL].driver
        model = Model(said("a", tokens_in=1_000, tokens_out=100), said("b", tokens_in=1_000))
        driver._ports.provider = lambda run, name: model
        assert (await d.ask(model="gpt-5-mini"))[0] == 200
        (call,) = await d.w.calls()
        assert call.cost_microusd == 250 + 200
        status, body = await d.ask(model="gpt-5-mini-but-new")
        assert status == 429 and "gpt-5-mini-but-new" in body["error"]["message"]
        assert len(model.asked) == 1


@pytest.mark.parametrize(
    "name",
    ["", " ", "*", "a b", "a\nb", "-x", "ü", "a?key=b", "x" * 129, SECRET, f"a-{SECRET}"],
)
async def test_what_is_no_name_is_asked_for_nowhere(tmp_path: Path, name: str) -> None:
    environment = {"OTHER_API_KEY": SECRET}
    async with (
        Server(chat()) as server,
        door(tmp_path, anything(server), environment=environment) as d,
    ):
        status, body = await d.ask(model=name)
        assert status == 422 and SECRET not in str(body), body
        assert not server.asked
        await d.w.forget()
        assert SECRET.encode() not in d.w.on_disk()


async def test_a_call_that_comes_through_no_model_door_has_no_such_name(tmp_path: Path) -> None:
    async with Server(chat()) as server:
        manifest = AgentManifest(name="clerk", models={"default": anything(server)})
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await w.call("default", HELLO, kind=CallKind.MODEL)
            assert outcome.error is not None and "model door" in outcome.error["todo"]
            outcome = await w.call("default", {**HELLO, "model": "x"}, kind=CallKind.MODEL)
            assert outcome.error is not None and "call's name" in outcome.error["why"]
    assert not server.asked


def test_all_names_count_together_at_the_provider() -> None:
    runtime = Runtime()
    config = msgspec.convert({"scheduler": {"models": {"openai/dear": {"at_once": 1}}}}, Config)
    slots = ModelSlots(config, admission(config, runtime))
    any_model = anything(requests_per_min=60)
    plain, dear = slots.of(any_model, "plain"), slots.of(any_model, "dear")
    assert plain[1] == dear[1] == "openai/*"
    assert plain[0] == ("model:openai",) and dear[0] == ("model:openai", "model:openai/dear")


def test_code_that_speaks_for_itself_does_not_say_so() -> None:
    manifest = AgentManifest(name="a", models={"default": anything()})
    with pytest.raises(ManifestInvalid, match="any model"):
        _within_its_folder(manifest, Path("/"))
