"""Keeps logins fresh: an access token that is good for a while yet, renewed once however many ask.

A new refresh token is on disk before the old one is forgotten; where the server takes the login
back, its tokens are removed and only a person can log in again. Not here: the protocol (oauth.py).
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import LoginFailed, LoginWanted, ToolFailed
from ring0.identity.keyfile import not_written
from ring0.identity.oauth import OAuth
from ring0.identity.oauth_answers import Tokens
from ring0.identity.protected import login_name
from ring0.identity.vault import Moved, Vault
from ring0.runtime import Runtime

_TAKEN_BACK: Final = frozenset({"invalid_grant"})
_KEPT: Final = "oauth/"


class Refreshing:
    """The logins of one data folder."""

    def __init__(
        self,
        home: Path,
        vault: Vault,
        oauth_of: Callable[[str], Awaitable[OAuth]],
        runtime: Runtime,
        changed: Callable[[], None],
        *,
        by_itself: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """`oauth_of`: the client of a login. `changed`: the vault holds other values now; called
        before anybody gets one of them. `by_itself`: the client logs in for itself, and no person
        does. A login's name is that of its vault entries (`protected.login_key`)."""
        self._home = home
        self._vault = vault
        self._oauth_of = oauth_of
        self._by_itself = by_itself
        self._runtime = runtime
        self._changed = changed
        self._going: dict[str, asyncio.Task[str]] = {}
        self._unsaved: dict[str, tuple[str, Tokens]] = {}
        """(the refresh token that they are for, the new ones): what no disk would take. Good for
        as long as this process lives, and tried again at each use."""
        self._refused: dict[str, str] = {}
        self._renewed_us: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"Refreshing({self._home})"

    async def token(self, name: str) -> str:
        """The access token of a login. Raises LoginWanted where a person has to log in (again),
        ToolFailed where the server could not be asked."""
        self._changed()  # Also where it failed the last time: what is not kept back is not used.
        if name not in self._unsaved and (found := self._fresh(name)):
            return found
        going = self._going.get(name)
        if going is None:
            going = self._runtime.start(self._renew(name), name=f"refresh {name}")
            self._going[name] = going
            going.add_done_callback(lambda done: self._over(name, done))
        # Nobody who goes away takes it along: the server may have changed the token already.
        return await asyncio.shield(going)

    def refused(self, name: str, token: str) -> None:
        """A host did not take it, although its time is not over: it is renewed when it is asked
        for next, but not over and over. `name`: as ring0.toml calls the login; the token says
        whose it is."""
        for key in self._keys_of(name):
            last_us = self._renewed_us.get(key, 0)
            soon = self._runtime.now_us() - last_us <= limits.OAUTH_REFUSED_S_MIN * 1_000_000
            if self._vault.value(access_name(key)) == token and not soon:
                self._refused[key] = token

    def _keys_of(self, name: str) -> list[str]:
        kept = (one.split("/")[1] for one in self._vault.names() if one.startswith(_KEPT))
        return [key for key in dict.fromkeys(kept) if login_name(key) == name]

    async def close(self) -> None:
        """Waits for what is under way."""
        if self._going:
            await asyncio.gather(*self._going.values(), return_exceptions=True)

    def _over(self, name: str, done: asyncio.Task[str]) -> None:
        self._going.pop(name, None)
        if not done.cancelled():
            done.exception()  # Retrieved: whoever waits has it too.

    def _fresh(self, name: str, early_s: int = limits.OAUTH_REFRESH_EARLY_S) -> str:
        """Empty where there is none that is good for so long."""
        entry, token = self._vault.entry(access_name(name)), self._vault.value(access_name(name))
        if entry is None or token == self._refused.get(name):
            return ""
        left_us = entry.ends_us - self._runtime.now_us()
        return token if entry.ends_us == 0 or left_us > early_s * 1_000_000 else ""

    async def _renew(self, name: str) -> str:
        async with login_lock(self._home, name, self._runtime):
            await self._runtime.in_thread(self._vault.reload)
            self._changed()
            if name in self._unsaved:
                await self._save(name, *self._unsaved[name])
            if found := self._fresh(name):
                return found  # Another process was quicker.
            old = self._vault.value(refresh_name(name))
            if not old and self._by_itself(name):
                return await self._log_itself_in(name)
            if not old:
                raise log_in(
                    name, f"Nobody is logged in for {login_name(name)}, or the login has ended."
                )
            # A token that can't be kept is not asked for: the old one would be gone with it.
            await self._runtime.in_thread(self._vault.check_room)
            try:
                tokens = await (await self._oauth_of(name)).refresh(old)
            except LoginFailed as failed:
                if failed.error in _TAKEN_BACK:
                    await self._forget(name, old)
                    raise log_in(name, f"The login {login_name(name)} has ended.", failed) from None
                if found := self._fresh(name, early_s=0):
                    return found  # Not new, and still good.
                raise ToolFailed(
                    f"The login {login_name(name)} could not be renewed.",
                    why=f"{failed.what} {failed.why}".strip(),
                    todo=failed.todo,
                ) from None
            if not tokens.refresh_token:
                tokens = Tokens(
                    access_token=tokens.access_token,
                    refresh_token=old,
                    expires_us=tokens.expires_us,
                )
            self._renewed_us[name] = self._runtime.now_us()
            self._refused.pop(name, None)
            await self._save(name, old, tokens)
            return tokens.access_token

    async def _log_itself_in(self, name: str) -> str:
        """A client that is nobody's: it asks anew where another would renew."""
        await self._runtime.in_thread(self._vault.check_room)
        try:
            tokens = await (await self._oauth_of(name)).client_credentials()
        except LoginFailed as failed:
            if found := self._fresh(name, early_s=0):
                return found
            raise ToolFailed(
                f"The login {login_name(name)} gave no token.",
                why=f"{failed.what} {failed.why}".strip(),
                todo=failed.todo,
            ) from None
        tokens = msgspec.structs.replace(tokens, refresh_token="")  # It needs none.
        self._renewed_us[name] = self._runtime.now_us()
        self._refused.pop(name, None)
        try:
            entries = entries_of(name, tokens)
            await self._runtime.in_thread(self._vault.put, entries, self._runtime.now_us())
        finally:
            self._changed()
        return tokens.access_token

    async def _save(self, name: str, old: str, tokens: Tokens) -> None:
        """In place of the refresh token `old`. Raises LoginWanted where that is not there any more:
        somebody logged in anew, or out."""
        self._unsaved[name] = old, tokens
        try:
            await self._put(name, old, entries_of(name, tokens))
        except Moved:
            del self._unsaved[name]
            raise log_in(name, f"The login {login_name(name)} was changed just now.") from None
        del self._unsaved[name]

    async def _forget(self, name: str, old: str) -> None:
        try:
            await self._put(name, old, {access_name(name): None, refresh_name(name): None})
        except Moved:
            pass  # Somebody has logged in anew.

    async def _put(self, name: str, old: str, changes: dict[str, tuple[str, int] | None]) -> None:
        now_us = self._runtime.now_us()
        put = functools.partial(self._vault.put, where=(refresh_name(name), old))
        try:
            await self._runtime.in_thread(put, changes, now_us)
        finally:
            self._changed()


