"""Takes credentials out of answers: a server that echoes a request must not hand them over.

Finds values that it is given, in the encodings that servers use. What is found only after decoding
can't be cut out reliably: such an answer is refused whole. No defence against a server that means
to betray: whoever is trusted with a credential can send it on by itself.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

from ring0 import limits
from ring0.tools.egress.refusals import forbidden
from ring0.tools.egress.request import EgressAnswer

MARK: Final = b"[redacted]"

_WRAPS: Final = b"\x00\t\n\r \"'+,:;|\\-"
"""What may stand between two characters of a value: line breaks, quotes, UTF-16's zeros."""
_NAMED: Final = ((b"&lt;", b"<"), (b"&gt;", b">"), (b"&quot;", b'"'), (b"&apos;", b"'"))


class Echoes:
    """The values that must not come back. Its `repr` shows none.

    Time is bounded by the answer's size, whatever is in it: no pattern, no step for each escape.
    """

    __slots__ = ("_characters", "_needles", "_squeezed")

    def __init__(self, values: Iterable[str]) -> None:
        values = list(values)
        needles = {form.lower() for value in values for form in _forms(value)}
        # The longest first: a short form may be part of a long one.
        self._needles = sorted(needles, key=lambda needle: (-len(needle), needle))
        self._squeezed = {needle.translate(None, _WRAPS) for needle in needles}
        used = "".join(values) + "+/="
        self._characters = sorted({c.lower() for c in used} | {c.upper() for c in used})

    def __repr__(self) -> str:
        return f"Echoes({len(self._needles)} forms)"

    def take_out(self, answer: EgressAnswer) -> EgressAnswer:
        """The answer without them. Raises CallDenied where they can't be cut out."""
        if not self._needles:
            return answer
        headers = []
        for name, value in answer.headers:
            if self._redacted(name.encode("latin-1")) == name.encode("latin-1"):
                headers.append((name, self._redacted(value.encode("latin-1")).decode("latin-1")))
        body = self._redacted(answer.body)
        told = b"\n".join(f"{name}: {value}".encode("latin-1") for name, value in headers)
        if self._is_hidden_in(told) or self._is_hidden_in(body):
            raise forbidden(
                "The answer is not handed on.",
                why="It holds a credential in an encoding that it can't be cut out of.",
                todo="Ask another endpoint: this one sends back what it is sent.",
            )
        return EgressAnswer(status=answer.status, headers=tuple(headers), body=body)

    def _redacted(self, data: bytes) -> bytes:
        lower = data.lower()
        for needle in self._needles:
            if needle not in lower:
                continue
            pieces, at = [], 0
            while (found := lower.find(needle, at)) >= 0:
                pieces += [data[at:found], MARK]
                at = found + len(needle)
            data = b"".join([*pieces, data[at:]])
            lower = data.lower()
        return data

    def _is_hidden_in(self, data: bytes) -> bool:
        """After more decoding, or with line breaks and separators taken out, it is there."""
        lower = data.lower()
        decoded = self._decoded(lower)
        if any(needle in decoded or needle[::-1] in lower for needle in self._needles):
            return True
        tight, tighter = lower.translate(None, _WRAPS), decoded.translate(None, _WRAPS)
        return any(needle in tight or needle in tighter for needle in self._squeezed)

    def _decoded(self, lower: bytes) -> bytes:
        """With every escape of a character that the values hold undone, and those of escapes."""
        for lead, escaped_lead in ((b"%", b"%25"), (b"\\", b"\\\\"), (b"&", b"&amp;")):
            if lead not in lower:
                continue
            for _ in range(limits.EGRESS_DECODINGS_MAX):
                lower = lower.replace(escaped_lead, lead)
            for character in self._characters:
                plain = character.lower().encode()
                for escape in _escapes(lead, ord(character)):
                    lower = lower.replace(escape, plain)
        for name, plain in _NAMED:
            lower = lower.replace(name, plain)
        return lower


def _escapes(lead: bytes, code: int) -> tuple[bytes, ...]:
    """The ways to write one character that begin with `lead`, in lower case."""
    if lead == b"%":
        return (b"%%%02x" % code,)
    if lead == b"\\":
        return b"\\u%04x" % code, b"\\x%02x" % code, b"\\u{%x}" % code, b"\\%03o" % code
    return b"&#%d;" % code, b"&#x%x;" % code, b"&#%03d;" % code, b"&#x%04x;" % code


def _forms(value: str) -> Iterable[bytes]:
    """The encodings of one value that are cut out, wherever they stand."""
    raw = value.encode()
    yield raw
    yield quote(value, safe="").encode()
    yield quote_plus(value, safe="").encode()
    yield quote(value).encode()
    yield "".join(f"%{byte:02x}" for byte in raw).encode()
    yield raw.hex().encode()
    yield json.dumps(value)[1:-1].encode()
    yield json.dumps(value)[1:-1].replace("/", "\\/").encode()
    yield "".join(f"\\u{byte:04x}" for byte in raw).encode()
    yield html.escape(value).encode()
    yield "".join(f"&#{byte};" for byte in raw).encode()
    yield "".join(f"&#x{byte:x};" for byte in raw).encode()
    yield base64.b32encode(raw).rstrip(b"=")
    for shift in range(3):
        # The first and the last characters hold bits of what stands around: they are left out.
        encoded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        first = (0, 2, 3)[shift]
        last = len(encoded) - (1 if (shift + len(raw)) % 3 else 0)
        middle = encoded[first:last]
        yield middle
        yield middle.replace(b"+", b"-").replace(b"/", b"_")


def values_of(pieces: Iterable[str]) -> list[str]:
    """Those that are long enough to be told from plain words."""
    return [piece for piece in dict.fromkeys(pieces) if len(piece) >= limits.SECRET_CHARS_MIN]
