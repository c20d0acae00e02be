"""Who operates this kernel: by the uid at the other end, or by a login. Logins begin and end here.

The kernel goes through an issuer's steps itself, so that the client's secret, the verifier and the
nonce never leave it: whoever logs in only carries the browser's answer. Not here: the protocol
(identity/oauth.py), what an ID token has to say (identity/oidc.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, InvalidInput, ManifestInvalid
from ring0.identity import logins, operator_name
from ring0.identity.jws import public_keys
from ring0.identity.logins import LoginOver
from ring0.identity.oauth import Attempt, Client, Device, Fetch, OAuth, discover, is_loopback
from ring0.identity.oauth_answers import Tokens
from ring0.identity.oidc import Expected, Subject, subject
from ring0.identity.roles import Roles
from ring0.kernel.agent.config_operators import OidcTable, RolesTable
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.base import WriteImpossible
from ring0.store.sqlite import SqliteStore
from ring0.types import Login, Operator

CODE_FILE: Final = "operator.code"
_CODE: Final = "code"
_USED: Final = "used"
_DEAD: Final = "dead"
_SECOND_US: Final = 1_000_000


class Begun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What whoever logs in is to do."""

    id: str
    url: str = ""
    state: str = ""
    """The browser's answer is the one that says this."""
    user_code: str = ""
    verification_uri: str = ""
    verification_uri_complete: str = ""


class Entered(msgspec.Struct, frozen=True, kw_only=True):
    """A login that was begun. Its `repr` does not show the value."""

    value: str
    name: str
    expires_us: int

    def __repr__(self) -> str:
        return f"Entered({self.name!r})"


class _Pending(msgspec.Struct, frozen=True, kw_only=True):
    oauth: OAuth
    oidc: OidcTable
    attempt: Attempt | None
    device: Device | None
    uid: int
    begun_us: int


