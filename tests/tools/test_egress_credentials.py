"""Credentials: put in on the far side, for the one operation that they are bound to."""

from __future__ import annotations

import pickle
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from egress_world import CANARY, OK, World, answer, get, post, shop, status, went_out

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput, ManifestInvalid, Ring0Error
from ring0.runtime import Runtime
from ring0.tools.egress import Kept, bind, canonical, choose, parse_rule
from ring0.tools.egress.echo import Echoes


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


# --- where it goes --------------------------------------------------------------------------------


async def test_a_credential_is_put_in_on_the_far_side_only(world):
    server, served, where = await shop(world)
    assert status(await served.secure(where, get(where))) == 200
    assert f"authorization: Bearer {CANARY}\r\n".encode() in server.heard[0]
    assert CANARY not in repr(world.asked) + repr([r.args() for r in world.asked])


async def test_a_credential_goes_with_its_own_operation_only(world):
    server, served, where = await shop(world, OK, "POST https://{where}/v1/items/*")
    for request in (
        get(where, "/v1/items/1"),
        post(where, "/v1/item", b"{}"),
        post(where, "/v1/items", b"{}"),
        post(where, "/V1/items/1", b"{}"),
        get(where, "/"),
    ):
        assert status(await served.secure(where, request)) == 200
    assert len(server.heard) == 5 and not went_out(server)
    assert status(await served.secure(where, post(where, "/v1/items/1", b"{}"))) == 200
    assert went_out(server)


async def test_a_credential_goes_to_its_own_host_and_port_only(world):
    server, _, where = await shop(world)
    other = await world.server(OK, "other.test")
    elsewhere = f"other.test:{other.port}"
    credential = world.credential(f"https://{where}")
    served = await world.proxy(f"https://{elsewhere}", credentials=[credential])
    await served.secure(elsewhere, get(elsewhere))
    assert not went_out(other)
    request = canonical("GET", "https", "other.test", other.port, "/")
    await world.egress().send(request, parse_rule(f"https://{elsewhere}", "x"), credential)
    assert not went_out(other) and not went_out(server)


async def test_the_programs_own_credential_is_replaced_and_never_joined(world):
    server, served, where = await shop(world)
    own = get(where, "/", "Authorization: Bearer attacker", "authorization: Basic attacker")
    await served.secure(where, own)
    assert server.heard[0].lower().count(b"authorization") == 1
    assert b"attacker" not in server.heard[0] and went_out(server)


async def test_own_auth_does_not_stand_beside_a_credential(world):
    server = await world.server(OK, "shop.test")
    where = f"shop.test:{server.port}"
    served = await world.proxy(
        f"https://{where} own_auth", credentials=[world.credential(f"https://{where}")]
    )
    await served.secure(where, get(where, "/", "Authorization: Bearer attacker"))
    assert b"attacker" not in server.heard[0] and went_out(server)


async def test_plain_http_gets_no_credential_unless_the_operator_says_so(world):
    server = await world.server(OK, "shop.test", tls=False)
    place = f"http://shop.test:{server.port}"
    request = canonical("GET", "http", "shop.test", server.port, "/")
    rule, credential = parse_rule(place, "x"), world.credential(place)
    with pytest.raises(CallDenied, match="plain HTTP"):
        await world.egress().send(request, rule, credential)
    assert world.looked_up == [] and server.connections == 0
    allowed = world.egress(plain_credentials=["shop.test"])
    await allowed.send(request, rule, credential)
    assert went_out(server)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/graphql", ""), ("/api/graphql", ""), ("/GraphQL", ""), ("/%67raphql", ""), ("/batch", ""),
     ("/v1/$batch", ""), ("/v1/%24batch", ""), ("/batch/v2", ""), ("/_bulk", ""), ("/jsonrpc", ""),
     ("/v1/documents/1:batchUpdate", ""), ("/graphql.php", ""), ("/graphql;a", ""),
     ("/any", "multipart/mixed; boundary=x"), ("/any", "application/graphql"),
     ("/any", "application/http")],
)  # fmt: skip
async def test_graphql_and_batches_get_no_credential(world, path, kind):
    server, served, where = await shop(world)
    fields = [f"Content-Type: {kind}"] if kind else []
    heard = await served.secure(where, post(where, path, b'{"query":"{a}"}', *fields))
    assert status(heard) == 403 and server.connections == 0


@pytest.mark.parametrize("path", ["/batches", "/v1/items", "/graphql-docs/a", "/batchelor"])
async def test_what_only_sounds_like_a_batch_gets_its_credential(world, path):
    server, served, where = await shop(world)
    assert status(await served.secure(where, get(where, path))) == 200 and went_out(server)


