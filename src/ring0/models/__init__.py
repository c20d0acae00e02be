"""Models behind one interface: `provider()` makes one, `parse_request()` checks what it is asked.

What it costs and whether it may be asked is decided elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ring0 import errors
from ring0.models.base import (
    ANTHROPIC_BASE_URL,
    OPENAI_BASE_URL,
    Again,
    Delta,
    Message,
    ModelAnswer,
    ModelRequest,
    Provider,
    Sink,
    SlowDown,
    ToolCall,
    ToolOffer,
    checked,
)
from ring0.models.base import parse_request as _parse_ours
from ring0.models.prices import Price, price_of
from ring0.runtime import Runtime
from ring0.types import ModelConfig

if TYPE_CHECKING:
    from ring0.models.local import Start

OVER_HTTP: Final = {
    "openai": ("chat", OPENAI_BASE_URL),
    "openai-responses": ("responses", OPENAI_BASE_URL),
    "anthropic": ("messages", ANTHROPIC_BASE_URL),
}
"""By the provider's name: its dialect, and the address of the dialect's own maker."""

__all__ = [
    "OVER_HTTP",
    "Again",
    "Delta",
    "Message",
    "ModelAnswer",
    "ModelRequest",
    "Price",
    "Provider",
    "Sink",
    "SlowDown",
    "ToolCall",
    "ToolOffer",
    "parse_request",
    "price_of",
    "provider",
]


def parse_request(args: dict[str, Any]) -> ModelRequest:
    """A model call's arguments as a request: ours, or `{dialect, body}` as a door of another
    dialect gives them. Raises `CallInvalid`, naming the place."""
    if "dialect" not in args:
        return _parse_ours(args)
    from ring0.models.dialects import dialect

    try:
        spoken, body = dialect(args["dialect"]), args["body"]
    except (KeyError, TypeError):
        raise errors.CallInvalid(
            "The request to the model names no dialect that there is.", todo="Ask at its door."
        ) from None
    return checked(spoken.request(body))


def provider(
    config: ModelConfig,
    folder: str,
    key: str,
    runtime: Runtime,
    slow_down: SlowDown = lambda after_s: None,
    start_local: Start | None = None,
) -> Provider:
    """The provider that `config` names. `slow_down` hears when it says not to come for a time;
    `start_local` starts the process of a local model.

    folder: where the manifest's relative paths begin. key: empty where there is none. Raises
    `ManifestInvalid` for an unknown provider, a rule file or an address that can't be used.
    """
    if config.provider == "scripted":
        from ring0.models.script import load_script
        from ring0.models.scripted import ScriptedProvider

        return ScriptedProvider(load_script(folder, config.script))
    if config.provider in OVER_HTTP:
        from ring0.models.dialects import dialect
        from ring0.models.http import HttpProvider

        if not config.model:
            raise errors.ManifestInvalid(
                f"The provider {config.provider} needs a model.",
                todo='add model = "…" to its configuration',
            )
        spoken, official = OVER_HTTP[config.provider]
        return HttpProvider(config, dialect(spoken), official, key, runtime, slow_down)
    if config.provider == "local" and start_local is not None:
        from ring0.models.local import LocalProvider, weights_of

        return LocalProvider(weights_of(config.model, folder), start_local, runtime)
    raise errors.ManifestInvalid(
        f"There is no model provider called {config.provider!r}.",
        todo=f"use one of scripted, local, {', '.join(OVER_HTTP)}",
    )
