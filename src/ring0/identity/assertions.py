"""A client that says who it is by a signature (`private_key_jwt`, RFC 7523): the key stays here.

Each JWT is for one login server, for a minute, and has a name of its own. Not here: what the token
endpoint makes of it (oauth.py).
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.runtime import Runtime

FIELD: Final = "client_assertion"
_KIND: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_RSA_BITS_MIN: Final = 2_048


def proof(client_id: str, key: str, audience: str, runtime: Runtime) -> dict[str, str]:
    """The fields of a form that say who asks. `key`: PKCS #8 in base64, on one line, as it stands
    between the lines of a PEM file. Raises InvalidInput, without the key."""
    algorithm, private = _read(key)
    now_s = runtime.now_us() // 1_000_000
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now_s,
        "exp": now_s + limits.OAUTH_ASSERTION_S,
        "jti": runtime.random_bytes(16).hex(),
    }
    header = {"alg": algorithm, "typ": "JWT"}
    said = jws.serialize_compact(header, json.dumps(claims), private, algorithms=[algorithm])
    return {"client_assertion_type": _KIND, FIELD: said}


def _read(key: str) -> tuple[str, ECKey | RSAKey | OKPKey]:
    try:
        found = load_der_private_key(base64.b64decode(key, validate=True), None)
    except (ValueError, TypeError, binascii.Error):  # Their words could quote it.
        raise _unfit("It is no PKCS #8 in base64.") from None
    pem = found.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name == "secp256r1":
        return "ES256", ECKey.import_key(pem)
    if isinstance(found, rsa.RSAPrivateKey) and found.key_size >= _RSA_BITS_MIN:
        return "RS256", RSAKey.import_key(pem)
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return "EdDSA", OKPKey.import_key(pem)
    raise _unfit(f"It is none of P-256, Ed25519, or RSA of {_RSA_BITS_MIN} bits and more.")


def _unfit(why: str) -> InvalidInput:
    return InvalidInput(
        "The key of a login can't be used.",
        why=why,
        todo="Keep it as `grep -v -- ----- key.pem | tr -d '\\n' | ring0 secret set NAME` does.",
    )
