"""The way out of a tool's sandbox, through the gate: each request a call, credentials put in on the
far side and found nowhere else, and nothing out once the call or the run is over.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from egress_world import Server, WorldAuthority
from kernel_world import World, world
from reaching_world import ASK, reachable

from ring0.errors import ManifestInvalid
from ring0.identity import Vault
from ring0.kernel.agent.manifests import Config, read_config
from ring0.kernel.calls.outside import Outside
from ring0.runtime import Runtime
from ring0.tools.reach import environment
from ring0.types import Budget, CallKind, CallState, Effect, Integrity, ModelConfig

CANARY = "sk-canary/4e+81c=0aaf~7"
CALLS = 1_000
CARRIES_IT = 8
"""One in so many requests is to where the credential is for."""


def echoes(request: bytes) -> bytes:
    """Whatever was sent comes back, in every encoding that a server might think of."""
    text = request.decode("latin-1")
    secret = text.partition("Bearer ")[2].partition("\r\n")[0]
    said = json.dumps(
        {
            "request": text,
            "json": json.dumps(secret),
            "base64": [base64.b64encode(b"x" * n + secret.encode()).decode() for n in range(3)],
            "hex": secret.encode().hex(),
            "HEX": secret.encode().hex().upper(),
            "url": quote(secret, safe=""),
            "access_token": secret + "-made-of-it",
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nX-Echo: {secret}\r\nSet-Cookie: s={secret}\r\n"
    return f"{head}Content-Length: {len(said)}\r\n\r\n".encode() + said


MANY = """
trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
line = http.client.HTTPSConnection("127.0.0.1", 7421, timeout=30, context=trust)
line.set_tunnel("localhost", PORT)
seen = open("seen.txt", "w")
for number in range(CALLS):
    line.request("GET", f"/{'v1' if number % CARRIES_IT == 0 else 'open'}/{number}")
    answer = line.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    if number % 10 == 0:
        print(answer.status, answer.getheaders(), body, file=seen)
print("done", os.environ)
"""


@asynccontextmanager
async def outside(tmp_path: Path, *rules: str) -> AsyncIterator[tuple[World, Server]]:
    """A kernel whose `py` tool may reach an echoing server, with a credential for /v1."""
    config = """
