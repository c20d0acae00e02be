"""Names that are made from what they are of: a blob's address, a child's id.

Not here: where they lie.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final


def address(key: bytes, value: bytes) -> str:
    """A blob's address: HMAC-SHA-256 under its run's key, 64 hex digits.

    Keyed, so that the address of an erased value tells nobody what the value was.

    Small values are hashed by RFC 2104's own words: `hmac.digest` lets go of the interpreter's lock
    each time, and waits for it behind the writer, longer than it computes.
    """
    if len(key) > _BLOCK_BYTES or len(value) > _SMALL_BYTES_MAX:
        return hmac.digest(key, value, "sha256").hex()
    padded = key.ljust(_BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(padded.translate(_INNER) + value).digest()
    return hashlib.sha256(padded.translate(_OUTER) + inner).hexdigest()


def child_of(call: str) -> str:
    """The id of the child that a `spawn` starts: the same call always has the same child."""
    return f"r-{hashlib.sha256(call.encode()).hexdigest()[:12]}"


_BLOCK_BYTES: Final = hashlib.sha256().block_size
_SMALL_BYTES_MAX: Final = 2_047 - _BLOCK_BYTES
"""Below 2,048 bytes hashlib keeps the interpreter's lock."""
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
