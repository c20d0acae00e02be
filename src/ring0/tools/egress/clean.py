"""What of an answer's head goes back to the sandbox: nothing about connections, nobody's keys."""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from ring0.errors import CallInvalid
from ring0.tools.egress.headers import without_keys
from ring0.tools.egress.hosts import split_authority
from ring0.tools.egress.request import EgressRequest

_DROPPED: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
     "upgrade", "content-length", "content-encoding", "alt-svc", "set-cookie2", "public-key-pins",
     "public-key-pins-report-only", "strict-transport-security", "refresh", "nel", "report-to",
     "reporting-endpoints"}
)  # fmt: skip


def kept_fields(
    fields: tuple[tuple[str, str], ...], request: EgressRequest
) -> tuple[tuple[str, str], ...]:
    """The fields of an answer that are handed on; names are in lower case already."""
    named = {
        option.strip().lower()
        for name, value in fields
        if name == "connection"
        for option in value.split(",")
    }
    kept = []
    for name, value in fields:
        if name == "content-length" and request.method == "HEAD" and value.isdecimal():
            kept.append((name, value))  # Of the body that a GET would bring.
        if name in _DROPPED or name in named or name.startswith("proxy-"):
            continue
        if name == "location":
            value = location(value, request)
            if not value:
                continue
        kept.append((name, value))
    return tuple(kept)


def location(value: str, request: EgressRequest) -> str:
    """Where a redirect points. It is not followed here: the next request is a call of its own.

    To another origin it goes without user, fragment and key parameters; empty: to nowhere.
    """
    try:
        parts = urlsplit(urljoin(request.url, value))
        if parts.scheme not in ("http", "https"):
            return ""
        host, port = split_authority(parts.netloc.rpartition("@")[2], parts.scheme)
    except (ValueError, CallInvalid):
        return ""
    if (parts.scheme, host, port) == (request.scheme, request.host, request.port):
        return value if "@" not in parts.netloc else parts.path
    authority = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, authority, parts.path, without_keys(parts.query), ""))
