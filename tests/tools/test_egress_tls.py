"""TLS that is ended at the proxy, tunnels that are not, and what a ClientHello may say."""

from __future__ import annotations

import asyncio
import os
import ssl
import struct

import pytest
from cryptography import x509
from egress_world import CANARY, OK, World, answer, get, hear, open_descriptors, status

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.runtime import Runtime
from ring0.tools.egress import Authority, EgressAnswer, parse_rules, proxy_environment
from ring0.tools.egress.hello import parse_hello


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


async def safe(world: World, says=OK, rule: str = "GET,POST https://{where}"):
    server = await world.server(says, "shop.test")
    where = f"shop.test:{server.port}"
    return server, await world.proxy(rule.format(where=where)), where


def hello(name: str | None = "shop.test", *, extra: bytes = b"", twice: bool = False) -> bytes:
    """A ClientHello as a record, with extensions of the test's choosing."""
    entry = b"\0" + struct.pack(">H", len(name or "")) + (name or "").encode("latin-1")
    entries = entry * (2 if twice else 1)
    value = struct.pack(">H", len(entries)) + entries
    names = struct.pack(">HH", 0, len(value)) + value if name is not None else b""
    extensions = names + extra
    body = b"\3\3" + b"r" * 32 + b"\0" + b"\0\2\x13\1" + b"\1\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + struct.pack(">H", len(message)) + message


ECH = struct.pack(">HH", 0xFE0D, 4) + b"\0\0\0\0"
ESNI = struct.pack(">HH", 0xFFCE, 2) + b"\0\0"


async def greet(served, where: str, data: bytes) -> bytes:
    reader, writer, connected = await served.connect(where)
    assert status(connected) == 200
    writer.write(data)
    heard = await hear(reader)
    writer.close()
    return heard


# --- names that have to be one --------------------------------------------------------------------


async def test_an_sni_that_is_not_the_connects_name_ends_the_connection(world):
    _, served, where = await safe(world)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await served.secure(where, get(where), name="evil.test", check=False)
    assert world.asked == [] and world.looked_up == []


async def test_a_host_within_connect_that_is_not_the_connects_name_is_refused(world):
    server, served, where = await safe(world)
    for host in ("evil.test", f"evil.test:{server.port}", "shop.test", f"a.{where}"):
        assert status(await served.secure(where, get(host))) == 400
    assert world.asked == [] and server.heard == []


async def test_a_connects_own_host_header_has_to_name_the_same(world):
    _, served, where = await safe(world)
    _, writer, heard = await served.connect(where, b"Host: evil.test\r\n")
    assert status(heard) == 400
    writer.close()


@pytest.mark.parametrize(
    "target",
    ["shop.test", "shop.test:0", "shop.test:443/", "https://shop.test:443", "shop.test\x00:443",
     "shop.test%00:443", "a@shop.test:443", "shop.test:443:443", "[::1]:443", "127.1:443",
     "0x7f.0.0.1:443", "2130706433:443", "shop.test.:443", "shop..test:443", "*.test:443"],
)  # fmt: skip
async def test_a_connect_to_what_is_no_plain_host_and_port_is_refused(world, target):
    _, served, _ = await safe(world)
    heard = await served.say(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode("latin-1"))
    assert status(heard) == 400 and world.asked == []


async def test_there_is_no_connect_within_connect(world):
    server, served, where = await safe(world)
    relayed = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
    assert status(await served.secure(where, relayed)) == 403
    other = b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n"
    assert status(await served.secure(where, other)) == 403
    assert world.asked == [] and server.heard == []


async def test_a_whole_url_within_connect_is_refused(world):
    _, served, where = await safe(world)
    for url in (f"https://{where}/", "http://evil.test/", "//evil.test/"):
        request = f"GET {url} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
        assert status(await served.secure(where, request)) == 400
    assert world.asked == []


async def test_a_connect_may_say_http_1_0_as_older_pythons_do(world):
    _, served, where = await safe(world)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(f"CONNECT {where} HTTP/1.0\r\n\r\n".encode())
    assert status(await reader.readuntil(b"\r\n\r\n")) == 200
    writer.close()


async def test_a_connect_with_a_body_is_refused(world):
    _, served, where = await safe(world)
    request = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\nContent-Length: 3\r\n\r\nabc"
    assert status(await served.say(request.encode())) == 400


# --- what a ClientHello may say -------------------------------------------------------------------


@pytest.mark.parametrize("extra", [ECH, ESNI])
async def test_an_encrypted_hello_is_refused(world, extra):
    _, served, where = await safe(world)
    heard = await greet(served, where, hello(extra=extra))
    assert heard == bytes((21, 3, 3, 0, 2, 2, 112))
    assert world.asked == []


async def test_an_encrypted_hello_is_refused_in_a_tunnel_too(world):
    server, served, where = await safe(world, OK, "https://{where} tunnel")
    assert await greet(served, where, hello(extra=ECH)) == bytes((21, 3, 3, 0, 2, 2, 112))
    assert server.connections == 0


