"""Reads a budget's text, such as `0.50 USD, 200 calls, 10 min`.

Strict: what it can't read, it refuses.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from ring0 import errors
from ring0.types import Budget

_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(USD|calls?|s|min|h)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3_600}
_TODO: Final = "write it as in '0.50 USD, 200 calls, 10 min': USD, calls, and one of s, min, h"


def parse_budget(text: str) -> Budget:
    """The budget that `text` says; what it leaves out is the default of `Budget`.

    Raises `ManifestInvalid` for an unknown unit, a unit given twice, a fraction of a call or of
    a second, and anything else than a list of amounts.
    """
    if not isinstance(text, str):
        raise _refused(repr(text), "a budget is a text")
    found: dict[str, int] = {}
    for part in text.split(","):
        field, amount = _read(part.strip(), text)
        if field in found:
            raise _refused(text, f"{part.strip()!r} says again what was said before")
        found[field] = amount
    return Budget(**found)


def _read(part: str, text: str) -> tuple[str, int]:
    """One amount: the field of `Budget` that it sets, and its value in that field's unit."""
    match = _PART.fullmatch(part)
    if match is None:
        why = f"{part!r} is not an amount of USD, calls or time" if part else "a part is empty"
        if "token" in part:
            why = f"{part!r}: tokens are not counted on their own, they are paid for in USD"
        raise _refused(text, why)
    number, unit = Decimal(match[1]), match[2]
    if unit == "USD":
        return "cost_microusd", int(number * 1_000_000)
    if unit.startswith("call"):
        field, amount = "calls", number
    else:
        field, amount = "wall_s", number * _SECONDS[unit]
    if amount != int(amount) or amount < 1:
        raise _refused(text, f"{part!r} is not a whole number of {field} above 0")
    return field, int(amount)


def _refused(text: str, why: str) -> errors.ManifestInvalid:
    return errors.ManifestInvalid(f"The budget {text!r} can't be read.", why=why, todo=_TODO)
