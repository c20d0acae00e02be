"""Signed tokens from outside: which key, which algorithm, is it whole? And nothing of what it says.

Compact JWS (RFC 7515) by joserfc, with all that is optional about it taken away: three algorithms,
keys that were fetched from where they are pinned, strict base64url, no header that brings a key.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Sequence
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from ring0 import limits
from ring0.errors import CallDenied

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""What a token from outside may be signed with. No `none`, and nothing symmetric: whoever can
verify such a one can make one."""
_PARTS: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+")
_PUBLIC: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"),
                  "OKP": ("kty", "crv", "x")}  # fmt: skip
_FITS: Final = {"RSA": ("RS256", ""), "EC": ("ES256", "P-256"), "OKP": ("EdDSA", "Ed25519")}
"""By kind of key: its one algorithm, and its one curve."""
_KINDS: Final[dict[str, Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_HEADERS: Final = frozenset({"alg", "kid", "typ", "cty"})
"""Whatever else a header says is refused: `jwk`, `jku`, `x5c` bring a key, `crit` and `b64` change
what is signed."""


_ROCA: Final = {
    prime: frozenset(pow(65_537, power, prime) for power in range(prime))
    for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
}
"""By prime: what a modulus of such a chip leaves over when it is divided by it."""


class TokenRefused(CallDenied):
    """A token from outside is not taken: it is forged, over, or for somebody else."""

    code = "token_refused"


class PublicKey:
    """A key that tokens are verified with."""

    def __init__(self, key: Key, algorithm: str, kid: str) -> None:
        self.key = key
        self.algorithm = algorithm
        self.kid = kid


class _Registry(jws.JWSRegistry):
    """joserfc's algorithms, of which only those named are there. It warns of EdDSA's old name,
    which is still what issuers write."""

    max_payload_length = limits.JWS_SIZE_BYTES_MAX
    max_signature_length = limits.RSA_BITS_MAX // 8 * 4 // 3 + 4

    def get_alg(self, name: str) -> Any:
        if not isinstance(name, str) or name not in (self.allowed or ()):
            raise refused(f"It is signed with {str(name)[:40]!r}, which is not taken.")
        return self.algorithms[name]


def signed(
    token: str, keys: Sequence[PublicKey], algorithms: Collection[str] = ALGORITHMS
) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a token that one of the keys has signed. Raises TokenRefused."""
    header = header_of(token)
    algorithm, kid = header["alg"], header.get("kid", "")
    if algorithm not in algorithms:
        raise refused(f"It is signed with {algorithm[:40]!r}, which is not taken.")
    fitting = [key for key in keys if key.algorithm == algorithm and (not kid or key.kid == kid)]
    if not fitting:
        raise refused("It is signed with a key that the issuer does not name.")
    if len(fitting) > 1:
        raise refused("It does not say which of the issuer's keys it is signed with.")
    try:
        found = jws.deserialize_compact(
            token, fitting[0].key, registry=_Registry(algorithms=list(algorithms))
        )
    except (JoseError, ValueError, TypeError, KeyError):
        raise refused("Its signature is wrong.") from None
    return header, found.payload


def header_of(token: str) -> dict[str, Any]:
    """What a token says of its signature, before that is verified. Raises TokenRefused."""
    if len(token) > limits.JWS_SIZE_BYTES_MAX:
        raise refused(f"It is longer than {limits.JWS_SIZE_BYTES_MAX} bytes.")
    if not _PARTS.fullmatch(token):
        raise refused("It is not of three parts in base64url, without padding.")
    parts = [_bytes(part) for part in token.split(".")]
    header = strict_object(parts[0], "header")
    for name in header:
        if name not in _HEADERS:
            raise refused(f"Its header says {name[:40]!r}, which is not taken.")
    if not all(isinstance(value, str) for value in header.values()) or "alg" not in header:
        raise refused("Its header is not what a header is.")
    if len(header.get("kid", "")) > limits.JWS_SIZE_BYTES_MAX // 64:
        raise refused("The name of its key is too long.")
    return header


def strict_object(raw: bytes, what: str) -> dict[str, Any]:
    """A JSON object in which no name is there twice, and no number is none. Raises TokenRefused."""
    try:
        found = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise refused(f"Its {what} can't be read.") from None
    if not isinstance(found, dict):
        raise refused(f"Its {what} is no object.")
    return found


def public_keys(raw: bytes) -> tuple[PublicKey, ...]:
    """What of a JWK set (RFC 7517) verifies tokens here; all else in it is left out. Raises
    TokenRefused where it is no set."""
    if len(raw) > limits.JWKS_SIZE_BYTES_MAX:
        raise refused(f"The issuer's keys are more than {limits.JWKS_SIZE_BYTES_MAX} bytes.")
    listed = strict_object(raw, "issuer's set of keys").get("keys")
    if not isinstance(listed, list) or len(listed) > limits.JWKS_KEYS_MAX:
        raise refused(f"The issuer's keys are no list of at most {limits.JWKS_KEYS_MAX}.")
    return tuple(key for one in listed if (key := public_key(one)) is not None)


def public_key(said: Any) -> PublicKey | None:
    """One key, if it is fit; None for one that is for something else, or weak."""
    if not isinstance(said, dict):
        return None
    kind, kid = said.get("kty"), said.get("kid", "")
    if not isinstance(kind, str) or kind not in _FITS or not isinstance(kid, str):
        return None
    algorithm, curve = _FITS[kind]
    operations = said.get("key_ops", ["verify"])
    if (
        said.get("use", "sig") != "sig"
        or said.get("alg", algorithm) not in (algorithm, "Ed25519" if kind == "OKP" else algorithm)
        or said.get("crv", "") != curve
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    # Its public half alone, whatever else was published.
    public = {name: said.get(name) for name in _PUBLIC[kind]}
    if not all(isinstance(value, str) for value in public.values()):
        return None
    if kind == "RSA" and not _is_strong(public["n"]):
        return None
    try:
        key = _KINDS[kind].import_key(public)
        assert key.public_key is not None  # It is made here: a point off its curve is no key.
    except (JoseError, ValueError, OverflowError):
        return None
    return PublicKey(key, algorithm, kid)


def _is_strong(n: Any) -> bool:
    """An RSA key that nobody can take apart: large enough, and not of the chips whose primes are
    found by their form (ROCA; Nemec et al., 2017, section 3.2)."""
    try:
        modulus = int.from_bytes(_bytes(n), "big")
    except TokenRefused:
        return False
    return limits.RSA_BITS_MIN <= modulus.bit_length() <= limits.RSA_BITS_MAX and not all(
        modulus % prime in of for prime, of in _ROCA.items()
    )


def refused(why: str) -> TokenRefused:
    return TokenRefused(
        "The token is not taken.", why=why, todo="Log in again; if it stays so, ask the issuer."
    )


def _bytes(part: str) -> bytes:
    """Exactly one way to write them: other letters for the same bytes are refused."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise refused("It is not base64url.") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise refused("It is not base64url as it is to be written.")
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)
