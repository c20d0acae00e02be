"""Logging in at a real server on loopback: what is taken, and what is not."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from issuer import Issuer

from ring0 import limits
from ring0.errors import InvalidInput, LoginFailed
from ring0.identity.fetching import Fetcher
from ring0.identity.loopback import Loopback
from ring0.identity.oauth import Client, Endpoints, OAuth, discover
from ring0.identity.oauth_answers import Fetched, Tokens
from ring0.runtime import Runtime


class Quick(Runtime):
    """Waits are noted, and short."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.01)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as found:
        yield found


async def client(issuer: Issuer, runtime: Runtime | None = None, **options: object) -> OAuth:
    runtime = runtime or Quick()
    fetch = Fetcher(runtime)
    told = {"scopes": ("openid", "read"), "client_secret": issuer.client_secret, **options}
    known = Client(client_id=issuer.client_id, **told)  # type: ignore[arg-type]
    return OAuth(await discover(issuer.url, fetch), known, fetch, runtime)


async def logged_in(oauth: OAuth, issuer: Issuer) -> Tokens:
    async with Loopback(Runtime()) as back:
        attempt = oauth.begin(back.redirect_uri)
        waiting = asyncio.create_task(back.wait(attempt.state))
        await asyncio.sleep(0)
        assert await issuer.come_back(attempt.url) == 200
        return await oauth.finish(attempt, await waiting)


# --- discovery ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/realms/x"])
async def test_a_server_says_where_it_takes_what(path: str) -> None:
    async with Issuer(path=path) as issuer:
        found = await discover(issuer.url, Fetcher(Runtime()))
        assert found.token_url == f"{issuer.base}/token" and found.says_iss and found.basic
        assert found.issuer == issuer.url


async def test_a_server_without_openid_is_asked_as_rfc_8414_says() -> None:
    asked: list[str] = []

    async def fetch(method: str, url: str, headers: object, body: bytes) -> Fetched:
        asked.append(url)
        if "openid" in url:
            return Fetched(404, {}, b"")
        said = b'{"issuer":"https://a.example/x","token_endpoint":"https://a.example/t"}'
        return Fetched(200, {}, said)

    found = await discover("https://a.example/x", fetch)
    assert found.token_url == "https://a.example/t"
    assert asked[1] == "https://a.example/.well-known/oauth-authorization-server/x"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("other-issuer-in-discovery", "other_issuer"),
        ("no-s256", "no_pkce"),
        ("not-json", "unreadable"),
        ("huge", "unreachable"),
        ("redirect", "no_discovery"),
        ("error-500", "no_discovery"),
    ],
)
async def test_discovery_that_is_not_good_is_not_taken(
    issuer: Issuer, wrong: str, error: str
) -> None:
    issuer.misbehave.add(wrong)
    with pytest.raises(LoginFailed) as told:
        await discover(issuer.url, Fetcher(Runtime()))
    assert told.value.error == error and told.value.todo


async def test_a_server_that_does_not_answer_is_not_waited_for(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "OAUTH_ANSWER_S_MAX", 0.2)
    issuer.misbehave.add("slow")
    with pytest.raises(LoginFailed, match="could not be reached"):
        await discover(issuer.url, Fetcher(Runtime()))


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com",
        "https://",
        "ftp://login.example.com",
        "https://user:word@login.example.com",
        "https://login.example.com/#x",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "https://login.example.com:x",
        "https://a.example/\r\nX: y",
        "https://a.example/ü",
        "https://a.example/" + "x" * 3_000,
    ],
)
async def test_only_private_addresses_are_asked(url: str) -> None:
    async def fetch(*_: object) -> Fetched:
        raise AssertionError("asked")

    with pytest.raises(InvalidInput):
        await discover(url, fetch)
    with pytest.raises(InvalidInput):
        OAuth(Endpoints(token_url=url), Client(client_id="x"), fetch, Runtime())


async def test_a_public_server_does_not_send_us_to_an_address_of_this_machine() -> None:
    async def fetch(*_: object) -> Fetched:
        said = b'{"issuer":"https://a.example","token_endpoint":"http://127.0.0.1:1/t"}'
        return Fetched(200, {}, said)

    with pytest.raises(LoginFailed, match="address of this machine"):
        await discover("https://a.example", fetch)


