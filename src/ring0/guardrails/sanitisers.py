"""Named sanitisers: pure tests that let through only what can't hold an instruction or a target of
a stranger's choosing beyond what their name says.

Who names one is the operator, in a manifest. What passes is declassified: from untrusted to a
trusted field, on record. Not here: to which field one belongs (fields.py).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final

import jsonschema_rs

from ring0 import limits

Sanitiser = Callable[[Any], bool]

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LINEAR: Final = jsonschema_rs.RegexOptions(size_limit=limits.SCHEMA_PATTERN_SIZE_BYTES_MAX)
_ONE_OF: Final = "one of "
_LIKE: Final = "like "
FORMS: Final = (
    "`integer`, `number`, `boolean`, `date`, `time`, `uuid`, `one of A, B`, `like PATTERN`"
)


@functools.lru_cache(maxsize=512)
def sanitiser(word: str) -> Sanitiser:
    """The sanitiser of that name. Raises ValueError, which says what is wrong with it."""
    if word in _PLAIN:
        return _PLAIN[word]
    if word.startswith(_ONE_OF):
        allowed = frozenset(part.strip() for part in word.removeprefix(_ONE_OF).split(","))
        if "" in allowed or len(allowed) > limits.SANITISER_WORDS_MAX:
            raise ValueError(
                f"it takes 1 to {limits.SANITISER_WORDS_MAX} words, none of them empty"
            )
        return lambda value: isinstance(value, str) and value in allowed
    if word.startswith(_LIKE):
        return _like(word.removeprefix(_LIKE))
    raise ValueError(f"there is no sanitiser {word[:80]!r}; there are {FORMS}")


def _like(pattern: str) -> Sanitiser:
    """The whole of a text fits the pattern. An engine without backtracking tries it."""
    try:
        re.compile(pattern)  # A pattern that is closed and opened again would lose its anchors.
        schema = {"type": "string", "pattern": rf"\A(?:{pattern})\z"}
        fits = jsonschema_rs.validator_for(schema, pattern_options=_LINEAR, offline=True)
    except (re.error, ValueError, jsonschema_rs.ValidationError) as error:
        raise ValueError(
            f"{pattern[:80]!r} is no pattern: {str(error).splitlines()[0][:200]}"
        ) from None
    return lambda value: _is_short(value) and fits.is_valid(value)


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= limits.SANITISED_CHARS_MAX


def _integer(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 10**18
    return _is_short(value) and _INTEGER.fullmatch(value) is not None


def _number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _integer(value) or (_is_short(value) and _NUMBER.fullmatch(value) is not None)


def _boolean(value: Any) -> bool:
    return isinstance(value, bool) or value in ("true", "false")


def _date(value: Any) -> bool:
    return _parses(value, _DATE, date.fromisoformat)


def _time(value: Any) -> bool:
    return _parses(value, _TIME, datetime.fromisoformat)


def _parses(value: Any, form: re.Pattern[str], parse: Callable[[str], object]) -> bool:
    """Only in ASCII digits: `fromisoformat` takes more than one would think."""
    if not _is_short(value) or form.fullmatch(value) is None:
        return False
    try:
        parse(value)
    except ValueError:
        return False
    return True


def _uuid(value: Any) -> bool:
    return _is_short(value) and _UUID.fullmatch(value) is not None


_PLAIN: Final[dict[str, Sanitiser]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "time": _time,
    "uuid": _uuid,
}

__all__ = ["FORMS", "sanitiser"]
