"""Where a server takes what, in its own words (RFC 8414, OpenID Connect Discovery), read strictly.

Whoever uses it gives the function that fetches. What is named is checked before anything is sent
there. Not here: what is then said there (oauth.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit, urlunsplit

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, LoginFailed
from ring0.identity import oauth_answers as answers
from ring0.identity.oauth_answers import Fetched

Fetch = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Fetched]]
"""(method, url, headers, body); follows no redirect, bounded in size and time. Raises OSError."""


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server takes what."""

    issuer: str = ""
    """Empty where nobody named one: then no `iss` can be checked."""
    authorize_url: str = ""
    token_url: str
    device_url: str = ""
    jwks_url: str = ""
    revocation_url: str = ""
    says_iss: bool = False
    """It puts its name into its redirects (RFC 9207): one without is not its own."""
    register_url: str = ""
    """Where clients register themselves (RFC 7591)."""
    methods: tuple[str, ...] | None = None
    """How clients may say who they are at the token endpoint; None: it does not say."""
    scopes: tuple[str, ...] = ()
    takes_urls: bool = False
    """A client may be named by the address of a document about it (CIMD)."""
    says_pkce: bool = False
    """It says that it knows PKCE with S256."""

    @property
    def basic(self) -> bool:
        """It takes the client's secret in a header; else in the form."""
        return self.methods is None or "client_secret_basic" in self.methods


async def discover(issuer: str, fetch: Fetch) -> Endpoints:
    """What the server says of itself: OpenID Connect's way, RFC 8414's, and OpenID Connect's as RFC
    8414 writes it. Raises LoginFailed, InvalidInput."""
    check_url(issuer, "issuer")
    parts = urlsplit(issuer)
    if parts.query:
        raise InvalidInput("The issuer has a query.", todo="Give it as the server does.")
    path = parts.path.rstrip("/")
    openid = parts._replace(path=f"{path}/.well-known/openid-configuration")
    plain = parts._replace(path=f"/.well-known/oauth-authorization-server{path}")
    inserted = parts._replace(path=f"/.well-known/openid-configuration{path}")
    for place in (openid, plain, *([inserted] if path else ())):
        found = await fetched(fetch, "GET", urlunsplit(place), {"Accept": "application/json"}, b"")
        if found.status == 200:
            return _endpoints(issuer, answers.metadata(found))
        if not 400 <= found.status < 500:
            break
    raise LoginFailed(
        f"{parts.netloc} does not say where one logs in.",
        why=f"It answered with status {found.status}.",
        todo="Look at the issuer; or name token_url and the others in ring0.toml.",
        error="no_discovery",
    )


def _endpoints(issuer: str, said: answers.Metadata) -> Endpoints:
    if said.issuer != issuer:
        raise LoginFailed(
            "The server calls itself by another name.",
            why=f"{issuer[:200]} was asked, and it says that it is"
            f" {answers.told(said.issuer)}: another server's answer could pass for its own.",
            todo="Write the issuer exactly as the server does, the last `/` too.",
            error="other_issuer",
        )
    if said.code_challenge_methods is not None and "S256" not in said.code_challenge_methods:
        raise LoginFailed(
            "The server does not know PKCE with S256.",
            why="Without it a code that is caught on its way can be used by who caught it.",
            todo="Use another server, or one that is newer.",
            error="no_pkce",
        )
    near = is_loopback(issuer)
    named = {
        "authorize_url": said.authorization_endpoint,
        "token_url": said.token_endpoint,
        "device_url": said.device_authorization_endpoint,
        "jwks_url": said.jwks_uri,
        "revocation_url": said.revocation_endpoint,
        "register_url": said.registration_endpoint,
    }
    for what, url in named.items():
        if url:
            check_url(url, what)
            if is_loopback(url) and not near:
                raise names_this_machine(what, url)
    methods = said.auth_methods
    return Endpoints(
        issuer=issuer,
        says_iss=said.says_iss,
        methods=None if methods is None else tuple(methods),
        scopes=tuple(said.scopes or ()),
        takes_urls=said.takes_urls,
        says_pkce=said.code_challenge_methods is not None,
        **named,
    )


def names_this_machine(what: str, url: str) -> LoginFailed:
    """A server elsewhere that sends us to ourselves."""
    return LoginFailed(
        "The server names an address of this machine.",
        why=f"Its {what} is {answers.told(url)}.",
        todo="Don't trust it.",
        error="bad_discovery",
    )


def check_url(url: str, what: str) -> None:
    """Raises InvalidInput unless nobody on the way can read or change what is said there."""
    try:
        parts = urlsplit(url)
        good = parts.port != 0 and bool(parts.hostname)
    except ValueError:
        good = False
    if (
        not good
        or len(url) > limits.OAUTH_URL_CHARS_MAX
        or not url.isascii()
        or not url.isprintable()
        or " " in url
        or "#" in url
        or "@" in parts.netloc
    ):
        raise InvalidInput(
            f"The {what} {answers.told(url)} is no address of a server.",
            todo="Give it like https://login.example.com/path.",
        )
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)):
        return
    raise InvalidInput(
        f"The {what} {answers.told(url)} is not private.",
        why="Everybody on the way could read the tokens.",
        todo="Use https.",
    )


def is_loopback(url: str) -> bool:
    """Is it at this very machine?"""
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


async def fetched(
    fetch: Fetch, method: str, url: str, headers: Mapping[str, str], body: bytes
) -> Fetched:
    """Its answer, whatever that is. Raises LoginFailed where there is none."""
    try:
        return await fetch(method, url, headers, body)
    except OSError as error:
        raise LoginFailed(
            f"{urlsplit(url).netloc} could not be reached.",
            why=f"{error.strerror or error or type(error).__name__}."[:300],
            todo="Try again; look at its address and at the network.",
            error=answers.UNREACHABLE,
        ) from None
