"""Plain JSON values as they cross a door: made plain, checked, written. No meaning of their own."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ring0 import errors, limits


def plain(value: Any, what: str) -> Any:
    """`value` as plain JSON (structs, dataclasses, tuples and dates become JSON's own types).

    Raises `CallInvalid`, naming `what`, for what JSON can't say: NaN and infinity (which a writer
    would silently turn into null), lone surrogates, objects, too deep a nesting.
    """
    try:
        built = msgspec.to_builtins(value, str_keys=True)
        _check(built, limits.CALL_DEPTH_MAX)
    except RecursionError:
        raise _refused(what, f"deeper than {limits.CALL_DEPTH_MAX} levels") from None
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise _refused(what, str(error)) from None
    return built


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a JSON number")
    elif isinstance(value, dict | list):
        if depth <= 0:
            raise RecursionError
        if isinstance(value, dict):
            for key in value:
                _check(key, depth - 1)
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth - 1)


def as_text(value: Any) -> str:
    """A result as a model reads it: a text as it is, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def encode(value: Any, size_bytes_max: int, what: str) -> bytes:
    """`value`, which is plain, as JSON bytes; `CallInvalid` where they are more than allowed."""
    try:
        body = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise _refused(what, str(error)) from None
    if len(body) > size_bytes_max:
        raise errors.CallInvalid(
            f"{what} is too large.",
            why=f"{len(body):,} bytes of JSON; at most {size_bytes_max:,} are taken",
            todo="send less, or put it in a file of the workspace and send its name",
        )
    return body


def clip(text: str, chars_max: int) -> str:
    """`text`, cut where it is too long, and saying so."""
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def _refused(what: str, why: str) -> errors.CallInvalid:
    return errors.CallInvalid(
        f"{what} is not plain JSON.",
        why=why,
        todo="give texts, finite numbers, true, false, null, lists and objects of them",
    )
