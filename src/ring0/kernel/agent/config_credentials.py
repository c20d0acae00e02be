"""[credentials.NAME] and [oauth.NAME] of ring0.toml: whose secret goes into which requests.

Not here: the requests themselves (tools/egress), and how tokens are got (identity/oauth.py).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ring0.errors import InvalidInput, ManifestInvalid
from ring0.identity.oauth import check_url

_AUDIENCE: Final = re.compile(r"[\x21-\x7e]{1,256}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


class JwtTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`jwt = { audience = "https://billing.internal" }`: the kernel says in whose name each request
    comes, to the server that it goes to."""

    audience: str


class CredentialTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[credentials.NAME]: what is put into which requests, on the far side."""

    use_for: str
    """The requests that it is for, as an egress rule: `GET https://api.github.com/repos/*`."""
    secret: str = ""
    """Its name in the vault or the environment."""
    oauth: str = ""
    """Or the login (`[oauth.NAME]`) whose access token it is."""
    jwt: JwtTable | None = None
    """Or a JWT that the kernel makes for each request, of a minute at most."""
    agents: tuple[str, ...] = ()
    """Whose tools may use it; empty: those of every agent whose manifest names it."""
    header: str = "Authorization"
    form: str = "Bearer {value}"
    """What the header says; `{value}` is the secret, `{base64}` what Basic wants."""


class OAuthTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[oauth.NAME]: a login that the kernel keeps fresh."""

    client_id: str
    issuer: str = ""
    """The server's own name for itself, where it says the rest; or the URLs below."""
    token_url: str = ""
    authorize_url: str = ""
    device_url: str = ""
    client_secret: str = ""
    """The name of a secret in the vault; empty: a public client (PKCE alone)."""
    scopes: tuple[str, ...] = ()
    audience: str = ""


def check(credentials: dict[str, CredentialTable], logins: dict[str, OAuthTable]) -> None:
    """Raises ManifestInvalid."""
    for name, login in logins.items():
        _check_login(name, login)
    for name, table in credentials.items():
        sources = [source for source in ("secret", "oauth", "jwt") if getattr(table, source)]
        if len(sources) != 1:
            raise ManifestInvalid(
                f"ring0.toml: [credentials.{name}] has {len(sources)} sources.",
                why="A credential has one value: of a `secret`, of an `oauth` login, or a `jwt`.",
                todo='Set one: `secret = "EXAMPLE_TOKEN"` or `oauth = "example"`.',
            )
        if table.jwt is not None and not _AUDIENCE.fullmatch(table.jwt.audience):
            raise ManifestInvalid(
                f"ring0.toml: [credentials.{name}] jwt has no audience.",
                why="A JWT for everybody could be passed on by anybody who gets it.",
                todo='Name the one server that it is for: `{ audience = "https://example.com" }`.',
            )
        if table.oauth and table.oauth not in logins:
            raise ManifestInvalid(
                f"ring0.toml: [credentials.{name}] names the login {table.oauth[:60]!r}, which is"
                " not there.",
                why=f"There are: {', '.join(logins) or 'none'}.",
                todo=f"Add [oauth.{table.oauth[:60]}] with its issuer and client_id.",
            )


def _check_login(name: str, login: OAuthTable) -> None:
    place = f"ring0.toml: [oauth.{name}]"
    if not _NAME.fullmatch(name):
        raise ManifestInvalid(
            f"{place}: that is no name for a login.",
            todo="Use a letter, then letters, digits, `_` and `-`, 32 at most.",
        )
    if bool(login.issuer) == bool(login.token_url):
        raise ManifestInvalid(
            f"{place} has either an `issuer` or a `token_url`.",
            why="An issuer says itself where its endpoints are.",
            todo="Set one of the two; beside token_url also authorize_url, device_url or both.",
        )
    if login.token_url and not (login.authorize_url or login.device_url):
        raise ManifestInvalid(
            f"{place}: nobody could log in there.",
            todo="Add `authorize_url` (a browser), `device_url` (--device), or both.",
        )
    if not login.client_id or not login.client_id.isprintable():
        raise ManifestInvalid(f"{place} has no client_id.", todo="The server gave you one.")
    for scope in login.scopes:
        if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}", scope):
            raise ManifestInvalid(
                f"{place}: {scope[:60]!r} is no scope.",
                todo="One word an entry, as the server has it.",
            )
    for what in ("issuer", "token_url", "authorize_url", "device_url"):
        if url := getattr(login, what):
            try:
                check_url(url, what)
            except InvalidInput as error:
                raise ManifestInvalid(
                    f"{place}: {error.what}", why=error.why, todo=error.todo
                ) from None
