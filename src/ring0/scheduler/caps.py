"""Caps: how many rows, calls, tokens, how much money (or what else a driver can count) the runs of
a principal, or of a tenant, may take of a tool within a window; all trees of them together.

Pure: what a call takes of which counter is worked out here. The store adds it up, in the
transaction that admits the call, so that of many at once no one too many gets through.

Windows are fixed: the hour from 14:00 to 15:00 (UTC), not the last sixty minutes. So at the turn of
one, twice as much may pass in a moment; who can't have that sets a longer window.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from ring0.errors import LimitReached
from ring0.types import CapUse, Frozen, Run

MONEY: Final = "money"
ROWS: Final = "rows"
ALWAYS: Final = frozenset({"calls", "tokens", MONEY})
"""What the kernel can count of every call by itself."""
PER: Final = ("principal", "tenant")


class Cap(Frozen, frozen=True, kw_only=True):
    """One `[[caps]]` of ring0.toml."""

    tool: str
    """Names, with `*`: `crm.execute`, `crm.*`; `model:NAME`, `spawn:AGENT`, `egress:TOOL`. All
    that it names counts together."""
    of: str
    """`rows`, `calls`, `tokens`, `money`, or what else the tool's driver counts."""
    most: int
    """Of money: millionths of a US dollar."""
    window_s: int
    resource: str = ""
    """Names, with `*`, of tables or hosts; empty: whatever it touches."""
    per: str = "principal"

    def concerns(self, name: str, resources: Iterable[str]) -> bool:
        if not fnmatch.fnmatchcase(name, self.tool):
            return False
        return not self.resource or any(
            fnmatch.fnmatchcase(one, self.resource) for one in resources
        )

    def window(self, now_us: int) -> int:
        return now_us // (self.window_s * 1_000_000)

    def key(self, run: Run) -> str:
        """The counter's name. Without `most`: one that is moved counts on."""
        who = run.principal if self.per == "principal" else ""
        parts = (self.per, run.tenant, who, self.tool, self.of, self.resource, self.window_s)
        return msgspec.json.encode(parts).decode()


class Taking(Frozen, frozen=True, kw_only=True):
    """What a call takes of one cap."""

    cap: Cap
    use: CapUse


def takings(
    caps: Iterable[Cap],
    run: Run,
    name: str,
    resources: Iterable[str],
    amounts: Mapping[str, int],
    *,
    mutates: bool,
    now_us: int,
) -> tuple[Taking, ...]:
    """What the call takes of each cap that concerns it. Raises LimitReached where a cap counts what
    the call's driver can't tell, and the call changes something: nobody knows how much that is."""
    resources = tuple(resources)
    found = []
    for cap in caps:
        if not cap.concerns(name, resources):
            continue
        if cap.of not in amounts:
            if mutates:
                raise LimitReached(
                    f"{name} can't say how many {cap.of} it takes, and a cap counts them.",
                    why=f"The cap is for {_words(cap)}.",
                    todo='Let the operator cap its calls in ring0.toml (`of = "calls"`).',
                )
            continue
        if amount := max(0, amounts[cap.of]):
            use = CapUse(key=cap.key(run), window=cap.window(now_us), amount=amount, most=cap.most)
            found.append(Taking(cap=cap, use=use))
    return tuple(found)


def check(taking: Taking, used: int, now_us: int) -> None:
    """Raises LimitReached where no room is left."""
    if used + taking.use.amount > taking.cap.most:
        raise refusal(taking, used, now_us)


def refusal(taking: Taking, used: int, now_us: int) -> LimitReached:
    """Which cap has no room, how much of it is used, and when its window turns."""
    cap, amount = taking.cap, taking.use.amount
    turns_us = (taking.use.window + 1) * cap.window_s * 1_000_000
    when = datetime.fromtimestamp(max(turns_us, now_us) / 1_000_000, UTC)
    too_much = amount > cap.most
    never = " By itself it is more than the cap." if too_much else ""
    return LimitReached(
        f"The cap of {_words(cap)} has no room for this call: {_amount(cap, used)} are used, and"
        f" this takes {_amount(cap, amount)}.{never}",
        why=f"An operator's cap: it counts all runs of the same {cap.per} together.",
        todo=("Do less at once" if too_much else "Do less, or wait")
        + f": it begins anew at {when:%Y-%m-%d %H:%M:%S} UTC.",
    )


def _words(cap: Cap) -> str:
    where = f" on {cap.resource}" if cap.resource else ""
    what = _amount(cap, cap.most) if cap.of == MONEY else f"{cap.most} {cap.of}"
    return f"{what} of {cap.tool}{where} in {cap.window_s} s for each {cap.per}"


def _amount(cap: Cap, amount: int) -> str:
    return f"{amount / 1_000_000:.6f} USD" if cap.of == MONEY else str(amount)
