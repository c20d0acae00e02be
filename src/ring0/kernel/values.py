"""Values from outside: parsed once, strictly, and written back in one canonical form.

What JSON leaves open is closed here: duplicate keys, NaN, lone surrogates, integers beyond 64 bits,
depth and size are errors. Nothing is normalised: policy, approver and driver see this one value.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.store import address
from ring0.tools.driver import Said
from ring0.types import Request

_canonical = msgspec.json.Encoder(order="sorted").encode


def parse(body: bytes, *, what: str = "The request") -> Any:
    """JSON from outside. Raises CallInvalid where two readers could differ."""
    if len(body) > limits.CALL_BODY_SIZE_BYTES_MAX:
        raise CallInvalid(
            f"{what} is too large: {len(body)} bytes.",
            why=f"At most {limits.CALL_BODY_SIZE_BYTES_MAX} are taken.",
            todo="Send less, or put the value into the workspace as a file.",
        )
    if _holds_too_many(body):
        raise CallInvalid(
            f"{what} holds too many values.",
            why=f"At most {limits.CALL_VALUES_MAX:,} are taken, however small they are.",
            todo="Send less, or put the value into the workspace as a file.",
        )
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except CallInvalid:
        raise
    except UnicodeDecodeError as error:
        raise _bad(what, f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise _bad(what, f"it is nested deeper than {limits.CALL_DEPTH_MAX}") from None
    except ValueError as error:
        raise _bad(what, str(error)) from None
    check(value, what=what)
    return value


def _holds_too_many(body: bytes) -> bool:
    """Counted before one of them is made: four megabytes of `[]` would take the kernel a second.

    No JSON has more values than commas and opening brackets, and one. Those in its strings are left
    out where it matters. What is no JSON is looked at as far as a parser would come.
    """
    if _values_at_most(body) <= limits.CALL_VALUES_MAX:
        return False
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")  # Quotes that end nothing.
    # Each value has at most a key and a text: two strings, four quotes.
    if bare.count(b'"') > 4 * limits.CALL_VALUES_MAX:
        return True
    return _values_at_most(b"".join(bare.split(b'"')[::2])) > limits.CALL_VALUES_MAX


def _values_at_most(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def check(value: Any, *, what: str = "The value", depth: int = 0) -> None:
    """Raises CallInvalid where a JSON value is out of bounds: depth, integers, strings, floats."""
    if depth > limits.CALL_DEPTH_MAX:
        raise _bad(what, f"it is nested deeper than {limits.CALL_DEPTH_MAX}")
    if value is None or value is True or value is False:
        return
    if isinstance(value, str):
        _check_text(value, what)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _bad(what, "an integer does not fit 64 bits; send it as a string")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise _bad(what, "NaN and infinity are not values")
    elif isinstance(value, list | tuple):
        for item in value:
            check(item, what=what, depth=depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _bad(what, f"a key is {type(key).__name__}, not a string")
            _check_text(key, what)
            check(item, what=what, depth=depth + 1)
    else:
        raise _bad(what, f"{type(value).__name__} is not a JSON value")


def _check_text(text: str, what: str) -> None:
    if len(text) > limits.CALL_STRING_SIZE_BYTES_MAX:
        raise _bad(what, f"a string is longer than {limits.CALL_STRING_SIZE_BYTES_MAX} characters")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise _bad(what, "a string holds half of a surrogate pair") from None


def canonical(value: Any) -> bytes:
    """One byte string for one value: sorted keys, UTF-8, no white space."""
    return _canonical(value)


def bounded(value: object) -> object:
    """What a call may return of it: all, or the beginning of what is too large, as text."""
    encoded = canonical(value)
    if len(encoded) <= limits.RESULT_SIZE_BYTES_MAX:
        return value
    return {
        "cut": encoded[: limits.RESULT_SIZE_BYTES_MAX // 4].decode("utf-8", "replace"),
        "size_bytes": len(encoded),
        "why": "the result was larger than a call may return",
    }


def why(text: str) -> str:
    """Why something is so, as it goes on record."""
    return text[: limits.WHY_CHARS_MAX]


def note(text: str) -> str:
    """What a person wrote about what they did, likewise."""
    return text[: limits.NOTE_CHARS_MAX]


def normal(request: Request, whole: bytes, said: Said | None) -> bytes:
    """What a call without a path is known by: `whole`, its canonical form, or what its door says
    to be the same on each start of its client."""
    if said is None or said.normal is None:
        return whole
    return canonical([request.kind, request.name, said.normal])


def keyed_digest(key: bytes, *parts: bytes) -> str:
    """HMAC-SHA-256 over the parts, each with its length: no two lists of parts share one."""
    framed = b"".join([len(part).to_bytes(8, "big") + part for part in parts])
    return address(key, framed)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _bad("The request", f"the key {twice[:80]!r} stands twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise _bad("The request", f"{name} is not JSON")


def _bad(what: str, why: str) -> CallInvalid:
    return CallInvalid(
        f"{what} can't be taken as it is.",
        why=why[:300],
        todo="Send plain JSON: each key once, 64-bit integers, finite numbers.",
    )
