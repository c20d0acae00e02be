"""What an operator asks of identities: `token`, `token-revoke`, `tokens` and `identity-rotate`.

Not here: the socket (control.py), the door at which tokens are shown (calls.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0 import limits

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct


class Give(msgspec.Struct, forbid_unknown_fields=True):
    """A token of a run, and where it is taken."""

    run: str
    only: tuple[str, ...] | None = None
    """None: the run's tools, and nothing else."""
    expires_s: int = limits.TOKEN_S_DEFAULT

    async def do(self, to: Direct) -> Any:
        granting, by = to.kernel.granting, to.may("token").name
        text = await granting.give(self.run, self.only, self.expires_s, by=by)
        assert granting.open_door is not None, "a run is at work, so a kernel serves it"
        return {"token": text, "socket": await granting.open_door()}


class Revoke(msgspec.Struct, forbid_unknown_fields=True):
    run: str
    token: str
    """Its id."""

    async def do(self, to: Direct) -> Any:
        by = to.may("token-revoke").name
        await to.kernel.granting.revoke(self.run, self.token, by=by)


class List(msgspec.Struct, forbid_unknown_fields=True):
    run: str

    async def do(self, to: Direct) -> Any:
        to.may("tokens")
        return to.kernel.granting.list(self.run)


class Rotate(msgspec.Struct, forbid_unknown_fields=True):
    """Another key signs JWTs from here on."""

    async def do(self, to: Direct) -> Any:
        to.may("identity-rotate")
        return await to.kernel.runtime.in_thread(to.kernel.identities.jwts.rotate)


VERBS: Final[dict[str, Any]] = {
    "token": Give,
    "token-revoke": Revoke,
    "tokens": List,
    "identity-rotate": Rotate,
}