async def test_graphql_gets_the_credential_of_a_binding_that_names_that_very_path(world):
    server, served, where = await shop(world, OK, "POST https://{where}/api/graphql")
    assert status(await served.secure(where, post(where, "/api/graphql", b"{}"))) == 200
    assert went_out(server)


async def test_a_binding_for_all_beneath_a_path_does_not_name_that_very_path(world):
    server, served, where = await shop(world, OK, "POST https://{where}/api/graphql/*")
    for path in ("/api/graphql/", "/api/graphql/v2"):
        assert status(await served.secure(where, post(where, path, b"{}"))) == 403
    assert server.connections == 0


async def test_a_method_override_never_meets_a_credential(world):
    server, served, where = await shop(world, OK, "POST https://{where}")
    for request in (
        post(where, "/a", b"", "X-HTTP-Method-Override: DELETE"),
        post(where, "/a?_method=DELETE", b""),
        post(where, "/a", b"_method=DELETE", "Content-Type: application/x-www-form-urlencoded"),
    ):
        assert status(await served.secure(where, request)) == 403
    assert server.connections == 0


async def test_a_redirect_never_takes_a_credential_along(world):
    other = await world.server(OK, "other.test")
    echo = f"https://other.test:{other.port}/?leak={quote(CANARY)}"
    says = answer(b"", b"Location: " + echo.encode(), status=b"302 Found")
    server, served, where = await shop(world, says)
    heard = await served.secure(where, get(where))
    assert status(heard) == 302 and went_out(server)
    assert CANARY.encode() not in heard and quote(CANARY).encode() not in heard
    assert other.connections == 0


# --- the object itself ----------------------------------------------------------------------------


async def test_a_credential_never_shows_its_value(world):
    credential = world.credential("GET https://shop.test")
    shown = f"{credential} {credential!r} {[credential]} {credential.binding}"
    assert CANARY not in shown and "CANARY" in shown
    with pytest.raises(TypeError):
        pickle.dumps(credential)
    assert not hasattr(credential, "__dict__")
    assert CANARY not in repr(Echoes([CANARY]))


async def test_no_error_shows_the_value(world):
    server = await world.server(b"", "shop.test")
    credential = world.credential(f"POST https://shop.test:{server.port}")
    request = canonical("POST", "https", "shop.test", server.port, "/", (), b"x")
    rule = parse_rule(f"POST https://shop.test:{server.port}", "x")
    with pytest.raises(Ring0Error) as told:
        await world.egress().send(request, rule, credential)
    assert went_out(server)
    assert CANARY not in "".join(traceback.format_exception(told.value)) + repr(told.value)


@pytest.mark.parametrize(
    ("value", "options"),
    [("qwzx", {}), ("with\nline-break", {}), ("with\x00nul-byte", {}), ("ümlaut-in-it", {}),
     (CANARY, {"header": "Host"}), (CANARY, {"header": "Transfer-Encoding"}),
     (CANARY, {"header": "X: y\r\nZ"}), (CANARY, {"form": "Bearer"}),
     (CANARY, {"form": "{value}\r\nX: y"}), (CANARY, {"form": "{value}{base64}"})],
)  # fmt: skip
def test_a_credential_that_can_not_be_written_safely_is_refused_without_its_value(value, options):
    with pytest.raises(InvalidInput) as told:
        bind("KEY", value, "https://shop.test", "binding", **options)
    assert value not in str(told.value)


@pytest.mark.parametrize(
    "rule",
    [
        "*.shop.test",
        "https://shop.test tunnel",
        "https://shop.test own_auth",
        "api.openai.com",
        "*",
    ],
)
def test_a_credential_is_bound_to_one_host(rule):
    with pytest.raises((InvalidInput, ManifestInvalid)):
        bind("KEY", CANARY, rule, "binding")


def test_the_first_credential_for_an_operation_is_chosen():
    some = [bind("A", CANARY, "https://shop.test/a/*", "x"), bind("B", CANARY, "shop.test", "x")]
    for path, name in (("/a/1", "A"), ("/b", "B")):
        chosen = choose(some, canonical("GET", "https", "shop.test", 443, path))
        assert chosen is not None and chosen.name == name
    assert choose(some, canonical("POST", "https", "shop.test", 443, "/b")) is None


def test_answers_full_of_tokens_that_come_at_once_break_nothing():
    """A fault here would leave the effect of a request unknown: a server could ask for that."""
    keeper = Kept(Runtime())

    def keep(step):
        for number in range(3_000):
            keeper.keep("https://a.example:443", "token", f"value-{number * step % 300}")

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(keep, (1, 1, 3, 7, 1, 11, 13, 1)))
    finally:
        sys.setswitchinterval(often)
    assert len(keeper._values) <= limits.EGRESS_KEPT_MAX
    assert len(keeper._handles) <= limits.EGRESS_KEPT_MAX
