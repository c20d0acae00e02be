"""Where one logs in for a server that wants a token, found from that server's own address.

RFC 9728 leads to the login server, its metadata to its endpoints, RFC 7591 makes a client there.
All that is read is a stranger's: it can send nobody to this machine, give no token to another
server, and pass for no login server but the one that it named. Not here: the login (oauth.py).
"""

from __future__ import annotations

import hashlib
import json
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

import msgspec

from ring0 import __version__, limits
from ring0.errors import LoginFailed
from ring0.identity import challenges
from ring0.identity import oauth_answers as answers
from ring0.identity.challenges import Challenge
from ring0.identity.discovery import (
    Endpoints,
    Fetch,
    check_url,
    discover,
    fetched,
    is_loopback,
    names_this_machine,
)
from ring0.identity.oauth import Client

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_OFFLINE: Final = "offline_access"
_PROBE: Final = b'{"jsonrpc":"2.0","id":0,"method":"tools/list"}'
_PROBE_HEADERS: Final = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
}
_METHODS: Final = ("none", "client_secret_basic", "client_secret_post")
"""Of clients that register themselves, the best first: what nobody has can't be stolen."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a server and its login server say."""

    resource: str
    """What a token for it is asked for by (RFC 8707)."""
    endpoints: Endpoints
    scopes: tuple[str, ...]
    """What it suggests to ask for."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a login beside its tokens and the client's secret: what those are good for,
    and where alone they go."""

    issuer: str
    token_url: str
    client_id: str
    method: str
    resource: str
    scopes: tuple[str, ...]
    """What was asked for."""


def login_key(name: str, server: str, principal: str) -> str:
    """What a login is called in the vault: for another server or principal it is another."""
    about = json.dumps([server, principal]).encode()
    return f"{name}.{hashlib.sha256(about).hexdigest()[:24]}"


def login_name(key: str) -> str:
    """As ring0.toml calls it."""
    return key.partition(".")[0]


async def find(server: str, fetch: Fetch, *, issuer: str = "") -> Found:
    """Asks the server, and then the login server that it names. `issuer`: the one that it has to
    be, where the operator says so. Raises LoginFailed, InvalidInput, and what `fetch` raises."""
    check_url(server, "server")
    challenge = await _challenge(server, fetch)
    said = await _protected(server, challenge, fetch)
    if said is None:  # As before RFC 9728: it is its own login server.
        parts = urlsplit(server)
        said = answers.Protected(
            resource=server, authorization_servers=[f"{parts.scheme}://{parts.netloc}"]
        )
    where = _login_server(server, said, issuer)
    endpoints = await discover(where, fetch)
    suggested = challenge.scopes or challenges.scopes(said.scopes or [])
    return Found(resource=said.resource, endpoints=endpoints, scopes=suggested)


def to_ask_for(found: Found, scopes: tuple[str, ...]) -> tuple[str, ...]:
    """The scopes of a person's login: those, and that it lasts, where the login server has a word
    for that."""
    lasts = [_OFFLINE] if scopes and _OFFLINE in found.endpoints.scopes else []
    return challenges.scopes([*scopes, *lasts])


async def register(
    found: Found, redirect_uri: str, scopes: tuple[str, ...], fetch: Fetch
) -> Client:
    """A new client at the login server. An empty `redirect_uri`: one without a browser. Raises
    LoginFailed."""
    endpoints = found.endpoints
    if not endpoints.register_url:
        raise LoginFailed(
            f"{urlsplit(endpoints.issuer).netloc} takes only clients that it knows.",
            why="It has no way for clients to register themselves.",
            todo="Register one there, as a native app that comes back to http://127.0.0.1; then add"
            f' client_id and issuer = "{endpoints.issuer}" to ring0.toml.',
            error="no_registration",
        )
    offered = _METHODS if endpoints.methods is None else endpoints.methods
    method = next((method for method in _METHODS if method in offered), "")
    if not method:
        raise _bad_client("It takes none of the ways that such a client has to say who it is.")
    first = "authorization_code" if redirect_uri else "urn:ietf:params:oauth:grant-type:device_code"
    wanted = {
        "client_name": "ring0",
        "software_id": "ring0",
        "software_version": __version__,
        "application_type": "native",
        "redirect_uris": [redirect_uri] if redirect_uri else [],
        "grant_types": [first, "refresh_token"],
        "response_types": ["code"] if redirect_uri else [],
        "token_endpoint_auth_method": method,
        **({"scope": " ".join(scopes)} if scopes else {}),
    }
    headers = {"accept": "application/json", "content-type": "application/json"}
    body = json.dumps(wanted).encode()
    said = answers.registered(await fetched(fetch, "POST", endpoints.register_url, headers, body))
    return _client(said, method, found.resource, scopes)


