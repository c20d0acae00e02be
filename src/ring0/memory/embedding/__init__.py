"""Vectors of texts: who makes them, behind one interface. Offline by models of installed packages,
in a process of their own (server.py); how remote ones are asked is the kernel's.
"""

from __future__ import annotations

from ring0.memory.embedding.base import Embedder, EmbeddingFailed
from ring0.memory.embedding.offline import OfflineEmbedder, Process, Start
from ring0.memory.embedding.offlinemodels import MINILM, STATIC, OfflineModel

__all__ = [
    "MINILM",
    "STATIC",
    "Embedder",
    "EmbeddingFailed",
    "OfflineEmbedder",
    "OfflineModel",
    "Process",
    "Start",
]
