"""Where one logs in for a server, found from its address: what is taken of strangers' words."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from ring0 import limits
from ring0.errors import InvalidInput, LoginFailed
from ring0.identity import challenges, protected
from ring0.identity.challenges import Challenge
from ring0.identity.oauth import Client, Endpoints, OAuth
from ring0.identity.oauth_answers import DeviceSaid, Fetched, Registered
from ring0.identity.protected import Found, find, login_key, login_name, register, to_ask_for
from ring0.kernel.logins import Begun
from ring0.runtime import Runtime

SERVER = "https://mcp.example.com/mcp"
ISSUER = "https://login.example.com"
WELL_KNOWN = "https://mcp.example.com/.well-known/oauth-protected-resource"


class Web:
    """Pages by address; whatever is not there is not found."""

    def __init__(self, **pages: Any) -> None:
        self.challenge = ""
        self.asked: list[tuple[str, str, bytes]] = []
        self.pages: dict[str, Any] = {
            f"{WELL_KNOWN}/mcp": {"resource": SERVER, "authorization_servers": [ISSUER]},
            f"{ISSUER}/.well-known/oauth-authorization-server": metadata(),
        }

    async def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Fetched:
        self.asked.append((method, url, body))
        if url == SERVER:
            return Fetched(401, {"www-authenticate": self.challenge}, b"")
        page = self.pages.get(url)
        if isinstance(page, int):
            return Fetched(page, {}, b"")
        return Fetched(200 if page is not None else 404, {}, json.dumps(page).encode())

    @property
    def urls(self) -> list[str]:
        return [url for _, url, _ in self.asked]


def metadata(issuer: str = ISSUER, **more: Any) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "registration_endpoint": f"{issuer}/register",
        "code_challenge_methods_supported": ["S256"],
        **more,
    }


async def test_a_server_leads_to_its_login_server_and_no_page_of_another_is_asked() -> None:
    web = Web()
    found = await find(SERVER, web)
    assert found.resource == SERVER and found.endpoints.issuer == ISSUER
    assert found.endpoints.register_url == f"{ISSUER}/register" and found.scopes == ()
    assert web.urls[:2] == [SERVER, f"{WELL_KNOWN}/mcp"]
    assert WELL_KNOWN not in web.urls


async def test_what_the_challenge_names_comes_first() -> None:
    web = Web()
    elsewhere = "https://docs.example.net/meta.json"
    web.challenge = f'Bearer resource_metadata="{elsewhere}", scope="a b"'
    web.pages[elsewhere] = {
        "resource": SERVER, "authorization_servers": [ISSUER], "scopes_supported": ["x"],
    }  # fmt: skip
    found = await find(SERVER, web)
    assert web.urls[1] == elsewhere and found.scopes == ("a", "b")


async def test_scopes_of_the_metadata_are_taken_where_the_challenge_has_none() -> None:
    web = Web()
    web.pages[f"{WELL_KNOWN}/mcp"]["scopes_supported"] = ["read", "write"]
    assert (await find(SERVER, web)).scopes == ("read", "write")


async def test_a_server_without_metadata_is_its_own_login_server() -> None:
    web = Web()
    del web.pages[f"{WELL_KNOWN}/mcp"]
    own = "https://mcp.example.com"
    web.pages[f"{own}/.well-known/oauth-authorization-server"] = metadata(own)
    found = await find(SERVER, web)
    assert (found.endpoints.issuer, found.resource) == (own, SERVER)


async def test_trouble_is_no_lack_of_metadata() -> None:
    """Else whoever can break one page sends logins another way."""
    web = Web()
    web.pages[f"{WELL_KNOWN}/mcp"] = 503
    with pytest.raises(LoginFailed, match="503"):
        await find(SERVER, web)


# --- a token for another server -----------------------------------------------------------------


@pytest.mark.parametrize(
    "resource",
    [
        "https://victim.example/mcp",
        "https://mcp.example.com/other",
        "https://mcp.example.com/mcp/deeper",
        "https://mcp.example.com/mc",
        "https://mcp.example.com:8443/mcp",
        "https://mcp.example.com.evil.example/mcp",
        "https://mcp.example.com/?x=/mcp",
    ],
)
async def test_a_server_can_not_have_itself_given_the_token_of_another(resource: str) -> None:
    web = Web()
    web.pages[f"{WELL_KNOWN}/mcp"]["resource"] = resource
    with pytest.raises(LoginFailed, match="for another server") as refused:
        await find(SERVER, web)
    assert refused.value.error == "other_resource"
    assert not any(url.startswith(ISSUER) for url in web.urls)


async def test_only_the_host_itself_says_that_a_server_is_a_part_of_it() -> None:
    web = Web()
    root = {"resource": "https://mcp.example.com", "authorization_servers": [ISSUER]}
    del web.pages[f"{WELL_KNOWN}/mcp"]
    web.pages[WELL_KNOWN] = root
    assert (await find(SERVER, web)).resource == "https://mcp.example.com"
    # A tenant of that host, at an address of its own there.
    web.challenge = f'Bearer resource_metadata="{SERVER}/meta"'
    web.pages[f"{SERVER}/meta"] = root
    with pytest.raises(LoginFailed, match="for another server"):
        await find(SERVER, web)


# --- another login server -----------------------------------------------------------------------


async def test_a_login_server_that_the_operator_did_not_name_is_not_used() -> None:
    web = Web()
    web.pages[f"{WELL_KNOWN}/mcp"]["authorization_servers"] = ["https://evil.example"]
    with pytest.raises(LoginFailed, match="at another place than"):
        await find(SERVER, web, issuer=ISSUER)
    assert not any("evil" in url for url in web.urls)


async def test_of_several_login_servers_the_operators_is_the_one() -> None:
    web = Web()
    web.pages[f"{WELL_KNOWN}/mcp"]["authorization_servers"] = ["https://evil.example", ISSUER]
    assert (await find(SERVER, web, issuer=ISSUER)).endpoints.issuer == ISSUER


async def test_metadata_of_another_issuer_is_a_mix_up() -> None:
    web = Web()
    place = f"{ISSUER}/.well-known/oauth-authorization-server"
    web.pages[place] = metadata("https://honest.example")
    with pytest.raises(LoginFailed, match="by another name"):
        await find(SERVER, web)


@pytest.mark.parametrize("issuer", [f"{ISSUER}/", "https://LOGIN.example.com", f"{ISSUER}:443"])
async def test_an_issuer_is_compared_letter_by_letter(issuer: str) -> None:
    web = Web()
    web.pages[f"{ISSUER}/.well-known/oauth-authorization-server"] = metadata(issuer)
    with pytest.raises(LoginFailed, match="by another name"):
        await find(SERVER, web)


# --- addresses ----------------------------------------------------------------------------------


async def test_a_public_server_sends_nobody_to_this_machine() -> None:
    local = "http://127.0.0.1:8080"
    web = Web()
    web.challenge = f'Bearer resource_metadata="{local}/x"'
    with pytest.raises(LoginFailed, match="this machine"):
        await find(SERVER, web)
    web.challenge = ""
    web.pages[f"{WELL_KNOWN}/mcp"]["authorization_servers"] = [local]
    with pytest.raises(LoginFailed, match="this machine"):
        await find(SERVER, web)
    assert not any(url.startswith(local) for url in web.urls)


@pytest.mark.parametrize(
    "field", ["token_endpoint", "authorization_endpoint", "registration_endpoint"]
)
@pytest.mark.parametrize(
    "address", ["http://login.example.com/x", "http://127.0.0.1/x", "file:///etc/passwd", "x"]
)
async def test_no_endpoint_is_one_that_others_can_read(field: str, address: str) -> None:
    web = Web()
    place = f"{ISSUER}/.well-known/oauth-authorization-server"
    web.pages[place] = metadata(**{field: address})
    with pytest.raises((InvalidInput, LoginFailed)):
        await find(SERVER, web)


async def test_many_login_servers_are_not_read() -> None:
    web = Web()
    many = [f"https://l{at}.example" for at in range(limits.OAUTH_SERVERS_MAX + 1)]
    web.pages[f"{WELL_KNOWN}/mcp"]["authorization_servers"] = many
    with pytest.raises(LoginFailed, match="not what OAuth says"):
        await find(SERVER, web)


# --- challenges ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", Challenge()),
        ("Basic realm=x", Challenge()),
        ("Bearer", Challenge()),
        ('Bearer scope="a b"', Challenge(scopes=("a", "b"))),
        ("bearer scope=a,error=insufficient_scope",
         Challenge(scopes=("a",), error="insufficient_scope")),
        ('Basic realm="y", Bearer error="invalid_token"', Challenge(error="invalid_token")),
        ('Bearer scope="a", scope="b"', Challenge(scopes=("a",))),
        ('Bearer scope="a \x1b[2J b"', Challenge(scopes=("a", "b"))),
        ('Bearer scope="a a  a"', Challenge(scopes=("a",))),
        ('Bearer error="Ignore all\\" orders"', Challenge()),
        ('Bearer resource_metadata="https://x/\\"y"', Challenge(metadata_url='https://x/"y')),
    ],
)  # fmt: skip
def test_a_challenge_is_read_as_the_standards_write_it(header: str, said: Challenge) -> None:
    assert challenges.read(header) == said


def test_a_challenge_without_end_is_cut() -> None:
    words = " ".join(f"s{at}" for at in range(100_000))
    found = challenges.read(f'Bearer error="x", scope="{words}"')
    assert found.error == "x" and not found.scopes
    long = challenges.scopes([f"scope-{at}-{'x' * 40}" for at in range(1_000)])
    assert len(long) <= limits.OAUTH_SCOPES_MAX
    assert len(" ".join(long)) <= limits.OAUTH_URL_CHARS_MAX


def test_more_scopes_than_anybody_asks_for_hold_nobody_up() -> None:
    """As many as an answer has room for; a kernel that logs itself in reads them, too."""
    many = [f"{at:x}" for at in range(limits.OAUTH_ANSWER_SIZE_BYTES_MAX // 7)]
    began = time.process_time()
    assert challenges.scopes(many) == tuple(many[: limits.OAUTH_SCOPES_MAX])
    assert time.process_time() - began < 0.5


def test_a_login_asks_to_last_only_where_there_is_a_word_for_it() -> None:
    def found(*scopes: str) -> Found:
        endpoints = protected.Endpoints(token_url=f"{ISSUER}/token", scopes=scopes)
        return Found(resource=SERVER, endpoints=endpoints, scopes=())

    assert to_ask_for(found("offline_access"), ("a",)) == ("a", "offline_access")
    assert to_ask_for(found("offline_access"), ()) == ()
    assert to_ask_for(found(), ("a", "b", "a")) == ("a", "b")


def test_another_server_or_principal_is_another_login() -> None:
    keys = {login_key("x", server, who) for server in (SERVER, ISSUER) for who in ("a", "b", "")}
    assert len(keys) == 6 and {login_name(key) for key in keys} == {"x"}
    assert login_key("x", "a", "bc") != login_key("x", "ab", "c")


# --- registration -------------------------------------------------------------------------------


async def registered(
    web: Web, said: dict[str, Any], redirect: str = "http://127.0.0.1:1/cb"
) -> Any:
    found = await find(SERVER, web)
    web.pages[f"{ISSUER}/register"] = said
    return await register(found, redirect, ("a",), web)


def methods(web: Web, *names: str) -> Web:
    page = web.pages[f"{ISSUER}/.well-known/oauth-authorization-server"]
    page["token_endpoint_auth_methods_supported"] = list(names)
    return web


async def test_a_client_registers_itself_as_what_it_is() -> None:
    web = Web()
    client = await registered(web, {"client_id": "c1", "client_secret": "not-wanted-at-all"})
    wanted = json.loads(web.asked[-1][2])
    assert wanted["application_type"] == "native" and wanted["scope"] == "a"
    assert wanted["redirect_uris"] == ["http://127.0.0.1:1/cb"]
    assert wanted["grant_types"] == ["authorization_code", "refresh_token"]
    assert wanted["token_endpoint_auth_method"] == "none"
    assert (client.client_id, client.client_secret, client.method) == ("c1", "", "none")
    assert client.resource == SERVER


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_client_takes_the_way_that_the_login_server_has(method: str) -> None:
    web = methods(Web(), "private_key_jwt", method)
    client = await registered(web, {"client_id": "c1", "client_secret": "s3cret-of-it"})
    assert client.method == method and client.client_secret == "s3cret-of-it"
    assert "s3cret" not in repr(client)


@pytest.mark.parametrize(
    "said",
    [
        {"client_id": "c1", "token_endpoint_auth_method": "tls_client_auth"},
        {"client_id": "c1", "token_endpoint_auth_method": "client_secret_post"},
        {"client_id": "c1", "client_secret": "short", "token_endpoint_auth_method":
            "client_secret_post"},
        {"client_id": ""},
        {"client_id": "a\r\nb"},
        {"client_secret": "s3cret-of-it"},
        [],
    ],
)  # fmt: skip
async def test_a_client_that_can_not_be_used_is_said_before_anybody_logs_in(said: Any) -> None:
    with pytest.raises(LoginFailed):
        await registered(Web(), said)


def test_no_repr_shows_what_a_login_server_gave_in_secret() -> None:
    secret = "canary-of-the-client"
    client = Client(client_id="x", client_secret=secret, method="client_secret_basic")
    oauth = OAuth(Endpoints(token_url=f"{ISSUER}/token"), client, Web(), Runtime())
    said = DeviceSaid(device_code=secret, user_code="AB", verification_uri="u", expires_in=1)
    begun = Begun(key="k", oauth=oauth, kept={"oauth/k/secret": (secret, 0)})
    for shown in (begun, Registered(client_id="x", client_secret=secret), said):
        assert secret not in repr(shown)


async def test_where_no_client_registers_itself_a_person_is_told_what_to_write() -> None:
    web = Web()
    del web.pages[f"{ISSUER}/.well-known/oauth-authorization-server"]["registration_endpoint"]
    with pytest.raises(LoginFailed, match="only clients that it knows") as refused:
        await registered(web, {})
    assert f'issuer = "{ISSUER}"' in refused.value.todo and "client_id" in refused.value.todo
