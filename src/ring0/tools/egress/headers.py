"""Which header fields, parameters and bodies of a request may go on, and which never.

Told by name only: what a body holds that is nobody's field can't be told from data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from ring0 import limits
from ring0.tools.egress.refusals import forbidden, malformed
from ring0.tools.egress.targets import parameters

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
"""Of a request. Bytes beyond ASCII have no one meaning in a header."""

HANDLE: Final = re.compile(r"ring0-kept-[0-9a-f]{32}")
"""Stands for a cookie or a token that the kernel keeps (kept.py)."""
_COOKIE: Final = re.compile(r"\s*([^=;\s]+)=([^;]*)")
_AUTHORIZATION: Final = re.compile(r"(?:([A-Za-z]+) +)?(\S+)")

_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate",
     "te", "trailer", "transfer-encoding", "content-length", "host", "expect"}
)  # fmt: skip
"""About this connection only: each side makes its own."""
_DROPPED: Final = frozenset({"accept-encoding", "via", "forwarded", "alt-used", "early-data"})
_REFUSED: Final = frozenset(
    {"upgrade", "http2-settings", "x-original-url", "x-original-uri", "x-rewrite-url",
     "x-override-url", "x-forwarded-uri", "x-forwarded-path", "x-http-method-override",
     "x-http-method", "x-method-override", "x-original-method", "x-forwarded-method",
     "x-http-path-override", "content-encoding"}
)  # fmt: skip
"""They change what was judged: another protocol, another path, another method, another body."""
_ONCE: Final = frozenset(
    {"content-type", "authorization", "accept", "user-agent", "range", "if-match"}
)

_SECRET_NAME: Final = re.compile(
    r"(^|[-.])(apikey|key|[a-z]*token|secret|auth|authorization|authentication|authenticate|"
    r"password|passwd|pwd|cookie2?|credentials?|session|sessionid|signature|jwt|sid|login|auxiliary)"
    r"([-.](id|v[0-9]+))?$"
)
_NO_SECRET: Final = frozenset({"idempotency-key", "x-idempotency-key", "x-request-key"})
_KEY_PARAMETER: Final = re.compile(
    r"(key|.*(^|[-_.])(api[-_.]?key|access[-_.]?key([-_.]?id)?|subscription[-_.]?key|token|auth|"
    r"secret|password|passwd|pwd|signature|credentials?|jwt|session|sessionid|sid)|apikey|"
    r"accesskey|accesskeyid|awsaccesskeyid|googleaccessid|authtoken|accesstoken|appkey|"
    r"authorization|sig|skoid|x-amz-.*|x-goog-.*|privatetoken)"
)
_NO_KEY: Final = re.compile(
    r"(.*[-_.])?(page|next|previous|continuation|sync|start|list|cursor)[-_.]?token"
)
_OVERRIDE_PARAMETER: Final = re.compile(
    r"_method|\$?httpmethod|x[-_]http[-_]method([-_]override)?|x[-_]method[-_]override|"
    r"method[-_]override|_?http[-_]method[-_]override"
)


def kept_for(pairs: Iterable[tuple[str, str]], *, own_auth: bool) -> dict[str, str]:
    """The fields that a request keeps, names in lower case, in the order of their names.

    Without `own_auth` every field that could name a person or an account is taken out: the key of
    an attacker on an allowed host is a way out. Raises CallInvalid, CallDenied.
    """
    kept: dict[str, str] = {}
    for given, value in pairs:
        name = given.lower()
        if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            raise malformed(f"Its header {given[:60]!r} holds characters that belong in none.")
        alike = name.replace("_", "-")  # Many servers take one for the other.
        if alike in _REFUSED:
            raise forbidden(
                f"The header {given[:60]!r} is not let through.",
                why="It can make a request another one than the one that was judged.",
                todo="Leave it out.",
            )
        if alike == "connection":
            _check_connection(value)
        if is_secret(alike) and not own_auth:
            value = only_handles(alike, value)
            if not value:
                continue
        if _is_dropped(alike):
            continue
        if name in kept and alike in _ONCE:
            raise malformed(f"Its header {name!r} stands twice.")
        joint = "; " if name == "cookie" else ", "
        kept[name] = f"{kept[name]}{joint}{value}" if name in kept else value
    if len(kept) > limits.EGRESS_HEADERS_MAX:
        raise malformed(f"It has more than {limits.EGRESS_HEADERS_MAX} headers.")
    return dict(sorted(kept.items()))


def only_handles(name: str, value: str) -> str:
    """What of a credential field may stay although nobody's credentials may: handles alone.

    Empty: nothing. The handles are looked up later, on the far side.
    """
    if name == "cookie":
        pairs = [_COOKIE.fullmatch(piece.strip()) for piece in value.split(";")]
        return "; ".join(f"{p[1]}={p[2]}" for p in pairs if p and HANDLE.fullmatch(p[2]))
    found = _AUTHORIZATION.fullmatch(value)
    return value if found and HANDLE.fullmatch(found[2]) else ""


def is_secret(name: str) -> bool:
    """A field that says who asks: a key, a token, a cookie."""
    alike = name.lower().replace("_", "-")
    return alike not in _NO_SECRET and _SECRET_NAME.search(alike) is not None


def is_key_parameter(name: str) -> bool:
    """A parameter of a query that says who asks; `name` is decoded and in lower case."""
    return _KEY_PARAMETER.fullmatch(name) is not None and _NO_KEY.fullmatch(name) is None


def without_keys(query: str) -> str:
    """A query without the parameters that say who asks."""
    pieces = parameters(query)
    if not any(is_key_parameter(name) for name, _ in pieces):
        return query
    return "&".join(piece for name, piece in pieces if not is_key_parameter(name))


def check_overrides(query: str, headers: dict[str, str], body: bytes) -> None:
    """Raises CallDenied where a parameter would make the server carry out another method."""
    names = [name for name, _ in parameters(query)]
    kind = headers.get("content-type", "").lower()
    if "form-urlencoded" in kind:
        names += [name for name, _ in parameters(body.decode("latin-1"))]
    multipart = "multipart/" in kind and re.search(rb'name\s*=\s*"?_method\b', body, re.IGNORECASE)
    if multipart or any(_OVERRIDE_PARAMETER.fullmatch(name) for name in names):
        raise forbidden(
            "The request asks for another method than its own.",
            why="Rules are about the method that is carried out.",
            todo="Use that method itself, if a rule allows it.",
        )


def names_a_batch(path: str, headers: dict[str, str]) -> bool:
    """A path or a body that holds many operations in one: no rule can tell which."""
    pieces = re.split("[/:;]", unquote_to_bytes(path).decode("utf-8", "replace").lower())
    kind = headers.get("content-type", "").lower()
    return any(_BATCH.fullmatch(piece) for piece in pieces) or any(
        name in kind for name in ("multipart/mixed", "graphql", "application/http")
    )


_BATCH: Final = re.compile(
    r"[$_]?(batch(request|update|execute)?|graphi?ql|gql|bulk|msearch|multicall|(json|xml)?-?rpc)"
    r"([-.]?v?[0-9.]+|\.[a-z]{2,4})?"
)
"""A piece of a path, however it is versioned or spelled."""


def _is_dropped(name: str) -> bool:
    return (
        name in _HOP_BY_HOP
        or name in _DROPPED
        or name.startswith(("proxy-", "x-forwarded-", "sec-websocket-", "x-real-", "x-client-ip"))
    )


def _check_connection(value: str) -> None:
    """A field named here would be lost on the way: nobody needs that."""
    options = {option.strip().lower() for option in value.split(",")}
    if options - {"", "close", "keep-alive", "te"}:
        raise forbidden(
            "The request asks for another kind of connection.",
            why="Upgrades (WebSocket, HTTP/2) are not judged request by request.",
            todo="Use plain HTTP/1.1 requests.",
        )
