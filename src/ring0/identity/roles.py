"""What an operator may do: `[roles]` of ring0.toml, from names to roles.

Not here: who somebody is (operators.py, oidc.py), which verb needs which role (gateway/roles.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ring0 import limits
from ring0.errors import CallDenied, ManifestInvalid
from ring0.types import Operator, Role

GROUP: Final = "group:"
EMAIL: Final = "email:"
_ALL: Final = frozenset(Role)
_NONE: Final[frozenset[Role]] = frozenset()


class RoleMissing(CallDenied):
    """Whoever asks has not the role that it takes."""

    code = "role_missing"


class Roles:
    """Who has which roles. Without a table, whoever has the folder's uid has all of them, and
    whoever is there by an issuer's word has none."""

    def __init__(self, table: Mapping[Role, Iterable[str]] | None) -> None:
        """Raises ManifestInvalid."""
        self.named: dict[str, frozenset[Role]] = {}
        self.is_table = table is not None
        for role, names in (table or {}).items():
            for name in names:
                _check(role, name)
                # An address is of one person however it is written.
                key = name.lower() if name.startswith(EMAIL) else name
                self.named[key] = self.named.get(key, _NONE) | {role}
        if len(self.named) > limits.ROLES_NAMED_MAX:
            raise ManifestInvalid(
                f"ring0.toml: [roles] names more than {limits.ROLES_NAMED_MAX}.",
                todo="Name groups of the issuer: `group:NAME`.",
            )

    def of_peer(self, name: str) -> frozenset[Role]:
        """Of a uid of this machine, by its `operator_name`."""
        return self.named.get(name, _NONE) if self.is_table else _ALL

    def of_login(self, name: str, email: str, groups: Iterable[str]) -> frozenset[Role]:
        """Of the subject of a login, with what the issuer vouches for."""
        names = [name, *(GROUP + group for group in groups), *([EMAIL + email] if email else [])]
        return _NONE.union(*(self.named.get(one, _NONE) for one in names))


def check(operator: Operator, role: Role, what: str) -> None:
    """Raises RoleMissing unless `operator` may do `what`."""
    if role in operator.roles:
        return
    has = ", ".join(sorted(operator.roles)) or "none"
    raise RoleMissing(
        f"`{what}` takes the role {role}, and {operator.name} has not got it.",
        why=f"By [roles] of ring0.toml {operator.name} has: {has}.",
        todo=f"Ask somebody who has it; or whoever owns ring0.toml adds that name to `{role}` under"
        " [roles] there, and then `ring0 reload`s or starts the kernel anew.",
    )


def _check(role: Role, name: str) -> None:
    if name and name.isprintable() and len(name) <= limits.OPERATOR_NAME_CHARS_MAX:
        return
    raise ManifestInvalid(
        f"ring0.toml: [roles] {role} names {name[:60]!r}, which nobody can be called.",
        todo='Write it as `ring0 whoami` prints it: "ada (uid 1000)"; or "group:NAME",'
        ' "email:ADDRESS".',
    )


__all__ = ["EMAIL", "GROUP", "RoleMissing", "Roles", "check"]
