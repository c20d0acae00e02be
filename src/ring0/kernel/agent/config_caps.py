"""[[caps]] of ring0.toml: how much all runs of a principal, or of the tenant, may take together.

Not here: what counts, and what a cap does (scheduler/caps.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.scheduler.caps import MONEY, Cap

_WINDOW: Final = re.compile(r"([0-9]{1,9}) ?(s|min|h|d)")
_WINDOW_S: Final = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


class CapTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[[caps]]: how much all runs of a principal (or of the tenant) may take together."""

    tool: str
    """With `*`: `crm.execute`, `crm.*`; `model:NAME`, `spawn:AGENT`, `egress:TOOL`."""
    of: str
    """`rows`, `calls`, `tokens`, `money`, or what else the tool counts."""
    most: int | str
    """Of money: US dollars, as text: `"5.00"`."""
    window: str
    """`10 s`, `30 min`, `1 h`, `1 d`: fixed windows of that length, by the clock (UTC)."""
    resource: str = ""
    """With `*`: a table, a host; empty: whatever the tool touches."""
    per: Literal["principal", "tenant"] = "principal"


def read(tables: Sequence[CapTable]) -> tuple[Cap, ...]:
    """The operator's caps. Raises ManifestInvalid."""
    if len(tables) > limits.CAPS_MAX:
        raise ManifestInvalid(
            f"ring0.toml has more than {limits.CAPS_MAX} [[caps]].", todo="Use `*` in their names."
        )
    found = tuple(_cap(table) for table in tables)
    alike = [msgspec.structs.replace(cap, most=0) for cap in found]
    for cap in alike:
        if alike.count(cap) > 1:
            raise ManifestInvalid(
                f"ring0.toml has two [[caps]] of {cap.of} of {cap.tool[:80]!r} for one window.",
                why="They would be one counter.",
                todo="Keep the lower one.",
            )
    return found


def _cap(table: CapTable) -> Cap:
    most, name = table.most, f"ring0.toml: [[caps]] of {table.tool[:80]!r}"
    if table.of == MONEY:
        most = money(most if isinstance(most, str) else str(most), f"{name}: most")
    window = _WINDOW.fullmatch(table.window)
    window_s = int(window[1]) * _WINDOW_S[window[2]] if window else 0
    if not 1 <= window_s <= limits.CAP_WINDOW_S_MAX:
        raise ManifestInvalid(
            f"{name}: window = {table.window[:40]!r} is no window.",
            todo='Write it like "10 s", "30 min", "1 h" or "1 d"; at most a year.',
        )
    if not isinstance(most, int) or most < 0 or not table.tool or not table.of:
        raise ManifestInvalid(
            f"{name}: a cap has a `tool`, an `of`, and a whole number as `most`.",
            todo='Write it like `tool = "crm.*"`, `of = "rows"`, `most = 50`, `window = "1 h"`.',
        )
    return Cap(
        tool=table.tool,
        of=table.of,
        most=most,
        window_s=window_s,
        resource=table.resource,
        per=table.per,
    )


def money(text: str | None, place: str) -> int:
    """US dollars as text, in microdollars. Raises ManifestInvalid."""
    if text is None:
        return 0
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or value < 0 or value > 10**6:
        raise ManifestInvalid(
            f"{place} = {text!r} is no amount of money.", todo='Write it like "0.50".'
        )
    return int(value * 1_000_000)
