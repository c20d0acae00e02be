"""What a login server answers, read strictly: its words are a stranger's, and so is its size.

Nothing that we sent it (codes, tokens, secrets) comes back in an error, whatever it quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec

from ring0 import limits
from ring0.errors import LoginFailed

UNREACHABLE: Final = "unreachable"
UNREADABLE: Final = "unreadable"
_ERROR: Final = re.compile(r"[a-z0-9_]{1,64}")
_TODO: Final = {
    "access_denied": "Log in again and say yes; or ask whoever runs that server.",
    "expired_token": "Log in again, a little quicker.",
    "invalid_grant": "Log in again.",
    "invalid_client": "Look at client_id and client_secret.",
    "unauthorized_client": "Allow this way of logging in for the client, at the server.",
    "invalid_scope": "Look at the scopes.",
}


class Fetched(msgspec.Struct, frozen=True):
    """An answer over HTTP: names of headers in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Fetched({self.status}, {len(self.body)} bytes)"


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What a login gave. Its `repr` shows none of it."""

    access_token: str
    refresh_token: str = ""
    id_token: str = ""
    expires_us: int = 0
    """When the access token ends; 0: the server did not say."""
    scope: str = ""

    def __repr__(self) -> str:
        return f"Tokens(expires_us={self.expires_us})"


_Text = Annotated[str, msgspec.Meta(max_length=limits.OAUTH_URL_CHARS_MAX)]
_Token = Annotated[str, msgspec.Meta(max_length=limits.SECRET_CHARS_MAX, pattern=r"^[\x21-\x7e]*$")]
_Scope = Annotated[
    str,
    msgspec.Meta(max_length=limits.OAUTH_SCOPE_CHARS_MAX, pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$"),
]


class Metadata(msgspec.Struct):
    """What a server says of itself (RFC 8414), as far as we ask."""

    issuer: _Text
    token_endpoint: _Text
    authorization_endpoint: _Text = ""
    device_authorization_endpoint: _Text = ""
    jwks_uri: _Text = ""
    revocation_endpoint: _Text = ""
    says_iss: bool = msgspec.field(
        default=False, name="authorization_response_iss_parameter_supported"
    )
    code_challenge_methods: list[str] | None = msgspec.field(
        default=None, name="code_challenge_methods_supported"
    )
    auth_methods: list[str] | None = msgspec.field(
        default=None, name="token_endpoint_auth_methods_supported"
    )
    registration_endpoint: _Text = ""
    scopes: list[_Scope] | None = msgspec.field(default=None, name="scopes_supported")
    takes_urls: bool = msgspec.field(default=False, name="client_id_metadata_document_supported")


class Protected(msgspec.Struct):
    """What a server says of itself as a protected resource (RFC 9728), as far as we ask."""

    resource: _Text
    authorization_servers: Annotated[
        list[_Text], msgspec.Meta(max_length=limits.OAUTH_SERVERS_MAX)
    ] = []
    scopes: list[_Scope] | None = msgspec.field(default=None, name="scopes_supported")


class Registered(msgspec.Struct):
    """What a server makes of a client that registers itself (RFC 7591, 3.2.1)."""

    client_id: Annotated[_Text, msgspec.Meta(min_length=1, pattern=r"^[\x20-\x7e]+$")]
    client_secret: _Token = ""
    method: str = msgspec.field(default="", name="token_endpoint_auth_method")

    def __repr__(self) -> str:
        return f"Registered({self.client_id!r})"


class DeviceSaid(msgspec.Struct):
    """The device endpoint's answer (RFC 8628, 3.2)."""

    device_code: Annotated[_Token, msgspec.Meta(min_length=1)]
    user_code: Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,64}$")]
    verification_uri: _Text
    expires_in: Annotated[int, msgspec.Meta(ge=1)]
    verification_uri_complete: _Text = ""
    interval: Annotated[int, msgspec.Meta(ge=0)] = limits.DEVICE_POLL_S_DEFAULT

    def __repr__(self) -> str:
        return f"DeviceSaid({self.user_code!r})"


