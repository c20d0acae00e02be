"""A request that wants out, and its answer: one canonical value that policy, approver and sender
all see. Made in one place only, `canonical`; what can be read in two ways never becomes one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.tools.egress import headers as fields
from ring0.tools.egress.hosts import DEFAULT_PORTS, split_authority
from ring0.tools.egress.refusals import malformed
from ring0.tools.egress.targets import canonical_target
from ring0.types import Frozen

METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""They read."""
IDEMPOTENT_METHODS: Final = SAFE_METHODS | {"PUT", "DELETE"}
CONNECT: Final = "CONNECT"
"""An opaque tunnel: what goes through it is not seen."""

_URL: Final = re.compile(r"(https?)://([^/?#@\s]+)(/[^\s]*)?", re.IGNORECASE)


class EgressRequest(Frozen, frozen=True, kw_only=True):
    """One canonical request; equal requests are equal in every byte."""

    method: str
    scheme: str
    host: str
    """A-labels in lower case without a last dot, or an IPv4 address."""
    port: int
    path: str
    query: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Lower-case names, sorted; none about the connection, Host or length."""
    body: bytes = b""

    @property
    def authority(self) -> str:
        """The value of its Host header."""
        default = DEFAULT_PORTS[self.scheme] == self.port
        return self.host if default else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """Whose cookies and tokens are this request's: scheme, host and port."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """Path and query, as they go out."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def args(self) -> dict[str, Any]:
        """As plain JSON, for the gate."""
        return {
            "method": self.method,
            "url": self.url,
            "headers": dict(self.headers),
            **_told(self.body, "body"),
        }


def canonical(
    method: str,
    scheme: str,
    host: str,
    port: int,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    own_auth: bool = False,
) -> EgressRequest:
    """The one way to make a request. `host` is canonical already. Raises CallInvalid, CallDenied.

    Without `own_auth` it carries nobody's credentials.
    """
    if method not in (*METHODS, CONNECT):
        raise malformed(f"The method {method[:20]!r} is not known here.")
    if body and method in ("GET", "HEAD", CONNECT):
        raise malformed(f"A {method} has no body.")
    if len(body) > limits.EGRESS_REQUEST_SIZE_BYTES_MAX:
        raise malformed(f"Its body is longer than {limits.EGRESS_REQUEST_SIZE_BYTES_MAX} bytes.")
    path, query = canonical_target(target)
    kept = fields.kept_for(headers, own_auth=own_auth)
    fields.check_overrides(query, kept, body)
    return EgressRequest(
        method=method,
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        query=query if own_auth else fields.without_keys(query),
        headers=kept,
        body=body,
    )


def split_url(url: str) -> tuple[str, str, int, str]:
    """Scheme, canonical host, port and target of a URL. Raises CallInvalid."""
    found = _URL.fullmatch(url.partition("#")[0]) if len(url) < limits.KIB * 16 else None
    if found is None:
        raise malformed(f"{url[:200]!r} is not a URL of the form https://host/path.")
    scheme, authority, target = found.groups()
    scheme = scheme.lower()
    host, port = split_authority(authority, scheme)
    return scheme, host, port, target or "/"


def from_args(args: dict[str, Any], *, own_auth: bool = False) -> EgressRequest:
    """What `args` wrote, read with the same strictness. Raises CallInvalid, CallDenied."""
    scheme, host, port, target = split_url(str(args.get("url", "")))
    return canonical(
        str(args.get("method", "GET")),
        scheme,
        host,
        port,
        target,
        [(str(name), str(value)) for name, value in dict(args.get("headers") or {}).items()],
        _untold(args, "body"),
        own_auth=own_auth,
    )


class EgressAnswer(Frozen, frozen=True, kw_only=True):
    """What came back, without credentials and without anything about the connection."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def reason(self) -> str:
        """Ours: the server's own words are not handed on."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Answer"

    def value(self) -> dict[str, Any]:
        """As plain JSON; fields that stand twice are lists of pairs for that."""
        return {
            "status": self.status,
            "headers": [list(pair) for pair in self.headers],
            **_told(self.body, "body"),
        }


def answer_from(value: dict[str, Any]) -> EgressAnswer:
    """What `EgressAnswer.value` wrote."""
    return EgressAnswer(
        status=int(value["status"]),
        headers=tuple((str(name), str(text)) for name, text in value.get("headers", ())),
        body=_untold(value, "body"),
    )


def _told(body: bytes, name: str) -> dict[str, str]:
    try:
        return {name: body.decode("utf-8")} if body else {}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(body).decode()}


def _untold(args: dict[str, Any], name: str) -> bytes:
    encoded = args.get(f"{name}_base64")
    if encoded is None:
        return str(args.get(name) or "").encode("utf-8")
    if args.get(name) is not None:
        raise malformed(f"It has both `{name}` and `{name}_base64`.")
    try:
        return base64.b64decode(str(encoded), validate=True)
    except binascii.Error:
        raise malformed(f"Its `{name}_base64` is not base64.") from None
