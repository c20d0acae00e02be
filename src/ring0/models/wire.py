"""What every dialect needs to read hostile answers: strict JSON, bounded words, likely counts."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

import msgspec

from ring0 import errors, limits
from ring0.models.base import ModelAnswer, ModelRequest, estimate_tokens

T = TypeVar("T")

_ID: Final = re.compile(rf"[\x21-\x7e]{{1,{limits.MODEL_CALL_ID_CHARS_MAX}}}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    """What a provider sent, in the shape that `decode` reads. Raises ModelFailed."""
    try:
        return decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(str(error)) from None


class Size:
    """How much of one answer has come, in whatever pieces."""

    def __init__(self) -> None:
        self.chars = 0

    def grow(self, chars: int) -> None:
        """Raises ModelFailed where the answer has no end."""
        self.chars += chars
        if self.chars > limits.MODEL_ANSWER_SIZE_BYTES_MAX:
            raise unreadable(f"it is larger than {limits.MODEL_ANSWER_SIZE_BYTES_MAX:,} bytes")


def arguments(text: str | None, name: str) -> dict[str, Any]:
    """A proposed call's arguments, strictly: an object, no duplicate keys, no number that another
    reader could take for another one, not too deep. Nothing is none. Raises ModelFailed."""
    if text is None or not text.strip():
        return {}
    try:
        args = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        text.encode()  # Half of a surrogate pair, as it stands;
        _check(args)  # or written as an escape.
    except (ValueError, RecursionError) as error:
        why = one_line(f"{type(error).__name__}: {error}")
        raise unreadable(f"the arguments of its call of {one_line(name)}: {why}") from None
    if not isinstance(args, dict):
        raise unreadable(f"the arguments of its call of {one_line(name)} are not an object")
    return args


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _check(args: Any) -> None:
    """Raises ValueError for what the kernel takes from nobody else either."""
    level, depth = [args], 0
    while level:
        if (depth := depth + 1) > limits.CALL_DEPTH_MAX:
            raise ValueError(f"nested deeper than {limits.CALL_DEPTH_MAX}")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                "".join(value).encode()
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str):
                value.encode()
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError("an integer that does not fit 64 bits")
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError("a number without end")
        level = inner


def tool_name(said: str, place: str) -> str:
    """What a proposed call calls: hostile text, which people are shown. Raises ModelFailed."""
    if not said or len(said) > limits.CALL_NAME_CHARS_MAX:
        raise unreadable(f"{place} names no tool")
    if _CONTROL.search(said):
        raise unreadable(f"{place} names a tool with characters that nobody sees")
    return said


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def call_id(said: str, taken: Collection[str]) -> str:
    """The id of a proposed call: the provider's, unless it has none or one that is taken: some
    servers leave ids out, or repeat them in each answer, and results could not be told apart. One
    that is no plain word, or has no end, is none."""
    said = said if _ID.fullmatch(said) else ""
    if said and said not in taken:
        return said
    fresh = (f"{said or 'call'}_{number}" for number in itertools.count(len(taken)))
    return next(one for one in fresh if one not in taken)


def call_ids(request: ModelRequest) -> set[str]:
    """Of all calls in a request's history."""
    return {one.id for message in request.messages for one in message.tool_calls}


def count(said: int | None, of: int | ModelRequest) -> tuple[int, bool]:
    """What the provider says it counted, if it can be true; else the estimate of so many characters
    (of a request: as JSON), and True."""
    if said is None or not 0 <= said <= limits.MODEL_TOKENS_SAID_MAX:
        chars = of if isinstance(of, int) else len(msgspec.json.encode(of))
        return estimate_tokens(chars), True
    return said, False


def part_of(said: int | None, whole: int) -> int:
    """A count of some of what was counted, if it can be true; else none."""
    return said if said is not None and 0 <= said <= whole else 0


def native_of(answer: ModelAnswer, dialect: str) -> dict[str, Any]:
    """What it says in that dialect alone; in another's words nothing."""
    said = answer.native
    return said.body if said is not None and said.dialect == dialect else {}


def error_text(body: bytes) -> str:
    """The provider's words about an error, on one bounded line: `error.message`, or the body."""
    try:
        found = msgspec.json.decode(body)
        error = found.get("error", found) if isinstance(found, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str):
            return one_line(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return one_line(body[: 4 * limits.MODEL_ERROR_CHARS_MAX].decode("utf-8", "replace"))


def error_told(body: bytes) -> str:
    """What a body says of an error where an answer should stand; empty: nothing."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return error_text(body) if isinstance(found, dict) and found.get("error") else ""


def one_line(text: str, chars_max: int = limits.MODEL_ERROR_CHARS_MAX) -> str:
    """Hostile text for an error: no control or direction characters, cut where it is long."""
    cleaned = _CONTROL.sub(" ", text[: 4 * chars_max]).strip()
    return cleaned if len(cleaned) <= chars_max else cleaned[: chars_max - 1] + "…"


def unreadable(why: str) -> errors.ModelFailed:
    return errors.ModelFailed(
        "The model's answer can't be read.",
        why=one_line(why),
        todo="ask again; if it stays, the server does not speak the dialect that it is asked in",
    )


def refused(place: str, why: str) -> errors.CallInvalid:
    """What a client sent can't be read as a request."""
    return errors.CallInvalid(
        f"{place} can't be taken.", why=f"{why}.", todo="Correct it, or leave it out."
    )
