"""[credentials.NAME] and [oauth.NAME] of ring0.toml: whose secret goes into which requests.

Not here: the requests themselves (tools/egress), and how tokens are got (identity/oauth.py).
"""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from ring0.errors import InvalidInput, ManifestInvalid
from ring0.identity.oauth import check_url
from ring0.identity.protected import login_key

_AUDIENCE: Final = re.compile(r"[\x21-\x7e]{1,256}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


class JwtTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`jwt = { audience = "https://billing.internal" }`: the kernel says in whose name each request
    comes, to the server that it goes to."""

    audience: str


class CredentialTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[credentials.NAME]: what is put into which requests, on the far side."""

    use_for: str = ""
    """The requests that it is for, as an egress rule: `GET https://api.github.com/repos/*`. Empty
    for the login of an MCP server, which it is for and for nobody else."""
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

    client_id: str = ""
    """Empty, or the address of a document about it: for an MCP server whose login server lets
    clients register themselves."""
    mcp: str = ""
    """The address of the MCP server that it is for, from which all else is found."""
    issuer: str = ""
    """The server's own name for itself, where it says the rest; or the URLs below."""
    token_url: str = ""
    authorize_url: str = ""
    device_url: str = ""
    client_secret: str = ""
    """The name of a secret in the vault; empty: a public client (PKCE alone)."""
    key: str = ""
    """Or that of a private key, with which it signs who it is (`private_key_jwt`)."""
    grant: Literal["person", "client_credentials"] = "person"
    """Who logs in: a person, with `ring0 secret login`; or the client for itself, and the kernel
    does it when a token is needed."""
    scopes: tuple[str, ...] = ()
    audience: str = ""
    shared: bool = False
    """One login for all principals; else each has its own. For an MCP server."""

    @property
    def by_itself(self) -> bool:
        """Nobody has to log in: the client does, when a token is needed."""
        return self.grant == "client_credentials"


def key_of(name: str, login: OAuthTable, principal: str) -> str:
    """What the login is called in the vault, for one who acts for `principal`."""
    if not login.mcp:
        return name
    whose = "" if login.shared or login.by_itself else principal
    return login_key(name, login.mcp, whose)


def all_credentials(
    credentials: dict[str, CredentialTable], logins: dict[str, OAuthTable]
) -> dict[str, CredentialTable]:
    """Those that are named, and one for each MCP server's login that none of them names. The token
    of such a login goes to that server, and nowhere else."""
    named = {table.oauth for table in credentials.values()}
    found = {
        name: CredentialTable(oauth=name)
        for name, login in logins.items()
        if login.mcp and name not in named and name not in credentials
    }
    return {
        name: msgspec.structs.replace(table, use_for=table.use_for or _own(logins[table.oauth].mcp))
        for name, table in {**credentials, **found}.items()
    }


def _own(server: str) -> str:
    parts = urlsplit(server)
    return f"GET,POST,DELETE {parts.scheme}://{parts.netloc}{parts.path or '/'}"


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
        server = logins[table.oauth].mcp if table.oauth else ""
        if bool(table.use_for) == bool(server):
            raise ManifestInvalid(
                f"ring0.toml: [credentials.{name}] has {'a' if server else 'no'} `use_for`.",
                why=f"Its login is that of {server[:200]}, and for nobody else."
                if server
                else "A credential is for some requests, and for no others.",
                todo="Take it out."
                if server
                else 'Write it like `use_for = "GET https://api.example.com/v1/*"`.',
            )


def _check_login(name: str, login: OAuthTable) -> None:
    place = f"ring0.toml: [oauth.{name}]"
    if not _NAME.fullmatch(name):
        raise ManifestInvalid(
            f"{place}: that is no name for a login.",
            todo="Use a letter, then letters, digits, `_` and `-`, 32 at most.",
        )
    _check_client(place, login)
    if login.mcp:
        _check_server(place, login)
    else:
        _check_endpoints(place, login)
    for scope in login.scopes:
        if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}", scope):
            raise ManifestInvalid(
                f"{place}: {scope[:60]!r} is no scope.",
                todo="One word an entry, as the server has it.",
            )
    for what in ("mcp", "issuer", "token_url", "authorize_url", "device_url"):
        if url := getattr(login, what):
            try:
                check_url(url, what)
            except InvalidInput as error:
                raise ManifestInvalid(
                    f"{place}: {error.what}", why=error.why, todo=error.todo
                ) from None


def _check_client(place: str, login: OAuthTable) -> None:
    if login.client_id and not login.client_id.isprintable():
        raise ManifestInvalid(f"{place}: that is no client_id.", todo="The server gave you one.")
    if login.client_secret and login.key:
        raise ManifestInvalid(
            f"{place} has a `client_secret` and a `key`.",
            why="A client says who it is in one way.",
            todo="Take one of them out.",
        )
    if login.by_itself and not (login.client_secret or login.key):
        raise ManifestInvalid(
            f"{place}: a client that logs in for itself has to prove who it is.",
            todo="Name its `client_secret` or its `key`: `ring0 secret set NAME` keeps it.",
        )


def _check_endpoints(place: str, login: OAuthTable) -> None:
    if bool(login.issuer) == bool(login.token_url):
        raise ManifestInvalid(
            f"{place} has either an `issuer` or a `token_url`.",
            why="An issuer says itself where its endpoints are.",
            todo="Set one of the two; beside token_url also authorize_url, device_url or both. For"
            ' an MCP server, its address says it all: `mcp = "https://mcp.example.com/mcp"`.',
        )
    if login.token_url and not (login.authorize_url or login.device_url or login.by_itself):
        raise ManifestInvalid(
            f"{place}: nobody could log in there.",
            todo="Add `authorize_url` (a browser), `device_url` (--device), or both.",
        )
    if not login.client_id:
        raise ManifestInvalid(f"{place} has no client_id.", todo="The server gave you one.")
    if login.shared:
        raise ManifestInvalid(
            f"{place}: `shared` is for the login of an MCP server.",
            why="Every other login is one for all.",
            todo="Take it out.",
        )


def _check_server(place: str, login: OAuthTable) -> None:
    for what in ("token_url", "authorize_url", "device_url", "audience"):
        if getattr(login, what):
            raise ManifestInvalid(
                f"{place} has `mcp` and `{what}`.",
                why="What the server says of itself leads to its login server, and that says the"
                " rest.",
                todo=f"Take `{what}` out.",
            )
    known = login.client_id and not is_document(login.client_id)
    proves = login.client_secret or login.key
    if proves and not known:
        raise ManifestInvalid(
            f"{place} has no client_id to go with its secret.",
            todo="The login server gave you one.",
        )
    if known and not login.issuer:
        raise ManifestInvalid(
            f"{place} has a client_id and no issuer.",
            why="The client is known to one login server. Without its name here, an MCP server"
            " could have the client's secret sent to another.",
            todo="Name the `issuer` where the client was registered.",
        )


def is_document(client_id: str) -> bool:
    """Is it the address of a document about the client, which any login server can read?"""
    parts = urlsplit(client_id)
    return parts.scheme == "https" and parts.path not in ("", "/")
