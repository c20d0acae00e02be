"""Models that a run may ask for and whose provider will refuse: it is asked without a key. Told
before anything starts; not for keys that are wrong, of which only the provider knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ring0.errors import ManifestInvalid
from ring0.models import OVER_HTTP
from ring0.models.base import is_loopback
from ring0.types import AgentManifest, ModelConfig

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

_DEFAULT: Final = "default"


def told(kernel: Kernel, manifest: AgentManifest) -> list[str]:
    """A line for each."""
    return [
        f"The model {name} ({config.provider}) has no key: the provider will refuse what it is"
        f" asked. Give it one: `ring0 secret set {key}`, or {key} in the environment of ring0."
        for name, config in _asked(kernel, manifest)
        if (key := _missing(kernel, config))
    ]


def _asked(kernel: Kernel, manifest: AgentManifest) -> Iterator[tuple[str, ModelConfig]]:
    """Those of the manifest, the one that answers for all others, and who stands in for each."""
    found: dict[str, ModelConfig] = {}
    for name in (_DEFAULT, *manifest.models):
        try:
            config = kernel.providers.config_of(manifest, name)
            found |= {name: config, **dict(kernel.providers.fallbacks(manifest, name))}
        except ManifestInvalid:
            continue  # There is none, or the start says what is wrong with it.
    yield from found.items()


def _missing(kernel: Kernel, config: ModelConfig) -> str:
    """The name of the key that its maker's own address asks for, where it is not set."""
    maker = OVER_HTTP.get(config.provider)
    if maker is None or not maker.key or config.key or kernel.secret(maker.key):
        return ""
    theirs = urlsplit(maker.base_url).hostname or ""
    there = urlsplit(config.base_url or maker.base_url).hostname
    return maker.key if there == theirs and not is_loopback(theirs) else ""
