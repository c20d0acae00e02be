"""What a server says when it wants another token (`WWW-Authenticate: Bearer`, RFC 6750 and 9728).

A stranger's words: bounded, and what is not of the form that the standards give is not there.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

import msgspec

from ring0 import limits

INSUFFICIENT: Final = "insufficient_scope"
_BEARER: Final = re.compile(r"(?i)(?:^|,)\s*bearer(?:\s+|$)")
_FIELD: Final = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCOPE: Final = re.compile(rf"[\x21\x23-\x5b\x5d-\x7e]{{1,{limits.OAUTH_SCOPE_CHARS_MAX}}}")
_ERROR: Final = re.compile(r"[a-z_]{1,64}")


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What it wants, as far as it says."""

    scopes: tuple[str, ...] = ()
    metadata_url: str = ""
    error: str = ""


def read(header: str) -> Challenge:
    """The challenge in a header's value; an empty one where there is none of this kind."""
    header = header[: limits.OAUTH_CHALLENGE_CHARS_MAX]
    begins = _BEARER.search(header)
    if begins is None:
        return Challenge()
    fields: dict[str, str] = {}
    at = begins.end()
    while found := _FIELD.match(header, at):
        fields.setdefault(found[1].lower(), found[3] or re.sub(r"\\(.)", r"\1", found[2] or ""))
        at = found.end()
    error = fields.get("error", "")
    return Challenge(
        scopes=scopes(fields.get("scope", "").split(" ")),
        metadata_url=fields.get("resource_metadata", ""),
        error=error if _ERROR.fullmatch(error) else "",
    )


def scopes(said: list[str]) -> tuple[str, ...]:
    """Those that are words of a scope, each once, and no more than one login asks for."""
    words = (word for word in dict.fromkeys(said) if _SCOPE.fullmatch(word))
    good = list(itertools.islice(words, limits.OAUTH_SCOPES_MAX))
    while len(" ".join(good)) > limits.OAUTH_URL_CHARS_MAX:
        good.pop()
    return tuple(good)
