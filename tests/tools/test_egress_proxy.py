"""The proxy as a sandbox sees it: hostile bytes in, nothing out that was not judged."""

from __future__ import annotations

import asyncio
import socket

import pytest
from egress_world import OK, World, answer, ask, get, hear, plain, status

from ring0 import limits
from ring0.errors import CallDenied
from ring0.tools.egress import EgressAnswer
from ring0.tools.egress import proxy as proxy_module
from ring0.tools.egress import wire as wire_module


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


# --- what passes --------------------------------------------------------------------------------


async def test_a_plain_request_goes_out_as_one_call_and_its_answer_comes_back(world):
    server, served, place = await plain(world, answer(b"hello", b"X-Kind: greeting"))
    heard = await served.say(ask(place, "/a%2db?q=1", "X-Mine: yes"))
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
    assert heard.endswith(b"\r\n\r\nhello") and b"x-kind: greeting\r\n" in heard
    (asked,) = world.asked
    assert asked.args() == {
        "method": "GET",
        "url": f"{place}/a-b?q=1",
        "headers": {"x-mine": "yes"},
    }
    (sent,) = server.heard
    assert sent.startswith(b"GET /a-b?q=1 HTTP/1.1\r\nhost: shop.test:")
    assert b"accept-encoding: identity\r\n" in sent


async def test_a_request_within_connect_is_read_judged_and_sent_like_any_other(world):
    server = await world.server(answer(b"safe"), "shop.test")
    served = await world.proxy(f"https://shop.test:{server.port}/v1/*")
    where = f"shop.test:{server.port}"
    heard = await served.secure(where, get(where, "/v1/things"))
    assert heard.endswith(b"safe")
    assert [r.url for r in world.asked] == [f"https://{where}/v1/things"]
    assert server.heard[0].startswith(b"GET /v1/things HTTP/1.1\r\n")


async def test_one_connection_serves_many_requests_each_a_call_of_its_own(world):
    _, served, place = await plain(world)
    host = place.removeprefix("http://")
    more = f"GET {place}/1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    heard = await served.say(more + ask(place, "/2"))
    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert [r.path for r in world.asked] == ["/1", "/2"]


async def test_pipelined_requests_are_judged_one_by_one_and_answered_in_order(world):
    server, served, place = await plain(world, lambda r: answer(r.split(b" ")[1]))
    host = place.removeprefix("http://")
    first = f"GET {place}/first HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    denied = f"DELETE {place}/second HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    heard = await served.say(first + denied + ask(place, "/third"))
    assert [r.method for r in world.asked] == ["GET", "DELETE", "GET"]
    assert [line.split(b" ")[1] for line in server.heard] == [b"/first", b"/third"]
    assert heard.index(b"/first") < heard.index(b"403 Forbidden") < heard.index(b"/third")


async def test_a_body_of_chunks_goes_out_whole_with_its_length(world):
    server, served, place = await plain(world)
    chunks = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    heard = await served.say(
        ask(place, "/", "Transfer-Encoding: chunked", method="POST", body=chunks)
    )
    assert status(heard) == 200
    assert server.heard[0].endswith(b"content-length: 11\r\n\r\nhello world")
    assert b"chunked" not in server.heard[0]


