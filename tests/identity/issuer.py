"""A real login server on loopback: OpenID Connect with PKCE, device flow, rotating refresh tokens.

It checks what a good server checks, keys are real, and each misbehaviour is switched on by name
(`misbehave`). `consent` is the browser of a person who says yes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

import aiohttp
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

MISBEHAVIOURS = frozenset(
    {
        "no-iss",
        "wrong-iss",
        "wrong-state",
        "alg-none",
        "hs256",
        "wrong-aud",
        "wrong-issuer-in-token",
        "expired",
        "wrong-nonce",
        "no-kid",
        "unknown-kid",
        "slow-down",
        "never-refresh-token",
        "no-rotation",
        "huge",
        "slow",
        "not-json",
        "redirect",
        "error-500",
        "echo",
        "other-issuer-in-discovery",
        "no-s256",
        "cut-off",
    }
)


class Issuer:
    """`async with Issuer() as issuer`. All of it is in memory and is told by attributes."""

    def __init__(self, *, alg: str = "ES256", path: str = "") -> None:
        self.alg = alg
        self.path = path
        """Of the issuer: `/realms/x`, as Keycloak has it."""
        self.client_id = "ring0"
        self.client_secret = ""
        self.claims: dict[str, object] = {"sub": "ada", "email": "ada@example.com", "groups": []}
        self.misbehave: set[str] = set()
        self.heard: list[tuple[str, dict[str, str]]] = []
        """(path, form or query) of each request that came."""
        self.access_s = 3_600
        self.device_s = 600
        self.interval_s = 1
        self.keys = [self._key()]
        self._codes: dict[str, dict[str, str]] = {}
        self._devices: dict[str, dict[str, object]] = {}
        self._refresh: dict[str, str] = {}
        """Refresh token to its family: those that are good."""
        self._scope_of_family: dict[str, str] = {}
        self._used: dict[str, str] = {}
        """Those that were used up: one that comes again ends its family."""
        self.dead_families: set[str] = set()
        self.access: dict[str, float] = {}
        """Access token to when it ends: what a resource server asks."""
        self.refreshed = 0
        self.registers = False
        """Clients may register themselves."""
        self.scopes_of: dict[str, list[str]] = {}
        """By access token: what it was given for."""

    # --- its life -------------------------------------------------------------------------------

    async def __aenter__(self) -> Issuer:
        app = web.Application()
        openid = f"{self.path}/.well-known/openid-configuration"
        app.router.add_get(openid, self._discovery)
        app.router.add_get(f"/.well-known/oauth-authorization-server{self.path}", self._discovery)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/device", self._device)
        app.router.add_post("/token", self._token)
        app.router.add_post("/register", self._register)
        app.router.add_get("/elsewhere", self._discovery)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.url = self.base + self.path
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    # --- what a test does -----------------------------------------------------------------------

    def rotate_keys(self, *, keep_old: bool = True) -> None:
        """A new key signs from now on."""
        self.keys = [self._key(), *(self.keys if keep_old else ())]

    async def consent(self, url: str) -> str:
        """A browser whose person says yes: where it is sent back to."""
        async with (
            aiohttp.ClientSession() as browser,
            browser.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 302:
                raise AssertionError(f"{answer.status}: {await answer.text()}")
            return answer.headers["Location"]

    async def come_back(self, url: str) -> int:
        """The same, and the browser goes where it is sent. The status there."""
        back = await self.consent(url)
        async with aiohttp.ClientSession() as browser, browser.get(back) as answer:
            return answer.status

    def approve(self, user_code: str) -> None:
        self._of_user(user_code)["state"] = "yes"

    def deny(self, user_code: str) -> None:
        self._of_user(user_code)["state"] = "no"

    def expire(self, user_code: str) -> None:
        self._of_user(user_code)["ends"] = 0.0

    def revoke_all(self) -> None:
        """Every refresh token is dead, as after a person has logged out everywhere."""
        self.dead_families |= {*self._refresh.values(), *self._used.values()}
        self._refresh.clear()

    def is_good(self, access_token: str) -> bool:
        """What a resource server wants to know."""
        return self.access.get(access_token, 0.0) > time.time()

    # --- its endpoints --------------------------------------------------------------------------

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((request.path, dict(request.query)))
        if (bad := await self._bad(request)) is not None:
            return bad
        issuer = self.url
        if "other-issuer-in-discovery" in self.misbehave:
            issuer = "https://accounts.example.com"
        methods = ["plain"] if "no-s256" in self.misbehave else ["S256"]
        return web.json_response(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{self.base}/authorize",
                "token_endpoint": f"{self.base}/token",
                "device_authorization_endpoint": f"{self.base}/device",
                "jwks_uri": f"{self.base}/jwks",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [self.alg],
                "code_challenge_methods_supported": methods,
                "authorization_response_iss_parameter_supported": True,
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
                **({"registration_endpoint": f"{self.base}/register"} if self.registers else {}),
            }
        )

    async def _register(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((request.path, await request.json()))
        if not self.registers:
            return web.Response(status=404)
        self.client_id, self.client_secret = f"dcr-{secrets.token_hex(4)}", ""
        return web.json_response({"client_id": self.client_id}, status=201)

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((request.path, {}))
        if (bad := await self._bad(request)) is not None:
            return bad
        shown = [{**key.as_dict(private=False), "use": "sig"} for key in self.keys]
        if "no-kid" in self.misbehave:
            for key in shown:
                key.pop("kid", None)
        return web.json_response({"keys": shown})

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        asked = dict(request.query)
        self.heard.append((request.path, asked))
        if asked.get("client_id") != self.client_id:
            return web.Response(status=400, text="unknown client")
        back = urlsplit(asked.get("redirect_uri", ""))
        if back.scheme != "http" or back.hostname != "127.0.0.1":
            return web.Response(status=400, text="unknown redirect_uri")
        if asked.get("code_challenge_method") != "S256" or len(asked["code_challenge"]) != 43:
            return web.Response(status=400, text="PKCE with S256 is needed")
        code = secrets.token_urlsafe(24)
        self._codes[code] = asked
        said = {"code": code, "state": asked.get("state", ""), "iss": self.url}
        if "no-iss" in self.misbehave:
            del said["iss"]
        if "wrong-iss" in self.misbehave:
            said["iss"] = "https://attacker.example"
        if "wrong-state" in self.misbehave:
            said["state"] = "x" * 43
        raise web.HTTPFound(f"{asked['redirect_uri']}?{urlencode(said)}")

    async def _device(self, request: web.Request) -> web.StreamResponse:
        asked = await self._form(request)
        if (bad := await self._bad(request, asked)) is not None:
            return bad
        if not self._is_client(request, asked):
            return self._no("invalid_client", status=401)
        device, user = secrets.token_urlsafe(24), secrets.token_hex(4).upper()
        self._devices[device] = {
            "user": user,
            "state": "waits",
            "ends": time.time() + self.device_s,
            "scope": asked.get("scope", ""),
        }
        return web.json_response(
            {
                "device_code": device,
                "user_code": user,
                "verification_uri": f"{self.base}/activate",
                "verification_uri_complete": f"{self.base}/activate?user_code={user}",
                "expires_in": self.device_s,
                "interval": self.interval_s,
            }
        )

    async def _token(self, request: web.Request) -> web.StreamResponse:
        asked = await self._form(request)
        if (bad := await self._bad(request, asked)) is not None:
            return bad
        if not self._is_client(request, asked):
            return self._no("invalid_client", status=401)
        grant = asked.get("grant_type", "")
        if grant == "authorization_code":
            return self._of_code(asked)
        if grant == "client_credentials":
            return self._tokens(secrets.token_hex(8), asked.get("scope", ""), None, refresh=False)
        if grant == "refresh_token":
            answer = self._of_refresh(asked)
            if "cut-off" in self.misbehave:
                assert request.transport is not None
                request.transport.abort()  # It was carried out, and nobody hears of it.
            return answer
        if grant == "urn:ietf:params:oauth:grant-type:device_code":
            return self._of_device(asked)
        return self._no("unsupported_grant_type")

    def _of_code(self, asked: dict[str, str]) -> web.Response:
        begun = self._codes.pop(asked.get("code", ""), None)
        if begun is None or begun["redirect_uri"] != asked.get("redirect_uri"):
            return self._no("invalid_grant")
        digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != begun["code_challenge"]:
            return self._no("invalid_grant")
        return self._tokens(secrets.token_hex(8), begun.get("scope", ""), begun.get("nonce"))

    def _of_device(self, asked: dict[str, str]) -> web.Response:
        begun = self._devices.get(asked.get("device_code", ""))
        if begun is None:
            return self._no("invalid_grant")
        if float(str(begun["ends"])) < time.time():
            return self._no("expired_token")
        if "slow-down" in self.misbehave:
            self.misbehave.discard("slow-down")
            return self._no("slow_down")
        if begun["state"] == "no":
            return self._no("access_denied")
        if begun["state"] == "waits":
            return self._no("authorization_pending")
        del self._devices[asked["device_code"]]
        return self._tokens(secrets.token_hex(8), str(begun["scope"]), None)

    def _of_refresh(self, asked: dict[str, str]) -> web.Response:
        token = asked.get("refresh_token", "")
        if token in self._used:  # Somebody has it who should not: all of its family is dead.
            self.dead_families.add(self._used[token])
        family = self._refresh.get(token)
        if family is None or family in self.dead_families:
            return self._no("invalid_grant")
        self.refreshed += 1
        if "no-rotation" in self.misbehave:
            return self._tokens(family, "", None, refresh=False)
        del self._refresh[token]
        self._used[token] = family
        return self._tokens(family, self._scope_of_family.get(family, ""), None)

    def _tokens(
        self, family: str, scope: str, nonce: str | None, *, refresh: bool = True
    ) -> web.Response:
        access = f"at-{secrets.token_urlsafe(24)}"
        self.access[access] = time.time() + self.access_s
        self.scopes_of[access] = scope.split()
        said: dict[str, object] = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.access_s,
            "scope": scope,
        }
        if refresh and "never-refresh-token" not in self.misbehave:
            token = f"rt-{secrets.token_urlsafe(24)}"
            self._refresh[token] = family
            self._scope_of_family[family] = scope
            said["refresh_token"] = token
        if "openid" in scope.split():
            said["id_token"] = self.id_token(nonce)
        return web.json_response(said, headers={"Cache-Control": "no-store"})

    def id_token(self, nonce: str | None = None) -> str:
        """Signed as it should be, or as `misbehave` says."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.url,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 600,
            **self.claims,
        }
        if nonce is not None:
            claims["nonce"] = "other" if "wrong-nonce" in self.misbehave else nonce
        if "wrong-aud" in self.misbehave:
            claims["aud"] = "somebody-else"
        if "wrong-issuer-in-token" in self.misbehave:
            claims["iss"] = "https://attacker.example"
        if "expired" in self.misbehave:
            claims |= {"iat": now - 7_200, "exp": now - 3_600}
        key = self.keys[0]
        if "alg-none" in self.misbehave:
            return ".".join(_part(part) for part in ({"alg": "none"}, claims)) + "."
        if "hs256" in self.misbehave:  # Signed with what everybody knows: the public key.
            known = OctKey.import_key(json.dumps(key.as_dict(private=False), sort_keys=True))
            return jwt.encode({"alg": "HS256", "kid": key.kid}, claims, known)
        header = {"alg": self.alg, "kid": key.kid}
        if "no-kid" in self.misbehave:
            del header["kid"]
        if "unknown-kid" in self.misbehave:
            header["kid"] = "nobody"
        return jwt.encode(header, claims, key, algorithms=[self.alg])

    # --- pieces ---------------------------------------------------------------------------------

    def _key(self) -> ECKey | RSAKey:
        options = {"kid": secrets.token_hex(8)}
        if self.alg == "RS256":
            return RSAKey.generate_key(2048, options)
        return ECKey.generate_key("P-256", options)

    async def _form(self, request: web.Request) -> dict[str, str]:
        asked = dict(parse_qsl(await request.text(), keep_blank_values=True))
        self.heard.append((request.path, asked))
        return asked

    def _is_client(self, request: web.Request, asked: dict[str, str]) -> bool:
        said = request.headers.get("Authorization", "")
        if said.startswith("Basic "):
            name, _, secret = base64.b64decode(said[6:]).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == (
                self.client_id,
                self.client_secret,
            )
        known = (asked.get("client_id"), asked.get("client_secret", ""))
        return known == (self.client_id, self.client_secret)

    async def _bad(
        self, request: web.Request, asked: dict[str, str] | None = None
    ) -> web.Response | None:
        wrong = self.misbehave
        if "slow" in wrong:
            await asyncio.sleep(60)
        if "huge" in wrong:
            return web.Response(body=b'{"x":"' + b"x" * 5_000_000 + b'"}')
        if "not-json" in wrong:
            return web.Response(text="<html>welcome</html>")
        if "redirect" in wrong:
            raise web.HTTPTemporaryRedirect(f"{self.base}/elsewhere")
        if "error-500" in wrong:
            return web.Response(status=500, text="oops")
        if "echo" in wrong and asked is not None:
            said = f"\x1b[31m you sent {asked} {request.headers.get('Authorization')}"
            body = {"error": "invalid_request", "error_description": said}
            return web.json_response(body, status=400)
        return None

    def _no(self, error: str, *, status: int = 400) -> web.Response:
        return web.json_response({"error": error}, status=status)

    def _of_user(self, user_code: str) -> dict[str, object]:
        return next(found for found in self._devices.values() if found["user"] == user_code)


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
