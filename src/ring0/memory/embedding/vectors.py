"""A unit vector as bytes: its scale, a little-endian 32-bit float, then a signed byte a number.

A quarter of what floats take, and no rank moves by it that anybody has seen.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
_SCALE_BYTES = 4
_TOP = 127


def size_bytes(dimensions: int) -> int:
    """Of one of them."""
    return _SCALE_BYTES + dimensions


def pack_all(rows: npt.NDArray[Any]) -> list[bytes]:
    """Of rows of any length in space; one that has none, or no numbers, is `nothing`."""
    wide = np.asarray(rows, np.float64)
    wide = np.where(np.isfinite(wide).all(axis=1, keepdims=True), wide, 0.0)
    tops = np.abs(wide).max(axis=1, keepdims=True)
    wide = np.divide(wide, tops, out=np.zeros_like(wide), where=tops > 0)  # No square overflows.
    lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    scales = np.divide(1.0 / _TOP, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    small = np.rint(wide * _TOP).astype(np.int8)
    heads = scales.astype("<f4")
    return [head.tobytes() + row.tobytes() for head, row in zip(heads, small, strict=True)]


def pack(vector: Sequence[float] | npt.NDArray[Any]) -> bytes:
    return pack_all(np.asarray([vector]))[0]


def nothing(dimensions: int) -> bytes:
    """Like no other: of a text of which no vector can be made."""
    return bytes(size_bytes(dimensions))


def unpack_all(packed: Sequence[bytes], dimensions: int) -> Matrix:
    """One row each. Raises ValueError where one has another size."""
    wanted = size_bytes(dimensions)
    if any(len(one) != wanted for one in packed):
        raise ValueError(f"a vector of {dimensions} numbers has {wanted} bytes")
    raw = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), wanted)
    scales = np.ascontiguousarray(raw[:, :_SCALE_BYTES]).view("<f4")
    rows = raw[:, _SCALE_BYTES:].view(np.int8).astype(np.float32)
    rows *= scales
    return rows


def unpack(packed: bytes) -> Matrix:
    """One vector, of as many numbers as there are."""
    return np.ravel(unpack_all([packed], len(packed) - _SCALE_BYTES))


def floats(told: str, dimensions: int) -> Matrix:
    """What somebody says is a vector: base64 of 32-bit floats. Raises ValueError."""
    try:
        raw = base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a vector is no base64") from None
    if len(raw) != 4 * dimensions:
        raise ValueError(f"a vector has {len(raw)} bytes, not the {4 * dimensions} of its numbers")
    found = np.frombuffer(raw, "<f4")
    if not np.isfinite(found).all():
        raise ValueError("a vector has what is no number")
    return np.asarray(found, np.float32)
