"""Links that carry data away: in the query, the path or the host of a URL that a client fetches by
itself (an image) or that somebody may click. Also links that run something.

A link is judged by its own text: what is private in it, nobody here knows. `hosts` may be named
that are trusted with it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from ring0 import limits
from ring0.guardrails.scanners.disorder import entropy
from ring0.guardrails.scanners.encodings import as_text
from ring0.guardrails.scanners.findings import Confidence, Hit, Severity

_ENDS: Final = r"\s\"'`<>«»|^"
LINK: Final = re.compile(
    r"(?<![A-Za-z0-9+.\-/:\\])(?:(?:https?|ftp|wss?):)?+[/\\]{2}[^" + _ENDS + r"/\\]"
    rf"[^{_ENDS}]{{0,{limits.LINK_CHARS_MAX}}}+"
    rf"|(?<![A-Za-z0-9+.\-])(?:data:[a-z]{{1,20}}/|javascript:|vbscript:)[^{_ENDS}]{{0,{limits.LINK_CHARS_MAX}}}+",
    re.IGNORECASE,
)
"""A URL in any dress: inline, by reference, in HTML, bare; with its scheme or without."""
_BEGINS: Final = ("//", "\\\\", "/\\", "\\/")
_RUNS: Final = ("data:", "script:")
_TAIL: Final = ".,;:!?*_~"

_OPAQUE_CHARS_MIN: Final = 40
"""A run without words, of so many characters: more than an id or a digest of a commit."""
_HIDDEN_CHARS_MIN: Final = 12
"""Encoded, and text when it is decoded."""
_TEXT_CHARS_MIN: Final = 48
_TEXT_WORDS_MIN: Final = 7
_QUERY_CHARS_MAX: Final = 256
_LABEL_CHARS_MAX: Final = 32
_RUN: Final = re.compile(r"[A-Za-z0-9+_\-]{12,}={0,2}")
_VOWELS: Final = frozenset("aeiouAEIOU")
_SPLIT: Final = re.compile(r"[&;=]")
_PLACEHOLDER: Final = re.compile(
    r"\{\{?[^{}]{1,64}\}|%7B[a-z_]{1,64}%7D|\$\{|\[(?:DATA|SECRET|TEXT|INSERT)", re.IGNORECASE
)
_RUNS_SOMETHING: Final = re.compile(
    r"(?:javascript|vbscript):|data:(?:text/html|image/svg|application/)", re.IGNORECASE
)
_ADDRESS: Final = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\]|0x[0-9a-f]+|\d{8,10}", re.IGNORECASE
)
_IMAGE_TAG: Final = re.compile(
    r"<(?:img|source|video|audio|iframe|object|embed|link|script|image|input)\b", re.IGNORECASE
)


class Judged(NamedTuple):
    """What is wrong with a link."""

    reason: str
    severity: Severity
    """Of an image, which is fetched without a click; one less if it is not."""


def places(text: str, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
    """Start and end of each link that begins in text[first:last]."""
    last = len(text) if last is None else last
    found = LINK.search(text, first)
    while found is not None and found.start() < last:
        end = max(_end(text, *found.span()), found.start() + 1)
        yield found.start(), end
        found = LINK.search(text, end)


def open_from(text: str, first: int) -> int:
    """Where in text[first:] a link begins, or could, that has not ended; or the end of the text."""
    found = LINK.search(text, first)
    while found is not None:
        end = _closed_at(text, *found.span())
        if end == len(text) and end - found.start() < limits.LINK_CHARS_MAX + _BEGIN_CHARS_MAX:
            return found.start()
        found = LINK.search(text, max(_end(text, *found.span()), found.start() + 1))
    begin = _MAY_BEGIN.search(text, max(first, len(text) - _BEGIN_CHARS_MAX))
    return begin.start() if begin else len(text)


def _end(text: str, start: int, end: int) -> int:
    """Without the bracket that closes what the link stands in, and what ends the sentence."""
    end = _closed_at(text, start, end)
    while end > start + 1 and text[end - 1] in _TAIL:
        end -= 1
    return end


def _closed_at(text: str, start: int, end: int) -> int:
    """Where a bracket closes that was not opened in text[start:end]."""
    opened = 0
    for found in _BRACKET.finditer(text, start, end):
        opened += 1 if found.group() in "([" else -1
        if opened < 0:
            return found.start()
    return end


_BRACKET: Final = re.compile(r"[()\[\]]")
_BEGIN_CHARS_MAX: Final = 48
_MAY_BEGIN: Final = re.compile(
    r"[A-Za-z]{0,12}:?[/\\]{0,2}\Z|data:[A-Za-z]{0,20}/?\Z", re.IGNORECASE
)
"""What a link begins with, as far as it has come."""


def is_fetched(text: str, start: int) -> bool:
    """What stands before text[start:] makes it an image, or another thing that loads by itself."""
    begin = max(0, start - limits.LINK_BEFORE_CHARS_MAX)
    before = text[begin:start].rstrip(" \t\n<")
    if before.endswith("]("):
        label = before.rfind("![")
        return label >= 0 and "](" not in before[label:-2]
    tag = before.rfind("<")
    if before[-1:] in ("=", '"', "'", "") and tag >= 0 and ">" not in before[tag:]:
        return _IMAGE_TAG.match(before, tag) is not None
    return before.endswith(("url(", 'url("', "url('"))


def judge(link: str, hosts: frozenset[str] = frozenset()) -> Judged | None:
    """What data `link` carries, if it does. Linear in its length."""
    if _RUNS_SOMETHING.match(link):
        return Judged("runs-something", Severity.HIGH)
    if link[:5].lower() == "data:":
        return None  # goes nowhere
    place = re.sub(r"\A(?:[a-z]+:)?[/\\]{2}", "", link, count=1, flags=re.IGNORECASE)
    authority = re.split(r"[/\\?#]", place, maxsplit=1)[0]
    user, at, host = authority.rpartition("@")
    name = host.partition(":")[0].lower().rstrip(".")
    if any(name == each or name.endswith(f".{each}") for each in hosts):
        return None
    if _PLACEHOLDER.search(place):
        return Judged("placeholder", Severity.HIGH)
    if at and len(user) >= _HIDDEN_CHARS_MIN:
        return Judged("user-carries-data", Severity.HIGH)
    labels = name.split(".")
    if any(len(label) > _LABEL_CHARS_MAX or _is_hidden_text(label) for label in labels):
        return Judged("host-carries-data", Severity.HIGH)
    path, _, query = place[len(authority) :].partition("?")
    query = query or path.partition("#")[2]
    return _of_query(query, name) or _of_path(path)


def _of_query(query: str, name: str) -> Judged | None:
    plain = unquote_plus(query)
    for value in _SPLIT.split(query):
        value = unquote_plus(value)
        if any(map(_is_hidden_text, _RUN.findall(value))):
            return Judged("query-carries-data", Severity.CRITICAL)
        if len(value) >= _TEXT_CHARS_MIN and len(value.split()) >= _TEXT_WORDS_MIN:
            return Judged("query-carries-text", Severity.HIGH)
        if any(map(_is_opaque, _RUN.findall(value))):
            return Judged("query-carries-data", Severity.MEDIUM)
    if "@" in plain.strip("@") and re.search(r"[\w.+\-]{1,64}@[\w\-]{1,63}\.\w", plain):
        return Judged("query-carries-address", Severity.HIGH)
    if len(query) > _QUERY_CHARS_MAX:
        return Judged("query-is-long", Severity.MEDIUM)
    if query and _ADDRESS.fullmatch(name):
        return Judged("query-to-an-address", Severity.MEDIUM)
    return None


def _of_path(path: str) -> Judged | None:
    for part in path.split("/"):
        value = unquote_plus(part)
        if any(map(_is_hidden_text, _RUN.findall(value))):
            return Judged("path-carries-data", Severity.CRITICAL)
        if len(value) >= _TEXT_CHARS_MIN and value.count(" ") >= _TEXT_WORDS_MIN:
            return Judged("path-carries-text", Severity.HIGH)
        if any(
            len(run) > _OPAQUE_CHARS_MIN + 24 and _is_opaque(run) for run in _RUN.findall(value)
        ):
            return Judged("path-carries-data", Severity.MEDIUM)
    return None


def _is_hidden_text(run: str) -> bool:
    """Base64, base32 or hex of text."""
    bare = run.rstrip("=")
    if len(bare) < _HIDDEN_CHARS_MIN:
        return False
    try:
        if re.fullmatch(r"[0-9A-Fa-f]+", bare) and _says(bytes.fromhex(bare[: len(bare) & ~1])):
            return not bare.isdigit()
        chars = len(bare) - (len(bare) % 4 == 1)
        body = bare[:chars].replace("-", "+").replace("_", "/") + "=" * (-chars % 4)
        if _is_machine_made(bare) and _says(binascii.a2b_base64(body)):
            return True
    except (binascii.Error, ValueError):
        pass
    return _is_base32(bare)


def _is_base32(bare: str) -> bool:
    if re.fullmatch(r"[A-Z2-7]{16,}|[a-z2-7]{16,}", bare) is None or not re.search("[2-7]", bare):
        return False
    bits = "".join(f"{'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.index(char):05b}" for char in bare.upper())
    data = bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits) - 7, 8))
    return _says(data)


def _says(data: bytes) -> bool:
    text = as_text(data)
    letters = sum(char.isalnum() or char in ' @._-:=,/{}"' for char in text)
    return (
        len(text) >= 8
        and text.isascii()
        and letters >= 0.85 * len(text)
        and len(text) >= len(data) - 2
    )


def _is_machine_made(run: str) -> bool:
    """Small and capital letters or digits, mixed: no word, no slug."""
    kinds = any(map(str.isdigit, run)) + any(map(str.islower, run)) + any(map(str.isupper, run))
    return kinds >= 2


def _is_opaque(run: str) -> bool:
    return (
        len(run) >= _OPAQUE_CHARS_MIN
        and _is_machine_made(run)
        and entropy(run) >= 3
        and max(run.count("-"), run.count("_")) * 8 < len(run)
    )


def find(text: str, lower: str, hosts: frozenset[str] = frozenset()) -> Iterator[Hit]:
    """All links in `text` that carry data or run something."""
    if not any(each in text for each in _BEGINS) and not any(each in lower for each in _RUNS):
        return
    for start, end in places(text):
        if (hit := look(text, start, end, hosts)) is not None:
            yield hit


def look(text: str, start: int, end: int, hosts: frozenset[str]) -> Hit | None:
    """The link text[start:end], by itself and by what it stands in."""
    judged = judge(text[start:end], hosts)
    if judged is None:
        return None
    fetched = is_fetched(text, start)
    severity = judged.severity
    if not fetched and judged.reason != "runs-something":
        severity = Severity(max(Severity.LOW, severity - 1))
    kind = "image" if fetched else "link"
    shown = f"{kind} to {_host(text[start:end])} ({end - start} characters)"
    return Hit(f"link/{judged.reason}", severity, Confidence.MEDIUM, start, end, shown)


def _host(link: str) -> str:
    """The last two labels: what comes before them may hold the data."""
    if _RUNS_SOMETHING.match(link):
        return "a script"
    place = re.split(r"[/\\?#]", re.sub(r"\A(?:[A-Za-z]+:)?[/\\]{2}", "", link), maxsplit=1)[0]
    labels = place.rpartition("@")[2].partition(":")[0].split(".")
    named = ".".join(label[:24] for label in labels[-2:])
    return named if len(labels) <= 2 else f"….{named}"
