"""What every benchmark gives: rows of `{name, value, unit, n, rival}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Row(TypedDict):
    """One figure."""

    name: str
    value: float
    unit: str
    n: int
    """How many measurements are behind it."""
    rival: str
    """What it stands beside; empty: it is the floor or the rival itself."""


def row(name: str, value: float, unit: str, n: int, rival: str = "") -> Row:
    return Row(name=name, value=round(value, 3), unit=unit, n=n, rival=rival)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(
    name: str, times_s: Sequence[float], rival: str = "", shares: Sequence[float] = (0.50, 0.99)
) -> list[Row]:
    """p50 and p99 of one (or other `shares`), in milliseconds."""
    count = len(times_s)
    return [
        row(f"{name}, p{share * 100:.0f}", percentile(times_s, share) * 1_000, "ms", count, rival)
        for share in shares
    ]
