"""OAuth 2.0 from the client's side: discovery, code + PKCE, device flow, refresh.

Pure protocol: whoever uses it gives the function that fetches. It keeps nothing, verifies no ID
token (`oidc.py`), and opens no port (`loopback.py`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import quote_plus, urlencode, urlsplit, urlunsplit

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, LoginFailed
from ring0.identity import oauth_answers as answers
from ring0.identity.oauth_answers import Fetched, Tokens
from ring0.runtime import Runtime

Fetch = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Fetched]]
"""(method, url, headers, body); follows no redirect, bounded in size and time. Raises OSError."""

_PENDING: Final = "authorization_pending"
_SLOW_DOWN: Final = "slow_down"
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"


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
    basic: bool = True
    """It takes the client's secret in a header; else in the form."""


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. Its `repr` does not show the secret."""

    client_id: str
    client_secret: str = ""
    scopes: tuple[str, ...] = ()
    audience: str = ""
    """For whom the access token is, where the server wants to be told (RFC 8707, `resource`; and
    `audience`, as some call it)."""

    def __repr__(self) -> str:
        return f"Client({self.client_id!r})"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A login that was begun in a browser. `url` is for the person; the rest is kept back."""

    url: str
    redirect_uri: str
    state: str
    nonce: str
    verifier: str

    def __repr__(self) -> str:
        return f"Attempt({self.redirect_uri!r})"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A login that was begun for a device without a browser: what the person is told."""

    user_code: str
    verification_uri: str
    verification_uri_complete: str
    device_code: str
    expires_us: int
    interval_s: int

    def __repr__(self) -> str:
        return f"Device({self.user_code!r} at {self.verification_uri!r})"


async def discover(issuer: str, fetch: Fetch) -> Endpoints:
    """What the server says of itself: OpenID Connect's way, then RFC 8414's. Raises LoginFailed,
    InvalidInput."""
    check_url(issuer, "issuer")
    parts = urlsplit(issuer)
    if parts.query:
        raise InvalidInput("The issuer has a query.", todo="Give it as the server does.")
    path = parts.path.rstrip("/")
    openid = parts._replace(path=f"{path}/.well-known/openid-configuration")
    plain = parts._replace(path=f"/.well-known/oauth-authorization-server{path}")
    for place in (openid, plain):
        found = await _fetch(fetch, "GET", urlunsplit(place), {"Accept": "application/json"}, b"")
        if found.status == 200:
            return _endpoints(issuer, answers.metadata(found))
        if found.status != 404:
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
    }
    for what, url in named.items():
        if url:
            check_url(url, what)
            if is_loopback(url) and not near:
                raise LoginFailed(
                    "The server names an address of this machine.",
                    why=f"Its {what} is {answers.told(url)}.",
                    todo="Don't trust it.",
                    error="bad_discovery",
                )
    methods = said.auth_methods
    return Endpoints(
        issuer=issuer,
        says_iss=said.says_iss,
        basic=methods is None or "client_secret_basic" in methods,
        **named,
    )


class OAuth:
    """One client at one server."""

    def __init__(
        self, endpoints: Endpoints, client: Client, fetch: Fetch, runtime: Runtime
    ) -> None:
        """Raises InvalidInput for addresses that are not private."""
        for what in ("authorize_url", "token_url", "device_url"):
            if url := getattr(endpoints, what):
                check_url(url, what)
        self.endpoints = endpoints
        self.client = client
        self._fetch = fetch
        self._runtime = runtime

    def __repr__(self) -> str:
        return f"OAuth({self.client!r} at {self.endpoints.token_url!r})"

    # --- code + PKCE --------------------------------------------------------------------------

    def begin(self, redirect_uri: str) -> Attempt:
        """Where to send the person's browser. Raises InvalidInput."""
        if not self.endpoints.authorize_url:
            raise _not_there("authorize_url", "Use --device, if the server has that.")
        state, nonce, verifier = (self._random() for _ in range(3))
        challenge = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": redirect_uri,
            "state": state,
            "code_challenge": _base64url(challenge),
            "code_challenge_method": "S256",
            **self._scope(),
            **self._audience(),
        }
        if "openid" in self.client.scopes:
            asked["nonce"] = nonce
        joint = "&" if urlsplit(self.endpoints.authorize_url).query else "?"
        return Attempt(
            url=f"{self.endpoints.authorize_url}{joint}{urlencode(asked)}",
            redirect_uri=redirect_uri,
            state=state,
            nonce=nonce,
            verifier=verifier,
        )

    async def finish(self, attempt: Attempt, came: Mapping[str, str]) -> Tokens:
        """The tokens for what came back with the browser. Raises LoginFailed."""
        if not hmac.compare_digest(came.get("state", "").encode(), attempt.state.encode()):
            raise _forged("It answers a login that was not begun here (`state`).")
        issuer, said = self.endpoints.issuer, came.get("iss")
        if said is None and self.endpoints.says_iss:
            raise _forged(
                "It does not say which server it is of (`iss`), and this one always does."
            )
        if said is not None and issuer and said != issuer:
            raise _forged(f"It is of another server: {answers.told(said)} (`iss`).")
        if "error" in came:
            raise answers.said_no(came["error"], came.get("error_description", ""), ())
        if not (code := came.get("code", "")):
            raise _forged("It holds no code.")
        return await self._token(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": attempt.redirect_uri,
                "code_verifier": attempt.verifier,
            },
            hidden=(code, attempt.verifier),
        )

    # --- device flow (RFC 8628) ----------------------------------------------------------------

    async def begin_device(self) -> Device:
        """What to tell the person. Raises LoginFailed, InvalidInput."""
        if not self.endpoints.device_url:
            raise _not_there("device_url", "Log in without --device.")
        now_us = self._runtime.now_us()
        found = await self._post(self.endpoints.device_url, {**self._scope(), **self._audience()})
        said = answers.device(found, (self.client.client_secret,))
        for url in filter(None, (said.verification_uri, said.verification_uri_complete)):
            check_url(url, "verification_uri")
        lasts_s = min(said.expires_in, limits.DEVICE_LOGIN_S_MAX)
        return Device(
            user_code=said.user_code,
            verification_uri=said.verification_uri,
            verification_uri_complete=said.verification_uri_complete,
            device_code=said.device_code,
            expires_us=now_us + lasts_s * 1_000_000,
            interval_s=min(max(said.interval, 1), limits.DEVICE_POLL_S_MAX),
        )

    async def finish_device(self, device: Device) -> Tokens:
        """Waits for the person to say yes elsewhere. Raises LoginFailed."""
        interval_s = device.interval_s
        asked = {"grant_type": _DEVICE_GRANT, "device_code": device.device_code}
        while True:
            left_s = (device.expires_us - self._runtime.now_us()) / 1_000_000
            if left_s <= 0:
                raise LoginFailed(
                    "Nobody said yes in time.", why="The code has expired.", todo="Log in again.",
                    error="expired_token",
                )  # fmt: skip
            await self._runtime.sleep(min(interval_s, left_s))
            try:
                return await self._token(asked, hidden=(device.device_code,))
            except LoginFailed as failed:
                if failed.error == _SLOW_DOWN:
                    interval_s += limits.DEVICE_POLL_SLOWER_S
                elif failed.error == answers.UNREACHABLE:
                    interval_s *= 2  # RFC 8628, 3.5: back off where it can't be reached.
                elif failed.error != _PENDING:
                    raise
                interval_s = min(interval_s, limits.DEVICE_POLL_S_MAX)

    # --- refresh ------------------------------------------------------------------------------

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens; without a new refresh token the old one stays good. Raises LoginFailed with
        `invalid_grant` where only a person can help."""
        asked = {"grant_type": "refresh_token", "refresh_token": refresh_token, **self._audience()}
        return await self._token(asked, hidden=(refresh_token,))

    # --- the token endpoint --------------------------------------------------------------------

    async def _token(self, asked: Mapping[str, str], *, hidden: tuple[str, ...]) -> Tokens:
        now_us = self._runtime.now_us()
        found = await self._post(self.endpoints.token_url, asked)
        return answers.tokens(found, now_us, (*hidden, self.client.client_secret))

    async def _post(self, url: str, asked: Mapping[str, str]) -> Fetched:
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        form = dict(asked)
        secret = self.client.client_secret
        if secret and self.endpoints.basic:
            # RFC 6749, 2.3.1: each form-encoded first.
            pair = f"{quote_plus(self.client.client_id)}:{quote_plus(secret)}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        else:
            form["client_id"] = self.client.client_id
            if secret:
                form["client_secret"] = secret
        return await _fetch(self._fetch, "POST", url, headers, urlencode(form).encode())

    def _scope(self) -> dict[str, str]:
        return {"scope": " ".join(self.client.scopes)} if self.client.scopes else {}

    def _audience(self) -> dict[str, str]:
        audience = self.client.audience
        return {"audience": audience, "resource": audience} if audience else {}

    def _random(self) -> str:
        return _base64url(self._runtime.random_bytes(32))


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


async def _fetch(
    fetch: Fetch, method: str, url: str, headers: Mapping[str, str], body: bytes
) -> Fetched:
    try:
        return await fetch(method, url, headers, body)
    except OSError as error:
        raise LoginFailed(
            f"{urlsplit(url).netloc} could not be reached.",
            why=f"{error.strerror or error or type(error).__name__}."[:300],
            todo="Try again; look at its address and at the network.",
            error=answers.UNREACHABLE,
        ) from None


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _forged(why: str) -> LoginFailed:
    return LoginFailed(
        "What came back with the browser is not taken.",
        why=why,
        todo="Log in again; if it stays so, don't trust that server.",
        error="bad_redirect",
    )


def _not_there(what: str, todo: str) -> InvalidInput:
    return InvalidInput(
        "The server does not let one log in this way.", why=f"It has no {what}.", todo=todo
    )
