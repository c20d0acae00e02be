"""What the kernel has beyond itself: one sender, and the operator's credentials by name.

Where a credential's value comes from is decided here (the vault, a login); when it is put into a
request, and into which: tools/egress.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from ring0.errors import CallDenied, ManifestInvalid, Ring0Error, RunDead
from ring0.identity.fetching import trusting
from ring0.identity.vault import secret_name
from ring0.kernel.agent.config_credentials import CredentialTable, all_credentials, key_of
from ring0.kernel.agent.manifests import Config
from ring0.kernel.calls.challenged import refusal
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext
from ring0.tools.egress import Addresses, Credential, Egress, Source, bind, check_value
from ring0.types import Run

Jwt = Callable[[Run, str, dict[str, Any]], Awaitable[str]]
"""In whose name a run's request comes: run, audience, details."""
Token = Callable[[str], Awaitable[str]]
"""The access token of a login (`[oauth.NAME]`)."""


class Outside:
    """For one kernel; `seen_by(agent)` is what one agent's tools have of it."""

    def __init__(
        self,
        config: Config,
        secret: Callable[[str], str],
        runtime: Runtime,
        model_urls: Iterable[str] = (),
        token: Token | None = None,
        refused: Callable[[str, str], None] | None = None,
        jwt: Jwt | None = None,
        is_live: Callable[[str, int], bool] | None = None,
        principal: str = "",
    ) -> None:
        """`model_urls`: where the models of the environment are, as far as it says. `refused`: a
        host did not take this login's token. `is_live`: whether a run goes on, under that epoch.
        `principal`: for whom it is where no run asks. Raises ManifestInvalid, InvalidInput for what
        ring0.toml says of them."""
        self._runtime = runtime
        self._secret = secret
        self._token = token
        self._jwt = jwt
        self._refused = refused
        self._is_live = is_live
        self._principal = principal
        self._logins = config.oauth
        self._addresses = Addresses(runtime, allow_private=config.network.allow_private)
        self._plain = config.network.plain_credentials
        self._authorities = config.network.authorities
        addresses = [model.base_url for model in config.models.values()]
        found = [urlsplit(address).hostname for address in (*addresses, *model_urls)]
        self._models = [host for host in found if host]
        if self._authorities:
            _ = self.egress  # What can't be read is said now, not in the middle of a run.
        self.credentials: dict[str, Credential] = {}
        self._agents: dict[str, tuple[str, ...]] = {}
        self._login_of: dict[str, str] = {}
        """By credential: the login that it is of, or empty."""
        for name, table in all_credentials(config.credentials, config.oauth).items():
            self.credentials[name] = self._made(name, table)
            self._agents[name] = table.agents
            self._login_of[name] = table.oauth

    def __repr__(self) -> str:
        return f"Outside({', '.join(self.credentials)})"

    @functools.cached_property
    def egress(self) -> Egress:
        """Made when it is first needed: the system's roots take a while to load."""
        return Egress(
            self._runtime,
            self._addresses,
            trust=trusting(self._authorities),
            plain_credentials=self._plain,
            models=self._models,
        )

    def seen_by(self, agent: str) -> Seen:
        """The same, with the credentials that this agent's tools may use."""
        return Seen(self, agent)

    def of(self, names: tuple[str, ...], place: str, agent: str | None = None) -> list[Credential]:
        """The credentials of these names. Raises ManifestInvalid where one is not there, or is not
        for this agent."""
        for name in names:
            if name not in self.credentials:
                raise ManifestInvalid(
                    f"{place} names the credential {name[:60]!r}, which ring0.toml does not have.",
                    why=f"It has: {', '.join(self.credentials) or 'none'}.",
                    todo=f"Add [credentials.{name[:60]}] to ring0.toml, with the secret of"
                    " `ring0 secret set NAME`; or take it out.",
                )
            allowed = self._agents[name]
            if allowed and agent is not None and agent not in allowed:
                raise ManifestInvalid(
                    f"{place} names the credential {name!r}, which is not for {agent[:60]}.",
                    why=f"ring0.toml has it for: {', '.join(allowed)[:200]}.",
                    todo=f"Add {agent[:60]!r} to `agents` of [credentials.{name}], or take it out.",
                )
        return [self.credentials[name] for name in names]

    def _made(self, name: str, table: CredentialTable) -> Credential:
        if table.secret:
            check_value(name, self._secret(secret_name(table.secret)))
        refused = self._refused
        return bind(
            name,
            functools.partial(self._of_who_is_live, self._source(name, table)),
            table.use_for,
            f"ring0.toml: [credentials.{name}] use_for",
            header=table.header,
            form=table.form,
            refused=functools.partial(refused, table.oauth) if refused and table.oauth else None,
        )

    def _source(self, name: str, table: CredentialTable) -> Source:
        """Asked at each use: a secret may have been set anew, a token may have run out."""
        if table.oauth:
            return functools.partial(self._token_of, name, table.oauth)
        if table.jwt is not None:
            return functools.partial(self._jwt_for, name, table.jwt.audience, table.use_for)
        return functools.partial(self._secret_of, name, secret_name(table.secret))

    async def _of_who_is_live(self, source: Source, by: CallContext | None) -> str:
        """Looked at last, since a login may have been renewed for a while: a credential is of no
        use to a run that is nobody any more."""
        value = await source(by)
        if by is not None and self._is_live and not self._is_live(by.run.id, by.run.epoch):
            raise RunDead(
                f"{by.run.id} is nobody any more, and gets no credential.",
                why="It has ended, its process has died, or it was started again.",
                todo="Start a new run.",
            )
        return value

    async def _secret_of(self, name: str, secret: str, by: Any) -> str:
        value = self._secret(secret)
        if not value:
            raise CallDenied(
                f"The credential {name} has no value any more.",
                why=f"The secret {secret} was removed.",
                todo=f"`ring0 secret set {secret}`",
            )
        return value

    async def _token_of(self, name: str, login: str, by: Any) -> str:
        if self._token is None:
            raise CallDenied(
                f"The credential {name} is not used here.",
                why=f"It is of the login {login}, which only a kernel keeps fresh.",
                todo="Use it in a run.",
            )
        return await self._token(self._key_of(name, login, by))

    def _key_of(self, name: str, login: str, by: CallContext | None) -> str:
        """What the vault calls it: each principal has its own login at an MCP server."""
        table = self._logins[login]
        principal = by.run.principal if by is not None else self._principal
        if table.mcp and not (table.shared or table.by_itself or principal):
            raise CallDenied(
                f"The credential {name} is not used here.",
                why="Each principal has its own login there, and no run asks.",
                todo="Use it in a run.",
            )
        return key_of(login, table, principal)

    def refusal(
        self, instance: str, status: int, challenge: str, credential: Credential | None
    ) -> Ring0Error | None:
        """What to say where an MCP server wants another token, or one at all."""
        login = self._login_of.get(credential.name, "") if credential else ""
        return refusal(instance, status, challenge, credential.name if credential else "", login)

    async def _jwt_for(
        self, name: str, audience: str, operation: str, by: CallContext | None
    ) -> str:
        if self._jwt is None or by is None:
            raise CallDenied(
                f"The credential {name} is not used here.",
                why="It says in whose name a run's request comes, and no run asks.",
                todo="Use it in a run.",
            )
        tool = by.within.tool.name if by.within else by.name
        details = {"tool": tool, "operation": operation, "call": by.call}
        return await self._jwt(by.run, audience, details)


class Seen:
    """What one agent's tools have of the outside."""

    def __init__(self, outside: Outside, agent: str) -> None:
        self._outside = outside
        self._agent = agent

    @property
    def egress(self) -> Egress:
        return self._outside.egress

    def of(self, names: tuple[str, ...], place: str) -> list[Credential]:
        """Raises ManifestInvalid."""
        return self._outside.of(names, place, self._agent)

    def seen_by(self, agent: str) -> Seen:
        return Seen(self._outside, agent)

    def refusal(
        self, instance: str, status: int, challenge: str, credential: Credential | None
    ) -> Ring0Error | None:
        return self._outside.refusal(instance, status, challenge, credential)
