"""What a vector store on disk found, in the place of a matrix in memory: the channel of meaning
reads both alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ring0.memory.index.columns import Matrix
from ring0.memory.vectors import Nearest

ALONG = np.ones(1, np.float32)
"""The query beside it: what is far has one number a record, its likeness."""


def matrix_of(near: Sequence[Nearest], numbers: npt.NDArray[np.int64]) -> Matrix | None:
    """Of all records, by `numbers`: what was not among the nearest is as like as the last of them
    at most."""
    if not near:
        return None
    likeness = np.full(len(numbers), min(one.score for one in near), np.float32)
    places = np.searchsorted(numbers, [one.number for one in near])
    for place, one in zip(places.tolist(), near, strict=True):
        if place < len(numbers) and numbers[place] == one.number:
            likeness[place] = one.score
    found = Matrix(1)
    found.append(likeness[:, None], np.ones(len(numbers), np.bool_))
    return found