[credentials.api]
secret = "API"
use_for = "https://localhost:PORT/v1/*"
"""
    async with reachable(
        tmp_path, lambda authority: Server(echoes, authority.server(["localhost"])), config
    ) as (home, server):
        Vault(home).set("API", CANARY, 1)
        egress = [rule.replace("HOST", f"https://localhost:{server.port}") for rule in rules]
        tools = {"py": {"use": "python", "egress": egress, "secrets": ["api"], "timeout_s": 120}}
        async with world(home, tools=tools, budget=Budget(calls=5_000), secrets=True) as here:
            yield here, server


async def test_a_canary_secret_used_by_1000_calls_is_found_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with outside(tmp_path, "HOST/v1/*", "HOST/open/*") as (here, server):
        values = f"PORT, CALLS, CARRIES_IT = {server.port}, {CALLS}, {CARRIES_IT}\n"
        outcome = await here.call("py.run", {"code": values + ASK + MANY})
        assert outcome.state is CallState.OK, outcome
        assert outcome.value["exit_code"] == 0, outcome.value
        _, seen = await here.run.workspace.read("seen.txt")
        calls = [call for call in await here.calls() if call.kind is CallKind.EGRESS]
        shown = f"{here.kernel.outside!r} {here.kernel.outside.credentials!r} {here.kernel.vault!r}"
    # It was used: only where it is for, and the server got it whole.
    carried = [request for request in server.heard if f"Bearer {CANARY}".encode() in request]
    assert len(server.heard) == len(calls) == CALLS
    assert len(carried) == CALLS // CARRIES_IT
    assert all(request.startswith(b"GET /v1/") for request in carried)
    # And it is nowhere: not inside, not in the journal or a blob, not in a log or a repr.
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    kept = {path.name: path.read_bytes() for path in files}
    kept |= {"inside": seen, "outcome": json.dumps(outcome.value).encode()}
    kept |= {"log": caplog.text.encode(), "repr": shown.encode()}
    assert {"journal.db", "vault.json"} <= kept.keys() and len(seen) > 30_000
    secret = CANARY.encode()
    cores = [base64.b64encode(b"x" * n + secret)[4:-4] for n in range(3)]
    for form in (secret, secret.hex().encode(), secret.hex().upper().encode(), *cores,
                 quote(CANARY, safe="").encode(), json.dumps(CANARY).encode()):  # fmt: skip
        assert [name for name, content in kept.items() if form in content] == [], form


async def test_each_request_is_a_call_within_the_tools_call(tmp_path: Path) -> None:
    body = "print(ask('/v1/a')[0], ask('/v1/b', 'POST')[0], ask('/other')[0])"
    async with outside(tmp_path, "GET,POST HOST/v1/*") as (here, server):
        code = f"PORT = {server.port}\n{ASK}{body}"
        outcome = await here.call("py.run", {"code": code})
        program, *requests = await here.calls()
        row = await here.row()
        question = (await here.evidence(requests[1]))["question"]
    assert outcome.value["stdout"] == "200 200 403\n", outcome.value
    assert [call.id for call in requests] == [f"{program.id}/e1.{n}" for n in (1, 2, 3)]
    assert [call.state for call in requests] == [CallState.OK, CallState.OK, CallState.REFUSED]
    assert [call.effect for call in requests][:2] == [Effect.IDEMPOTENT, Effect.ONCE]
    assert (question["host"], question["method"]) == ("localhost", "POST")
    assert (question["action"], question["resource"]) == ("egress", "py.run")
    assert row.label.integrity is Integrity.UNTRUSTED, "what came from outside is nobody's word"
    assert row.calls_used == 3, "each costs a call of the budget; a refused one costs none"
    assert len(server.heard) == 2


async def test_a_policy_can_forbid_a_host_and_a_method_to_a_tool(tmp_path: Path) -> None:
    body = "print(ask('/v1/a')[0], ask('/v1/b', 'POST')[0])"
    async with outside(tmp_path, "GET,POST HOST/v1/*") as (here, server):
        text = here.kernel.policies.text + (
            '\n@id("no-post") @reason("No.") forbid (principal, action == Action::"egress",'
            ' resource) when { context.host == "localhost" && context.method == "POST" };\n'
        )
        here.kernel.gate.policies = type(here.kernel.policies).from_text(text)
        outcome = await here.call("py.run", {"code": f"PORT = {server.port}\n{ASK}{body}"})
        last = (await here.calls())[-1]
    assert outcome.value["stdout"] == "200 403\n", outcome.value
    assert [reason.rule for reason in last.verdict.reasons] == ["no-post"]
    assert [request.split()[0] for request in server.heard] == [b"GET"]


async def test_an_agent_can_ask_for_no_egress_itself(tmp_path: Path) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, server):
        args = {"method": "GET", "url": f"https://localhost:{server.port}/v1/a"}
        outcome = await here.call("py.run", args, kind=CallKind.EGRESS)
        assert outcome.state is CallState.REFUSED
        assert outcome.error is not None and "no network of its own" in outcome.error["what"]
    assert server.heard == []


async def test_a_credential_that_ring0_toml_does_not_have_is_told_before_anything_runs(
    tmp_path: Path,
) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, _):
        with pytest.raises(ManifestInvalid, match="other"):
            here.kernel.outside.of(("api", "other"), "[tools.py]")


async def test_the_host_of_an_operators_own_model_is_no_egress_host(tmp_path: Path) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, server):
        here.kernel.outside.egress._models = frozenset(
            {"localhost"}
        )  # as [models.x] base_url would
        body = "status, _, said = ask('/v1/a'); print(status, b'model door' in said)"
        outcome = await here.call("py.run", {"code": f"PORT = {server.port}\n{ASK}{body}"})
    assert outcome.value["stdout"] == "403 True\n", outcome.value
    assert server.heard == []


def test_the_hosts_of_configured_models_are_known() -> None:
    models = {"m": ModelConfig(provider="openai", base_url="https://LLM.corp.example:8443/v1")}
    found = Outside(
        Config(models=models), lambda name: "", Runtime(), model_urls=["http://127.0.0.1:8000/v1"]
    )
    assert found._models == ["llm.corp.example", "127.0.0.1"]


def test_a_name_of_the_own_loopback_that_a_rule_is_about_is_asked_through_the_proxy() -> None:
    assert environment(("api.example.com",))["no_proxy"] == "127.0.0.1,localhost,::1"
    assert environment(("http://localhost:8080/*",))["NO_PROXY"] == "127.0.0.1,::1"


def test_authorities_lie_beside_ring0_toml_and_are_read_before_anything_runs(
    tmp_path: Path,
) -> None:
    (tmp_path / "ring0.toml").write_text('[network]\nauthorities = ["own.pem"]\n')
    config = read_config(tmp_path)
    with pytest.raises(ManifestInvalid, match=r"own\.pem"):
        Outside(config, lambda name: "", Runtime())
    (tmp_path / "own.pem").write_text(WorldAuthority().pem)
    Outside(config, lambda name: "", Runtime())
