"""An MCP server elsewhere that wants a login: who logs in, whose token it gets, and what is never
sent to whom."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from issuer import Issuer
from mcp_login_world import LoginWorld, McpServer, login_world

from ring0.errors import CallDenied, LoginFailed, LoginWanted, ManifestInvalid, Ring0Error
from ring0.identity.refreshing import access_name
from ring0.kernel.agent.manifests import read_config

KNOWN = '[oauth.far]\nmcp = "URL"\nclient_id = "ring0"\nclient_secret = "FAR"\nissuer = "ISSUER"\n'
SECRET = "canary-of-the-client"


def asked(here: LoginWorld, path: str) -> list[dict[str, str]]:
    return [said for where, said in here.issuer.heard if where == path]


async def test_the_servers_address_is_all_that_a_login_needs(tmp_path: Path) -> None:
    async with login_world(tmp_path) as here:
        with pytest.raises(LoginWanted, match="Nobody is logged in") as wanted:
            await here.approve()
        assert wanted.value.todo == "`ring0 secret login far`"
        await here.log_in()
        await here.approve()
        assert await here.call() == "done"
        [token] = here.server.calls
        assert here.issuer.is_good(token) and token in here.vault.values().values()
        query = parse_qs(urlsplit(here.shown[0][1]).query)
        assert query["resource"] == [here.server.url] and query["scope"] == ["read"]
        assert asked(here, "/token")[0]["resource"] == here.server.url
        assert "audience" not in asked(here, "/token")[0]


async def test_a_server_that_wants_a_login_says_so_to_who_has_named_none(tmp_path: Path) -> None:
    async with login_world(tmp_path) as here:
        here.said["secrets"] = []
        with pytest.raises(LoginWanted, match="there is none for it") as wanted:
            await here.approve()
        assert "[oauth.NAME]" in wanted.value.todo and not wanted.value.login


async def test_a_login_is_its_principals_own(tmp_path: Path) -> None:
    async with login_world(tmp_path) as here:
        await here.log_in("ada")
        await here.approve()
        await here.call(principal="ada")
        before = len(here.server.heard)
        with pytest.raises(LoginWanted, match="Nobody is logged in"):
            await here.call(principal="bob")
        assert len(here.server.heard) == before, "nothing is sent with another's token, or without"
        await here.log_in("bob")
        await here.call(principal="bob")
        await here.call(principal="ada")
        ada, bob, again = here.server.calls
        assert ada == again != bob


async def test_runs_of_two_principals_that_share_a_driver_do_not_share_a_token(
    tmp_path: Path,
) -> None:
    async with login_world(tmp_path) as here:
        await here.log_in("ada")
        await here.log_in("bob")
        await here.approve()
        tool = here.tool()
        names = ["ada", "bob"] * 4
        await asyncio.gather(*(here.call(tool, name) for name in names))
        await tool.close()
        own = {who: here.vault.value(access_name(here.logins.key("far", who))) for who in names}
        assert set(here.server.calls) == set(own.values()) and len(set(own.values())) == 2


async def test_a_shared_login_is_one_for_all(tmp_path: Path) -> None:
    async with login_world(tmp_path, '[oauth.far]\nmcp = "URL"\nshared = true\n') as here:
        await here.log_in("ada")
        await here.approve()
        await here.call(principal="bob")
        assert len(here.server.calls) == 1


async def test_another_address_is_another_login(tmp_path: Path) -> None:
    """A token that was for one server goes to no other, whatever ring0.toml says later."""
    async with login_world(tmp_path) as here, McpServer(here.issuer) as other:
        await here.log_in()
        text = (tmp_path / "ring0.toml").read_text()
        (tmp_path / "ring0.toml").write_text(text.replace(here.server.url, other.url))
        here.server = other
        here.read()
        with pytest.raises(LoginWanted, match="Nobody is logged in"):
            await here.approve()
        assert not other.heard


async def test_a_token_does_not_follow_a_redirect(tmp_path: Path) -> None:
    async with login_world(tmp_path) as here, McpServer(here.issuer) as other:
        await here.log_in()
        await here.approve()
        here.server.redirect = other.url
        with pytest.raises(Ring0Error, match="a redirect is not followed"):
            await here.call()
        assert not other.heard


async def test_no_credential_of_such_a_login_is_for_other_requests(tmp_path: Path) -> None:
    """Token passthrough: what is for the MCP server is not put into anything else."""
    more = '[credentials.far]\noauth = "far"\nuse_for = "https://api.example.com/*"\n'
    with pytest.raises(ManifestInvalid, match="has a `use_for`"):
        async with login_world(tmp_path, f'[oauth.far]\nmcp = "URL"\n{more}'):
            pass


# --- more rights --------------------------------------------------------------------------------


async def test_more_rights_are_never_taken_silently(tmp_path: Path) -> None:
    async with login_world(tmp_path) as here:
        await here.log_in()
        await here.approve()
        here.server.needs["tools/call"] = "write"
        before = len(here.issuer.heard)
        with pytest.raises(
            LoginWanted, match="wants more than the login far was given: write"
        ) as no:
            await here.call()
        assert no.value.todo.endswith("`ring0 secret login far --scope=write`")
        assert no.value.tells_of_data
        assert len(here.server.calls) == 1, "the call is not tried again"
        assert len(here.issuer.heard) == before, "the login server hears nothing of it"
        await here.log_in("ada", "write")
        assert parse_qs(urlsplit(here.shown[-1][1]).query)["scope"] == ["read write"]
        assert await here.call() == "done"
        await here.log_in()  # Anew: what was agreed to is not lost.
        assert parse_qs(urlsplit(here.shown[-1][1]).query)["scope"] == ["read write"]


async def test_what_the_operator_granted_beforehand_is_asked_for_at_once(tmp_path: Path) -> None:
    config = '[oauth.far]\nmcp = "URL"\nscopes = ["read", "write"]\n'
    async with login_world(tmp_path, config) as here:
        here.server.needs["tools/call"] = "write"
        await here.log_in()
        await here.approve()
        assert await here.call() == "done"


async def test_the_operators_scopes_are_all_that_is_asked_for(tmp_path: Path) -> None:
    config = '[oauth.far]\nmcp = "URL"\nscopes = ["less"]\n'
    async with login_world(tmp_path, config) as here:
        await here.log_in()
        assert parse_qs(urlsplit(here.shown[-1][1]).query)["scope"] == ["less"]


# --- renewal ------------------------------------------------------------------------------------


async def test_a_token_that_is_over_is_renewed_in_the_same_call(tmp_path: Path) -> None:
    async with login_world(tmp_path) as here:
        await here.log_in()
        await here.approve()
        tool = here.tool()
        assert await here.call(tool) == "done"
        here.issuer.access.clear()
        assert await here.call(tool) == "done"
        await tool.close()
        assert here.issuer.refreshed == 1
        renewed = [said for said in asked(here, "/token") if "refresh_token" in said]
        assert renewed[0]["resource"] == here.server.url


async def test_a_refresh_token_goes_where_it_came_from_whatever_the_server_says_by_now(
    tmp_path: Path,
) -> None:
    async with login_world(tmp_path) as here, Issuer() as evil:
        await here.log_in()
        await here.approve()
        here.server.names = [evil.url]
        here.issuer.access.clear()
        assert await here.call() == "done"
        assert not evil.heard and here.issuer.refreshed == 1


async def test_a_server_that_has_moved_is_logged_in_at_anew_with_another_client(
    tmp_path: Path,
) -> None:
    async with login_world(tmp_path) as here, Issuer() as later:
        later.registers = True
        await here.log_in()
        first = here.issuer.client_id
        here.issuer.revoke_all()
        here.server.names, here.server.issuer, old = [later.url], later, here.issuer
        here.issuer = later
        await here.log_in()
        await here.approve()
        assert await here.call() == "done"
        said = [said for _, said in later.heard]
        assert not any(first in str(one) for one in said)
        assert all(name not in str(said) for name in old.access)


async def test_a_login_that_was_taken_back_needs_a_person(tmp_path: Path) -> None:
    async with login_world(tmp_path) as here:
        await here.log_in()
        await here.approve()
        here.issuer.access.clear()
        here.issuer.revoke_all()
        with pytest.raises(LoginWanted, match="has ended") as wanted:
            await here.call()
        assert wanted.value.todo == "`ring0 secret login far`"


# --- clients that are known ---------------------------------------------------------------------


async def test_a_clients_secret_goes_to_its_own_login_server_alone(tmp_path: Path) -> None:
    async with login_world(tmp_path, KNOWN) as here, Issuer() as evil:
        here.issuer.client_id, here.issuer.client_secret = "ring0", SECRET
        here.vault.set("FAR", SECRET, 1)
        await here.log_in()
        await here.approve()
        assert await here.call() == "done"
        assert not asked(here, "/register")
        assert not any(SECRET in str(said) for said in here.issuer.heard), "it is in a header"
        here.server.names = [evil.url]
        with pytest.raises(LoginFailed, match="at another place than"):
            await here.log_in()
        assert not evil.heard


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ('mcp = "URL"\nclient_id = "x"\n', "no issuer"),
        ('mcp = "URL"\nclient_secret = "FAR"\n', "no client_id"),
        ('mcp = "URL"\ntoken_url = "https://a.example/t"\n', "`token_url`"),
        ('mcp = "http://mcp.example.com/mcp"\n', "not private"),
        ('mcp = "URL"\ngrant = "client_credentials"\n', "prove who it is"),
        ('issuer = "https://a.example"\nclient_id = "x"\nshared = true\n', "`shared`"),
        ('mcp = "URL"\nclient_id = "x"\nissuer = "https://a.example"\nkey = "K"\n'
         'client_secret = "S"\n', "a `client_secret` and a `key`"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, table: str, what: str) -> None:
    text = table.replace("URL", "https://mcp.example.com/mcp")
    (tmp_path / "ring0.toml").write_text(f"[oauth.far]\n{text}")
    with pytest.raises(ManifestInvalid, match=what):
        read_config(tmp_path)


async def test_a_client_that_is_nobodys_is_logged_in_by_the_kernel(tmp_path: Path) -> None:
    config = KNOWN + 'grant = "client_credentials"\nscopes = ["read"]\n'
    async with login_world(tmp_path, config) as here:
        here.issuer.client_id, here.issuer.client_secret = "ring0", SECRET
        here.vault.set("FAR", SECRET, 1)
        await here.approve()
        await asyncio.gather(*(here.call(principal=name) for name in ("ada", "bob")))
        assert await here.call() == "done"
        [once] = asked(here, "/token")
        assert once["grant_type"] == "client_credentials" and once["resource"] == here.server.url
        here.issuer.access.clear()
        with pytest.raises(LoginWanted):
            await here.call()  # A host that refuses what is new has no more asked for.
        assert len(asked(here, "/token")) == 1
        here.tokens._renewed_us.clear()  # Half a minute later.
        assert await here.call() == "done"
        assert len(asked(here, "/token")) == 2
        with pytest.raises(ManifestInvalid, match="the kernel does it"):
            await here.log_in()


async def test_no_server_says_what_the_kernel_asks_for_by_itself(tmp_path: Path) -> None:
    async with login_world(tmp_path, KNOWN + 'grant = "client_credentials"\n') as here:
        here.issuer.client_id, here.issuer.client_secret = "ring0", SECRET
        here.vault.set("FAR", SECRET, 1)
        with pytest.raises(LoginWanted, match="read"):
            await here.approve()  # It wants more than that: a person says so.
        assert asked(here, "/token")
        assert all("scope" not in one for one in asked(here, "/token"))


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    ["https://10.1.2.3", "https://169.254.169.254", "https://[fd00::1]", "https://100.100.100.200"],
)
async def test_a_server_sends_nobody_into_a_private_network(tmp_path: Path, place: str) -> None:
    async with login_world(tmp_path) as here:
        here.server.names = [place]
        with pytest.raises((CallDenied, LoginFailed)):
            await here.log_in()
        assert not here.shown and not here.issuer.heard


async def test_an_address_of_this_machine_is_for_egress_only_where_the_operator_says_so(
    tmp_path: Path,
) -> None:
    async with login_world(tmp_path) as here:
        text = (tmp_path / "ring0.toml").read_text()
        (tmp_path / "ring0.toml").write_text(text.replace('["127.0.0.0/8"]', "[]"))
        here.read()
        with pytest.raises(CallDenied, match="not let out"):
            await here.log_in()
        assert not here.server.heard


async def test_a_server_that_says_that_it_is_another_gets_no_login(tmp_path: Path) -> None:
    async with login_world(tmp_path) as here:
        here.server.resource = "https://mcp.victim.example/mcp"
        with pytest.raises(LoginFailed, match="for another server"):
            await here.log_in()
        assert not here.shown and not here.issuer.heard


@pytest.mark.parametrize("wrong", ["no-iss", "wrong-iss", "other-issuer-in-discovery", "no-s256"])
async def test_a_login_server_that_passes_for_another_gets_no_code(
    tmp_path: Path, wrong: str
) -> None:
    async with login_world(tmp_path) as here:
        here.issuer.misbehave = {wrong}
        with pytest.raises(LoginFailed):
            await here.log_in()
        assert not asked(here, "/token") and not here.vault.names()
