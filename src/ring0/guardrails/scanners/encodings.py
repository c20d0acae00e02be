"""Undoes one layer of an encoding in a text: base64, hex, percent, HTML entities, backslashes,
rot13, tag characters, variation selectors. Each takes time in proportion to the text.

Tells what the text would be; whether that means anything is for the rules to say.
"""

from __future__ import annotations

import binascii
import codecs
import html
import re
import string
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from urllib.parse import unquote

from ring0.guardrails.scanners.fold import ALIKE, FOLDS, REACH_CHARS, is_variation
from ring0.guardrails.scanners.reading import Reading
from ring0.guardrails.scanners.views import APART, Piece, around

RUN_CHARS_MIN: Final = 16
"""A shorter run of base64 or hex holds no more than a word."""
_STRING_CHARS_MIN: Final = 12
"""Printable characters in a row, in bytes that are no text as a whole."""
_GAP_CHARS_MAX: Final = 16
"""A wider gap is a border."""

_BASE64: Final = re.compile(
    r"(?<![A-Za-z0-9+/_\-])[A-Za-z0-9+/_\-]{16,}+={0,2}+"
    r"(?:\r?\n[A-Za-z0-9+/_\-]{4,}+={0,2}+)*+"
)
_URLSAFE: Final = str.maketrans("-_", "+/")
_HEX: Final = re.compile(
    r"(?<![0-9A-Fa-f])(?:0x|\\x)?[0-9A-Fa-f]{2}(?:[ :,\n]{0,2}(?:0x|\\x)?[0-9A-Fa-f]{2}){7,}+"
)
_NOT_HEX: Final = re.compile(r"0x|[^0-9A-Fa-f]")
_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENTITY: Final = re.compile(
    r"&(?:#[0-9]{1,7}+;?|#[xX][0-9A-Fa-f]{1,6}+;?|[A-Za-z][A-Za-z0-9]{1,31}+;)"
)
_BACKSLASH: Final = re.compile(
    r"(?:\\(?:u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}"
    r"|[0-7]{3}|[nrt/\"]))+"
)
_BACKSLASHED: Final = re.compile(
    r"\\(?:u\{([0-9A-Fa-f]+)\}|[uUx]([0-9A-Fa-f]+)|([0-7]{3})|([nrt/\"]))"
)
_SHORT: Final = {"n": "\n", "r": "\r", "t": "\t", "/": "/", '"': '"'}
_TAGS: Final = re.compile("[\U000e0020-\U000e007e]+")
_VARIATION: Final = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_VARIATIONS: Final = re.compile(f"[{_VARIATION}](?:[^{_VARIATION}]{{0,16}}[{_VARIATION}])++")
"""Also with something between them: that is no part of it."""
_STRINGS: Final = re.compile(rb"[\t\n\r\x20-\x7e]{12,}")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\ufffd]")

_ROT13: Final = str.maketrans(
    string.ascii_letters,
    "".join(codecs.encode(letter, "rot13") for letter in string.ascii_letters),
)
_ROT13_LAYERS: Final = re.compile(r"%[2-7][n-sN-S]|&#[kK][0-9]|\\[hk][0-9]")
"""An encoding that was turned itself: `%6n` is `%6a`, `\\h0069` is `\\u0069`."""

Undone = tuple[str, Callable[[], Sequence[Piece]] | None]
"""The text, and its pieces when they are asked for; None: place for place."""


def as_text(data: bytes) -> str:
    """`data` as the text it is; else what is printable in it; else nothing."""
    if b"\0" in data and not any(data[1::2]):
        data = data[::2]  # UTF-16, as PowerShell takes it
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROLS.search(text) is None:
        return text
    return APART.join(each.decode() for each in _STRINGS.findall(data))


def _spread(decoded: Sequence[Piece], text: str) -> list[Piece]:
    """What was decoded, with what stands between, if it is little; much is a border."""
    found: list[Piece] = []
    for piece in decoded:
        if found:
            before = found[-1].end
            gap = text[before : piece.start]
            near = len(gap) <= _GAP_CHARS_MAX
            found.append(Piece(gap if near else APART, before, piece.start))
        found.append(piece)
    return found


