"""The logins of ring0.toml, `[oauth.*]`: each one's client, and how a person logs in with it.

Where one logs in for an MCP server is found from its address; what was found goes through the
egress's rules, since it is that server's word. Not here: how tokens are kept fresh
(identity/refreshing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.identity import Vault, protected
from ring0.identity.fetching import Fetcher
from ring0.identity.loopback import Loopback
from ring0.identity.oauth import Client, Device, Endpoints, Fetch, OAuth, discover
from ring0.identity.oauth_answers import Tokens
from ring0.identity.protected import Found, Kept, login_name
from ring0.identity.refreshing import (
    Refreshing,
    client_name,
    client_secret_name,
    entries_of,
    log_in,
)
from ring0.identity.refreshing import login_lock as lock
from ring0.identity.vault import secret_name
from ring0.kernel.agent.config_credentials import OAuthTable, is_document, key_of
from ring0.kernel.agent.manifests import Config
from ring0.kernel.strangers import Strangers
from ring0.runtime import Runtime


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A login that a person is about to do."""

    key: str
    """What it is called in the vault."""
    oauth: OAuth
    kept: dict[str, tuple[str, int] | None]
    """What the vault keeps of it beside the tokens."""

    def __repr__(self) -> str:
        return f"Begun({self.key!r}, {self.oauth!r})"


