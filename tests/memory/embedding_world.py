"""Embedders for tests: a process that does what a test says, and one real model for all who ask."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ring0.memory.embedding import vectors
from ring0.memory.embedding.base import EmbeddingFailed
from ring0.memory.embedding.offlinemodels import MINILM, STATIC, OfflineModel

ARE_THERE = bool(MINILM.files() and STATIC.files())
if "embeddings" in os.environ.get("RING0_TEST_REQUIRE", "").split(","):
    assert ARE_THERE, "RING0_TEST_REQUIRE names embeddings: `make optional` installs them"
needs_models = pytest.mark.skipif(not ARE_THERE, reason="no models: `make optional` installs them")

Say = Callable[[list[str]], bytes]
"""What a process answers to these texts; empty: it ends."""


def vector_lines(texts: list[str]) -> bytes:
    """A vector of MiniLM's size for each, told by its text's letters."""
    lines = []
    for text in texts:
        row = np.ones(MINILM.dimensions, "<f4")
        row[: len(text)] += np.frombuffer(text.encode()[: MINILM.dimensions], np.uint8)[: len(text)]
        lines.append(json.dumps({"vector": base64.b64encode(row.tobytes()).decode()}) + "\n")
    return "".join(lines).encode()


class Played:
    """Processes that say what a test wants; what they were asked is kept."""

    def __init__(self, say: Say = vector_lines) -> None:
        self.say = say
        self.asked: list[list[str]] = []
        self.starts = 0
        self.alive = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def start(self, model: OfflineModel) -> PlayedProcess:
        self.starts += 1
        self.alive += 1
        return PlayedProcess(self)


class PlayedProcess:
    def __init__(self, world: Played) -> None:
        self._world = world
        self._out = b""

    async def write(self, line: bytes) -> None:
        texts = json.loads(line)["texts"]
        self._world.asked.append(texts)
        self._out += self._world.say(texts)

    async def read(self) -> bytes:
        await self._world.hold.wait()
        line, end, self._out = self._out.partition(b"\n")
        return line + end

    async def close(self) -> None:
        self._world.alive -= 1


class Letters:
    """An embedder whose vectors are texts' letters; it may refuse, or fail at a text."""

    dimensions = 8

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[str] = []
        self.is_broken = False
        self.fails_at = "\0"

    async def embed(self, texts: Sequence[str], *, query: bool) -> list[bytes]:
        self.asked += texts
        if self.is_broken or any(self.fails_at in text for text in texts):
            raise EmbeddingFailed("It made no vectors.", why="A test says so.")
        counts = [[text.count(letter) + 0.1 for letter in "abcdefgh"] for text in texts]
        return vectors.pack_all(np.array(counts))

    async def close(self) -> None: ...