def _undone(decoded: Sequence[Piece], text: str) -> Undone | None:
    if not decoded:
        return None
    pieces = _spread(decoded, text)
    return "".join(piece.text for piece in pieces), lambda: _fine(pieces)


def _fine(pieces: Sequence[Piece]) -> list[Piece]:
    """Base64 in steps of three bytes, so that a place in it can be pointed at."""
    found: list[Piece] = []
    for piece in pieces:
        chars, there = len(piece.text), piece.end - piece.start
        if piece.ratio or not piece.text.isascii() or there != -(-chars * 4 // 3) or chars < 3:
            found.append(piece)
            continue
        for step in range(0, chars, 3):
            start = piece.start + step // 3 * 4
            found.append(Piece(piece.text[step : step + 3], start, min(start + 4, piece.end)))
    return found


def base64(text: str) -> Undone | None:
    decoded: list[Piece] = []
    for found in _BASE64.finditer(text):
        run, start = found.group(), found.start()
        lines = [run]
        if "\n" in run:
            whole = _debased(run.replace("\r", "").replace("\n", "").replace("=", ""))
            if whole:
                decoded.append(Piece(whole[0], start, found.end()))
                continue
            lines = run.split("\n")
        for line in lines:
            if len(line) >= RUN_CHARS_MIN and (one := _debased(line.rstrip("=\r"))):
                decoded.append(Piece(one[0], start + one[1], start + len(line.rstrip("=\r"))))
            start += len(line) + 1
    return _undone(decoded, text)


def _debased(run: str) -> tuple[str, int] | None:
    """What `run` says, and after how many characters of it: it may be glued to something."""
    body = run.translate(_URLSAFE)
    for shift in range(4):
        chars = len(body) - shift
        if chars < RUN_CHARS_MIN - 1:
            break
        chars -= chars % 4 == 1
        data = binascii.a2b_base64(body[shift : shift + chars] + "=" * (-chars % 4))
        if len(text := as_text(data)) >= _STRING_CHARS_MIN - 1:
            return text, shift
    return None


_HEX_SHAPE: Final = bytes(
    ord("h") if chr(code) in "0123456789abcdefABCDEF" else 32 if chr(code) in " :,\n" else ord(".")
    for code in range(256)
)
_HEX_SHAPES: Final = (
    b"h" * RUN_CHARS_MIN,
    b"hh " * 7,
    b"h.hh" * 7,
    b"hh  " * 7,
    b"h.hh " * 7,
    b"h.hh  " * 7,
)


def may_be_hexadecimal(text: str) -> bool:
    """Enough digits in a row, or in pairs. Much less work than looking for them."""
    shape = text.encode("utf-8", "replace").translate(_HEX_SHAPE)
    return any(each in shape for each in _HEX_SHAPES)


def hexadecimal(text: str) -> Undone | None:
    decoded: list[Piece] = []
    for found in _HEX.finditer(text):
        run = found.group()
        digits = _NOT_HEX.sub("", run)
        data = bytes.fromhex(digits[: len(digits) & ~1])
        if plain := as_text(data):
            exact = len(digits) == len(run) and len(plain) == len(data)
            decoded.append(Piece(plain, *found.span(), 2 if exact else 0))
    return _undone(decoded, text)


def _edited(text: str, edits: Sequence[Piece]) -> Undone | None:
    if not edits:
        return None
    pieces = around(text, edits, REACH_CHARS)
    return "".join(piece.text for piece in pieces), lambda: pieces


def percent(text: str) -> Undone | None:
    if "%" not in text:
        return None
    edits = [_unquoted(*found.span(), found.group()) for found in _PERCENT.finditer(text)]
    return _edited(text, edits)


def _unquoted(start: int, end: int, run: str) -> Piece:
    plain = unquote(run)
    return Piece(plain, start, end, 3 if len(plain) * 3 == len(run) else 0)


def entities(text: str) -> Undone | None:
    if "&" not in text:
        return None
    edits = [
        Piece(plain, *found.span())
        for found in _ENTITY.finditer(text)
        if (plain := _character(found.group())) != found.group()
    ]
    return _edited(text, edits)


def _character(entity: str) -> str:
    """Also one that HTML leaves out, as the escape character."""
    if not entity.startswith("&#"):
        return html.unescape(entity)
    digits = entity[2:].rstrip(";")
    code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else entity


def backslashes(text: str) -> Undone | None:
    if "\\" not in text:
        return None
    edits = [Piece(_unescaped(found.group()), *found.span()) for found in _BACKSLASH.finditer(text)]
    return _edited(text, edits)


def _unescaped(run: str) -> str:
    """Escapes in a row: two of them may be halves of one character, or bytes of UTF-8."""
    codes: list[int] = []
    is_bytes = True
    for braced, plain, octal, short in _BACKSLASHED.findall(run):
        code = ord(_SHORT[short]) if short else int(braced or plain or octal, 8 if octal else 16)
        codes.append(min(code, 0x10FFFF))
        is_bytes = is_bytes and code < 256
    if is_bytes and max(codes) > 127:
        try:
            return bytes(codes).decode()
        except UnicodeDecodeError:
            pass
    units = "".join(map(chr, codes)).encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le", "replace")


def tags(text: str) -> Undone | None:
    """The ASCII that tag characters hide (U+E0020 to U+E007E)."""
    if text.isascii():
        return None
    decoded = [
        Piece("".join(chr(ord(tag) - 0xE0000) for tag in found.group()), *found.span(), 1)
        for found in _TAGS.finditer(text)
    ]
    return _undone(decoded, text)


def variations(text: str) -> Undone | None:
    """Bytes that variation selectors hide: 16 of them are U+FE00 on, 240 U+E0100 on."""
    if text.isascii():
        return None
    decoded = []
    for found in _VARIATIONS.finditer(text):
        codes = [ord(each) for each in found.group() if is_variation(each)]
        data = bytes(code - 0xFE00 if code < 0xE0000 else code - 0xE0100 + 16 for code in codes)
        if plain := as_text(data):
            exact = len(plain) == len(found.group())
            decoded.append(Piece(plain, *found.span(), int(exact)))
    return _undone(decoded, text)


def rot13(text: str) -> Undone | None:
    turned = text.translate(_ROT13)
    return (turned, None) if turned != text else None


class Turned:
    """Whether a text was turned by 13 letters: whether that makes words of it."""

    def __init__(self, words: frozenset[str], parts: Sequence[str]) -> None:
        """`words`: of which one shows it; `parts`: of which one does anywhere in a long word."""
        self._words = words
        self._words_bytes = frozenset(word.encode() for word in words)
        self._parts = tuple(part.translate(_ROT13) for part in parts)

    def __call__(self, reading: Reading) -> bool:
        text = reading.text
        turned = text.encode("utf-8", "replace").translate(_TURNED_WORDS)
        if not self._words_bytes.isdisjoint(turned.split()):
            return True
        if reading.long and self._in_long(reading):
            return True
        if text.isascii() or ALIKE.search(text) is None:
            return False
        seen = text.translate(_ROT13).translate(FOLDS)  # look-alikes were not turned with it
        return not self._words.isdisjoint(re.findall("[a-z]+", seen.lower()))

    def _in_long(self, reading: Reading) -> bool:
        """A secret, or something encoded, that was turned."""
        if any(part in reading.long for part in self._parts):
            return True
        if any(sign in reading.long for sign in "%&\\") and _ROT13_LAYERS.search(reading.text):
            return True
        return any(_bases(reading.text.translate(_ROT13)))


_TURNED_WORDS: Final = bytes(
    ord(chr(code).translate(_ROT13).lower()) if code > 127 or chr(code).isalnum() else 32
    for code in range(128)
) + bytes(range(128, 256))
"""To bytes of small letters, turned; all between words a space."""


def _bases(text: str) -> Iterator[bool]:
    if may_be_hexadecimal(text) and hexadecimal(text) is not None:
        yield True
    for found in _BASE64.finditer(text):
        body = found.group().rstrip("=").translate(_URLSAFE)[: 1 << 16]
        if "\n" not in body:
            chars = len(body) & ~3
            try:
                yield _CONTROLS.search(binascii.a2b_base64(body[:chars]).decode()) is None
            except UnicodeDecodeError:
                continue
