"""Text as the tokens that an argument's value is looked up by: words, addresses, numbers.

Only for matching: what comes out of here is never stored or sent (NFKC makes `../` of `‥／`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

NUMBER_DIGITS_MAX: Final = 28
"""As many as `Decimal.normalize` keeps: more would make two numbers one."""

_INVISIBLE: Final = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001-\U000e01ef]"
)
"""Zero-width, bidi and tag characters: `4711` with one of them before a `0` is 47110, not 4711."""

_JOINERS: Final = r".@\-/+%~\\"
"""What binds words to one address, path, host or id: `bob@acme.com` is not in `bob@acme.com.au`."""

_URL: Final = re.compile(r"[a-z][a-z0-9+.\-]{1,20}://[^\s\"'<>`|\0]+")
_CHUNK: Final = re.compile(rf"(?:[\w{_JOINERS}]|:(?=\w)|(?<=\d),(?=\d))+")
_WORD: Final = re.compile(r"\w+")
_AFTER: Final = re.compile(rf"[{_JOINERS}:]*\w|,\d")
_BEFORE: Final = re.compile(rf"\w[{_JOINERS}:]*\Z|\d,\Z")
_BORDER_CHARS: Final = 8
_NUMBER: Final = re.compile(r"[-+]?(?:0|[1-9]\d*)(?:\.\d+)?")
_GROUPED: Final = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_GROUPED_BY_POINTS: Final = re.compile(r"[-+]?\d{1,3}(?:\.\d{3})+,\d+")
_DECIMAL_COMMA: Final = re.compile(r"[-+]?\d+,\d{1,2}")
_NAMED_NUMBER: Final = re.compile(r"[^\W\d]+[-/:](\d+)")
_PLAIN_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
# An open quote runs to the end, and an e-mail begins where its characters do: so every start
# either matches or fails at once, and hostile megabytes take linear time.
_LITERAL: Final = re.compile(
    r"'((?:[^'\\]|''|\\.?)*+)(?:'|\Z)"
    r'|"((?:[^"\\]|""|\\.?)*+)(?:"|\Z)'
    r"|`([^`]*+)(?:`|\Z)"
    r"|(\b[a-z][a-z0-9+.\-]{1,20}://[^\s\"'<>`|]+)"
    r"|((?<![\w.+\-])[\w.+\-]++@[\w.\-]+)"
    r"|((?<![\w.])[-+]?\.?\d\w*(?:[.,]\d\w*)*)",
    re.IGNORECASE | re.DOTALL,
)


def folded(text: str) -> str:
    """NFKC, case folded, whitespace squeezed to single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def visible(text: str) -> str:
    """Without invisible characters. For what was seen, never for the value that is looked up."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def number_key(value: Any) -> str | None:
    """One key for 12.5, `12.50` and `+12.5`; None for what is no finite number or too long."""
    text = str(value) if not isinstance(value, int) or abs(value) < 10**NUMBER_DIGITS_MAX else ""
    if not text or len(text) > NUMBER_DIGITS_MAX:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number.adjusted()) > NUMBER_DIGITS_MAX:
        return None
    plain = format(number.normalize(), "f") if number else "0"
    return "#" + plain


def keys(text: str) -> set[str]:
    """All that `text` (folded) can be found by. Linear in its length."""
    found: set[str] = set()
    for url in set(_URL.findall(text)) if "://" in text else ():
        found.add(url)
        found.add(url.rstrip(".,;:!?)]}"))
    for chunk in set(_CHUNK.findall(text)):
        if chunk.isalpha():
            found.add(chunk)
        else:
            found.update(_chunk_keys(chunk))
    found.discard("")
    return found


def _chunk_keys(chunk: str) -> Iterator[str]:
    bare = chunk.rstrip(".-/+%:~\\@").lstrip("-+%:@")
    if bare.isdecimal():
        if _NUMBER.fullmatch(chunk) is None or chunk == bare:  # "-4711" is not 4711
            yield bare
    else:
        yield from (chunk, chunk.rstrip(".-:"), bare)
        name, _, rest = bare.partition(":")
        if name.isalpha() and "@" in rest:  # mailto:bob@acme.com
            yield rest
        yield from (word for word in _WORD.findall(chunk) if not word.isdecimal())
    number = chunk.rstrip(".%:-/").lstrip("+:@")
    yield from number_keys(number)
    if named := _NAMED_NUMBER.fullmatch(number):
        yield from number_keys(named.group(1))


def number_keys(text: str) -> Iterator[str]:
    """`text` as one number: plain, 1,250.00, 1.250,00 or 12,50; else as a list of them.

    Never as both: who typed 12,50 did not type 50.
    """
    if "," not in text:
        parts = [text] if _NUMBER.fullmatch(text) else []
    elif _GROUPED.fullmatch(text):
        parts = [text.replace(",", "")]
    elif _GROUPED_BY_POINTS.fullmatch(text) or _DECIMAL_COMMA.fullmatch(text):
        parts = [text.replace(".", "").replace(",", ".")]
    else:
        parts = [part for part in text.split(",") if _NUMBER.fullmatch(part)]
        yield from parts  # a list of ids
    for part in parts:
        if key := number_key(part):
            yield key


def is_key(value: str) -> bool:
    """Whether `value` (folded) is one token, so that `keys` of a text that holds it has it."""
    return _CHUNK.fullmatch(value) is not None or _URL.fullmatch(value) is not None


def as_number(value: str) -> str | None:
    """The number key of text that is a number (`12.50`), not of digits that are an id (`007`)."""
    return number_key(value) if _PLAIN_NUMBER.fullmatch(value) else None


def words(value: str, most: int) -> list[str]:
    """The longest words of `value` (folded) that `keys` of a text that holds it must have."""
    found = {word for word in _WORD.findall(value) if not word.isdecimal()}
    return sorted(found, key=len, reverse=True)[:most]


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is not just a part of a longer word, number, address or path."""
    if _is_word(text[end - 1]) and _AFTER.match(text, end, end + _BORDER_CHARS):
        return False
    before = text[max(0, start - _BORDER_CHARS) : start]
    return not (_is_word(text[start]) and _BEFORE.search(before))


def _is_word(character: str) -> bool:
    return character == "_" or character.isalnum()


def literals(text: str) -> list[str]:
    """What in `text` (a statement, a sentence) looks like a value: quoted, number, e-mail, URL."""
    found: dict[str, None] = {}
    for match in _LITERAL.finditer(text):
        single, double, back, url, email, number = match.groups()
        if single is not None:
            found[single.replace("''", "'")] = None
        elif double is not None:
            found[double.replace('""', '"')] = None
        else:
            url = (url or "").rstrip(".,;:!?)]}")
            found[back or url or (email or "").rstrip(".-") or number or ""] = None
    found.pop("", None)
    return list(found)
