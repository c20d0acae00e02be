"""RFC 6962 hashing: leaves, nodes, the root, and a tree that only grows. Pure functions.

Source: RFC 6962, section 2.1. Proofs and signed checkpoints are observability's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry), 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A Merkle tree that only grows, held as its peaks: the roots of its perfect subtrees."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)
        if len(self.peaks) != size.bit_count() or any(len(peak) != 32 for peak in self.peaks):
            raise ValueError(f"{len(self.peaks)} peaks do not make a tree of {size} leaves")

    def append(self, leaf: bytes) -> None:
        """Adds one leaf hash (32 bytes)."""
        merged, size = leaf, self.size
        while size & 1:
            merged = node_hash(self.peaks.pop(), merged)
            size >>= 1
        self.peaks.append(merged)
        self.size += 1

    def root(self) -> bytes:
        """The tree head, 32 bytes."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root
