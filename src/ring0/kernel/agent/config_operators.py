"""[oidc] and [roles] of ring0.toml: who operates, and who may do what."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ring0.errors import ManifestInvalid
from ring0.identity.roles import Roles
from ring0.types import Role

RolesTable = dict[Role, tuple[str, ...]]
"""[roles]: by role, who has it: `ada (uid 1000)`, `SUBJECT (ISSUER)`, `group:NAME`,
`email:ADDRESS`."""


class OidcTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[oidc]: the one issuer by whose word people log in."""

    issuer: str
    """Exactly as it calls itself: `https://login.example.com`."""
    client_id: str
    client_secret: str = ""
    """The name of a secret in the vault; empty: a public client, which PKCE is enough for."""
    scopes: tuple[str, ...] = ("openid", "email")
    groups_claim: str = ""
    """The claim that lists somebody's groups; empty: `group:` fits nobody."""
    audience: str = ""
    """What `aud` has to name; empty: the client's id."""


def check(oidc: OidcTable | None, roles: Mapping[Role, tuple[str, ...]] | None) -> None:
    """Raises ManifestInvalid."""
    Roles(roles)
    if oidc is None:
        return
    if not oidc.issuer or not oidc.client_id or "openid" not in oidc.scopes:
        raise ManifestInvalid(
            "ring0.toml: [oidc] has an `issuer`, a `client_id`, and `openid` among its scopes.",
            why="Without that scope an issuer does not say who somebody is.",
            todo='Write scopes = ["openid", "email"].',
        )
    if roles is None:
        raise ManifestInvalid(
            "ring0.toml has [oidc], and no [roles].",
            why="Whoever the issuer knows could log in: what they may do has to be said.",
            todo='Add [roles], for example admin = ["email:you@example.com"], approver ='
            ' ["group:oncall"]; name your own uid too, as `ring0 whoami` prints it.',
        )
