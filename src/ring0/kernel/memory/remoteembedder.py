"""Vectors from a provider, asked as models are (models/http.py): texts leave this machine.

What is not public is never sent: `embedders.py` and `indexing.py` see to that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ring0 import limits, models
from ring0.errors import Ring0Error
from ring0.kernel.agent.config_embeddings import RemoteTable
from ring0.memory.embedding import vectors
from ring0.memory.embedding.base import EmbeddingFailed
from ring0.models.base import Message, ModelRequest, Native
from ring0.models.dialects import embeddings as dialect
from ring0.runtime import Runtime
from ring0.types import ModelConfig

_BY_LENGTH = "text-embedding-3"
"""OpenAI's models that make vectors of as many numbers as one asks for."""


class RemoteEmbedder:
    """One model of one provider. `close` it."""

    def __init__(self, table: RemoteTable, key: str, runtime: Runtime) -> None:
        """Raises ManifestInvalid."""
        about = f"{table.provider}|{table.base_url}|{table.model}|{table.dimensions}"
        digest = hashlib.sha256(about.encode()).hexdigest()
        self.name = f"{table.provider}-{digest[:12]}"
        self.dimensions = table.dimensions
        self.texts_sent = 0
        self._table = table
        self._runtime = runtime
        config = ModelConfig(
            provider=table.provider, model=table.model, base_url=table.base_url, key=table.key
        )
        self._provider = models.provider(config, "", key, runtime)

    async def embed(self, texts: Sequence[str], *, query: bool) -> list[bytes]:
        """Raises EmbeddingFailed."""
        found = [vectors.nothing(self.dimensions)] * len(texts)
        said = [(place, text) for place, text in enumerate(texts) if text.strip()]
        step = limits.EMBEDDING_BATCH_TEXTS_MAX
        for start in range(0, len(said), step):
            part = said[start : start + step]
            made = await self._ask([_bounded(text) for _, text in part])
            for (place, _), vector in zip(part, made, strict=True):
                found[place] = vector
        return found

    async def close(self) -> None:
        await self._provider.close()

    async def _ask(self, texts: list[str]) -> list[bytes]:
        body: dict[str, object] = {"input": texts, "encoding_format": "base64"}
        if self._table.model.startswith(_BY_LENGTH):
            body["dimensions"] = self.dimensions
        request = ModelRequest(
            messages=tuple(Message(role="user", content=text) for text in texts),
            max_tokens=1,
            vectors=True,
            native=Native(dialect=dialect.NAME, body=body),
        )
        key = f"embed-{self._runtime.random_bytes(16).hex()}"
        self.texts_sent += len(texts)
        try:
            answer = await self._provider.answer(request, key)
            told = answer.native.body["vectors"] if answer.native else []
            rows = [vectors.floats(one, self.dimensions) for one in told]
        except Ring0Error as error:
            raise self._failed(f"{error.what} {error.why}") from None
        except ValueError as error:
            raise self._failed(f"{error}; [memory] embeddings says dimensions.") from None
        return vectors.pack_all(np.stack(rows))

    def _failed(self, why: str) -> EmbeddingFailed:
        return EmbeddingFailed(
            f"{self._table.provider} made no vectors.",
            why=why[: limits.EMBEDDING_ERROR_CHARS_MAX],
            todo="What is recalled is found by its words. See the provider's status, the model's"
            " name, its base_url and its key in [memory] of ring0.toml.",
        )


def _bounded(text: str) -> str:
    return text[: limits.EMBEDDING_TEXT_CHARS_MAX].encode("utf-8", "replace").decode()