# --- code + PKCE --------------------------------------------------------------------------------


async def test_a_person_logs_in_with_a_browser(issuer: Issuer) -> None:
    oauth = await client(issuer)
    tokens = await logged_in(oauth, issuer)
    assert issuer.is_good(tokens.access_token) and tokens.refresh_token and tokens.id_token
    assert tokens.expires_us > Runtime().now_us()
    _, asked = next(heard for heard in issuer.heard if heard[0] == "/authorize")
    assert asked["code_challenge_method"] == "S256" and "code_verifier" not in asked
    assert asked["redirect_uri"].startswith("http://127.0.0.1:")


async def test_a_client_with_a_secret_says_it_in_a_header(issuer: Issuer) -> None:
    issuer.client_secret = "secret with/odd:chars+%41"
    tokens = await logged_in(await client(issuer), issuer)
    assert issuer.is_good(tokens.access_token)
    assert all(issuer.client_secret not in str(form) for _, form in issuer.heard)
    with pytest.raises(LoginFailed) as told:
        await logged_in(await client(issuer, client_secret="another-one"), issuer)
    assert told.value.error == "invalid_client" and "another-one" not in str(told.value)


async def test_each_login_has_a_state_a_nonce_and_a_verifier_of_its_own(issuer: Issuer) -> None:
    oauth = await client(issuer)
    some = [oauth.begin("http://127.0.0.1:1/callback") for _ in range(3)]
    assert len({a.state for a in some} | {a.nonce for a in some} | {a.verifier for a in some}) == 9
    assert all(len(a.verifier) >= 43 and a.verifier not in a.url for a in some)
    assert all(a.verifier not in repr(a) and a.state not in repr(a) for a in some)


@pytest.mark.parametrize("wrong", ["no-iss", "wrong-iss"])
async def test_what_another_server_sent_back_is_not_taken(issuer: Issuer, wrong: str) -> None:
    """A mix-up: the code of one server would be taken to another one."""
    issuer.misbehave.add(wrong)
    oauth = await client(issuer)
    with pytest.raises(LoginFailed) as told:
        await logged_in(oauth, issuer)
    assert told.value.error == "bad_redirect"
    assert not [path for path, _ in issuer.heard if path == "/token"]


async def test_what_answers_a_login_of_somebody_else_is_not_taken(issuer: Issuer) -> None:
    oauth = await client(issuer)
    attempt = oauth.begin("http://127.0.0.1:1/callback")
    for came in ({"code": "x", "state": "y", "iss": issuer.url}, {"code": "x", "iss": issuer.url}):
        with pytest.raises(LoginFailed, match="not taken"):
            await oauth.finish(attempt, came)
    assert not [path for path, _ in issuer.heard if path == "/token"]


async def test_a_code_that_was_caught_is_of_no_use_without_the_verifier(issuer: Issuer) -> None:
    oauth = await client(issuer)
    begun, other = (oauth.begin("http://127.0.0.1:1/callback") for _ in range(2))
    caught = parse_qs(urlsplit(await issuer.consent(begun.url)).query)["code"][0]
    with pytest.raises(LoginFailed) as told:
        await oauth.finish(other, {"code": caught, "state": other.state, "iss": issuer.url})
    assert told.value.error == "invalid_grant"


async def test_a_person_who_says_no_is_told_as_that(issuer: Issuer) -> None:
    oauth = await client(issuer)
    attempt = oauth.begin("http://127.0.0.1:1/callback")
    came = {"error": "access_denied", "state": attempt.state, "iss": issuer.url}
    with pytest.raises(LoginFailed) as told:
        await oauth.finish(attempt, came)
    assert told.value.error == "access_denied"