def access_name(login: str) -> str:
    """The name of a login's access token in the vault."""
    return f"oauth/{login}/access"


def refresh_name(login: str) -> str:
    """The name of its refresh token."""
    return f"oauth/{login}/refresh"


def client_name(login: str) -> str:
    """The name of what is kept of the client that registered itself (`protected.Kept`)."""
    return f"oauth/{login}/client"


def client_secret_name(login: str) -> str:
    """The name of that client's secret."""
    return f"oauth/{login}/secret"


def entries_of(login: str, tokens: Tokens) -> dict[str, tuple[str, int] | None]:
    """What a login's tokens are to the vault."""
    refresh = (tokens.refresh_token, 0) if tokens.refresh_token else None
    return {
        access_name(login): (tokens.access_token, tokens.expires_us),
        refresh_name(login): refresh,
    }


def log_in(name: str, what: str, failed: LoginFailed | None = None) -> LoginWanted:
    """Only a person can help."""
    return LoginWanted(
        what,
        why=f"{failed.what} {failed.why}".strip() if failed else "There is no token to use.",
        todo=f"`ring0 secret login {login_name(name)}`",
        login=login_name(name),
    )


@asynccontextmanager
async def login_lock(home: Path, name: str, runtime: Runtime) -> AsyncIterator[None]:
    """While it is entered no other process renews, or sets, the tokens of this login. Raises
    ToolFailed after OAUTH_LOCK_S_MAX, StoreDamaged."""
    path = home / f"oauth-{name}.lock"
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise not_written(path, error) from None
    try:
        ends_us = runtime.monotonic_us() + limits.OAUTH_LOCK_S_MAX * 1_000_000
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if runtime.monotonic_us() > ends_us:
                    raise ToolFailed(
                        f"The login {name} is being renewed by another process.",
                        why=f"For more than {limits.OAUTH_LOCK_S_MAX} s.",
                        todo=f"Look who holds {path}.",
                    ) from None
            await runtime.sleep(limits.OAUTH_LOCK_LOOK_S)
        yield
    finally:
        os.close(held)
