"""Models that stand in for one that does not answer: who is asked when, and who pays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kernel_world import World, world
from model_servers import END, Server, chat, piece

from ring0.errors import ManifestInvalid, RunDead
from ring0.kernel.agent import chains
from ring0.kernel.agent.agents import Family
from ring0.kernel.boot import open_kernel
from ring0.kernel.steps.slots import bucket_name
from ring0.models import Delta
from ring0.runtime import Runtime
from ring0.tools.driver import Said
from ring0.types import AgentManifest, Budget, CallKind, CallState, ModelConfig, Outcome, Request

ASKED = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
RICH = Budget(cost_microusd=1_000_000)


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ring0.models.http.RETRY_DELAY_S_FIRST", 0.001)


def at(server: Server, *fallback: str, price: int = 1, **more: Any) -> ModelConfig:
    """A model there; a token costs so many micro-dollars."""
    fields: dict[str, Any] = {
        "provider": "openai",
        "model": "m",
        "base_url": server.address,
        "fallback": fallback,
        "price_in_microusd_per_mtok": price * 1_000_000,
        "price_out_microusd_per_mtok": price * 1_000_000,
        **more,
    }
    return ModelConfig(**fields)


def agent(budget: Budget = RICH, **models: ModelConfig) -> AgentManifest:
    return AgentManifest(name="clerk", budget=budget, models=models)


async def ask(w: World, args: Any = ASKED, *, name: str = "default") -> Outcome:
    return await w.call(name, args, kind=CallKind.MODEL)


async def test_the_next_is_asked_and_the_record_says_who_answered_and_why(tmp_path: Path) -> None:
    async with Server(400) as one, Server(chat("from two", "m-2")) as two:
        manifest = agent(default=at(one, "other", price=9), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await ask(w)
            assert outcome.state is CallState.OK and outcome.value["text"] == "from two"
            assert outcome.value["answered_by"] == "other" and outcome.value["model"] == "m-2"
            (failed,) = outcome.value["unanswered"]
            assert failed["model"] == "default" and "400" in failed["why"]
            (call,) = await w.calls()
            # The policy judged the name that was asked for; who answered is paid at its own price.
            assert call.name == "default" and call.cost_microusd == 18
            assert (await w.evidence(call))["question"]["resource"] == "default"
            assert (await w.row()).cost_used_microusd == 18
    assert len(one.asked) == len(two.asked) == 1
    assert one.headers[0]["Idempotency-Key"] != two.headers[0]["Idempotency-Key"]


async def test_who_answers_at_once_is_the_only_one_that_is_asked(tmp_path: Path) -> None:
    async with Server(chat()) as one, Server(chat()) as two:
        manifest = agent(default=at(one, "other"), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await ask(w)
            assert not {"answered_by", "unanswered"} & set(outcome.value)
    assert not two.asked


async def test_what_is_reserved_covers_the_dearest_of_the_chain(tmp_path: Path) -> None:
    async with Server(400) as one, Server(chat()) as two:
        manifest = agent(
            Budget(cost_microusd=2_000), default=at(one, "other"), other=at(two, price=50)
        )
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await ask(w)
            assert outcome.state is CallState.REFUSED and outcome.error is not None
            assert outcome.error["code"] == "limit_reached"
    assert not one.asked and not two.asked


async def test_a_price_that_nobody_knows_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    async with Server(chat()) as one:
        unknown = ModelConfig(provider="openrouter", model="x/y")
        manifest = agent(default=at(one, "other"), other=unknown)
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await ask(w)
            assert outcome.error is not None and "x/y" in outcome.error["what"]
    assert not one.asked


async def test_what_may_be_paid_for_twice_is_reserved_twice_along_the_chain(tmp_path: Path) -> None:
    """Three attempts at the first may each have been paid for; so may the second model's."""
    async with Server(500) as one, Server(chat()) as two:
        manifest = agent(default=at(one, "other"), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            assert (await ask(w)).value["answered_by"] == "other"
            (call,) = await w.calls()
            reserved, rest = divmod(call.cost_microusd - 18, 3)
            assert reserved > 100 and rest == 0
            assert (await w.row()).cost_used_microusd == call.cost_microusd
    assert len(one.asked) == 3


async def test_retries_and_fallbacks_stay_within_the_budget(tmp_path: Path) -> None:
    async with Server(500) as one, Server(chat()) as two:
        manifest = agent(Budget(cost_microusd=600), default=at(one, "other"), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await ask(w)
            assert outcome.error is not None and outcome.error["code"] == "limit_reached"
            assert (await w.row()).cost_used_microusd <= 600
    assert len(one.asked) == 3 and not two.asked


async def test_where_none_answers_the_error_names_each_and_nothing_is_spent(tmp_path: Path) -> None:
    async with Server(400) as one, Server(404) as two:
        manifest = agent(default=at(one, "other"), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await ask(w)
            assert outcome.state is CallState.ERROR and outcome.error is not None
            why = outcome.error["why"]
            assert "default: " in why and "other: " in why and "400" in why and "404" in why
            assert (await w.row()).cost_used_microusd == 0


async def test_after_a_piece_of_a_stream_no_other_is_asked(tmp_path: Path) -> None:
    async with Server([piece("half of"), None]) as one, Server([piece("all"), END]) as two:
        manifest = agent(default=at(one, "other"), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            heard, outcome = await _streamed(w)
            assert heard == ["half of"] and outcome.state is CallState.ERROR
    assert not two.asked


async def test_before_the_first_piece_the_next_is_asked_and_streams(tmp_path: Path) -> None:
    async with Server([None]) as one, Server([piece("a"), piece("ll"), END]) as two:
        manifest = agent(default=at(one, "other"), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            heard, outcome = await _streamed(w)
            assert heard == ["a", "ll"] and outcome.value["answered_by"] == "other"


async def _streamed(w: World) -> tuple[list[str], Outcome]:
    heard: list[str] = []

    async def sink(delta: Delta) -> None:
        heard.append(delta.text)

    request = Request(kind=CallKind.MODEL, name="default", args=ASKED, path="0", counter=1)
    return heard, await w.kernel.gate.call(w.run.handle, request, said=Said(sink=sink))


SOUND = {
    "messages": [
        {
            "role": "user",
            "content": "",
            "parts": [{"kind": "audio", "media_type": "audio/wav", "data": "aGk="}],
        }
    ],
    "max_tokens": 100,
}


async def test_what_we_refuse_to_ask_is_asked_of_nobody_else(tmp_path: Path) -> None:
    async with Server(chat()) as one, Server(chat()) as two:
        manifest = agent(default=at(one, "other", provider="anthropic"), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await ask(w, SOUND)
            assert outcome.error is not None and "audio" in outcome.error["what"]
            assert outcome.error["code"] == "call_invalid"
            assert (await w.row()).cost_used_microusd == 0
    assert not one.asked and not two.asked


async def test_who_has_no_place_for_a_part_is_passed_over_along_the_chain(tmp_path: Path) -> None:
    async with Server(400) as one, Server(chat()) as two, Server(chat("three")) as three:
        manifest = agent(
            default=at(one, "second", "third"),
            second=at(two, provider="anthropic"),
            third=at(three),
        )
        async with world(tmp_path / "home", manifest=manifest) as w:
            outcome = await ask(w, SOUND)
            assert outcome.value["answered_by"] == "third"
            assert "audio" in outcome.value["unanswered"][1]["why"]
    assert not two.asked


# --- turns -----------------------------------------------------------------------------------


def in_use(w: World, server: Server) -> int:
    name = f"model:openai@{server.address.split('/')[2]}"
    return next((one.in_use for one in w.kernel.load().resources if one.name == name), 0)


async def test_the_chain_has_the_slot_of_whom_it_asks_and_of_nobody_else(tmp_path: Path) -> None:
    async with Server(400) as one, Server(chat()) as two:
        one.hold, two.hold = asyncio.Event(), asyncio.Event()
        manifest = agent(default=at(one, "other"), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w:
            asking = asyncio.create_task(ask(w))
            await one.here.wait()
            assert (in_use(w, one), in_use(w, two)) == (1, 0)
            one.hold.set()
            await two.here.wait()
            assert (in_use(w, one), in_use(w, two)) == (0, 1)
            two.hold.set()
            assert (await asking).value["answered_by"] == "other"
            assert (in_use(w, one), in_use(w, two)) == (0, 0)
            assert not any(one.in_use for one in w.kernel.load().resources)


async def test_who_waits_for_a_slot_of_the_next_holds_none_of_the_first(tmp_path: Path) -> None:
    async with Server(400) as one, Server(chat()) as two:
        home = tmp_path / "home"
        home.mkdir()
        host = two.address.split("/")[2]
        (home / "ring0.toml").write_text(f'[scheduler.models."openai@{host}"]\nat_once = 1\n')
        manifest = agent(default=at(one, "other"), other=at(two))
        async with world(home, manifest=manifest) as w:
            two.hold = asyncio.Event()
            first = asyncio.create_task(ask(w, name="other"))
            await two.here.wait()
            second = asyncio.create_task(ask(w))
            await one.here.wait()
            await _until(lambda: w.kernel.load().queued == 1)
            assert (in_use(w, one), in_use(w, two)) == (0, 1)
            two.hold.set()
            assert (await second).value["answered_by"] == "other"
            assert (await first).state is CallState.OK


async def test_the_next_is_not_asked_before_its_bucket_has_room(tmp_path: Path) -> None:
    async with Server(400) as one, Server(chat()) as two:
        other = at(two, requests_per_min=600, tokens_per_min=600_000)
        manifest = agent(default=at(one, "other"), other=other)
        async with world(tmp_path / "home", manifest=manifest) as w:
            w.kernel.admission.slow_down(bucket_name(other), 0.5)
            began = asyncio.get_running_loop().time()
            assert (await ask(w)).value["answered_by"] == "other"
            assert asyncio.get_running_loop().time() - began >= 0.45
            assert len(one.asked) == len(two.asked) == 1


async def test_what_a_model_did_not_answer_counts_not_to_its_tokens_a_minute(
    tmp_path: Path,
) -> None:
    async with Server(400) as one, Server(chat()) as two:
        manifest = agent(default=at(one, "other", tokens_per_min=60), other=at(two))
        async with world(tmp_path / "home", manifest=manifest) as w, asyncio.timeout(3):
            for _ in range(3):  # Each would empty its bucket for many seconds.
                assert (await ask(w)).value["answered_by"] == "other"


async def test_a_run_that_is_killed_on_the_way_asks_nobody_else(tmp_path: Path) -> None:
    async with Server(400) as one, Server(chat()) as two:
        other = at(two, requests_per_min=600)
        manifest = agent(default=at(one, "other"), other=other)
        async with world(tmp_path / "home", manifest=manifest) as w:
            w.kernel.admission.slow_down(bucket_name(other), 0.5)
            asking = asyncio.create_task(ask(w))
            await _until(lambda: w.kernel.load().queued == 1)
            await w.kernel.kill("run", w.run.id, by="ada")
            with pytest.raises(RunDead):
                await asking
            await asyncio.sleep(0.6)
            assert not two.asked and w.kernel.load().queued == 0
            assert not any(one.in_use for one in w.kernel.load().resources)


async def _until(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


# --- the configuration -----------------------------------------------------------------------


def named(**fallback: tuple[str, ...]) -> dict[str, ModelConfig]:
    return {
        name: ModelConfig(provider="openai", model="m", fallback=names)
        for name, names in fallback.items()
    }


def chain(models: dict[str, ModelConfig], name: str = "a") -> list[str]:
    return [one for one, _ in chains.fallbacks(name, models[name], models.get)]


def test_each_model_of_a_chain_is_asked_once_after_its_own_fallbacks() -> None:
    assert chain(named(a=("b", "d"), b=("c",), c=(), d=("c",))) == ["b", "c", "d"]
    assert chain(named(a=())) == []


@pytest.mark.parametrize(
    "models",
    [
        named(a=("a",)),
        named(a=("b",), b=("a",)),
        named(a=("b",), b=("c",), c=("b",)),
        named(a=("b", "c"), b=("c",), c=("b",)),
    ],
)
def test_models_that_stand_in_for_each_other_in_a_circle_are_refused(models: Any) -> None:
    with pytest.raises(ManifestInvalid, match="falls back"):
        chain(models)


def test_what_stands_in_has_to_be_named_and_there_are_not_many() -> None:
    with pytest.raises(ManifestInvalid, match="'b', which is not there"):
        chain(named(a=("b",)))
    many = {f"m{n}": () for n in range(20)}
    with pytest.raises(ManifestInvalid, match="more than 7"):
        chain(named(a=tuple(many), **many))


async def test_the_environments_model_stands_in_for_nobody(tmp_path: Path) -> None:
    """What stands in is the word of a file: a variable's model could be anybody's."""
    manifest = agent(mine=ModelConfig(provider="openai", model="m", fallback=("default",)))
    environment = {"OPENAI_API_KEY": "sk-0123456789abcdef"}
    async with world(tmp_path / "home", manifest=manifest, environment=environment) as w:
        with pytest.raises(ManifestInvalid, match="'default', which is not there"):
            w.kernel.providers.fallbacks(manifest, "mine")


async def test_a_kernel_does_not_start_with_a_circle_in_its_configuration(tmp_path: Path) -> None:
    model = 'provider = "openai"\nmodel = "m"\n'
    (tmp_path / "ring0.toml").write_text(
        f'[models.a]\n{model}fallback = ["b"]\n[models.b]\n{model}fallback = ["a"]\n'
    )
    with pytest.raises(ManifestInvalid, match="falls back"):
        await open_kernel(tmp_path, Runtime(), {})


async def test_a_run_does_not_start_where_what_stands_in_can_not_be_asked(tmp_path: Path) -> None:
    async with Server(chat()) as one, world(tmp_path / "home", start=False) as w:
        for other in (
            at(one, provider="olama"),
            at(one, "default"),
            at(one, base_url="ftp://x.example"),
        ):
            family = Family(manifest=agent(default=at(one, "other"), other=other))
            with pytest.raises(ManifestInvalid):
                w.kernel.providers.check(family)
        w.kernel.providers.check(Family(manifest=agent(default=at(one, "other"), other=at(one))))