async def test_pages_that_knock_at_the_redirect_end_no_login(issuer: Issuer) -> None:
    oauth = await client(issuer)
    async with Loopback(Runtime()) as back, aiohttp.ClientSession() as page:
        attempt = oauth.begin(back.redirect_uri)
        waiting = asyncio.create_task(back.wait(attempt.state))
        await asyncio.sleep(0)
        good = f"?code=x&state={attempt.state}"
        knocks: list[tuple[str, dict[str, str]]] = [
            ("", {}),
            ("?code=x&state=y", {}),
            ("?code=x&state=%ff", {}),
            (good + "&code=y", {}),
            (good, {"Host": "rebound.example"}),
        ]
        for query, headers in knocks:
            async with page.get(back.redirect_uri + query, headers=headers) as answer:
                assert answer.status == 400
        async with page.post(back.redirect_uri + good) as answer:
            assert answer.status == 405
        assert not waiting.done()
        assert await issuer.come_back(attempt.url) == 200
        assert issuer.is_good((await oauth.finish(attempt, await waiting)).access_token)


async def test_the_redirect_is_on_loopback_alone_and_its_page_leaks_nothing() -> None:
    async with Loopback(Runtime()) as back, aiohttp.ClientSession() as browser:
        assert urlsplit(back.redirect_uri).hostname == "127.0.0.1"
        waiting = asyncio.create_task(back.wait("s" * 43))
        await asyncio.sleep(0)
        query = "?code=canary-code&state=" + "s" * 43
        async with browser.get(back.redirect_uri + query) as answer:
            assert "canary-code" not in await answer.text()
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert (await waiting)["code"] == "canary-code"


async def test_a_browser_that_never_comes_back_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LOGIN_S_MAX", 0.05)
    async with Loopback(Runtime()) as back:
        with pytest.raises(LoginFailed, match="Nobody came back"):
            await back.wait("x")


# --- device flow --------------------------------------------------------------------------------


async def test_a_person_logs_in_without_a_browser_here(issuer: Issuer) -> None:
    runtime = Quick()
    oauth = await client(issuer, runtime)
    device = await oauth.begin_device()
    waiting = asyncio.create_task(oauth.finish_device(device))
    await asyncio.sleep(0.05)
    assert not waiting.done()  # authorization_pending
    issuer.approve(device.user_code)
    assert issuer.is_good((await waiting).access_token)
    assert set(runtime.slept) == {1} and device.device_code not in repr(device)


async def test_a_server_that_says_slow_down_is_asked_less_often(issuer: Issuer) -> None:
    runtime = Quick()
    oauth = await client(issuer, runtime)
    device = await oauth.begin_device()
    issuer.misbehave.add("slow-down")
    waiting = asyncio.create_task(oauth.finish_device(device))
    async with asyncio.timeout(20):
        while len(runtime.slept) < 3:
            await asyncio.sleep(0.01)
    issuer.approve(device.user_code)
    await waiting
    assert runtime.slept[:3] == [1, 6, 6]


@pytest.mark.parametrize(("end", "error"), [("deny", "access_denied"), ("expire", "expired_token")])
async def test_a_device_login_that_nobody_says_yes_to_ends(
    issuer: Issuer, end: str, error: str
) -> None:
    oauth = await client(issuer)
    device = await oauth.begin_device()
    getattr(issuer, end)(device.user_code)
    with pytest.raises(LoginFailed) as told:
        await oauth.finish_device(device)
    assert told.value.error == error


async def test_a_device_login_ends_by_our_own_clock_too(issuer: Issuer) -> None:
    issuer.device_s = 1
    oauth = await client(issuer, Runtime())
    device = await oauth.begin_device()
    issuer.expire = None  # type: ignore[assignment, method-assign]
    issuer._devices[device.device_code]["ends"] = 2e12
    with pytest.raises(LoginFailed) as told:
        await asyncio.wait_for(oauth.finish_device(device), 10)
    assert told.value.error == "expired_token"


async def test_a_device_login_outlives_a_server_that_is_gone_for_a_moment(issuer: Issuer) -> None:
    runtime = Quick()
    oauth = await client(issuer, runtime)
    device = await oauth.begin_device()
    real, failed = oauth._fetch, []

    async def fetch(*asked: object) -> Fetched:
        if not failed:
            failed.append(1)
            raise ConnectionRefusedError(111, "Connection refused")
        return await real(*asked)  # type: ignore[arg-type]

    oauth._fetch = fetch
    issuer.approve(device.user_code)
    assert issuer.is_good((await oauth.finish_device(device)).access_token)
    assert runtime.slept == [1, 2]


