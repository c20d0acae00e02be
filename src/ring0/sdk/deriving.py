"""`ctx.derive`: arithmetic, selection and dates by the kernel, which keeps where values came from.

What an agent computes itself comes from nowhere, as far as the kernel can tell. Each is one call.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from decimal import Decimal
from typing import Any

from ring0.types import CallKind

Call = Callable[[CallKind, str, Any], Coroutine[Any, Any, Any]]
Number = int | float | str
Made = Coroutine[Any, Any, Any]


class Deriving:
    """A whole number comes back as an int, another one as a text: it is exact. `digits`: to how
    many places it is rounded (half to even); None: what has no end is an error."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, do: str, values: Sequence[Any], **more: Any) -> Made:
        """Any function of them by its name."""
        plain = [str(value) if isinstance(value, Decimal) else value for value in values]
        given = {name: value for name, value in more.items() if value is not None}
        return self._call(CallKind.DERIVE, "", {"do": do, "values": plain, **given})

    def sum(self, values: Sequence[Number], digits: int | None = None) -> Made:
        return self("sum", values, digits=digits)

    def difference(self, one: Number, other: Number, digits: int | None = None) -> Made:
        return self("difference", [one, other], digits=digits)

    def product(self, values: Sequence[Number], digits: int | None = None) -> Made:
        return self("product", values, digits=digits)

    def quotient(self, one: Number, other: Number, digits: int | None = None) -> Made:
        return self("quotient", [one, other], digits=digits)

    def percent(self, whole: Number, percent: Number, digits: int | None = None) -> Made:
        """`percent` per cent of `whole`."""
        return self("percent", [whole, percent], digits=digits)

    def round(self, value: Number, digits: int = 0) -> Made:
        return self("round", [value], digits=digits)

    def count(self, values: Sequence[Any]) -> Made:
        return self("count", values)

    def min(self, values: Sequence[Any], by: str | None = None) -> Made:
        """The least; `by`: of records, the one whose field is the least."""
        return self("min", values, by=by)

    def max(self, values: Sequence[Any], by: str | None = None) -> Made:
        return self("max", values, by=by)

    def first(self, values: Sequence[Any], by: str | None = None, descending: bool = False) -> Made:
        """The first as they come; `by`: by that field."""
        return self("first", values, by=by, descending=descending or None)

    def last(self, values: Sequence[Any], by: str | None = None, descending: bool = False) -> Made:
        return self("last", values, by=by, descending=descending or None)

    def sort(self, values: Sequence[Any], by: str | None = None, descending: bool = False) -> Made:
        return self("sort", values, by=by, descending=descending or None)

    def filter(self, values: Sequence[Any], by: str, equals: Any) -> Made:
        """The records whose field `by` equals that."""
        return self._call(
            CallKind.DERIVE,
            "",
            {"do": "filter", "values": list(values), "by": by, "equals": equals},
        )

    def add_time(self, begins: str, many: int, unit: str) -> Made:
        """A date, or a date and time, so many `minutes` … `years` later; `now` is the call's."""
        return self("add_time", [begins, many], unit=unit)

    def time_between(self, one: str, other: str, unit: str = "days") -> Made:
        return self("time_between", [one, other], unit=unit)

    def join(self, values: Sequence[Any], between: str = "") -> Made:
        return self("join", values, text=between)

    def format(self, text: str, *values: Any) -> Made:
        """`text` with {0}, {1}, … replaced."""
        return self("format", values, text=text)
