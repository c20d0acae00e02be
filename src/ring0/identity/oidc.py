"""Who logged in, by the word of a pinned issuer: what an ID token has to say (OpenID Connect Core
3.1.3.7), and nothing about how one gets it (oauth.py) or what it allows (roles.py).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.identity.jws import PublicKey, TokenRefused, refused, signed, strict_object

_SECOND_US: Final = 1_000_000
_SKEW_US: Final = limits.CLOCK_SKEW_S_MAX * _SECOND_US
_TYPES: Final = ("", "JWT", "jwt")
"""An access token says `at+jwt`, a logout token `logout+jwt`: neither says who logged in."""


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the token has to fit."""

    issuer: str
    client_id: str
    audience: str = ""
    """Empty: the client's id."""
    nonce: str = ""
    """Empty: the way that it came has none (the device flow)."""
    begun_us: int
    """When the login was begun: an older token is somebody's old one."""
    groups_claim: str = ""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Who it is."""

    name: str
    """`sub (issuer)`: never the e-mail address, which can be another person's tomorrow."""
    email: str = ""
    """Only where the issuer says that it has verified it."""
    groups: tuple[str, ...] = ()


def subject(token: str, keys: Sequence[PublicKey], expected: Expected, now_us: int) -> Subject:
    """Raises TokenRefused."""
    header, payload = signed(token, keys)
    if header.get("typ", "") not in _TYPES:
        raise refused(f"It is a {header['typ'][:40]!r}, and no ID token.")
    said = strict_object(payload, "payload")
    _check_whose(said, expected)
    _check_when(said, expected, now_us)
    if expected.nonce:
        nonce = said.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(
            nonce.encode("utf-8", "replace"), expected.nonce.encode()
        ):
            raise refused("It answers another login (`nonce`).")
    name = f"{_text(said, 'sub', limits.LOGIN_SUBJECT_CHARS_MAX)} ({expected.issuer})"
    return Subject(name=name, email=_email(said), groups=_groups(said, expected.groups_claim))


def _check_whose(said: dict[str, Any], expected: Expected) -> None:
    if said.get("iss") != expected.issuer:
        raise refused(f"It is of another issuer than {expected.issuer} (`iss`).")
    audience = said.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise refused("It does not say for whom it is (`aud`).")
    wanted = expected.audience or expected.client_id
    if wanted not in listed:
        raise refused(f"It is for somebody else than {wanted} (`aud`).")
    party = said.get("azp")
    if party is None and len(set(listed)) > 1:
        raise refused("It is for several, and does not say who asked for it (`azp`).")
    if party is not None and party != expected.client_id:
        raise refused(f"Somebody else than {expected.client_id} asked for it (`azp`).")


def _check_when(said: dict[str, Any], expected: Expected, now_us: int) -> None:
    ends_us, issued_us = _moment(said, "exp"), _moment(said, "iat")
    if ends_us <= now_us - _SKEW_US:
        raise refused("Its time is over (`exp`).")
    if issued_us > now_us + _SKEW_US:
        raise refused("It is of the future (`iat`): the issuer's clock, or this one's, is wrong.")
    if issued_us < expected.begun_us - _SKEW_US:
        raise refused("It was made before this login was begun (`iat`).")
    if "nbf" in said and _moment(said, "nbf") > now_us + _SKEW_US:
        raise refused("Its time has not come (`nbf`).")


def _moment(said: dict[str, Any], name: str) -> int:
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise refused(f"It does not say when (`{name}`).")
    return int(value * _SECOND_US)


def _text(said: dict[str, Any], name: str, most: int) -> str:
    value = said.get(name)
    if not _is_plain(value, most):
        raise refused(f"It does not say who it is about (`{name}`).")
    assert isinstance(value, str)
    return value


def _email(said: dict[str, Any]) -> str:
    value = said.get("email")
    verified = said.get("email_verified") is True
    fits = verified and _is_plain(value, limits.LOGIN_EMAIL_CHARS_MAX)
    return value.lower() if fits and isinstance(value, str) else ""


def _groups(said: dict[str, Any], claim: str) -> tuple[str, ...]:
    """Raises TokenRefused where they are not what groups are: a person of whom nobody knows the
    groups would have other roles."""
    value = said.get(claim) if claim else None
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > limits.LOGIN_GROUPS_MAX
        or not all(_is_printable(one, limits.LOGIN_GROUP_CHARS_MAX) for one in value)
    ):
        raise refused(f"Its {claim[:40]!r} is no list of at most {limits.LOGIN_GROUPS_MAX} names.")
    return tuple(value)


def _is_plain(value: Any, most: int) -> bool:
    """Text that looks like nothing else."""
    return _is_printable(value, most) and value.isascii() and value == value.strip()


def _is_printable(value: Any, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


__all__ = ["Expected", "Subject", "TokenRefused", "subject"]
