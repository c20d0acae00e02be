"""Where a name may lead: addresses that only look global, names that point elsewhere later."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest
from egress_world import OK, World, get

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, InvalidInput, ToolFailed
from ring0.runtime import Runtime
from ring0.tools.egress import Addresses, canonical, parse_rule
from ring0.tools.egress import address as address_module
from ring0.tools.egress.address import is_global, is_own
from ring0.tools.egress.hosts import canonical_host, is_model_host, split_authority


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


def answering(*addresses: str, **options) -> Addresses:
    async def look_up(host: str, port: int) -> list[str]:
        return list(addresses)

    return Addresses(Runtime(), look_up=look_up, **options)


REFUSED = [
    # private, local, shared
    "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.1.1",
    "169.254.1.1", "100.64.0.1", "100.127.255.255", "fc00::1", "fd12::1", "fe80::1", "febf::1",
    # nothing, everybody, many
    "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.255.255.255", "::", "::1",
    "ff02::1", "ff0e::1",
    # reserved, documentation, benchmarks, protocols
    "240.0.0.1", "192.0.0.1", "192.0.0.9", "192.0.0.10", "192.0.0.192", "192.0.2.1",
    "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1", "192.88.99.2", "192.31.196.1",
    "192.52.193.1", "192.175.48.1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "fec0::1",
    # an IPv4 address in disguise
    "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1",
    "2001:0:7f00:1::", "2001::1", "2001:20::1",
    # metadata
    "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::254",
    "fd00:ec2::23", "fd20:ce::254",
    # never given out to anybody
    "4000::1", "8000::1", "1::1",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
async def test_an_address_that_is_not_global_is_refused(address):
    with pytest.raises(CallDenied):
        await answering(address).find("shop.test", 443)
    assert not is_global(ip_address(address)) or address in ("168.63.129.16",)


async def test_some_of_them_python_itself_calls_global():
    fooled = [a for a in REFUSED if ip_address(a).is_global]
    assert {"64:ff9b::7f00:1", "168.63.129.16", "2002:7f00:1::"} & set(fooled)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700::1111",
                                     "2a00:1450:4001:81b::200e"])  # fmt: skip
async def test_a_global_address_is_good(address):
    assert await answering(address).find("shop.test", 443) == [address]


async def test_one_bad_address_among_good_ones_refuses_all():
    with pytest.raises(CallDenied):
        await answering("8.8.8.8", "10.0.0.1").find("shop.test", 443)
    with pytest.raises(CallDenied):
        await answering("2606:4700::1111", "::ffff:10.0.0.1").find("shop.test", 443)


async def test_an_address_with_a_zone_or_that_can_not_be_read_is_refused():
    for address in ("fe80::1%eth0", "2606:4700::1111%eth0", "not-an-address", ""):
        with pytest.raises(CallDenied):
            await answering(address).find("shop.test", 443)


async def test_a_private_network_is_let_out_to_only_where_the_operator_names_it():
    allowed = ["10.1.0.0/16"]
    assert await answering("10.1.2.3", allow_private=allowed).find("db.test", 443)
    for other in ("10.2.0.1", "192.168.0.1", "::ffff:10.1.2.3", "64:ff9b::a01:203"):
        with pytest.raises(CallDenied):
            await answering(other, allow_private=allowed).find("db.test", 443)


async def test_metadata_is_refused_even_where_the_operator_allows_its_network():
    everything = ["0.0.0.0/0", "::/0"]
    for address in ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254",
                    "224.0.0.1", "0.0.0.0", "255.255.255.255"):  # fmt: skip
        with pytest.raises(CallDenied):
            await answering(address, allow_private=everything).find("shop.test", 80)


async def test_ring0s_own_addresses_are_refused_even_where_their_network_is_allowed():
    found = answering("127.0.0.1", allow_private=["127.0.0.0/8"], own=[("127.0.0.1", 8080)])
    assert await found.find("shop.test", 8081)
    with pytest.raises(CallDenied, match="not let out to"):
        await found.find("shop.test", 8080)


def test_an_address_of_this_machine_is_known_as_its_own():
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("8.8.8.8"))


async def test_a_global_address_of_this_machine_is_refused(monkeypatch):
    monkeypatch.setattr(address_module, "is_own", lambda address: str(address) == "8.8.8.8")
    with pytest.raises(CallDenied):
        await answering("8.8.8.8").find("shop.test", 22)
    assert await answering("8.8.4.4").find("shop.test", 22)


def test_an_allowance_that_is_no_network_is_an_error():
    for text in ("10.0.0.1/8", "everything", ""):
        with pytest.raises(InvalidInput, match="allow_private"):
            answering(allow_private=[text])


async def test_a_name_without_an_address_and_one_with_too_many_are_errors():
    with pytest.raises(ToolFailed, match="no address"):
        await answering().find("shop.test", 443)
    many = [f"8.8.{i}.8" for i in range(limits.EGRESS_ADDRESSES_MAX + 1)]
    with pytest.raises(CallDenied, match="more addresses"):
        await answering(*many).find("shop.test", 443)


async def test_a_resolver_that_hangs_is_given_up_and_can_hang_only_so_many(monkeypatch):
    monkeypatch.setattr(limits, "EGRESS_DNS_S_MAX", 0.1)
    hanging = 0

    async def look_up(host: str, port: int) -> list[str]:
        nonlocal hanging
        hanging += 1
        await asyncio.sleep(30)
        return []

    addresses = Addresses(Runtime(), look_up=look_up)
    results = await asyncio.gather(
        *(addresses.find("shop.test", 443) for _ in range(20)), return_exceptions=True
    )
    assert all(isinstance(result, ToolFailed) for result in results)
    assert hanging <= limits.EGRESS_DNS_AT_ONCE_MAX


async def test_the_systems_own_resolver_is_asked_where_nobody_gives_another():
    addresses = Addresses(Runtime(), allow_private=["127.0.0.0/8", "::1/128"])
    assert "127.0.0.1" in await addresses.find("localhost", 80)
    with pytest.raises(CallDenied):
        await Addresses(Runtime()).find("localhost", 80)


# --- rebinding ------------------------------------------------------------------------------------


async def test_a_name_that_is_rebound_is_dialled_where_it_was_checked(world):
    """Resolve once, dial what was checked: the second answer is never asked for."""
    server = await world.server(OK, "shop.test")
    where = f"shop.test:{server.port}"
    world.names["shop.test"] = [["127.0.0.1"], ["169.254.169.254"]]
    served = await world.proxy(f"https://{where}")
    heard = await served.secure(where, get(where))
    assert heard.startswith(b"HTTP/1.1 200")
    assert world.looked_up == ["shop.test"] and server.connections == 1


async def test_a_name_that_was_good_before_is_checked_again_for_each_request(world):
    server = await world.server(OK, "shop.test")
    where = f"shop.test:{server.port}"
    world.names["shop.test"] = [["127.0.0.1"], ["10.0.0.1"]]
    served = await world.proxy(f"https://{where}")
    assert (await served.secure(where, get(where))).startswith(b"HTTP/1.1 200")
    assert (await served.secure(where, get(where))).startswith(b"HTTP/1.1 403")
    assert server.connections == 1


async def test_nothing_is_resolved_before_the_rule_was_looked_at(world):
    egress = world.egress()
    request = canonical("GET", "https", "evil.test", 443, "/")
    with pytest.raises(CallDenied):
        await egress.send(request, parse_rule("https://shop.test", "x"))
    assert world.looked_up == []


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "127.1", "127.0.1", "1.2.3.4.5",
     "1.2.3.256", "01.2.3.4", "1.2.3.4.", "[::1]", "::1", "fe80::1%eth0", "[fe80::1%25eth0]",
     "a..b", ".a", "a.", "-a.test", "a-.test", "a_b.test", "a b.test", "a\x00.test", "a\n.test",
     "a%2etest", "a\\b.test", "é", "", "a" * 64 + ".test", ("a" * 60 + ".") * 5 + "test",
     "xn--.test", "xn--a.test", "xn--zzzzzzzzzzzz.test", "example.1", "example.0x1", "*.test",
     "１２７.0.0.1.２", "a@b.test", "a:b.test", "a/b.test", "a#b.test", "\u2100.test"],
)  # fmt: skip
def test_an_odd_name_is_refused(text):
    if text == "é":
        assert canonical_host("é.test") == "xn--9ca.test"
        return
    with pytest.raises(CallInvalid):
        assert canonical_host(text) == ""


def test_a_name_has_one_form():
    assert canonical_host("Shop.TEST") == "shop.test"
    assert canonical_host("BÜCHER.example") == canonical_host("xn--bcher-kva.example")
    assert canonical_host("shop。test") == "shop.test"
    assert canonical_host("１２７.0.0.1") == "127.0.0.1"  # Judged as the address that it is.
    assert split_authority("shop.test:8443", "https") == ("shop.test", 8443)
    assert split_authority("shop.test", "http") == ("shop.test", 80)


@pytest.mark.parametrize(
    "host",
    ["api.openai.com", "eu.api.openai.com", "api.anthropic.com", "openrouter.ai", "api.x.ai",
     "generativelanguage.googleapis.com", "us-central1-aiplatform.googleapis.com",
     "bedrock-runtime.us-east-1.amazonaws.com", "me.openai.azure.com"],
)  # fmt: skip
def test_a_host_where_models_are_sold_is_known(host):
    assert is_model_host(host)


def test_other_hosts_are_not_taken_for_where_models_are_sold():
    for host in ("openai.com.shop.test", "myapi.openai.company", "shop.test", "s3.amazonaws.com"):
        assert not is_model_host(host)
