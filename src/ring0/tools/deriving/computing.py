"""What `derive` computes: pure functions over JSON values, in exact decimals, bounded.

Not here: the label of what comes out (tool.py).
"""

from __future__ import annotations

import calendar
import decimal
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid

_CONTEXT: Final = decimal.Context(
    prec=limits.DERIVE_DIGITS_MAX,
    rounding=ROUND_HALF_EVEN,
    Emax=limits.DERIVE_DIGITS_MAX,
    Emin=-limits.DERIVE_DIGITS_MAX,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,60}(\.[0-9]{1,60})?")
_PLACE: Final = re.compile(r"\{([0-9]{1,3})\}")
_HUNDRED: Final = Decimal(100)


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of one call."""

    do: str
    values: list[Any]
    by: str = ""
    """Of records: the field that is compared."""
    equals: Any = None
    """Of a filter: what that field has to be."""
    descending: bool = False
    digits: int | None = None
    """To which a number is rounded; None: it has to be exact."""
    unit: str = ""
    """Of a length of time: `minutes`, `hours`, `days`, `weeks`, `months`, `years`."""
    text: str = ""
    """Of `join`, what stands between; of `format`, the text with {0}, {1}."""


def compute(asked: Asked) -> Any:
    """What it comes to. Raises CallInvalid."""
    try:
        with decimal.localcontext(_CONTEXT):
            return _FUNCTIONS[asked.do](asked)
    except decimal.DecimalException as error:
        name = type(error).__name__
        raise _no("it has no result that can be kept", f"{name}: see its numbers") from None
    except OverflowError:
        raise _no("the date lies outside of the years 1 to 9999") from None


# --- numbers ------------------------------------------------------------------------------------


def _number(value: Any) -> Decimal:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or _NUMBER.fullmatch(text.strip()) is None:
        raise _no(f"{str(value)[:80]!r} is no number", "Write it as 12 or 12.50.")
    return Decimal(text.strip())


def _numbers(asked: Asked, count: int = 0) -> list[Decimal]:
    if not asked.values or (count and len(asked.values) != count):
        raise _no(f"`{asked.do}` takes {count or 'at least one'} of `values`")
    return [_number(value) for value in asked.values]


def _told(number: Decimal, asked: Asked) -> int | str:
    """A whole number as one, another one as text: it is exact in no other way."""
    if asked.digits is not None:
        number = _rounded(number, asked.digits)
    elif decimal.getcontext().flags[decimal.Inexact]:
        raise _no("the result has no end", "Say to how many `digits` it is rounded.")
    if not number.is_finite() or number.adjusted() >= limits.DERIVE_DIGITS_MAX:
        raise _no("the result is too large")
    if asked.digits is None and number == number.to_integral_value():
        whole = int(number)
        return whole if abs(whole) < 2**53 else str(whole)
    return format(number, "f")


def _rounded(number: Decimal, digits: int) -> Decimal:
    return number.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN)


def _sum(asked: Asked) -> Any:
    return _told(sum(_numbers(asked), Decimal(0)), asked)


def _product(asked: Asked) -> Any:
    found = Decimal(1)
    for number in _numbers(asked):
        found *= number
    return _told(found, asked)


def _difference(asked: Asked) -> Any:
    one, other = _numbers(asked, 2)
    return _told(one - other, asked)


def _quotient(asked: Asked) -> Any:
    one, other = _numbers(asked, 2)
    if not other:
        raise _no("nothing is divided by 0")
    return _told(one / other, asked)


def _percent(asked: Asked) -> Any:
    whole, part = _numbers(asked, 2)
    return _told(whole * part / _HUNDRED, asked)


def _round(asked: Asked) -> Any:
    (number,) = _numbers(asked, 1)
    return _told(number, msgspec.structs.replace(asked, digits=asked.digits or 0))


def _count(asked: Asked) -> Any:
    return len(asked.values)


# --- selection ----------------------------------------------------------------------------------

Key = tuple[int, Any]


def _key(value: Any) -> Key:
    """Numbers before texts; a text that is a number counts as one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, _number(value))
    if isinstance(value, str):
        stripped = value.strip()
        return (0, Decimal(stripped)) if _NUMBER.fullmatch(stripped) else (1, value)
    raise _no(f"{str(value)[:80]!r} can't be compared", "Compare numbers or texts.")


def _compared(asked: Asked, value: Any) -> Any:
    if not asked.by:
        return value
    if not isinstance(value, Mapping) or asked.by not in value:
        raise _no(f"one of `values` has no field {asked.by[:80]!r}")
    return value[asked.by]


def _sorted(asked: Asked) -> list[Any]:
    keyed = [(_key(_compared(asked, value)), value) for value in asked.values]
    if len({key[0] for key, _ in keyed}) > 1:
        raise _no("numbers and texts can't be compared")
    keyed.sort(key=lambda one: one[0], reverse=asked.descending)
    return [value for _, value in keyed]


def _nonempty(found: Sequence[Any], asked: Asked) -> Sequence[Any]:
    if not found:
        raise _no(f"`{asked.do}` takes at least one of `values`")
    return found


def _min(asked: Asked) -> Any:
    return _nonempty(_sorted(msgspec.structs.replace(asked, descending=False)), asked)[0]


def _max(asked: Asked) -> Any:
    found = _nonempty(asked.values, asked)
    _sorted(asked)  # That all can be compared.
    return max(found, key=lambda value: _key(_compared(asked, value)))


