"""Reads a budget's text, such as `0.50 USD, 200 calls, 10 min, 100k tokens, 5 children, depth 2`.

Strict: what it can't read, it refuses.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from ring0 import errors
from ring0.types import Budget

_PART: Final = re.compile(
    r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(k|M)? ?(USD|calls?|tokens?|child|children|s|min|h)"
)
_DEPTH: Final = re.compile(r"depth ([0-9]{1,2})")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3_600}
_FIELDS: Final = {"call": "calls", "token": "tokens", "child": "children"}
_MANY: Final = {None: 1, "k": 1_000, "M": 1_000_000}
_TODO: Final = (
    "write it as in '0.50 USD, 200 calls, 10 min, 100k tokens, 5 children, depth 2':"
    " USD, calls, tokens, children, depth, and one of s, min, h"
)


def parse_budget(text: str, usual: Budget = Budget()) -> Budget:  # noqa: B008  (frozen)
    """The budget that `text` says; what it leaves out is as in `usual`.

    Raises `ManifestInvalid` for an unknown unit, a unit given twice, a fraction of what has none,
    more than may be, and anything else than a list of amounts.
    """
    if not isinstance(text, str):
        raise _refused(repr(text), "a budget is a text")
    found: dict[str, int] = {}
    for part in text.split(","):
        field, amount = _read(part.strip(), text)
        if field in found:
            raise _refused(text, f"{part.strip()!r} says again what was said before")
        found[field] = amount
    try:
        return msgspec.convert({**msgspec.structs.asdict(usual), **found}, Budget)
    except msgspec.ValidationError as error:
        raise _refused(text, str(error)) from None


def microusd(usd: Decimal | float | str) -> int:
    """US dollars in millionths. Raises `CallInvalid`."""
    try:
        amount = Decimal(str(usd))
        if amount.is_finite() and amount >= 0:
            return int(amount * 1_000_000)
    except InvalidOperation:
        pass
    raise errors.CallInvalid(f"{str(usd)[:40]!r} is no amount of US dollars.", todo="Write '0.50'.")


def _read(part: str, text: str) -> tuple[str, int]:
    """One amount: the field of `Budget` that it sets, and its value in that field's unit."""
    if (depth := _DEPTH.fullmatch(part)) is not None:
        return "depth", int(depth[1])
    match = _PART.fullmatch(part)
    if match is None:
        what = "an amount of USD, calls, tokens, children or time"
        raise _refused(text, f"{part!r} is not {what}" if part else "a part is empty")
    number, unit = Decimal(match[1]) * _MANY[match[2]], match[3]
    if match[2] and not unit.startswith("token"):
        raise _refused(text, f"{part!r}: only tokens are counted in k and M")
    if unit == "USD":
        return "cost_microusd", int(number * 1_000_000)
    if unit in _SECONDS:
        field, amount = "wall_s", number * _SECONDS[unit]
    else:
        field, amount = _FIELDS[unit.removesuffix("ren").removesuffix("s")], number
    least = 0 if field in ("tokens", "children") else 1
    if amount != int(amount) or amount < least:
        raise _refused(text, f"{part!r} is not a whole number of {field}, {least} or more")
    return field, int(amount)


def _refused(text: str, why: str) -> errors.ManifestInvalid:
    return errors.ManifestInvalid(f"The budget {text!r} can't be read.", why=why, todo=_TODO)