# --- refresh ------------------------------------------------------------------------------------


async def test_a_refresh_gives_new_tokens_and_ends_the_old_one(issuer: Issuer) -> None:
    oauth = await client(issuer)
    first = await logged_in(oauth, issuer)
    second = await oauth.refresh(first.refresh_token)
    assert second.refresh_token not in ("", first.refresh_token)
    assert issuer.is_good(second.access_token)
    with pytest.raises(LoginFailed) as told:
        await oauth.refresh(first.refresh_token)
    assert told.value.error == "invalid_grant"
    assert first.refresh_token not in "".join(traceback.format_exception(told.value))


# --- what strangers say -------------------------------------------------------------------------


async def test_a_server_that_quotes_what_it_was_sent_does_not_get_it_shown(issuer: Issuer) -> None:
    issuer.client_secret = "canary-client-secret"
    oauth = await client(issuer)
    tokens = await logged_in(oauth, issuer)
    in_form = OAuth(
        Endpoints(token_url=oauth.endpoints.token_url, methods=("client_secret_post",)),
        oauth.client, oauth._fetch, Runtime(),
    )  # fmt: skip
    issuer.misbehave.add("echo")
    for asked in (oauth, in_form):
        with pytest.raises(LoginFailed) as told:
            await asked.refresh(tokens.refresh_token)
        shown = "".join(traceback.format_exception(told.value))
        assert told.value.error == "invalid_request" and "you sent" in shown
        assert tokens.refresh_token not in shown and "canary-client-secret" not in shown
        assert "\x1b" not in shown and len(told.value.why) < 1_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"access_token":"short","token_type":"Bearer"}',
        b'{"access_token":"with\\r\\nline-break","token_type":"Bearer"}',
        b'{"access_token":"long-enough-token","token_type":"DPoP"}',
        b'{"access_token":"long-enough-token"}',
        b'{"access_token":{"a":1},"token_type":"Bearer"}',
        b'{"access_token":"long-enough-token","token_type":"Bearer","expires_in":-5}',
        b'{"access_token":"long-enough-token","token_type":"Bearer","expires_in":1e3}',
        b"[" * 100_000,
    ],
)
async def test_an_answer_that_is_not_oauths_is_not_taken(body: bytes) -> None:
    async def fetch(*_: object) -> Fetched:
        return Fetched(200, {}, body)

    oauth = OAuth(Endpoints(token_url="https://a.example"), Client(client_id="x"), fetch, Runtime())
    canary = "-".join(["refresh", "token", "canary"])
    with pytest.raises(LoginFailed) as told:
        await oauth.refresh(canary)
    shown = "".join(traceback.format_exception(told.value))
    assert told.value.error == "unreadable"
    assert "long-enough" not in shown and canary not in shown


@pytest.mark.parametrize(("said", "lasts_s"), [('"3600"', 3_600), ("60", 60), ('"x"', None)])
async def test_how_long_a_token_lasts_is_read_as_servers_write_it(
    said: str, lasts_s: int | None
) -> None:
    async def fetch(*_: object) -> Fetched:
        text = f'{{"access_token":"long-enough-token","token_type":"bearer","expires_in":{said}}}'
        return Fetched(200, {}, text.encode())

    class Still(Runtime):
        def now_us(self) -> int:
            return 7

    oauth = OAuth(Endpoints(token_url="https://a.example"), Client(client_id="x"), fetch, Still())
    found = await oauth.refresh("refresh-token")
    assert found.expires_us == (7 + lasts_s * 1_000_000 if lasts_s else 0)


async def test_nothing_that_is_printed_shows_a_token(issuer: Issuer) -> None:
    issuer.client_secret = "canary-client-secret"
    oauth = await client(issuer)
    tokens = await logged_in(oauth, issuer)
    shown = f"{tokens!r} {tokens} {oauth!r} {oauth.client!r} {[tokens]}"
    for value in (tokens.access_token, tokens.refresh_token, tokens.id_token, issuer.client_secret):
        assert value not in shown