@pytest.mark.parametrize(
    "data",
    [hello(None), hello("evil.test"), hello("shop.test\x00.evil.test"), hello(twice=True),
     hello("shop.test."), hello("SHOP.test\xe9"), hello()[:-1] + b"", b"GET / HTTP/1.1\r\n\r\n",
     b"\x16\3\1\0\0", b"\x16\3\1\xff\xff" + b"a" * 100, b"\x17\3\3\0\1a", b"\x80\x2e\1\0\2",
     hello(extra=struct.pack(">HH", 0, 0)), hello()[:5] + b"\2" + hello()[6:]],
)  # fmt: skip
async def test_a_hello_for_nobody_or_for_two_ends_the_connection(world, data, monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_HEAD_S_MAX", 0.5)
    _, served, where = await safe(world)
    heard = await greet(served, where, data)
    assert heard in (b"", bytes((21, 3, 3, 0, 2, 2, 112)))
    assert world.asked == []


def test_a_good_hello_is_read():
    assert parse_hello(hello("Shop.Test")[9:]) == ("shop.test", False)
    assert parse_hello(hello(extra=ECH)[9:]) == ("shop.test", True)
    assert parse_hello(hello(None)[9:]) == ("", False)


def test_a_hello_that_names_its_server_twice_is_refused():
    other = struct.pack(">HHHBH", 0, 14, 12, 0, 9) + b"evil.test"
    assert parse_hello(hello(None, extra=other)[9:]) == ("evil.test", False)
    with pytest.raises(CallInvalid):
        parse_hello(hello(extra=other)[9:])


def test_every_cut_of_a_hello_is_refused_or_has_no_name():
    body = hello()[9:]
    for end in range(len(body)):
        try:
            assert parse_hello(body[:end]) == ("", False)
        except CallInvalid:
            pass


async def test_a_hello_in_many_records_is_put_together(world):
    _, served, where = await safe(world)
    reader, writer, _ = await served.connect(where)
    whole = hello()[5:]
    for at in range(0, len(whole), 7):
        piece = whole[at : at + 7]
        writer.write(b"\x16\3\1" + struct.pack(">H", len(piece)) + piece)
        await writer.drain()
    heard = await asyncio.wait_for(reader.read(7), 5)
    # The handshake went on: what TLS then makes of our made-up hello is its own.
    assert heard[:1] in (b"\x15", b"\x16") and heard != bytes((21, 3, 3, 0, 2, 2, 112))
    writer.close()


# --- the certificate ------------------------------------------------------------------------------


async def test_http_1_1_is_all_that_is_spoken(world):
    _, served, where = await safe(world)
    context = served.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer, _ = await served.connect(where)
    await writer.start_tls(context, server_hostname="shop.test")
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.transport.abort()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_below_1_2_is_not_spoken(world):
    _, served, where = await safe(world)
    context = served.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    _, writer, _ = await served.connect(where)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await writer.start_tls(context, server_hostname="shop.test")
    writer.transport.abort()


async def test_one_sandboxs_authority_is_not_trusted_by_another(world):
    _, served, where = await safe(world)
    other = await world.proxy(f"https://{where}")
    served.authority = other.authority
    with pytest.raises(ssl.SSLCertVerificationError):
        await served.secure(where, get(where))


async def test_the_authority_is_bound_to_the_hosts_of_the_rules(world):
    """Even with its key in hand nobody could pass for another host."""
    runtime = Runtime()
    authority = Authority(parse_rules(["https://shop.test", "https://*.good.test"], "x"), runtime)
    trust = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    assert await _shakes_hands(authority, trust, "shop.test")
    assert await _shakes_hands(authority, trust, "a.b.good.test")
    for stranger in ("evil.test", "shop.test.evil.test", "notgood.test", "127.0.0.1"):
        assert not await _shakes_hands(authority, trust, stranger)


async def test_an_authority_for_addresses_alone_speaks_for_no_name(world):
    authority = Authority(parse_rules(["https://127.0.0.1:8443"], "x"), Runtime())
    trust = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    assert await _shakes_hands(authority, trust, "127.0.0.1")
    assert not await _shakes_hands(authority, trust, "shop.test")
    assert not await _shakes_hands(authority, trust, "10.0.0.1")


async def _shakes_hands(authority: Authority, trust: ssl.SSLContext, host: str) -> bool:
    async def serve(reader, writer):
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.context(host))
    port = server.sockets[0].getsockname()[1]
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname=host
        )
        writer.transport.abort()
        return True
    except ssl.SSLError:
        return False
    finally:
        server.close()


def test_the_authority_lives_shortly_and_signs_no_other_authority():
    authority = Authority(parse_rules(["shop.test"], "x"), Runtime())
    certificate = x509.load_pem_x509_certificate(authority.certificate_pem)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life.total_seconds() <= limits.EGRESS_AUTHORITY_S_MAX + 600
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca and constraints.path_length == 0


