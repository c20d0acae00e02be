"""Models behind one interface: `provider()` makes one, `parse_request()` checks what it is asked.

What it costs and whether it may be asked is decided elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0 import errors
from ring0.models.base import (
    ANY_MODEL,
    MEDIA,
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
    Unanswered,
    called,
    checked,
)
from ring0.models.base import parse_request as _parse_ours
from ring0.models.makers import OVER_HTTP
from ring0.models.prices import Price, price_of
from ring0.runtime import Runtime
from ring0.types import ModelConfig

if TYPE_CHECKING:
    from ring0.models.local import Start

WITH_VECTORS: Final = frozenset({"openai", "openai-responses"})
"""Those that also answer with vectors."""

__all__ = [
    "ANY_MODEL",
    "MEDIA",
    "OVER_HTTP",
    "WITH_VECTORS",
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
    "Unanswered",
    "called",
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
    request = checked(spoken.request(body))
    model = args.get("model")
    return msgspec.structs.replace(request, model=model) if isinstance(model, str) else request


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
        from ring0.models.dialects import at_provider
        from ring0.models.http import HttpProvider

        if not config.model:
            raise errors.ManifestInvalid(
                f"The provider {config.provider} needs a model.",
                todo='add model = "…" to its configuration',
            )
        maker = OVER_HTTP[config.provider]
        return HttpProvider(config, at_provider(maker.dialect), maker, key, runtime, slow_down)
    if config.provider == "local" and start_local is not None:
        from ring0.models.local import LocalProvider, weights_of

        return LocalProvider(weights_of(config.model, folder), start_local, runtime)
    raise errors.ManifestInvalid(
        f"There is no model provider called {config.provider!r}.",
        todo=f"use one of scripted, local, {', '.join(OVER_HTTP)}",
    )
