"""Models behind one interface: `provider()` makes one, `parse_request()` checks what it is asked.

What it costs and whether it may be asked is decided elsewhere.
"""

from __future__ import annotations

from ring0 import errors
from ring0.models.base import (
    Again,
    Message,
    ModelAnswer,
    ModelRequest,
    Provider,
    SlowDown,
    ToolCall,
    ToolOffer,
    parse_request,
)
from ring0.models.prices import Price, price_of
from ring0.runtime import Runtime
from ring0.types import ModelConfig

__all__ = [
    "Again",
    "Message",
    "ModelAnswer",
    "ModelRequest",
    "Price",
    "Provider",
    "SlowDown",
    "ToolCall",
    "ToolOffer",
    "parse_request",
    "price_of",
    "provider",
]


def provider(
    config: ModelConfig,
    folder: str,
    key: str,
    runtime: Runtime,
    slow_down: SlowDown = lambda after_s: None,
) -> Provider:
    """The provider that `config` names. `slow_down` hears when it says not to come for a time.

    folder: where the manifest's relative paths begin. key: empty where there is none. Raises
    `ManifestInvalid` for an unknown provider, a rule file or an address that can't be used.
    """
    if config.provider == "scripted":
        from ring0.models.script import load_script
        from ring0.models.scripted import ScriptedProvider

        return ScriptedProvider(load_script(folder, config.script))
    if config.provider == "openai":
        from ring0.models.openai import OpenAIProvider

        if not config.model:
            raise errors.ManifestInvalid(
                "The provider openai needs a model.", todo='add model = "…" to its configuration'
            )
        return OpenAIProvider(config, key, runtime, slow_down)
    raise errors.ManifestInvalid(
        f"There is no model provider called {config.provider!r}.",
        todo="use scripted or openai",
    )