def _client(
    said: answers.Registered, method: str, resource: str, scopes: tuple[str, ...]
) -> Client:
    method = said.method or method
    if method not in _METHODS:
        raise _bad_client(f"It wants the client to say who it is by {answers.told(said.method)}.")
    secret = "" if method == "none" else said.client_secret
    if method != "none" and len(secret) < limits.SECRET_CHARS_MIN:
        raise _bad_client("The secret that it gave is too short to be kept back, or there is none.")
    return Client(
        client_id=said.client_id,
        client_secret=secret,
        scopes=scopes,
        resource=resource,
        method=method,
    )


async def _challenge(server: str, fetch: Fetch) -> Challenge:
    """What the server says to who shows no token."""
    found = await fetched(fetch, "POST", server, _PROBE_HEADERS, _PROBE)
    if found.status != 401:
        return Challenge()
    return challenges.read(found.headers.get("www-authenticate", ""))


async def _protected(server: str, challenge: Challenge, fetch: Fetch) -> answers.Protected | None:
    """The server's metadata; None where it has none."""
    parts = urlsplit(server)
    path = parts.path.rstrip("/")
    places = [_at(parts, _WELL_KNOWN + path), _at(parts, _WELL_KNOWN)]
    if challenge.metadata_url:
        check_url(challenge.metadata_url, "resource_metadata")
        places.insert(0, challenge.metadata_url)
    for place in dict.fromkeys(places):
        if is_loopback(place) and not is_loopback(server):
            raise names_this_machine("resource_metadata", place)
        found = await fetched(fetch, "GET", place, {"accept": "application/json"}, b"")
        if found.status == 200:
            said = answers.protected(found)
            _check_is_its_own(server, said.resource, place)
            return said
        if not 400 <= found.status < 500:
            raise LoginFailed(
                f"{parts.netloc} does not say where one logs in.",
                why=f"It answered with status {found.status}.",
                todo="Try again; if it stays so, ask whoever runs it.",
                error="no_discovery",
            )
    return None


def _at(parts: SplitResult, path: str) -> str:
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _check_is_its_own(server: str, resource: str, place: str) -> None:
    """A token for `resource` goes to this server: it must be the server itself, or what it is part
    of, as the host itself says. Else a server could have itself given the tokens that are for
    another. `place`: where it is said."""
    check_url(resource, "resource")
    if resource == server:
        return
    own, named, said_at = urlsplit(server), urlsplit(resource), urlsplit(place)
    path = named.path.rstrip("/")
    by_host = _origin(said_at) == _origin(own) and said_at.path.startswith(_WELL_KNOWN)
    within = own.path.rstrip("/") == path or (by_host and own.path.startswith(f"{path}/"))
    if _origin(named) != _origin(own) or not within or named.query:
        raise LoginFailed(
            "The server wants a token that is for another server.",
            why=f"It is at {answers.told(server)}, and says that it is {answers.told(resource)}.",
            todo="Correct the address in ring0.toml; if it is right, don't trust that server.",
            error="other_resource",
        )


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _login_server(server: str, said: answers.Protected, issuer: str) -> str:
    named = said.authorization_servers
    if issuer and issuer not in named:
        raise LoginFailed(
            "The server sends one to log in at another place than ring0.toml says.",
            why=f"It names {', '.join(map(answers.told, named))[:600] or 'none'}; ring0.toml has"
            f" {answers.told(issuer)}.",
            todo="If it has moved, correct `issuer`, and log in again.",
            error="other_issuer",
        )
    if not named:
        raise LoginFailed(
            f"{urlsplit(server).netloc} does not say where one logs in.",
            why="Its metadata names no login server.",
            todo="Ask whoever runs it.",
            error="no_discovery",
        )
    where = issuer or named[0]
    if is_loopback(where) and not is_loopback(server):
        raise names_this_machine("login server", where)
    return where


def no_pkce(issuer: str) -> LoginFailed:
    """It does not say that it knows PKCE, which MCP asks of every login server."""
    return LoginFailed(
        f"{urlsplit(issuer).netloc} does not say that it knows PKCE with S256.",
        why="Without it a code that is caught on its way can be used by who caught it.",
        todo="Log in with --device, if the server has that; or ask whoever runs it.",
        error="no_pkce",
    )


def _bad_client(why: str) -> LoginFailed:
    return LoginFailed(
        "The login server made a client that can't be used.",
        why=why,
        todo="Register one there by hand, and name its client_id in ring0.toml.",
        error="bad_client",
    )
