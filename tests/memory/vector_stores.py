"""Vector stores to conform to one interface, and vectors from a seed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ring0.memory.embedding import vectors
from ring0.memory.vectors import ExactVectors, VectorStore
from ring0.runtime import Runtime

DIMENSIONS = 32
HAS_LANCE = bool(importlib.util.find_spec("lancedb"))
if "lancedb" in os.environ.get("RING0_TEST_REQUIRE", "").split(","):
    assert HAS_LANCE, "RING0_TEST_REQUIRE names lancedb: `make optional` installs it"

Open = Callable[..., VectorStore]


def opener(kind: str, folder: Path) -> Open:
    """Opens the store of that kind, again and again."""
    if kind == "exact":
        return lambda **_: ExactVectors(DIMENSIONS, Runtime())
    if not HAS_LANCE:
        pytest.skip("no LanceDB: `make optional` installs it")
    from ring0.memory.vectors.lance import LanceVectors

    return lambda **more: LanceVectors(folder / "vectors", DIMENSIONS, Runtime(), **more)


def some(count: int, seed: int) -> tuple[Any, list[bytes]]:
    """Unit vectors as they are unpacked, and packed; in clusters, as those of texts are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(2, count // 40), DIMENSIONS))
    rows = centres[random.integers(len(centres), size=count)]
    packed = vectors.pack_all(rows + 0.5 * random.normal(size=rows.shape))
    return vectors.unpack_all(packed, DIMENSIONS), packed
