"""Paths and queries in one canonical form: what could be read in two ways is refused, not mended.

A server may decode once more than we do, fold widths, or drop what follows a `;`. A rule that was
judged on one reading must hold on all of them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

from ring0 import limits
from ring0.tools.egress.refusals import malformed

_VISIBLE: Final = re.compile(r"[\x21-\x7e]*")
_PLAIN: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/?"
)
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9\-._~]")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_ENCODED_SEPARATOR: Final = re.compile(r"%(2f|5c)", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATORS: Final = re.compile(r"[&;]")


def canonical_target(text: str) -> tuple[str, str]:
    """The path and the query of `/path?query`, canonical. Raises CallInvalid."""
    if len(text) > limits.EGRESS_TARGET_CHARS_MAX:
        raise malformed(f"Its path is longer than {limits.EGRESS_TARGET_CHARS_MAX} characters.")
    if not _VISIBLE.fullmatch(text) or "#" in text:
        raise malformed("Its path holds a character that belongs in no URL.")
    if not text.startswith("/") or text.startswith("//"):
        # Some read what follows two of them as the name of a host.
        raise malformed("Its path does not begin with one `/`.")
    path, _, query = text.partition("?")
    return canonical_path(path), _normalised(query)


def canonical_path(path: str) -> str:
    """A path that no server can read as another one. Raises CallInvalid."""
    reading = path
    for _ in range(limits.EGRESS_DECODINGS_MAX):
        _check(reading)
        decoded = _decoded(reading)
        if decoded == reading:
            return _normalised(path)
        reading = decoded
    raise malformed("Its path is percent-encoded over and over.")


def parameters(query: str) -> list[tuple[str, str]]:
    """The pieces of a query as (name, piece): names decoded and in lower case, pieces as they are.

    A `;` separates as well as `&` does: some servers take it so.
    """
    return [
        (_text(piece.partition("=")[0].replace("+", " ")).strip().lower(), piece)
        for piece in _SEPARATORS.split(query)
    ]


def _check(reading: str) -> None:
    """One way to read the path: no other separator, no step upwards."""
    if "\\" in reading or _CONTROL.search(reading):
        raise malformed("Its path holds a control character or a backslash.")
    if _ENCODED_SEPARATOR.search(reading):
        raise malformed("Its path holds an encoded separator.")
    folded = unicodedata.normalize("NFKC", reading)
    if folded.count("/") != reading.count("/") or "\\" in folded:
        raise malformed("Its path holds a character that some read as a separator.")
    for segment in folded.split("/"):
        # Some servers cut a segment at its `;` before they look for dots.
        if segment.partition(";")[0].strip() in (".", ".."):
            raise malformed("Its path holds a step to another folder (`.` or `..`).")


def _decoded(reading: str) -> str:
    try:
        return unquote_to_bytes(reading).decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("Its path is percent-encoded and not UTF-8.") from None


def _text(piece: str) -> str:
    return unquote_to_bytes(piece).decode("utf-8", "replace")


def _normalised(text: str) -> str:
    """Escapes in upper case and only where needed; what should be escaped, is."""
    escaped = _ESCAPE.sub(_escape, text)
    return "".join(c if c in _PLAIN or c == "%" else f"%{ord(c):02X}" for c in escaped)


def _escape(found: re.Match[str]) -> str:
    digits = found.group(1)
    if digits is None:
        raise malformed("It holds a `%` that begins no escape.")
    character = chr(int(digits, 16))
    return character if _UNRESERVED.fullmatch(character) else "%" + digits.upper()
