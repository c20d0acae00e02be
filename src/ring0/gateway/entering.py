"""What an operator asks about himself and about what the files say: log in and out, who am I, take
up what ring0.toml and the policies say now.

As operations.py: each verb is a struct that says what a request for it holds, and does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from ring0 import limits
from ring0.kernel.operating import changing

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct

_Text = Annotated[str, msgspec.Meta(max_length=limits.OAUTH_URL_CHARS_MAX)]


class Verb(msgspec.Struct, forbid_unknown_fields=True):
    """Fields that don't fit are refused, never given a default."""


class Begin(Verb):
    redirect_uri: _Text = ""
    """Where the browser comes back to, on this machine; empty: the device flow."""

    async def do(self, to: Direct) -> Any:
        return await to.kernel.logins.begin(to.uid, self.redirect_uri)


class Finish(Verb):
    id: _Text
    came: dict[_Text, Annotated[str, msgspec.Meta(max_length=limits.JWS_SIZE_BYTES_MAX)]] = {}
    """What the browser brought."""

    async def do(self, to: Direct) -> Any:
        return await to.kernel.logins.finish(to.uid, self.id, self.came)


class ByCode(Verb):
    code: _Text

    async def do(self, to: Direct) -> Any:
        return await to.kernel.logins.by_code(to.uid, self.code)


class MakeCode(Verb):
    async def do(self, to: Direct) -> Any:
        return str(await to.kernel.logins.new_code(to.may("code").name))


class Leave(Verb):
    value: _Text

    async def do(self, to: Direct) -> Any:
        return {"name": await to.kernel.logins.leave(to.uid, self.value)}


class WhoAmI(Verb):
    async def do(self, to: Direct) -> Any:
        found: dict[str, Any] = {
            "name": to.by.name,
            "login": to.by.login,
            "roles": sorted(to.by.roles),
        }
        if to.presented:
            row = await to.kernel.logins.login(to.uid, to.presented)
            found |= {"email": row.email, "groups": row.groups, "expires_us": row.expires_us}
        return found


class Reload(Verb):
    loosen: bool = False

    async def do(self, to: Direct) -> Any:
        return await changing.reload(to.kernel, by=to.may("reload").name, loosen=self.loosen)


VERBS: Final[dict[str, type[Verb]]] = {
    "login": Begin,
    "login-finish": Finish,
    "login-code": ByCode,
    "logout": Leave,
    "whoami": WhoAmI,
    "code": MakeCode,
    "reload": Reload,
}
