"""[identity] and [principals."NAME"] of ring0.toml. What each key means: docs/configuration.md."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid

_OF_UID: Final = re.compile(r"(?:[^\s()][^()]* \(uid ([0-9]{1,10})\)|uid ([0-9]{1,10}))")
_OF_LOGIN: Final = re.compile(r"\S.* \(https?://[^\s()]+\)")
_DOMAIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,253}")


class IdentityTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[identity] of ring0.toml."""

    listen: str = ""
    """`127.0.0.1:7421`: where tokens are taken beside the socket in the data folder."""
    spiffe: bool = False
    """Runs get certificates, over the SPIFFE Workload API. Needs `ring0[spiffe]`."""
    trust_domain: str = "ring0.local"


class PrincipalTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[principals."NAME"]: what runs of this principal may ask for, whatever their agent may."""

    only: tuple[str, ...]
    """Patterns, as of `ring0 run --only`."""


def check(table: IdentityTable) -> None:
    """Raises ManifestInvalid."""
    listening_at(table)
    if not _DOMAIN.fullmatch(table.trust_domain):
        raise ManifestInvalid(
            f"ring0.toml: [identity] trust_domain = {table.trust_domain[:60]!r} is none.",
            why="It has small letters, digits, `.`, `-` and `_`, and no `spiffe://` before it.",
            todo='Write it like "agents.example.com".',
        )


def check_principals(names: Iterable[str]) -> None:
    """Each is of a form that a principal can have. Raises ManifestInvalid."""
    for name in names:
        of_login = _OF_LOGIN.fullmatch(name) is not None
        fits = name.isprintable() and len(name) <= limits.OPERATOR_NAME_CHARS_MAX
        if not fits or (uid_of(name) is None and not of_login):
            raise ManifestInvalid(
                f"ring0.toml: [principals] has {name[:60]!r}, which no principal is called.",
                why="It would narrow nobody, and nobody would see that.",
                todo='Write it as `ring0 whoami` prints it: [principals."ada (uid 1000)"], or'
                ' [principals."SUBJECT (ISSUER)"] of somebody who logs in.',
            )


def uid_of(principal: str) -> int | None:
    """Of which uid of this machine a principal's name speaks; None: of a login."""
    found = _OF_UID.fullmatch(principal)
    return int(found[1] or found[2]) if found else None


def listening_at(table: IdentityTable) -> tuple[str, int] | None:
    """Address and port of `listen`; None: there is none. Raises ManifestInvalid."""
    if not table.listen:
        return None
    host, _, port = table.listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if port.isascii() and port.isdigit() else -1
    except ValueError:
        number = -1
    if not 0 < number < 65_536 or not address.is_loopback:
        raise ManifestInvalid(
            f"ring0.toml: [identity] listen = {table.listen[:60]!r} is no address of this machine"
            " alone.",
            why="What comes in there is not encrypted, so it must not come from elsewhere.",
            todo='Write it like "127.0.0.1:7421"; a reverse proxy with TLS may stand before it.',
        )
    return str(address), number
