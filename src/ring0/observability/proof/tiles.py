"""The hashes of a stored log, without reading it all for each proof: a node for each 256 leaves.

Whoever holds a `Tiles` reads each leaf once; a proof then reads at most a few tiles again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ring0.store import merkle

TILE_LEAVES: Final = 256
Leaves = Callable[[int, int], Sequence[bytes]]
"""The leaf hashes [begin, end)."""


class Tiles:
    """Hashes any range of a log that only grows. `reach` it as far as the log does."""

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._full: list[bytes] = []
        """The root of each full tile."""

    def nodes(self, begin: int, end: int) -> bytes:
        """The root over the leaves [begin, end), which is a node of the tree or of its right edge.
        Raises LookupError where the log does not reach so far."""
        if end - begin < TILE_LEAVES:
            return self._root(begin, end)
        hashes = []
        while begin < end:
            width = min(TILE_LEAVES, end - begin)
            hashes.append(self._tile(begin) if width == TILE_LEAVES else self._root(begin, end))
            begin += width
        return root_of(hashes)

    def _tile(self, begin: int) -> bytes:
        number = begin // TILE_LEAVES
        while len(self._full) <= number:
            low = len(self._full) * TILE_LEAVES
            self._full.append(self._root(low, low + TILE_LEAVES))
        return self._full[number]

    def _root(self, begin: int, end: int) -> bytes:
        found = self._leaves(begin, end)
        if len(found) != end - begin:
            raise LookupError(f"the log has {len(found)} of the entries {begin} to {end - 1}")
        return root_of(found)


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over hashes of one height, of which the last may be of a part."""
    tree = merkle.Tree()
    for each in hashes:
        tree.append(each)
    return tree.root()
