"""What every vector store does. It holds the vectors of one model, by owner: there is no search
without one, and none that reaches beyond it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from ring0.types import Owner


class Nearest(NamedTuple):
    """A record that is like a query."""

    number: int
    score: float
    """The cosine of the angle between the two: 1 is the same direction."""


class VectorStore(Protocol):
    """Vectors of records, by their numbers (`store.rows.Loaded`). Raises StoreFailed for what a
    disk does not do."""

    async def put(self, owner: Owner, rows: Sequence[tuple[int, bytes]]) -> None:
        """(number, packed vector). One that is there is put in its place. Raises ValueError for a
        vector of another size."""

    async def remove(self, owner: Owner, numbers: Collection[int]) -> None:
        """Returns when none of their bytes are left. Those that are not there are nothing."""

    async def search(
        self, owner: Owner, query: bytes, most: int, allowed: Collection[int] | None = None
    ) -> list[Nearest]:
        """The nearest first, those with equal scores by number; `allowed`: of these alone."""

    async def count(self, owner: Owner) -> int: ...

    async def newest(self, owner: Owner) -> int:
        """The highest number that was put; -1: none. From there on it is filled."""

    async def wipe(self, owner: Owner | None = None) -> None:
        """All of one owner, or all. Returns when none of their bytes are left."""

    async def close(self) -> None: ...
