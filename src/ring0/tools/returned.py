"""What a tool's code gave back, held against what a result may be before anybody works with it.

Not for what it means, and not for its size: a result that is too large is cut where it is recorded.
"""

from __future__ import annotations

import math
from typing import Any, Final

from ring0 import limits
from ring0.errors import ToolFailed

_INTEGER_MAX: Final = 2**63


def checked(value: Any, tool: str) -> Any:
    """`value` itself, where it is plain JSON. Raises ToolFailed, saying where it is not.

    A list that holds itself is nested without end, one that holds another twice, and that another
    twice, is more values than there is time for: both meet a bound. No recursion of our own.
    """
    left: list[tuple[str, int, Any]] = [("", 0, value)]
    count = 1
    while left:
        path, depth, item = left.pop()
        if why := _unfit(item) or (depth > limits.CALL_DEPTH_MAX and _TOO_DEEP):
            raise _refused(tool, path, why)
        if isinstance(item, dict | list | tuple):
            count += len(item)
            if count > limits.RESULT_VALUES_MAX:
                raise _refused(tool, path, f"there are more than {limits.RESULT_VALUES_MAX:,}")
            left.extend(_within(tool, path, depth + 1, item))
    return value


def _within(tool: str, path: str, depth: int, item: Any) -> list[tuple[str, int, Any]]:
    # A way is for the message alone: beyond that it is not made longer with each level.
    at = path if len(path) < limits.WHY_CHARS_MAX // 2 else f"{path[: limits.WHY_CHARS_MAX // 2]}…"
    if not isinstance(item, dict):
        return [(f"{at}[{number}]", depth, inner) for number, inner in enumerate(item)]
    for key in item:
        if why := _unfit(key) if isinstance(key, str) else f"a key is {type(key).__name__}":
            raise _refused(tool, path, why)
    return [(f"{at}.{key[: limits.SCAN_NAME_CHARS_MAX]}", depth, item[key]) for key in item]


_TOO_DEEP: Final = f"it is nested deeper than {limits.CALL_DEPTH_MAX} levels, or holds itself"


def _unfit(item: Any) -> str:
    """Why one value, by itself, is none; empty: it is."""
    if item is None or isinstance(item, bool | dict | list | tuple):
        return ""
    if isinstance(item, str):
        return "" if item.isascii() or _is_text(item) else "half of a surrogate pair is no text"
    if isinstance(item, int):
        fits = -_INTEGER_MAX <= item < _INTEGER_MAX
        return "" if fits else "an integer does not fit 64 bits"
    if isinstance(item, float):
        return "" if math.isfinite(item) else "NaN and infinity are no values"
    return f"{type(item).__name__} is no JSON value"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(tool: str, path: str, why: str) -> ToolFailed:
    at = f"at {path.removeprefix('.')}: " if path else ""
    return ToolFailed(
        f"What {tool} returned can't be taken.",
        why=f"The tool's own fault, {at}{why}. What it did is done.",
        todo="Return texts, finite numbers of 64 bits, true, false, null, lists and objects of"
        " them; send other numbers as text.",
    )
