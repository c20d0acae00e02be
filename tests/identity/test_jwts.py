"""JWTs for edges: one server, one request, a minute; in whose name, and by which runs."""

from __future__ import annotations

import ast
import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from egress_world import Server, WorldAuthority
from oauth_world import AGENT, ASK, calling
from reaching_world import at_work, reachable

import ring0
from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.identity.jws import TokenRefused, public_keys
from ring0.identity.jwts import Actor, Jwts, Replays, verify, verify_svid
from ring0.identity.keys import Keys
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.runtime import Runtime
from ring0.types import AgentManifest

ISSUER = "spiffe://agents.example.com"
HERE = "https://billing.internal"
ABOVE = Actor(name=f"{ISSUER}/run/r-1/agent/clerk")
ACTOR = Actor(name=f"{ISSUER}/run/r-2/agent/helper", above=ABOVE)


class Edge:
    """A server that takes our JWTs, and a kernel's half that makes them."""

    def __init__(self, folder: Path) -> None:
        self.now_us = 1_800_000_000_000_000
        self.jwts = Jwts(Keys(folder), ISSUER, lambda: self.now_us, Runtime().random_bytes)
        self.replays = Replays()

    def mint(self, audience: str = HERE, **more: Any) -> str:
        details = {"tool": "billing.read", "operation": "GET https://billing.internal/v1/*"}
        return self.jwts.edge(audience, principal="ann", actor=ACTOR, details=details, **more)

    def take(self, token: str, **other: Any) -> dict[str, Any]:
        expected: dict[str, Any] = {
            "issuer": ISSUER,
            "audience": HERE,
            "now_s": self.now_us // 1_000_000,
            "replays": self.replays,
        }
        return verify(token, public_keys(self.jwts.public()), **{**expected, **other})


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path)


def payload(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def test_it_says_in_whose_name_by_which_runs_and_for_what(edge: Edge) -> None:
    claims = edge.take(edge.mint(certificate=b"der"))
    assert claims["sub"] == "ann" and claims["aud"] == HERE and claims["iss"] == ISSUER
    assert claims["act"] == {"sub": ACTOR.name, "act": {"sub": ABOVE.name}}
    (details,) = claims["authorization_details"]
    assert details["type"] == "ring0_call" and details["tool"] == "billing.read"
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"der").digest()).rstrip(b"=").decode()
    assert claims["cnf"] == {"x5t#S256": digest}
    assert claims["exp"] - claims["iat"] <= 60


def test_it_is_shown_once(edge: Edge) -> None:
    token = edge.mint()
    edge.take(token)
    with pytest.raises(TokenRefused, match="not taken"):
        edge.take(token)
    edge.take(edge.mint())


def test_writing_it_in_other_letters_makes_no_second_one_of_it(edge: Edge) -> None:
    """The last letter of base64 has bits that say nothing, and padding can be added: libraries take
    all of these for the same token."""
    token = edge.mint()
    edge.take(token)
    head, body, signature = token.split(".")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = letters[letters.index(signature[-1]) ^ 1]
    for same in (
        f"{token}==",
        f"{head}.{body}=.{signature}",
        f"{head}.{body}.{signature[:-1]}{twin}",
    ):
        with pytest.raises(TokenRefused):
            edge.take(same)


def test_what_was_shown_is_remembered_by_its_jti_and_not_by_its_bytes(edge: Edge) -> None:
    """The same claims, signed twice: ECDSA writes another signature each time."""
    token = edge.mint()
    twin = edge.jwts._signed(payload(token), "at+jwt")
    assert twin != token
    edge.take(twin)
    with pytest.raises(TokenRefused):
        edge.take(token)


def test_a_key_that_is_for_something_else_verifies_nothing(edge: Edge) -> None:
    """PyJWT ignores `use` and `key_ops`."""
    (key,) = json.loads(edge.jwts.public())["keys"]
    for change in ({"use": "enc"}, {"use": "jwt-svid"}, {"key_ops": ["sign"]}, {"key_ops": []}):
        keys = public_keys(json.dumps({"keys": [{**key, **change}]}).encode())
        assert keys == (), change
    assert len(public_keys(json.dumps({"keys": [{**key, "key_ops": ["verify"]}]}).encode())) == 1


def test_nothing_of_ours_reads_or_writes_tokens_with_pyjwt() -> None:
    """It is installed all the same: a dependency brings it."""
    source = Path(ring0.__file__).parent
    found = []
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if any(name.partition(".")[0] == "jwt" for name in names):
                found.append(f"{path}:{getattr(node, 'lineno', 0)}")
    assert found == []


def test_it_is_of_no_use_to_another_server_or_after_its_minute(edge: Edge) -> None:
    with pytest.raises(TokenRefused):
        edge.take(edge.mint(), audience="https://other.internal")
    with pytest.raises(TokenRefused):
        edge.take(edge.mint(), issuer="spiffe://other.example.com")
    token = edge.mint()
    edge.now_us += 60_000_000
    with pytest.raises(TokenRefused):
        edge.take(token)


def test_a_server_that_is_one_of_several_audiences_takes_it_not(edge: Edge) -> None:
    several = edge.jwts._signed({**payload(edge.mint()), "aud": [HERE, "x"]}, "at+jwt")
    with pytest.raises(TokenRefused):
        edge.take(several)


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 1_800_000_000 + 61},
        {"exp": 1.5},
        {"exp": True},
        {"iat": 1_800_000_000 + 100, "exp": 1_800_000_000 + 130},
        {"jti": ""},
        {"jti": 7},
        {"sub": None},
        {"act": "r-1"},
    ],
)
def test_a_server_takes_none_that_lives_longer_or_says_less(
    edge: Edge, change: dict[str, Any]
) -> None:
    odd = edge.jwts._signed({**payload(edge.mint()), **change}, "at+jwt")
    with pytest.raises(TokenRefused):
        edge.take(odd)


