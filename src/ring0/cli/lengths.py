"""Lengths of time as people type them: `90s`, `10 min`, `2h`, `30d`. One way for all commands."""

from __future__ import annotations

import re
from typing import Final

_LENGTH: Final = re.compile(r"([0-9]{1,9}) ?(s|m|min|h|d|w)")
SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""By unit."""


def seconds(told: str) -> int | None:
    """None: it is no length of time."""
    found = _LENGTH.fullmatch(told.strip())
    return int(found[1]) * SECONDS[found[2]] if found else None