def _first(asked: Asked) -> Any:
    return _nonempty(_sorted(asked) if asked.by else asked.values, asked)[0]


def _last(asked: Asked) -> Any:
    return _nonempty(_sorted(asked) if asked.by else asked.values, asked)[-1]


def _filter(asked: Asked) -> Any:
    if isinstance(asked.equals, bool) or asked.equals is None:
        return [value for value in asked.values if _compared(asked, value) is asked.equals]
    wanted = _key(asked.equals)
    return [
        value
        for value in asked.values
        if not isinstance(own := _compared(asked, value), bool | None) and _key(own) == wanted
    ]


# --- dates --------------------------------------------------------------------------------------

_SECONDS: Final = {"minutes": 60, "hours": 3_600, "days": 86_400, "weeks": 604_800}
_MONTHS: Final = {"months": 1, "years": 12}
_TIME_LENGTH_MAX: Final = 10**6


def _moment(value: Any) -> date | datetime:
    """`2026-03-01`, or `2026-03-01T17:00` with or without a zone."""
    if isinstance(value, str) and len(value) <= 40 and value.isascii():
        try:
            return date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        except ValueError:
            pass
    raise _no(f"{str(value)[:80]!r} is no date", "Write it as 2026-03-01 or 2026-03-01T17:00.")


def _add(asked: Asked) -> Any:
    if len(asked.values) != 2:
        raise _no("`add_time` takes a date and how many of `unit` are added to it")
    begins, number = _moment(asked.values[0]), _number(asked.values[1])
    if number != number.to_integral_value() or abs(number) > _TIME_LENGTH_MAX:
        raise _no(f"{str(number)[:40]} is no whole number that can be added")
    many = int(number)
    if asked.unit in _MONTHS:
        return _later(begins, many * _MONTHS[asked.unit]).isoformat()
    if asked.unit not in _SECONDS:
        raise _no(f"`unit` is one of {', '.join((*_SECONDS, *_MONTHS))}")
    if not isinstance(begins, datetime) and _SECONDS[asked.unit] < _SECONDS["days"]:
        raise _no("a date without a time has no hours", "Give it a time: 2026-03-01T00:00.")
    return (begins + timedelta(seconds=many * _SECONDS[asked.unit])).isoformat()


def _later(begins: date | datetime, months: int) -> date | datetime:
    """The same day of another month; where that has no such day, its last."""
    place = begins.year * 12 + begins.month - 1 + months
    year, month = divmod(place, 12)
    if not 1 <= year <= 9_999:
        raise OverflowError
    day = min(begins.day, calendar.monthrange(year, month + 1)[1])
    return begins.replace(year=year, month=month + 1, day=day)


def _between(asked: Asked) -> Any:
    if len(asked.values) != 2:
        raise _no("`time_between` takes two dates")
    one, other = (_moment(value) for value in asked.values)
    unit = asked.unit or "days"
    if unit not in _SECONDS:
        raise _no(f"`unit` is one of {', '.join(_SECONDS)}")
    seconds = (_utc(other) - _utc(one)).total_seconds()
    return _told(Decimal(int(seconds)) / _SECONDS[unit], asked)


def _utc(moment: date | datetime) -> datetime:
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# --- text ---------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _no(f"{str(value)[:80]!r} is no text and no number")
    return str(value)


def _join(asked: Asked) -> Any:
    return _short(asked.text.join(map(_text, asked.values)))


def _format(asked: Asked) -> Any:
    texts = list(map(_text, asked.values))
    named = {int(place) for place in _PLACE.findall(asked.text)}
    if beyond := [place for place in named if place >= len(texts)]:
        raise _no(f"`text` names {{{beyond[0]}}}, and there are {len(texts)} `values`, from 0")
    if len(asked.text) + sum(len(texts[int(n)]) for n in _PLACE.findall(asked.text)) > (
        2 * limits.DERIVE_TEXT_CHARS_MAX
    ):
        raise _no("the text is too long")
    return _short(_PLACE.sub(lambda found: texts[int(found[1])], asked.text))


def _short(text: str) -> str:
    if len(text) > limits.DERIVE_TEXT_CHARS_MAX:
        raise _no("the text is too long", f"At most {limits.DERIVE_TEXT_CHARS_MAX} letters.")
    return text


def _no(why: str, todo: str = "") -> CallInvalid:
    return CallInvalid(
        f"Nothing can be derived: {why}.", todo=todo or "Give other `values`, or do it otherwise."
    )


SELECTING: Final[Mapping[str, Callable[[Asked], Any]]] = {
    "min": _min,
    "max": _max,
    "first": _first,
    "last": _last,
    "sort": _sorted,
    "filter": _filter,
}
"""What comes out was there before: whoever asks could have named it just as well."""
MAKING: Final[Mapping[str, Callable[[Asked], Any]]] = {
    "sum": _sum,
    "difference": _difference,
    "product": _product,
    "quotient": _quotient,
    "percent": _percent,
    "round": _round,
    "count": _count,
    "add_time": _add,
    "time_between": _between,
    "join": _join,
    "format": _format,
}
"""What comes out may be new: whoever chooses the function and the values chooses the result."""
_FUNCTIONS: Final = {**SELECTING, **MAKING}

__all__ = ["MAKING", "SELECTING", "Asked", "compute"]
