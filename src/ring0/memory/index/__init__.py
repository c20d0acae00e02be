"""The index of a scope, in memory, made anew from the store: postings, vectors, structure.

An index knows one scope and nothing else: no figure of another's data is in any score of it.
"""

from __future__ import annotations

from ring0.memory.index.indexes import Indexes
from ring0.memory.index.scope import Filter, Hit, ScopeIndex

__all__ = ["Filter", "Hit", "Indexes", "ScopeIndex"]