def test_an_svid_is_no_jwt_for_an_edge_and_the_other_way_round(edge: Edge) -> None:
    svid = edge.jwts.svid(ACTOR.name, [HERE], 300)
    with pytest.raises(TokenRefused):
        edge.take(svid)
    keys, now_s = edge.jwts.public(), edge.now_us // 1_000_000
    assert verify_svid(svid, keys, HERE, now_s)["sub"] == ACTOR.name
    for token, audience, at_s in (
        (edge.mint(), HERE, now_s),
        (svid, "https://other", now_s),
        (svid, HERE, now_s + 300),
    ):
        with pytest.raises(TokenRefused):
            verify_svid(token, keys, audience, at_s)


def test_what_another_key_signed_is_not_taken(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(TokenRefused):
        edge.take(Edge(tmp_path / "other").mint())


def test_a_key_that_was_changed_is_published_on_and_the_one_before_it_not(edge: Edge) -> None:
    first = edge.mint()
    edge.jwts.rotate()
    second = edge.mint()
    assert len(public_keys(edge.jwts.public())) == 2
    edge.take(first)
    edge.take(second)
    edge.jwts.rotate()
    assert len(public_keys(edge.jwts.public())) == 2
    with pytest.raises(TokenRefused):
        edge.take(first)


def test_what_is_published_holds_no_private_key(edge: Edge) -> None:
    edge.mint()
    for use in ("sig", "jwt-svid"):
        (key,) = json.loads(edge.jwts.public(use))["keys"]
        assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"} and key["use"] == use


def test_a_key_is_kept_over_a_restart(edge: Edge, tmp_path: Path) -> None:
    token = edge.mint()
    Edge(tmp_path).take(token)


def test_replays_are_remembered_in_bounds_and_refused_where_there_is_no_room() -> None:
    replays = Replays()
    for number in range(limits.REPLAYS_REMEMBERED_MAX):
        assert replays.is_new(str(number), 100, 50)
    assert not replays.is_new("one more", 100, 50)
    assert replays.is_new("one more", 200, 101), "those that are over make room"


# --- in a kernel ------------------------------------------------------------------------------


class Billing(Server):
    """Keeps the tokens that came, and says them back."""

    def __init__(self, authority: WorldAuthority) -> None:
        self.tokens: list[str] = []
        super().__init__(self._say, authority.server(["localhost"]))

    def _say(self, request: bytes) -> bytes:
        token = request.decode("latin-1").partition("Bearer ")[2].partition("\r\n")[0]
        self.tokens.append(token)
        said = json.dumps({"token": token}).encode()
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\n\r\n".encode() + said


@asynccontextmanager
async def billing(folder: Path) -> AsyncIterator[tuple[Kernel, Billing, AgentManifest]]:
    config = f"""
[credentials.billing]
jwt = {{ audience = "{HERE}" }}
use_for = "GET https://localhost:PORT/v1/*"
"""
    async with reachable(folder, Billing, config) as (home, server), at_work(home) as kernel:
        (folder / "agent.py").write_text(AGENT)
        yield kernel, server, calling(folder, server.port, "billing")


async def test_each_request_of_a_tool_comes_with_a_jwt_of_its_own(tmp_path: Path) -> None:
    async with billing(tmp_path) as (kernel, server, manifest):
        code = (
            f"PORT = {server.port}\n{ASK}\nprint([ask('/v1/a')[2], ask('/v1/b')[2], ask('/x')[2]])"
        )
        row = await kernel.start(
            await kernel.describe(manifest), json.dumps([code]), principal="ann"
        )
        row = await asyncio.wait_for(kernel.runs.wait(row.id), 60)
        [said] = msgspec.json.decode(await kernel.store.blob(row.result))["value"]
        first, second, none = server.tokens
        keys, replays = public_keys(kernel.identities.jwts.public()), Replays()
        now_s = kernel.store.now_us() // 1_000_000
        for token in (first, second):
            claims = verify(
                token,
                keys,
                issuer="spiffe://ring0.local",
                audience=HERE,
                now_s=now_s,
                replays=replays,
            )
            assert claims["sub"] == "ann"
            assert claims["act"] == {"sub": f"spiffe://ring0.local/run/{row.id}/agent/caller"}
            (details,) = claims["authorization_details"]
            assert details["tool"] == "py.run" and details["call"].startswith(row.id)
        assert none == "" and first not in str(said) and second not in str(said)
        everything = b"".join(p.read_bytes() for p in (tmp_path / "home").rglob("*") if p.is_file())
        assert first.split(".")[2].encode() not in everything


@pytest.mark.parametrize("jwt", ['{ audience = "" }', "{}", '{ audience = "a b" }', '"x"'])
async def test_a_jwt_for_nobody_in_particular_starts_no_kernel(tmp_path: Path, jwt: str) -> None:
    (tmp_path / "ring0.toml").write_text(
        f'[credentials.b]\njwt = {jwt}\nuse_for = "GET https://b.example.com/*"\n'
    )
    with pytest.raises(ManifestInvalid):
        await open_kernel(tmp_path, Runtime(), {})
