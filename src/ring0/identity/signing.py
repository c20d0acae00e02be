"""Signatures of webhooks, as Standard Webhooks has them (https://www.standardwebhooks.com).

v1,BASE64(HMAC-SHA256(ID.TIME.BODY)) in `webhook-signature`. Both ways: hooks that come in check it,
messages that go out carry it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

WHSEC: Final = "whsec_"
"""Before a secret that is base64, as Standard Webhooks writes it."""


def key_of(secret: str) -> bytes:
    """The bytes that a secret of the vault stands for."""
    if secret.startswith(WHSEC):
        try:
            return base64.b64decode(secret.removeprefix(WHSEC), validate=True)
        except binascii.Error:
            pass  # It only looks like one.
    return secret.encode()


def signature(key: bytes, name: bytes, time: bytes, body: bytes) -> bytes:
    """Of a message with this id at this time (seconds since 1970)."""
    signed = b".".join((name, time, body))
    return b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
