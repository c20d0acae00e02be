"""A kernel with its operator's socket, a login server, and people who log in with a browser."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from issuer import Issuer
from kernel_world import Doing, World, world

from ring0.errors import Ring0Error
from ring0.gateway.control import Control, Remote
from ring0.types import Effect

HERE = "http://127.0.0.1:9/callback"


def toml(issuer: Issuer, roles: str = "", more: str = "") -> str:
    return (
        f'[oidc]\nissuer = "{issuer.url}"\nclient_id = "ring0"\ngroups_claim = "groups"\n{more}\n'
        f"[roles]\n{roles}\n"
    )


@contextlib.asynccontextmanager
async def served(folder: Path, said: str = "", **fields: Any) -> AsyncIterator[World]:
    """A kernel that is at work on a folder whose ring0.toml says `said`."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    if said:
        (home / "ring0.toml").write_text(said)
    async with world(home, **fields) as w:
        if w.run is not None:
            w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        control = Control(w.kernel)
        await control.open()
        try:
            yield w
        finally:
            await control.close()


async def log_in(w: World, issuer: Issuer, sub: str, groups: Sequence[str] = ()) -> str:
    """Somebody logs in; the value of the login."""
    issuer.claims = {"sub": sub, "groups": list(groups), "email": f"{sub}@example.com",
                     "email_verified": True}  # fmt: skip
    return str((await entered(w, issuer))["value"])


async def entered(w: World, issuer: Issuer) -> Any:
    to = Remote(w.home)
    begun = await to.ask("login", {"redirect_uri": HERE})
    return await to.ask("login-finish", {"id": begun["id"], "came": await came(issuer, begun)})


async def came(issuer: Issuer, begun: Any) -> dict[str, str]:
    """What the browser of a person who says yes brings back."""
    from urllib.parse import parse_qsl, urlsplit

    back = await issuer.consent(begun["url"])
    return dict(parse_qsl(urlsplit(back).query))


def as_login(w: World, value: str) -> Remote:
    return Remote(w.home, presented=value)


async def refused(asked: Any, code: str) -> Ring0Error:
    with pytest.raises(Ring0Error) as caught:
        await asked
    assert caught.value.code == code, caught.value
    assert caught.value.what and caught.value.todo
    return caught.value