class Logins:
    """The clients: what a server says of itself is asked once in a while."""

    def __init__(
        self, config: Config, vault: Vault, environment: Mapping[str, str], runtime: Runtime
    ) -> None:
        self._config = config
        self._vault = vault
        self._environment = environment
        self._runtime = runtime
        self._fetch: Fetch = Fetcher(runtime, config.network.authorities)
        self._strangers = Strangers(config.network, runtime)
        self._found: dict[str, tuple[int, Endpoints]] = {}

    def refreshing(self, changed: Callable[[], None] = lambda: None) -> Refreshing:
        """What keeps them fresh. `changed`: the vault holds other values now."""
        return Refreshing(
            self._vault.home, self._vault, self.of, self._runtime, changed,
            by_itself=self.by_itself,
        )  # fmt: skip

    def key(self, name: str, principal: str) -> str:
        """What the login is called in the vault. Raises ManifestInvalid."""
        return key_of(name, self._table(name), principal)

    def by_itself(self, key: str) -> bool:
        """Nobody has to log in."""
        table = self._config.oauth.get(login_name(key))
        return table is not None and table.by_itself

    async def of(self, key: str) -> OAuth:
        """The client that renews a login. Raises ManifestInvalid, LoginFailed, CallDenied."""
        name = login_name(key)
        table = self._table(name)
        if table.mcp and not table.by_itself:
            return self._of_kept(key, table)
        fetch = self._strangers if table.mcp else self._fetch
        client = self._client(name, table)
        if not table.mcp:
            return OAuth(await self._endpoints(name, table), client, fetch, self._runtime)
        found = await protected.find(table.mcp, fetch, issuer=table.issuer)
        # No person sees which scopes a server would like: only the operator's are asked for.
        client = msgspec.structs.replace(client, resource=found.resource, scopes=table.scopes)
        return OAuth(found.endpoints, client, fetch, self._runtime)

    async def begin(
        self, name: str, principal: str, redirect_uri: str, scopes: tuple[str, ...] = ()
    ) -> Begun:
        """A login of a person. An empty `redirect_uri`: without a browser here. `scopes`: to ask
        for beside those of ring0.toml and of the last time. Raises ManifestInvalid, LoginFailed,
        and CallDenied for an address that is not for egress."""
        table = self._table(name)
        if table.by_itself:
            raise ManifestInvalid(
                f"Nobody logs in for {name}.",
                why='It has grant = "client_credentials": the kernel does it.',
                todo="Use it.",
            )
        key = self.key(name, principal)
        if not table.mcp:
            client = self._client(name, table, scopes)
            oauth = OAuth(await self._endpoints(name, table), client, self._fetch, self._runtime)
            return Begun(key=key, oauth=oauth, kept={})
        found = await protected.find(table.mcp, self._strangers, issuer=table.issuer)
        words = protected.to_ask_for(found, self._words(key, table, found, scopes))
        oauth = await self._of_found(name, table, found, redirect_uri, words)
        return Begun(key=key, oauth=oauth, kept=_entries(key, oauth))

    async def finish(self, begun: Begun, tokens: Tokens) -> None:
        """The tokens, and what goes with them, are in the vault when this returns."""
        entries = {**entries_of(begun.key, tokens), **begun.kept}
        async with lock(self._vault.home, begun.key, self._runtime):
            await self._runtime.in_thread(self._vault.put, entries, self._runtime.now_us())

    async def by_browser(
        self, name: str, principal: str, show: Callable[[Begun, str], None],
        scopes: tuple[str, ...] = (),
    ) -> Tokens:  # fmt: skip
        """A whole login. `show` is given the address that the person's browser goes to."""
        async with Loopback(self._runtime) as back:
            begun = await self.begin(name, principal, back.redirect_uri, scopes)
            attempt = begun.oauth.begin(back.redirect_uri)
            show(begun, attempt.url)
            came = await back.wait(attempt.state)
            tokens = await begun.oauth.finish(attempt, came)
        await self.finish(begun, tokens)
        return tokens

    async def by_device(
        self, name: str, principal: str, show: Callable[[Begun, Device], None],
        scopes: tuple[str, ...] = (),
    ) -> Tokens:  # fmt: skip
        """A whole login, with the browser of another device."""
        begun = await self.begin(name, principal, "", scopes)
        device = await begun.oauth.begin_device()
        show(begun, device)
        tokens = await begun.oauth.finish_device(device)
        await self.finish(begun, tokens)
        return tokens

    # --- clients --------------------------------------------------------------------------------

    def _table(self, name: str) -> OAuthTable:
        table = self._config.oauth.get(name)
        if table is None:
            raise ManifestInvalid(
                f"There is no login {name[:60]!r}.",
                why=f"ring0.toml has: {', '.join(self._config.oauth) or 'none'}.",
                todo=f"Add [oauth.{name[:60]}] to ring0.toml: with mcp for an MCP server, else with"
                " its issuer and client_id.",
            )
        return table

    def _client(self, name: str, table: OAuthTable, scopes: tuple[str, ...] = ()) -> Client:
        return Client(
            client_id=table.client_id,
            client_secret=self._secret(name, table.client_secret),
            key=self._secret(name, table.key),
            scopes=tuple(dict.fromkeys((*table.scopes, *scopes))),
            audience=table.audience,
        )

    async def _of_found(
        self, name: str, table: OAuthTable, found: Found, redirect_uri: str, scopes: tuple[str, ...]
    ) -> OAuth:
        endpoints = found.endpoints
        if redirect_uri and not endpoints.says_pkce:
            raise protected.no_pkce(endpoints.issuer)
        if table.client_id and (not is_document(table.client_id) or endpoints.takes_urls):
            client = self._client(name, table)
            client = msgspec.structs.replace(client, resource=found.resource, scopes=scopes)
        else:
            client = await protected.register(found, redirect_uri, scopes, self._strangers)
        return OAuth(endpoints, client, self._strangers, self._runtime)

    def _words(
        self, key: str, table: OAuthTable, found: Found, more: tuple[str, ...]
    ) -> tuple[str, ...]:
        """The scopes to ask for: the operator's, or else the server's; those of now; and those of
        the last time, so that a login for more does not lose what the one before had."""
        kept = self._kept(key)
        last = kept.scopes if kept and kept.issuer == found.endpoints.issuer else ()
        if table.scopes:
            return (*table.scopes, *(last if more else ()), *more)
        return (*found.scopes, *last, *more)

    def _of_kept(self, key: str, table: OAuthTable) -> OAuth:
        """As it was when the person logged in: a refresh token goes to the login server that it is
        of, whatever the MCP server says by now."""
        kept = self._kept(key)
        known = table.client_id and not is_document(table.client_id)
        if (
            kept is None
            or (table.issuer and kept.issuer != table.issuer)
            or (known and kept.client_id != table.client_id)
        ):
            raise log_in(key, f"Nobody is logged in for {login_name(key)} as ring0.toml has it.")
        secret = self._vault.value(client_secret_name(key))
        name = login_name(key)
        client = Client(
            client_id=kept.client_id,
            client_secret=secret or self._secret(name, table.client_secret),
            key=self._secret(name, table.key),
            scopes=kept.scopes,
            resource=kept.resource,
            method=kept.method,
        )
        endpoints = Endpoints(issuer=kept.issuer, token_url=kept.token_url)
        return OAuth(endpoints, client, self._strangers, self._runtime)

    def _kept(self, key: str) -> Kept | None:
        text = self._vault.value(client_name(key))
        try:
            return msgspec.json.decode(text, type=Kept) if text else None
        except msgspec.MsgspecError:
            return None  # Of another ring0: it is logged in anew.

    async def _endpoints(self, name: str, table: OAuthTable) -> Endpoints:
        if not table.issuer:
            return Endpoints(
                token_url=table.token_url,
                authorize_url=table.authorize_url,
                device_url=table.device_url,
            )
        now_us = self._runtime.monotonic_us()
        at_us, found = self._found.get(name, (0, None))
        if found is None or now_us - at_us > limits.OAUTH_DISCOVERED_S_MAX * 1_000_000:
            found = await discover(table.issuer, self._fetch)
            self._found[name] = now_us, found
        return found

    def _secret(self, name: str, given: str) -> str:
        if not given:
            return ""
        key = secret_name(given)
        value = self._vault.value(key) or self._environment.get(key, "")
        if not value:
            raise ManifestInvalid(
                f"[oauth.{name}] names the secret {key[:60]!r}, which is not set.",
                todo=f"`ring0 secret set {key[:60]}`",
            )
        return value


def _entries(key: str, oauth: OAuth) -> dict[str, tuple[str, int] | None]:
    client, endpoints = oauth.client, oauth.endpoints
    kept = Kept(
        issuer=endpoints.issuer,
        token_url=endpoints.token_url,
        client_id=client.client_id,
        method=oauth.method,
        resource=client.resource,
        scopes=client.scopes,
    )
    text = msgspec.json.encode(kept).decode()
    # A secret of ring0.toml's own stays where it is: it may be set anew.
    own = (client.client_secret, 0) if client.method and client.client_secret else None
    return {client_name(key): (text, 0), client_secret_name(key): own}
