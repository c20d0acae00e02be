"""Where vectors are searched, behind one interface: exactly and in memory (the default), or on disk
with LanceDB for memories of millions. All of it is made from the store, and can be made again.
"""

from __future__ import annotations

from ring0.memory.vectors.base import Nearest, VectorStore
from ring0.memory.vectors.exact import ExactVectors

__all__ = ["ExactVectors", "Nearest", "VectorStore"]
