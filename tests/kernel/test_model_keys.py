"""Which key goes to which provider of models."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ring0.errors import ManifestInvalid
from ring0.kernel.agent import manifests
from ring0.kernel.agent.declared import _within_its_folder
from ring0.kernel.agent.manifests import Config
from ring0.kernel.providers import Providers
from ring0.kernel.steps import slots
from ring0.runtime import Runtime
from ring0.types import AgentManifest, ModelConfig

SECRETS = {"OPENAI_API_KEY": "sk-o", "ANTHROPIC_API_KEY": "sk-a", "OTHER_KEY": "sk-x"}


def keys_of(config: ModelConfig) -> tuple[str, dict[str, str]]:
    """The name of the secret that was asked for, and the headers that it goes with."""
    asked: list[str] = []

    def secret(name: str) -> str:
        asked.append(name)
        return SECRETS.get(name, "")

    made: Any = _provider(config, secret)
    return asked[0], made._headers()


def _provider(config: ModelConfig, secret: Any) -> Any:
    async def make() -> Any:
        runtime = Runtime()
        whole = Config()
        admission = slots.admission(whole, runtime)
        found = Providers(whole, {}, secret, runtime, admission, start_local=None)  # type: ignore[arg-type]
        return found.of(AgentManifest(name="a", models={"default": config}), "default")

    return asyncio.run(make())


@pytest.mark.parametrize(
    ("provider", "name", "value"),
    [
        ("openai", "OPENAI_API_KEY", "Bearer sk-o"),
        ("openai-responses", "OPENAI_API_KEY", "Bearer sk-o"),
        ("anthropic", "ANTHROPIC_API_KEY", "sk-a"),
    ],
)
def test_each_provider_gets_its_own_key(provider: str, name: str, value: str) -> None:
    asked, headers = keys_of(ModelConfig(provider=provider, model="m"))
    assert asked == name and value in headers.values() and len(set(headers.values())) <= 2


def test_a_model_names_another_key_and_gets_that_alone() -> None:
    for named in ("OTHER_KEY", "secret://OTHER_KEY"):
        asked, headers = keys_of(ModelConfig(provider="anthropic", model="m", key=named))
        assert asked == "OTHER_KEY" and headers["x-api-key"] == "sk-x"


def test_a_key_that_is_not_set_is_an_error_that_names_it_and_not_another_key() -> None:
    with pytest.raises(ManifestInvalid, match="GONE"):
        keys_of(ModelConfig(provider="anthropic", model="m", key="GONE"))
    config = Config(models={"default": ModelConfig(provider="anthropic", model="m", key="GONE")})
    with pytest.raises(ManifestInvalid, match="GONE"):
        manifests.secrets_of(config, {}, {})


def test_code_that_speaks_for_itself_names_no_key() -> None:
    model = ModelConfig(provider="anthropic", model="m", key="DB_PASSWORD")
    with pytest.raises(ManifestInvalid, match="DB_PASSWORD"):
        _within_its_folder(AgentManifest(name="a", models={"default": model}), Path("/"))


def test_the_environment_names_a_model_of_whoever_it_has_a_key_of() -> None:
    empty, config = AgentManifest(name="a"), Config()
    one = manifests.model_of("default", empty, config, {"ANTHROPIC_API_KEY": "k"})
    assert one is not None and one.provider == "anthropic" and not one.base_url
    there = {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "https://x.example/"}
    one = manifests.model_of("default", empty, config, there)
    assert one is not None and one.base_url == "https://x.example/v1"
    both = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}
    one = manifests.model_of("default", empty, config, both)
    assert one is not None and one.provider == "openai"
