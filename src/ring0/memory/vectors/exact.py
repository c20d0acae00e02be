"""Exact search in memory: one matrix an owner, one product a query. At an agent's scale nothing
that is approximate is quicker by as much as it forgets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ring0.memory.embedding import vectors
from ring0.memory.embedding.vectors import Matrix
from ring0.memory.vectors.base import Nearest
from ring0.runtime import Runtime
from ring0.types import Owner

Numbers = npt.NDArray[np.int64]
_DIGITS: Final = 6
_IN_THREAD_ROWS: Final = 20_000
"""From here on a product takes so long that others would notice."""


class Shelf:
    """The vectors of one owner: rows of a matrix with room to grow, by number."""

    __slots__ = ("_matrix", "_numbers", "size")

    def __init__(self, dimensions: int) -> None:
        self.size = 0
        self._numbers: Numbers = np.zeros(0, np.int64)
        self._matrix: Matrix = np.zeros((0, dimensions), np.float32)

    @property
    def numbers(self) -> Numbers:
        """Ascending."""
        return self._numbers[: self.size]

    @property
    def matrix(self) -> Matrix:
        return self._matrix[: self.size]

    def put(self, numbers: Numbers, rows: Matrix) -> None:
        _, last = np.unique(numbers[::-1], return_index=True)
        chosen = len(numbers) - 1 - last  # Ascending; of equal ones the last.
        numbers, rows = numbers[chosen], rows[chosen]
        if self.size and len(numbers) and numbers[0] <= self.numbers[-1]:
            self.keep(~np.isin(self.numbers, numbers))
            if self.size and numbers[0] < self.numbers[-1]:
                self._merge(numbers, rows)
                return
        self._append(numbers, rows)

    def keep(self, which: npt.NDArray[np.bool_]) -> None:
        """All others go. A new matrix: a search that is under way has the old one."""
        self._numbers, self._matrix = self.numbers[which], self.matrix[which]
        self.size = len(self._numbers)

    def nearest(self, query: Matrix, most: int, allowed: Collection[int] | None) -> list[Nearest]:
        return nearest(self.numbers, self.matrix, query, most, allowed)

    def _append(self, numbers: Numbers, rows: Matrix) -> None:
        size = self.size + len(numbers)
        if size > len(self._numbers):
            room = max(size, self.size * 5 // 4)
            larger = np.zeros((room, rows.shape[1]), np.float32)
            larger[: self.size] = self.matrix
            longer = np.zeros(room, np.int64)
            longer[: self.size] = self.numbers
            self._matrix, self._numbers = larger, longer
        self._numbers[self.size : size] = numbers
        self._matrix[self.size : size] = rows
        self.size = size

    def _merge(self, numbers: Numbers, rows: Matrix) -> None:
        both = np.concatenate([self.numbers, numbers])
        order = np.argsort(both)
        self._matrix = np.concatenate([self.matrix, rows])[order]
        self._numbers = both[order]
        self.size = len(both)


def nearest(
    numbers: Numbers, matrix: Matrix, query: Matrix, most: int, allowed: Collection[int] | None
) -> list[Nearest]:
    """Of rows of unit vectors; a pure function of what it is given."""
    if allowed is not None:
        wanted = np.fromiter(allowed, np.int64, len(allowed))
        which = np.isin(numbers, wanted)
        numbers, matrix = numbers[which], matrix[which]
    if most <= 0 or not len(numbers):
        return []
    # Equal rows differ in their last bits by where they stand.
    scores = np.round(matrix @ query, _DIGITS)
    if most < len(scores):
        # All that could be among the best, those equal to the last of them too.
        edge = np.partition(scores, len(scores) - most)[len(scores) - most]
        which = scores >= edge
        numbers, scores = numbers[which], scores[which]
    order = np.lexsort((numbers, -scores))[:most]
    return [Nearest(int(numbers[place]), float(scores[place])) for place in order]


class ExactVectors:
    """All in memory: filled anew by every kernel."""

    def __init__(self, dimensions: int, runtime: Runtime) -> None:
        self._dimensions = dimensions
        self._runtime = runtime
        self._shelves: dict[Owner, Shelf] = {}

    async def put(self, owner: Owner, rows: Sequence[tuple[int, bytes]]) -> None:
        matrix = vectors.unpack_all([vector for _, vector in rows], self._dimensions)
        numbers = np.array([number for number, _ in rows], np.int64)
        self._shelves.setdefault(owner, Shelf(self._dimensions)).put(numbers, matrix)

    async def remove(self, owner: Owner, numbers: Collection[int]) -> None:
        if (shelf := self._shelves.get(owner)) is not None:
            shelf.keep(~np.isin(shelf.numbers, np.fromiter(numbers, np.int64, len(numbers))))
            if not shelf.size:
                del self._shelves[owner]

    async def search(
        self, owner: Owner, query: bytes, most: int, allowed: Collection[int] | None = None
    ) -> list[Nearest]:
        (asked,) = vectors.unpack_all([query], self._dimensions)
        shelf = self._shelves.get(owner)
        if shelf is None:
            return []
        if shelf.size < _IN_THREAD_ROWS:
            return shelf.nearest(asked, most, allowed)
        given = (shelf.numbers, shelf.matrix, asked, most, allowed)
        return await self._runtime.in_thread(nearest, *given)

    async def count(self, owner: Owner) -> int:
        shelf = self._shelves.get(owner)
        return shelf.size if shelf else 0

    async def newest(self, owner: Owner) -> int:
        shelf = self._shelves.get(owner)
        return int(shelf.numbers[-1]) if shelf and shelf.size else -1

    async def wipe(self, owner: Owner | None = None) -> None:
        if owner is None:
            self._shelves.clear()
        else:
            self._shelves.pop(owner, None)

    async def close(self) -> None:
        self._shelves.clear()