class Entering:
    """The logins of one kernel."""

    def __init__(
        self,
        store: SqliteStore,
        runtime: Runtime,
        home: Path,
        fetch: Fetch,
        secret: Callable[[str], str],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._home = home
        self._fetch = fetch
        self._secret = secret
        self._roles = Roles(None)
        self._oidc: OidcTable | None = None
        self._pending: dict[str, _Pending] = {}
        self._waits: dict[str, asyncio.Task[Tokens]] = {}
        self._tries = 0

    def take_up(self, oidc: OidcTable | None, roles: RolesTable | None) -> None:
        """From now on these hold, for who is logged in already too. Raises ManifestInvalid."""
        self._roles = Roles(roles)
        self._oidc = oidc

    # --- who it is ----------------------------------------------------------------------------

    def peer(self, uid: int) -> Operator:
        """A process of that uid, which shows no login."""
        name = operator_name(uid)
        return Operator(name=name, roles=self._roles.of_peer(name), login="peer")

    async def operator(self, uid: int, presented: str) -> Operator:
        """Who asks: a login that is shown is what counts, and one that is over is no other one.
        Raises LoginOver."""
        if not presented:
            return self.peer(uid)
        return self._of(await self.login(uid, presented))

    async def login(self, uid: int, presented: str) -> Login:
        """The row behind a value. Raises LoginOver."""
        row = await self._store.login(logins.key_of(presented))
        if row is None:
            raise _over("Somebody logged out, or the value is of another folder.")
        if row.uid != uid:
            raise _over("It was begun by another uid of this machine.")
        if row.expires_us <= self._store.now_us():
            raise _over(f"It was for {limits.LOGIN_HOURS_MAX} hours.")
        if row.how == "oidc" and (self._oidc is None or not row.name.endswith(_by(self._oidc))):
            raise _over("ring0.toml names that issuer no more.")
        return row

    def _of(self, row: Login) -> Operator:
        if row.how == "code":
            return Operator(name=row.name, roles=self._roles.of_peer(row.name), login="peer")
        roles = self._roles.of_login(row.name, row.email, row.groups)
        return Operator(name=row.name, roles=roles, login="oidc")

    # --- by an issuer's word -------------------------------------------------------------------

    async def begin(self, uid: int, redirect_uri: str) -> Begun:
        """Begins a login; without `redirect_uri`, one for a device that has no browser. Raises
        InvalidInput, LoginFailed."""
        oidc = self._configured()
        if redirect_uri and not (redirect_uri.startswith("http:") and is_loopback(redirect_uri)):
            raise CallInvalid(
                f"The browser can't be sent to {redirect_uri[:80]!r}.",
                why="What it brings is for this machine alone.",
                todo="Use the `ring0` command of the same version.",
            )
        begun_us = self._runtime.now_us()
        oauth = OAuth(
            await discover(oidc.issuer, self._fetch),
            Client(
                client_id=oidc.client_id, client_secret=self._client_secret(), scopes=oidc.scopes
            ),
            self._fetch,
            self._runtime,
        )
        attempt = oauth.begin(redirect_uri) if redirect_uri else None
        device = None if attempt else await oauth.begin_device()
        name = self._runtime.random_bytes(16).hex()
        while len(self._pending) >= limits.LOGINS_BEGUN_MAX:
            del self._pending[next(iter(self._pending))]
        self._pending[name] = _Pending(
            oauth=oauth, oidc=oidc, attempt=attempt, device=device, uid=uid, begun_us=begun_us
        )
        if attempt:
            return Begun(id=name, url=attempt.url, state=attempt.state)
        assert device is not None
        return Begun(
            id=name,
            user_code=device.user_code,
            verification_uri=device.verification_uri,
            verification_uri_complete=device.verification_uri_complete,
        )

    async def finish(self, uid: int, name: str, came: Mapping[str, str]) -> Entered:
        """Ends it well: with what the browser brought, or when somebody said yes elsewhere. Raises
        LoginFailed, TokenRefused, NotFound."""
        pending = self._pending.get(name)
        if pending is None or pending.uid != uid:
            raise _over("It was never begun here, was tried already, or others were begun since.")
        del self._pending[name]  # Once, whatever comes of it.
        if pending.attempt is not None:
            tokens = await pending.oauth.finish(pending.attempt, came)
        else:
            assert pending.device is not None
            tokens = await self._said_elsewhere(name, pending.oauth, pending.device)
        who = await self._verified(pending, tokens.id_token)
        return await self._enter(who, "oidc", uid)

    async def _said_elsewhere(self, name: str, oauth: OAuth, device: Device) -> Tokens:
        """Waits for a person. Whoever asked may be long gone, and a few may wait at once: each
        holds a connection, and a kill must find one that is free."""
        while len(self._waits) >= limits.LOGINS_BEGUN_MAX:
            self._waits.pop(next(iter(self._waits))).cancel()
        wait = self._waits[name] = self._runtime.start(oauth.finish_device(device), name="login")
        try:
            return await wait
        except asyncio.CancelledError:
            if name in self._waits:  # This one is to end, and not the wait alone.
                wait.cancel()
                raise
            raise _over("Others were begun since.") from None
        finally:
            self._waits.pop(name, None)

    async def _verified(self, pending: _Pending, token: str) -> Subject:
        if not token:
            raise CallDenied(
                "The issuer does not say who logged in.",
                why="Its answer holds no ID token.",
                todo="Ask for the scope `openid`; or use another issuer.",
            )
        url = pending.oauth.endpoints.jwks_url
        if not url:
            raise CallDenied(
                "The issuer names no keys that its tokens could be verified with.",
                todo="Use another issuer.",
            )
        # Anew for each login: a key that was taken back is not taken any more.
        found = await self._fetch("GET", url, {"Accept": "application/json"}, b"")
        keys = public_keys(found.body if found.status == 200 else b"")
        oidc = pending.oidc
        expected = Expected(
            issuer=oidc.issuer,
            client_id=oidc.client_id,
            audience=oidc.audience,
            nonce=pending.attempt.nonce if pending.attempt else "",
            begun_us=pending.begun_us,
            groups_claim=oidc.groups_claim,
        )
        return subject(token, keys, expected, self._runtime.now_us())

    # --- by the first start's code -------------------------------------------------------------

    async def first_code(self) -> Path | None:
        """At a daemon's first start: the file with a code that logs in once. None: it was made
        before, and is used, dead, or still there."""
        if _CODE in await self._store.settings():
            return None
        return await self.new_code(operator_name(os.getuid()))

    async def new_code(self, by: str) -> Path:
        """A code in place of the one before, whatever became of that."""
        code = self._runtime.random_bytes(16).hex()
        path = self._home / CODE_FILE
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(code + "\n")
        self._tries = 0
        await self._say(hashlib.sha256(code.encode()).hexdigest(), by)
        return path

    async def by_code(self, uid: int, code: str) -> Entered:
        """Exchanges the code for a login. Raises CallDenied."""
        name = operator_name(uid)
        row = (await self._store.settings()).get(_CODE)
        if row is None or row.value in (_USED, _DEAD):
            raise _no_code("It was used, too many wrong ones were tried, or none was ever made.")
        self._tries += 1  # Before anything is waited for: tries at the same time count too.
        if self._tries > limits.LOGIN_CODE_TRIES_MAX:
            await self._close_code(_DEAD, name, row.value)
            raise _no_code("Too many wrong ones were tried.")
        digest = hashlib.sha256(code.strip().encode("utf-8", "replace")).hexdigest()
        if not hmac.compare_digest(digest, row.value):
            raise _no_code("It is another one.")
        await self._close_code(_USED, name, row.value)
        return await self._enter(Subject(name=name), "code", uid)

    async def _close_code(self, how: str, by: str, before: str) -> None:
        # The journal takes one change of this value and no other: of two exchanges one goes on.
        row = (await self._store.settings()).get(_CODE)
        if row is None or row.value != before:
            raise _no_code("Somebody else has just used it.")
        try:
            await self._say(how, by, before)
        except WriteImpossible:
            raise _no_code("Somebody else has just used it.") from None
        (self._home / CODE_FILE).unlink(missing_ok=True)

    async def _say(self, value: str, by: str, before: str | None = None) -> None:
        if before is None:
            row = (await self._store.settings()).get(_CODE)
            before = row.value if row else ""
        event = ev.SettingChanged(name=_CODE, before=before, after=value, by=by)
        await self._store.append(Write(run=ev.KERNEL, durable=True, events=[event]))

    # --- rows ---------------------------------------------------------------------------------

    async def _enter(self, who: Subject, how: str, uid: int) -> Entered:
        value = logins.new_value(self._runtime)
        now_us = self._store.now_us()
        login = Login(
            key=logins.key_of(value),
            name=who.name,
            how="oidc" if how == "oidc" else "code",
            uid=uid,
            email=who.email,
            groups=who.groups,
            begun_us=now_us,
            expires_us=now_us + limits.LOGIN_HOURS_MAX * 3_600 * _SECOND_US,
        )
        events = [*await self._too_many(now_us), ev.LoggedIn(login=login)]
        await self._store.append(Write(run=ev.KERNEL, durable=True, events=events))
        return Entered(value=value, name=login.name, expires_us=login.expires_us)

    async def _too_many(self, now_us: int) -> list[ev.AnyEvent]:
        """Those that are over, and those that end first where there is no room."""
        rows = sorted(await self._store.logins(), key=lambda row: row.expires_us)
        surplus = len(rows) + 1 - limits.LOGINS_MAX
        return [
            ev.LoggedOut(key=row.key, by="")
            for place, row in enumerate(rows)
            if row.expires_us <= now_us or place < surplus
        ]

    async def leave(self, uid: int, presented: str) -> str:
        """Logs out; whose login it was. One that is over already is no error."""
        row = await self._store.login(logins.key_of(presented))
        if row is None or row.uid != uid:
            return ""
        event = ev.LoggedOut(key=row.key, by=row.name)
        await self._store.append(Write(run=ev.KERNEL, durable=True, events=[event]))
        return row.name

    # --- what ring0.toml says -------------------------------------------------------------------

    def _configured(self) -> OidcTable:
        if self._oidc is None:
            raise InvalidInput(
                "ring0.toml names nobody by whose word one could log in.",
                why="There is no [oidc].",
                todo="Add it (docs/identity.md, Operators); without it you are known by your uid.",
            )
        return self._oidc

    def _client_secret(self) -> str:
        name = self._configured().client_secret
        value = self._secret(name) if name else ""
        if name and not value:
            raise ManifestInvalid(
                f"[oidc] names the secret {name}, which is not set.",
                todo=f"`ring0 secret set {name}`, or take it out.",
            )
        return value


def _by(oidc: OidcTable) -> str:
    return f" ({oidc.issuer})"


def _over(why: str) -> LoginOver:
    return LoginOver(
        "You are not logged in any more.",
        why=why,
        todo="`ring0 login`; or `ring0 logout`, and be known by your uid.",
    )


def _no_code(why: str) -> CallDenied:
    return CallDenied(
        "That code logs nobody in.",
        why=why,
        todo=f"Read {CODE_FILE} in the data folder; `ring0 login --make-code` makes another.",
    )
