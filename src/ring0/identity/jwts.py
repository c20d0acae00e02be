"""JWTs for edges: servers that know nothing of ring0 and ask in whose name a request comes.

Each is for one server, one request, at most a minute (ES256, RFC 7519): `sub` is the human, `act`
the chain of runs that act (RFC 8693), `authorization_details` what is done (RFC 9396). Verified by
`verify`, as every server should. Not here: which requests get one (kernel/calls/outside.py).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from joserfc import jws
from joserfc.jwk import ECKey

from ring0 import limits
from ring0.identity.jws import PublicKey, public_keys, refused, signed, strict_object
from ring0.identity.keys import Held, Key, Keys

EDGE: Final = "at+jwt"
SVID: Final = "JWT"
_ALGORITHM: Final = "ES256"
_encode = msgspec.json.Encoder().encode


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """A run that acts, by its name as an identity (`spiffe://…/run/…/agent/…`)."""

    name: str
    above: Actor | None = None
    """The run that had it act."""

    def claim(self) -> dict[str, Any]:
        """The acting run outermost, whoever had it act within (RFC 8693, 4.1)."""
        return {"sub": self.name} | ({"act": self.above.claim()} if self.above else {})


class Jwts:
    """Signs with the keys of one data folder. Its `repr` shows none."""

    def __init__(
        self,
        keys: Keys,
        issuer: str,
        now_us: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._keys = keys
        self.issuer = issuer
        self._now_us = now_us
        self._random_bytes = random_bytes
        self._signer: tuple[str, ECKey] | None = None

    def edge(
        self,
        audience: str,
        *,
        principal: str,
        actor: Actor,
        details: dict[str, Any],
        certificate: bytes = b"",
        lives_s: int = limits.EDGE_JWT_S_MAX,
    ) -> str:
        """In whose name one request is made, for the server that it goes to and for no other.

        certificate: DER of the one that the run shows, if it has one (`cnf`, RFC 8705). Raises
        StoreDamaged.
        """
        assert 0 < lives_s <= limits.EDGE_JWT_S_MAX, f"{lives_s} s is too long"
        now_s = self._now_us() // 1_000_000
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": audience,
            "sub": principal,
            "act": actor.claim(),
            "iat": now_s,
            "exp": now_s + lives_s,
            "jti": _text(self._random_bytes(16)),
            "authorization_details": [{"type": "ring0_call", **details}],
        }
        if certificate:
            claims["cnf"] = {"x5t#S256": _text(hashlib.sha256(certificate).digest())}
        return self._signed(claims, EDGE)

    def svid(self, name: str, audience: Sequence[str], lives_s: int) -> str:
        """A JWT-SVID (SPIFFE): who a run is, for those of `audience`. Raises StoreDamaged."""
        now_s = self._now_us() // 1_000_000
        claims = {
            "sub": name,
            "aud": list(audience),
            "iat": now_s,
            "exp": now_s + lives_s,
            "jti": _text(self._random_bytes(16)),
        }
        return self._signed(claims, SVID)

    def public(self, use: str = "sig") -> bytes:
        """The public keys (JWKS): those that sign now, and those whose tokens may live still.
        `use`: `sig` for edges, `jwt-svid` for SPIFFE. Raises StoreDamaged."""
        self._key()
        found = [
            {**_key(one).as_dict(private=False), "kid": one.name, "use": use, "alg": _ALGORITHM}
            for one in self._keys.held().signing
        ]
        return _encode({"keys": found})

    def rotate(self) -> str:
        """From here on another key signs, and this is its name; the one before is published on.
        Raises StoreDamaged."""
        now_us = self._now_us()
        held = self._keys.change(lambda held: _with_key(held, now_us))
        self._signer = None
        return held.signing[-1].name

    def _key(self) -> tuple[str, ECKey]:
        if self._signer is None:
            held = self._keys.held()
            if not held.signing:
                now_us = self._now_us()
                held = self._keys.change(lambda now: now if now.signing else _with_key(now, now_us))
            newest = held.signing[-1]
            self._signer = newest.name, _key(newest)
        return self._signer

    def _signed(self, claims: dict[str, Any], kind: str) -> str:
        name, key = self._key()
        header = {"alg": _ALGORITHM, "kid": name, "typ": kind}
        return jws.serialize_compact(header, _encode(claims), key)


class Replays:
    """Remembers which tokens were shown, by their `jti`: the same token can be written in more than
    one way, so its bytes say nothing."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def is_new(self, jti: str, until_s: int, now_s: int) -> bool:
        """False where it was shown before, or where no more can be remembered."""
        if jti in self._seen:
            return False
        if len(self._seen) >= limits.REPLAYS_REMEMBERED_MAX:
            self._seen = {one: until for one, until in self._seen.items() if until >= now_s}
        if len(self._seen) >= limits.REPLAYS_REMEMBERED_MAX:
            return False
        self._seen[jti] = until_s
        return True


def verify(
    token: str,
    keys: Sequence[PublicKey],
    *,
    issuer: str,
    audience: str,
    now_s: int,
    replays: Replays,
) -> dict[str, Any]:
    """The claims of a JWT for this audience, shown for the first time. Raises TokenRefused."""
    header, payload = signed(token, keys, (_ALGORITHM,))
    if header.get("typ", "").lower() != EDGE:
        raise refused("It is a token of another kind.")
    claims = strict_object(payload, "payload")
    if claims.get("iss") != issuer or claims.get("aud") != audience:
        raise refused("It is of another issuer, or for somebody else.")
    begun, over, jti = claims.get("iat"), claims.get("exp"), claims.get("jti")
    if type(begun) is not int or type(over) is not int or over - begun > limits.EDGE_JWT_S_MAX:
        raise refused("It lives for longer than such a token may.")
    if now_s >= over or begun > now_s + limits.CLOCK_SKEW_S:
        raise refused("Its time is over, or has not come.")
    if not isinstance(jti, str) or not 0 < len(jti) <= 64:
        raise refused("It has no name of its own.")
    if not isinstance(claims.get("sub"), str) or not isinstance(claims.get("act"), dict):
        raise refused("It does not say in whose name and by whom.")
    if not replays.is_new(jti, over, now_s):
        raise refused("It was shown before.")
    return claims


def verify_svid(token: str, jwks: bytes, audience: str, now_s: int) -> dict[str, Any]:
    """The claims of a JWT-SVID of ours. Raises TokenRefused."""
    header, payload = signed(token, public_keys(jwks), (_ALGORITHM,))
    claims = strict_object(payload, "payload")
    said = claims.get("aud")
    if header.get("typ", SVID) != SVID or not isinstance(said, list) or audience not in said:
        raise refused("It is for somebody else.")
    if type(claims.get("exp")) is not int or now_s >= claims["exp"]:
        raise refused("Its time is over.")
    if not str(claims.get("sub", "")).startswith("spiffe://"):
        raise refused("It names nobody.")
    return claims


def _with_key(held: Held, now_us: int) -> Held:
    made = ECKey.generate_key("P-256")
    name = made.thumbprint()[:16]
    key = Key(private=made.as_pem(private=True).decode(), made_us=now_us, name=name)
    return msgspec.structs.replace(held, signing=(*held.signing[-1:], key))


def _key(key: Key) -> ECKey:
    return ECKey.import_key(key.private)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