def test_no_key_shows_or_stays_behind():
    before = open_descriptors()
    authority = Authority(parse_rules(["shop.test"], "x"), Runtime())
    authority.context("shop.test")
    assert "PRIVATE" not in repr(authority) + authority.certificate_pem.decode()
    assert open_descriptors() == before
    assert not any("leaf" in os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors())


def _descriptors():
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


def test_leaves_are_kept_within_a_bound(monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_LEAVES_MAX", 3)
    authority = Authority(parse_rules(["*.shop.test"], "x"), Runtime())
    first = authority.context("a.shop.test")
    assert authority.context("a.shop.test") is first
    for name in "bcd":
        authority.context(f"{name}.shop.test")
    assert authority.context("a.shop.test") is not first


def test_the_environment_of_a_sandbox_names_its_proxy_and_its_authority():
    found = proxy_environment("/run/ca.pem")
    assert found["HTTPS_PROXY"] == f"http://127.0.0.1:{limits.PROXY_PORT}" == found["https_proxy"]
    assert found["SSL_CERT_FILE"] == found["NODE_EXTRA_CA_CERTS"] == "/run/ca.pem"


# --- tunnels --------------------------------------------------------------------------------------


async def test_an_opaque_tunnel_is_opened_only_where_a_rule_says_tunnel(world):
    server, served, where = await safe(world, answer(b"through"), "https://{where} tunnel")
    reader, writer, connected = await served.connect(where)
    assert status(connected) == 200
    trust = ssl.create_default_context(cadata=world.authority.pem)  # The server's own.
    await writer.start_tls(trust, server_hostname="shop.test")
    writer.write(get(where))
    assert (await hear(reader)).endswith(b"through")
    assert [(r.method, r.url) for r in world.asked] == [("CONNECT", f"https://{where}/")]
    assert server.connections == 1
    writer.transport.abort()


async def test_no_tunnel_is_opened_without_its_rule_even_where_the_gate_errs(world):
    async def yes(request):
        return EgressAnswer(status=200)

    server = await world.server(OK, "shop.test", "evil.test")
    served = await world.proxy(f"https://shop.test:{server.port} tunnel", ask=yes)
    _, writer, connected = await served.connect(f"evil.test:{server.port}")
    assert status(connected) == 403 and server.connections == 0
    writer.close()


async def test_an_opaque_tunnel_never_carries_a_credential(world):
    server = await world.server(OK, "shop.test")
    where = f"shop.test:{server.port}"
    credential = world.credential(f"GET https://{where}")
    served = await world.proxy(f"https://{where} tunnel", credentials=[credential])
    reader, writer, _ = await served.connect(where)
    trust = ssl.create_default_context(cadata=world.authority.pem)
    await writer.start_tls(trust, server_hostname="shop.test")
    writer.write(get(where))
    await hear(reader)
    assert CANARY.encode() not in server.heard[0]
    writer.transport.abort()


async def test_a_tunnel_with_another_sni_is_not_opened(world):
    server, served, where = await safe(world, OK, "https://{where} tunnel")
    assert await greet(served, where, hello("evil.test")) == bytes((21, 3, 3, 0, 2, 2, 112))
    assert await greet(served, where, hello(None)) == bytes((21, 3, 3, 0, 2, 2, 112))
    assert await greet(served, where, b"SSH-2.0-OpenSSH\r\n") == b""
    assert server.connections == 0


async def test_a_tunnel_to_a_private_address_is_not_opened(world):
    server = await world.server(OK, "shop.test")
    where = f"shop.test:{server.port}"
    served = await world.proxy(f"https://{where} tunnel", egress=world.egress(allow_private=()))
    assert await greet(served, where, hello()) == b""
    assert server.connections == 0 and world.looked_up == ["shop.test"]


async def test_a_tunnel_ends_at_its_bound_of_bytes(world, monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_TUNNEL_SIZE_BYTES_MAX", 200_000)
    _, served, where = await safe(world, answer(b"x" * 3_000_000), "https://{where} tunnel")
    reader, writer, _ = await served.connect(where)
    trust = ssl.create_default_context(cadata=world.authority.pem)
    await writer.start_tls(trust, server_hostname="shop.test")
    writer.write(get(where))
    heard = b""
    try:
        while piece := await asyncio.wait_for(reader.read(65_536), 5):
            heard += piece
    except (ConnectionError, ssl.SSLError):
        pass
    assert len(heard) < 250_000
    writer.transport.abort()


async def test_a_silent_tunnel_ends_with_its_time(world, monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_TUNNEL_S_MAX", 0.5)

    async def never(request: bytes) -> bytes:
        await asyncio.sleep(30)
        return b""

    _, served, where = await safe(world, never, "https://{where} tunnel")
    reader, writer, _ = await served.connect(where)
    trust = ssl.create_default_context(cadata=world.authority.pem)
    await writer.start_tls(trust, server_hostname="shop.test")
    writer.write(get(where))
    assert await asyncio.wait_for(hear(reader), 4) == b""
    writer.transport.abort()