class _TokenSaid(msgspec.Struct):
    access_token: Annotated[_Token, msgspec.Meta(min_length=limits.SECRET_CHARS_MIN)]
    token_type: Annotated[str, msgspec.Meta(max_length=32)]
    expires_in: Annotated[int, msgspec.Meta(ge=0)] | str | None = None
    refresh_token: _Token | None = None
    # An ID token holds what the server likes: it is longer than what a header carries.
    id_token: Annotated[str, msgspec.Meta(max_length=limits.OAUTH_ANSWER_SIZE_BYTES_MAX)] | None = (
        None
    )
    scope: _Text | None = None


class _ErrorSaid(msgspec.Struct):
    error: str
    error_description: str = ""


_Kind = TypeVar("_Kind")


def metadata(found: Fetched) -> Metadata:
    """Raises LoginFailed."""
    return _read(found, Metadata)


def protected(found: Fetched) -> Protected:
    """Raises LoginFailed."""
    return _read(found, Protected)


def registered(found: Fetched) -> Registered:
    """Raises LoginFailed."""
    if found.status not in (200, 201):
        raise _refused(found, ())
    return _read(Fetched(200, found.headers, found.body), Registered)


def device(found: Fetched, hidden: Iterable[str]) -> DeviceSaid:
    """Raises LoginFailed."""
    if found.status != 200:
        raise _refused(found, hidden)
    return _read(found, DeviceSaid)


def tokens(found: Fetched, now_us: int, hidden: Iterable[str]) -> Tokens:
    """`hidden`: what was sent and must not be quoted. Raises LoginFailed."""
    if found.status != 200:
        raise _refused(found, hidden)
    said = _read(found, _TokenSaid)
    if said.token_type.lower() != "bearer":
        raise LoginFailed(
            "The server gave a token that is not for use as a bearer.",
            why=f"It is of type {told(said.token_type)}.",
            todo="Let the server give bearer tokens to this client.",
            error=UNREADABLE,
        )
    expires_s = _seconds(said.expires_in)
    return Tokens(
        access_token=said.access_token,
        refresh_token=said.refresh_token or "",
        id_token=said.id_token or "",
        expires_us=now_us + expires_s * 1_000_000 if expires_s is not None else 0,
        scope=said.scope or "",
    )


def said_no(error: str, description: str, hidden: Iterable[str]) -> LoginFailed:
    """The server's no, in words that can be shown."""
    known = error if _ERROR.fullmatch(error) else "an_error_without_a_name"
    quoted = told(description, hidden)
    return LoginFailed(
        f"The login server said no: {known}.",
        why=f"It says: {quoted}." if description else "",
        todo=_TODO.get(known, "Look at the client at that server; log in again."),
        error=known,
    )


def told(text: str, hidden: Iterable[str] = ()) -> str:
    """A stranger's words: short, visible, and without what was sent to it."""
    for value in hidden:
        if value:
            text = text.replace(value, "«hidden»")
    return repr(text[: limits.OAUTH_TOLD_CHARS_MAX])  # Escapes what can't be seen.


def _refused(found: Fetched, hidden: Iterable[str]) -> LoginFailed:
    try:
        said = msgspec.json.decode(found.body, type=_ErrorSaid)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _unreadable(f"It answered with status {found.status}, and not as OAuth does.")
    return said_no(said.error, said.error_description, hidden)


def _read(found: Fetched, kind: type[_Kind]) -> _Kind:
    try:
        if found.status != 200:
            raise ValueError
        parsed: Any = msgspec.json.decode(found.body)
        return msgspec.convert(parsed, kind)
    except (ValueError, RecursionError):  # msgspec's, whose words could quote a token
        raise _unreadable("What it answered is not what OAuth says.") from None


def _seconds(said: int | str | None) -> int | None:
    """Some write the number as text."""
    if isinstance(said, str):
        said = int(said) if said.isascii() and said.isdigit() and len(said) < 12 else None
    return min(said, limits.OAUTH_EXPIRES_S_MAX) if said is not None else None


def _unreadable(why: str) -> LoginFailed:
    return LoginFailed(
        "The login server's answer is not taken.",
        why=why,
        todo="Look whether the address is that of an OAuth server.",
        error=UNREADABLE,
    )
