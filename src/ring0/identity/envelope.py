"""Envelopes: each secret under a key of its own, and that key under the vault's (AES-256-GCM).

Name, version and times go into both seals: an entry that is put under another name, or whose
version was changed, does not open. Not here: where the vault's key is kept (`vaultkey.py`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from ring0.runtime import Runtime

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One sealed secret, as it lies on disk. Nothing in it is secret without the vault's key."""

    version: int
    """Counts up with each value of that name."""
    set_us: int
    ends_us: int = 0
    """From when on nobody takes it; 0: not known."""
    key: bytes
    """Its own key, under the vault's."""
    sealed: bytes

    def __repr__(self) -> str:
        return f"Entry(version={self.version})"


class DoesNotOpen(Exception):
    """The entry is not what was sealed under that name, or the key is another one."""


def seal(
    name: str, value: str, version: int, set_us: int, ends_us: int, key: bytes, runtime: Runtime
) -> Entry:
    """A new envelope, with a new key inside."""
    own = runtime.random_bytes(KEY_BYTES)
    return Entry(
        version=version,
        set_us=set_us,
        ends_us=ends_us,
        key=_shut(key, own, _about("key", name, version, set_us, ends_us), runtime),
        sealed=_shut(own, value.encode(), _about("value", name, version, set_us, ends_us), runtime),
    )


def opened(name: str, entry: Entry, key: bytes) -> str:
    """The value. Raises DoesNotOpen."""
    from cryptography.exceptions import InvalidTag

    told = (name, entry.version, entry.set_us, entry.ends_us)
    try:
        own = _open(key, entry.key, _about("key", *told))
        return _open(own, entry.sealed, _about("value", *told)).decode()
    except (InvalidTag, ValueError):
        raise DoesNotOpen from None


def _shut(key: bytes, plain: bytes, about: bytes, runtime: Runtime) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = runtime.random_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def _open(key: bytes, shut: bytes, about: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).decrypt(shut[:_NONCE_BYTES], shut[_NONCE_BYTES:], about)


def _about(what: str, name: str, version: int, set_us: int, ends_us: int) -> bytes:
    """One text for each meaning: JSON says where each part ends."""
    return msgspec.json.encode(["ring0 vault 2", what, name, version, set_us, ends_us])