async def test_a_client_that_expects_100_hears_it_before_it_sends_its_body(world):
    server, served, place = await plain(world)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(ask(place, "/", "Content-Length: 4", "Expect: 100-continue", method="PUT"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"body")
    assert status(await hear(reader)) == 200
    assert server.heard[0].endswith(b"body") and b"expect" not in server.heard[0].lower()
    writer.close()


async def test_a_client_that_expects_100_for_a_forbidden_header_hears_no_first(world):
    _, served, place = await plain(world)
    heard = await served.say(
        ask(place, "/", "Content-Length: 4", "Expect: 100-continue", "Upgrade: h2c", method="PUT")
    )
    assert status(heard) == 403 and b"100 Continue" not in heard


async def test_another_expectation_is_refused(world):
    _, served, place = await plain(world)
    assert status(await served.say(ask(place, "/", "Expect: 200-ok"))) == 400
    assert world.asked == []


# --- policy ---------------------------------------------------------------------------------------


async def test_policy_comes_before_dns(world):
    _, served, _ = await plain(world)
    assert status(await served.say(ask("http://other.test"))) == 403
    assert [r.host for r in world.asked] == ["other.test"]
    assert world.looked_up == []


async def test_connect_to_a_host_that_no_rule_names_is_refused_on_record_and_without_dns(world):
    served = await world.proxy("https://shop.test")
    _, writer, heard = await served.connect("evil.test:443")
    assert status(heard) == 403
    assert [(r.method, r.host) for r in world.asked] == [("CONNECT", "evil.test")]
    assert world.looked_up == []
    writer.close()


async def test_plain_http_to_a_host_that_is_allowed_with_tls_only_is_refused(world):
    server = await world.server(OK, "shop.test", tls=False)
    served = await world.proxy("https://shop.test", f"https://shop.test:{server.port}")
    heard = await served.say(ask(f"http://shop.test:{server.port}"))
    assert status(heard) == 403 and server.connections == 0 and world.looked_up == []


@pytest.mark.parametrize(
    "field",
    ["X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "X-HTTP-Method: DELETE",
     "X_HTTP_Method_Override: DELETE", "X-Original-URL: /admin", "X-Rewrite-URL: /admin",
     "Upgrade: websocket", "Connection: Upgrade", "Connection: close, x-mine",
     "HTTP2-Settings: AAMAAABkAAQAAP__", "Content-Encoding: gzip"],
)  # fmt: skip
async def test_a_header_that_makes_it_another_request_is_refused(world, field):
    server, served, place = await plain(world)
    host = place.removeprefix("http://")
    heard = await served.say(f"GET {place}/ HTTP/1.1\r\nHost: {host}\r\n{field}\r\n\r\n".encode())
    assert status(heard) == 403, heard
    assert world.asked == [] and server.heard == []


async def test_a_method_override_in_query_or_form_is_refused(world):
    _, served, place = await plain(world)
    form = "Content-Type: application/x-www-form-urlencoded"
    parts = "Content-Type: multipart/form-data; boundary=x"
    part = b'--x\r\nContent-Disposition: form-data; name="_method"\r\n\r\nDELETE\r\n--x--\r\n'
    for request in (
        ask(place, "/?_method=DELETE"),
        ask(place, "/?a=b;_METHOD=DELETE"),
        ask(place, "/?%5fmethod=DELETE"),
        ask(place, "/", form, "Content-Length: 9", method="POST", body=b"_method=x"),
        ask(place, "/", parts, f"Content-Length: {len(part)}", method="POST", body=part),
    ):
        assert status(await served.say(request)) == 403
    assert world.asked == []


OWN_KEYS = [
    "Authorization: Bearer attacker", "Proxy-Authorization: Basic attacker",
    "Cookie: sid=attacker", "X-Api-Key: attacker", "X_Api_Key: attacker", "api-key: attacker",
    "X-Auth-Token: attacker", "Private-Token: attacker", "X-Goog-Api-Key: attacker",
    "X-Amz-Security-Token: attacker", "Ocp-Apim-Subscription-Key: attacker",
    "DD-API-KEY: attacker", "apikey: attacker", "X-Vault-Token: attacker",
    "X-Shopify-Access-Token: attacker", "X-Access-Key-Id: attacker",
]  # fmt: skip


async def test_the_attackers_own_key_on_an_allowed_host_never_goes_out(world):
    server, served, place = await plain(world)
    assert status(await served.say(ask(place, "/", *OWN_KEYS))) == 200
    query = "/?q=1&api_key=attacker&KEY=attacker&access_token=attacker&a%70ikey=attacker&page=2"
    assert status(await served.say(ask(place, query + "&X-Amz-Signature=attacker"))) == 200
    assert len(server.heard) == 2
    assert b"attacker" not in b"".join(server.heard)
    assert server.heard[1].startswith(b"GET /?q=1&page=2 HTTP/1.1\r\n")
    assert "attacker" not in repr([r.args() for r in world.asked])


async def test_a_rule_with_own_auth_lets_the_programs_own_credentials_through(world):
    server = await world.server(OK, "shop.test", tls=False)
    place = f"http://shop.test:{server.port}"
    served = await world.proxy(f"{place}/mine/* own_auth", place)
    await served.say(ask(place, "/mine/a?token=t1", "Authorization: Bearer mine"))
    await served.say(ask(place, "/other?token=t1", "Authorization: Bearer mine"))
    mine, other = server.heard
    assert b"authorization: Bearer mine" in mine and b"?token=t1" in mine
    assert b"mine" not in other and b"token" not in other


async def test_the_proxys_own_headers_stay_with_the_proxy(world):
    server, served, place = await plain(world)
    await served.say(
        ask(place, "/", "Proxy-Connection: keep-alive", "Proxy-Foo: a", "TE: trailers",
            "Keep-Alive: 5", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil.test",
            "Forwarded: host=evil.test", "Via: 1.1 me", "Accept-Encoding: gzip")
    )  # fmt: skip
    names = {line.split(b":")[0] for line in server.heard[0].split(b"\r\n")[1:] if line}
    assert names == {b"host", b"accept-encoding", b"connection"}


# --- bounds ---------------------------------------------------------------------------------------


async def test_a_head_beyond_its_bound_is_refused_before_it_ends(world):
    _, served, place = await plain(world)
    endless = b"X-Long: " + b"a" * limits.EGRESS_HEAD_SIZE_BYTES_MAX
    heard = await served.say(ask(place)[:-4] + b"\r\n" + endless)
    assert status(heard) == 400 and world.asked == []


async def test_a_line_and_a_count_of_headers_beyond_their_bound_are_refused(world):
    _, served, place = await plain(world)
    long = "X-Long: " + "a" * limits.EGRESS_LINE_SIZE_BYTES_MAX
    many = [f"X-{i}: a" for i in range(limits.EGRESS_HEADERS_MAX)]
    assert status(await served.say(ask(place, "/", long))) == 400
    assert status(await served.say(ask(place, "/", *many))) == 400
    assert world.asked == []


async def test_a_body_beyond_its_bound_is_refused_by_its_length_and_by_its_chunks(world):
    _, served, place = await plain(world)
    size = limits.EGRESS_REQUEST_SIZE_BYTES_MAX + 1
    heard = await served.say(ask(place, "/", f"Content-Length: {size}", method="POST"))
    assert status(heard) == 413
    chunk = b"8000\r\n" + b"a" * 0x8000 + b"\r\n"
    chunks = chunk * (size // 0x8000 + 1)
    request = ask(place, "/", "Transfer-Encoding: chunked", method="POST", body=chunks)
    try:
        heard = await served.say(request)
    except ConnectionError:
        heard = b""  # It hung up on what nobody wanted.
    assert status(heard) in (413, 0)
    assert world.asked == []


async def test_a_slow_client_is_hung_up_on(world, monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_HEAD_S_MAX", 0.3)
    monkeypatch.setattr(limits, "EGRESS_BODY_S_MAX", 0.3)
    _, served, place = await plain(world)
    for begun in (b"GET http", ask(place, "/", "Content-Length: 4", method="POST") + b"ab"):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(begun)
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.close()
    assert world.asked == []


async def test_a_drop_at_a_time_does_not_buy_more_time(world, monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_HEAD_S_MAX", 0.4)
    _, served, _ = await plain(world)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    began = asyncio.get_running_loop().time()
    with pytest.raises(OSError):
        for _ in range(40):
            writer.write(b"G")
            await writer.drain()
            await asyncio.sleep(0.05)
            if reader.at_eof():
                raise ConnectionResetError
    assert asyncio.get_running_loop().time() - began < 1.5
    writer.close()


async def test_a_client_that_does_not_read_its_answer_is_hung_up_on(world, monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_BODY_S_MAX", 0.3)
    monkeypatch.setattr(limits, "EGRESS_LINGER_S", 0.1)
    _, served, place = await plain(world, answer(b"x" * 4_000_000))
    with socket.create_connection(("127.0.0.1", served.port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(ask(place, "/"))
        async with asyncio.timeout(5):
            while not world.asked or served.proxy.count():
                await asyncio.sleep(0.05)


async def test_requests_beyond_what_is_asked_at_once_wait_for_their_turn(world, monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_ASKS_AT_ONCE_MAX", 2)
    asked, most = 0, 0

    async def slow(request):
        nonlocal asked, most
        asked += 1
        most = max(most, asked)
        await asyncio.sleep(0.05)
        asked -= 1
        return EgressAnswer(status=204)

    served = await world.proxy("http://shop.test", ask=slow)
    heard = await asyncio.gather(*(served.say(ask("http://shop.test")) for _ in range(6)))
    assert [status(one) for one in heard] == [204] * 6 and most == 2


async def test_connections_beyond_their_bound_are_hung_up_on_and_others_go_on(world, monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_CONNECTIONS_MAX", 3)
    _, served, place = await plain(world)
    idle = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(3)]
    await asyncio.sleep(0.1)
    with pytest.raises((ConnectionError, AssertionError)):
        assert status(await served.say(ask(place))) == 200
    for _, writer in idle:
        writer.close()
    await asyncio.sleep(0.2)
    assert status(await served.say(ask(place))) == 200


async def test_a_closed_proxy_hangs_up_on_everybody(world):
    _, served, place = await plain(world)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET ")
    await asyncio.sleep(0.05)
    await served.proxy.close()
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    with pytest.raises(ConnectionError):
        await served.say(ask(place))
    writer.close()


async def test_what_the_gate_refuses_the_sandbox_hears_with_its_reason(world):
    async def no(request):
        raise CallDenied("Not today.", why="A policy.", todo="Ask tomorrow.")

    served = await world.proxy("http://shop.test", ask=no)
    heard = await served.say(ask("http://shop.test"))
    assert status(heard) == 403
    assert b"x-ring0-error: denied" in heard and b"Not today.\nWhy: A policy." in heard


async def test_an_answer_can_not_be_split_by_what_its_fields_hold(world):
    async def split(request):
        return EgressAnswer(
            status=200,
            headers=(("x-a", "b\r\nx-evil: 1"), ("x-c\r\nx-evil", "1"), ("x-d", "e\nx-evil: 1")),
            body=b"ok",
        )

    served = await world.proxy("http://shop.test", ask=split)
    heard = await served.say(ask("http://shop.test"))
    assert status(heard) == 200 and b"evil" not in heard


def test_nothing_of_the_inward_half_can_dial():
    """The proxy and what it reads with hold no way to resolve or to connect."""
    for module in (proxy_module, wire_module):
        names = vars(module)
        assert "open_connection" not in names and "Egress" not in names and "Addresses" not in names
