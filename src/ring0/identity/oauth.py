"""OAuth 2.0 from the client's side: code + PKCE, device flow, client credentials, refresh.

Pure protocol: whoever uses it gives the function that fetches. It keeps nothing, verifies no ID
token (`oidc.py`), and opens no port (`loopback.py`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, LoginFailed
from ring0.identity import oauth_answers as answers
from ring0.identity.discovery import Endpoints, Fetch, check_url, discover, fetched, is_loopback
from ring0.identity.oauth_answers import Fetched, Tokens
from ring0.runtime import Runtime

_PENDING: Final = "authorization_pending"
_SLOW_DOWN: Final = "slow_down"
_ASSERTION: Final = "client_assertion"
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. Its `repr` does not show the secret."""

    client_id: str
    client_secret: str = ""
    scopes: tuple[str, ...] = ()
    audience: str = ""
    """For whom the access token is, where the server wants to be told (RFC 8707, `resource`; and
    `audience`, as some call it)."""
    resource: str = ""
    """The same, by RFC 8707's name alone."""
    method: str = ""
    """How it says who it is at the token endpoint; empty: as the server likes a secret best."""
    key: str = ""
    """The private key of `private_key_jwt`, see assertions.py."""

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

    @property
    def method(self) -> str:
        """How it says who it is at the token endpoint."""
        client = self.client
        if client.method:
            return client.method
        if client.key:
            return "private_key_jwt"
        if not client.client_secret:
            return "none"
        return "client_secret_basic" if self.endpoints.basic else "client_secret_post"

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
                **self._resource(),
            },
            hidden=(code, attempt.verifier),
        )

    # --- device flow (RFC 8628) ----------------------------------------------------------------

    async def begin_device(self) -> Device:
        """What to tell the person. Raises LoginFailed, InvalidInput."""
        if not self.endpoints.device_url:
            raise _not_there("device_url", "Log in without --device.")
        now_us = self._runtime.now_us()
        headers, proof = self._proof()
        asked = {**self._scope(), **self._audience(), **proof}
        found = await self._post(self.endpoints.device_url, asked, headers)
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

    async def client_credentials(self) -> Tokens:
        """Tokens for the client itself, and for nobody (RFC 6749, 4.4). Raises LoginFailed."""
        asked = {"grant_type": "client_credentials", **self._scope(), **self._audience()}
        return await self._token(asked, hidden=())

    # --- the token endpoint --------------------------------------------------------------------

    async def _token(self, asked: Mapping[str, str], *, hidden: tuple[str, ...]) -> Tokens:
        now_us = self._runtime.now_us()
        headers, proof = self._proof()
        found = await self._post(self.endpoints.token_url, {**asked, **proof}, headers)
        return answers.tokens(
            found, now_us, (*hidden, self.client.client_secret, proof.get(_ASSERTION, ""))
        )

    async def _post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Fetched:
        kind = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return await fetched(
            self._fetch, "POST", url, {**kind, **headers}, urlencode(form).encode()
        )

    def _proof(self) -> tuple[dict[str, str], dict[str, str]]:
        """Who asks: what of it is in the headers, and what is in the form."""
        client, method = self.client, self.method
        named = {"client_id": client.client_id}
        if method == "client_secret_basic":
            # RFC 6749, 2.3.1: each form-encoded first.
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}, {}
        if method == "client_secret_post":
            return {}, {**named, "client_secret": client.client_secret}
        if method == "private_key_jwt":
            whom = self.endpoints.issuer or self.endpoints.token_url
            from ring0.identity import assertions  # Heavy, and few servers want it.

            proof = assertions.proof(client.client_id, client.key, whom, self._runtime)
            return {}, {**named, **proof}
        return {}, named

    def _scope(self) -> dict[str, str]:
        return {"scope": " ".join(self.client.scopes)} if self.client.scopes else {}

    def _audience(self) -> dict[str, str]:
        audience, resource = self.client.audience, self.client.resource or self.client.audience
        named = {"audience": audience} if audience else {}
        return {**named, "resource": resource} if resource else named

    def _resource(self) -> dict[str, str]:
        resource = self.client.resource
        return {"resource": resource} if resource else {}

    def _random(self) -> str:
        return _base64url(self._runtime.random_bytes(32))


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


__all__ = [
    "Attempt",
    "Client",
    "Device",
    "Endpoints",
    "Fetch",
    "OAuth",
    "check_url",
    "discover",
    "is_loopback",
]
