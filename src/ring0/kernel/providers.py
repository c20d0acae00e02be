"""Which model an agent means by a name, and the provider that answers for it: one a configuration.

Not here: what a provider says and costs (models/), which slots a call of it takes (slots.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ring0 import models
from ring0.errors import ManifestInvalid
from ring0.identity.vault import secret_name
from ring0.kernel.agent import chains, manifests
from ring0.kernel.agent.agents import Family
from ring0.kernel.agent.manifests import Config
from ring0.kernel.steps import slots
from ring0.models.local import Start
from ring0.runtime import Runtime
from ring0.scheduler.admission import Admission
from ring0.types import AgentManifest, ModelConfig


class Providers:
    """The providers of one kernel, made when they are first asked for."""

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        secret: Callable[[str], str],
        runtime: Runtime,
        admission: Admission,
        start_local: Start,
    ) -> None:
        self._config = config
        self._environment = environment
        self._secret = secret
        self._runtime = runtime
        self._admission = admission
        self._start_local = start_local
        self._made: dict[tuple[str, str, str], models.Provider] = {}
        """By the agent's folder, the configuration and the key: one that is set anew is used from
        the next call on."""

    def config_of(self, manifest: AgentManifest, name: str) -> ModelConfig:
        """What the agent means by that name. Raises ManifestInvalid."""
        found = manifests.model_of(name, manifest, self._config, self._environment)
        if found is None:
            raise ManifestInvalid(
                f"No model is configured under the name {name!r}.",
                why="The agent's manifest, ring0.toml and the environment name none.",
                todo="Add [models.default] to agent.toml or ring0.toml, or set"
                " OPENAI_API_KEY (and OPENAI_BASE_URL), or ANTHROPIC_API_KEY.",
            )
        return found

    def fallbacks(self, manifest: AgentManifest, name: str) -> tuple[tuple[str, ModelConfig], ...]:
        """Those that are asked where it does not answer, by name. Raises ManifestInvalid."""
        return chains.fallbacks(
            name,
            self.config_of(manifest, name),
            lambda one: manifest.models.get(one) or self._config.models.get(one),
        )

    def of(self, manifest: AgentManifest, name: str) -> models.Provider:
        """Raises ManifestInvalid."""
        config = self.config_of(manifest, name)
        secret = self._key(config)
        key = (manifest.folder, msgspec.json.encode(config).decode(), secret)
        if key not in self._made:
            bucket = slots.bucket_name(config)
            self._made[key] = models.provider(
                config,
                manifest.folder,
                secret,
                self._runtime,
                slow_down=lambda after_s: self._admission.slow_down(bucket, after_s),
                start_local=self._start_local,
            )
        return self._made[key]

    def _key(self, config: ModelConfig) -> str:
        """Raises ManifestInvalid where the one that it names is not there."""
        if not config.key:
            maker = models.OVER_HTTP.get(config.provider)
            return self._secret(maker.key) if maker is not None and maker.key else ""
        if secret := self._secret(secret_name(config.key)):
            return secret
        raise ManifestInvalid(
            f"The model {config.model!r} names the key {config.key[:60]!r}, which is not set.",
            todo=f"`ring0 secret set {config.key[:60]}`, or set it in the environment.",
        )

    def check(self, family: Family) -> None:
        """A model that can't be asked says so before the run starts. Raises ManifestInvalid."""
        for name in family.manifest.models:
            self.of(family.manifest, name)
            for other, _ in self.fallbacks(family.manifest, name):
                self.of(family.manifest, other)

    async def close(self) -> None:
        for provider in self._made.values():
            await provider.close()
