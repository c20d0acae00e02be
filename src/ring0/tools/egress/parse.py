"""HTTP/1.1 messages, strictly: what two readers could take in two ways is refused, never mended.

Pure functions over bytes; who reads the bytes, and how long, is for wire.py. Source: RFC 9112, with
none of the leniencies that it permits (bare LF, folded lines, white space before a colon, lists of
lengths, chunk extensions).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.tools.egress.headers import TOKEN, VALUE
from ring0.tools.egress.refusals import malformed

END_OF_HEAD: Final = b"\r\n\r\n"

_REQUEST_LINE: Final = re.compile(r"(?!CONNECT )([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.1")
_CONNECT_LINE: Final = re.compile(r"(CONNECT) ([\x21-\x7e]+) HTTP/1\.[01]")
"""Python before 3.12 says 1.0 here; a CONNECT has no body that could be told wrong."""
_STATUS_LINE: Final = re.compile(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_ANSWER_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,11}")
_CHUNK_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,8}")


class RequestHead(msgspec.Struct, frozen=True):
    """The first lines of a request, as they came."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]


class AnswerHead(msgspec.Struct, frozen=True):
    """The first lines of an answer; names in lower case."""

    status: int
    fields: tuple[tuple[str, str], ...]


class Framing(msgspec.Struct, frozen=True):
    """Where a body ends."""

    length: int = 0
    chunked: bool = False
    until_close: bool = False


def check_so_far(data: bytes) -> None:
    """Raises CallInvalid as soon as the beginning of a head can't become a good one."""
    if data.replace(b"\r\n", b"").find(b"\n") >= 0:
        raise malformed("A line ends without a carriage return.")
    # A last CR may be the first half of a line's end.
    if b"\r" in data.replace(b"\r\n", b"").removesuffix(b"\r"):
        raise malformed("A carriage return stands alone.")
    if b"\x00" in data:
        raise malformed("It holds a NUL byte.")
    if len(data) > limits.EGRESS_HEAD_SIZE_BYTES_MAX:
        raise malformed(f"Its head is longer than {limits.EGRESS_HEAD_SIZE_BYTES_MAX} bytes.")


def parse_request(head: bytes) -> RequestHead:
    """A request's head, up to and without its empty line. Raises CallInvalid."""
    first, lines = _lines(head)
    found = _REQUEST_LINE.fullmatch(first) or _CONNECT_LINE.fullmatch(first)
    if found is None:
        raise malformed("Its first line is not `METHOD target HTTP/1.1`.")
    return RequestHead(found[1], found[2], tuple(_field(line, VALUE) for line in lines))


def parse_answer(head: bytes) -> AnswerHead:
    """An answer's head, up to and without its empty line. Raises CallInvalid."""
    first, lines = _lines(head)
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise malformed("Its first line is no status line of HTTP/1.1.")
    fields = [_field(line, _ANSWER_VALUE) for line in lines]
    return AnswerHead(int(found[1]), tuple((name.lower(), value) for name, value in fields))


def one(fields: tuple[tuple[str, str], ...], name: str) -> str | None:
    """The only field of that name; None where there is none. Raises CallInvalid for two."""
    values = [value for given, value in fields if given.lower() == name]
    if len(values) > 1:
        raise malformed(f"It has more than one {name.title()}.")
    return values[0] if values else None


def request_framing(head: RequestHead) -> Framing:
    """Where a request's body ends. Raises CallInvalid where two readers could differ."""
    for name, _ in head.fields:
        # Some servers read `Content_Length` as the real one.
        if "_" in name and name.lower().replace("_", "-") in _FRAMING_NAMES:
            raise malformed(f"Its header {name!r} is not spelled as it has to be.")
    length, coding = one(head.fields, "content-length"), one(head.fields, "transfer-encoding")
    if coding is not None:
        if length is not None:
            raise malformed("It has both Content-Length and Transfer-Encoding.")
        if coding.lower() != "chunked":
            raise malformed("Its Transfer-Encoding is not `chunked`.")
        return Framing(chunked=True)
    return Framing(length=_length(length, limits.EGRESS_REQUEST_SIZE_BYTES_MAX))


def answer_framing(head: AnswerHead, method: str) -> Framing:
    """Where an answer's body ends. Raises CallInvalid."""
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return Framing()
    length, coding = one(head.fields, "content-length"), one(head.fields, "transfer-encoding")
    if coding is not None:
        if length is not None or coding.lower() != "chunked":
            raise malformed("Where its body ends can't be told.")
        return Framing(chunked=True)
    if length is None:
        return Framing(until_close=True)
    return Framing(length=_length(length, limits.EGRESS_BODY_SIZE_BYTES_MAX))


def parse_chunk_size(line: bytes) -> int:
    """The size of a chunk from its line, without CRLF. Extensions are refused."""
    if not _CHUNK_SIZE.fullmatch(line):
        raise malformed("The size of a chunk is not a plain hexadecimal number.")
    return int(line, 16)


_FRAMING_NAMES: Final = frozenset({"content-length", "transfer-encoding"})


def _lines(head: bytes) -> tuple[str, list[str]]:
    check_so_far(head)
    first, *lines = head.decode("latin-1").split("\r\n")
    if len(lines) > limits.EGRESS_HEADERS_MAX:
        raise malformed(f"It has more than {limits.EGRESS_HEADERS_MAX} headers.")
    if max(map(len, (first, *lines))) > limits.EGRESS_LINE_SIZE_BYTES_MAX:
        raise malformed(f"A line is longer than {limits.EGRESS_LINE_SIZE_BYTES_MAX} bytes.")
    return first, lines


def _field(line: str, value_form: re.Pattern[str]) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not TOKEN.fullmatch(name):
        raise malformed("A header has no name that HTTP knows, or is folded over two lines.")
    value = value.strip(" \t")
    if not value_form.fullmatch(value):
        # Not by its name: in an answer that could be an echo of a credential.
        raise malformed("A header holds bytes that belong in none.")
    return name, value


def _length(text: str | None, most: int) -> int:
    if text is None:
        return 0
    if not _LENGTH.fullmatch(text):
        raise malformed("Its Content-Length is not one plain number.")
    if int(text) > most:
        raise TooLarge(most)
    return int(text)


class TooLarge(CallInvalid):
    """A body beyond its bound."""

    def __init__(self, most: int) -> None:
        super().__init__(
            "The body is too large.",
            why=f"At most {most} bytes are taken.",
            todo="Ask for less, in pieces.",
        )
