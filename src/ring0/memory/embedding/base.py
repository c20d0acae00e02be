"""What an embedder is to who asks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ring0.errors import Ring0Error


class EmbeddingFailed(Ring0Error):
    """No vectors just now. What is recalled is found by its words."""


class Embedder(Protocol):
    """Makes vectors of texts: alike where the texts mean the same."""

    @property
    def name(self) -> str:
        """Of all that its vectors depend on: those of another name can't be compared with them."""

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str], *, query: bool) -> list[bytes]:
        """A vector a text (vectors.py). `query`: somebody waits for it, so it comes before what is
        asked in the background. Raises EmbeddingFailed."""

    async def close(self) -> None: ...
