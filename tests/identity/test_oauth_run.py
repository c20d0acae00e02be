"""A tool in a sandbox uses an OAuth login: put in on the far side, kept fresh, found nowhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
from oauth_world import log_in, oauth_world

from ring0.cli.place import Place
from ring0.cli.servers import sender_of
from ring0.errors import ManifestInvalid
from ring0.identity import Vault
from ring0.identity.refreshing import access_name, refresh_name
from ring0.kernel.boot import open_kernel
from ring0.models.http import HttpProvider
from ring0.runtime import Runtime
from ring0.tools.mcp.settings import Settings
from ring0.types import AgentManifest, ModelConfig

LOOK = "print(ask('/v1/a')[0], ask('/open')[0], dict(os.environ), ask('/v1/b'))"


async def test_a_login_is_used_on_the_far_side_and_its_tokens_are_found_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with oauth_world(tmp_path) as here:
        here.issuer.access_s = 3_600
        home = tmp_path / "home"
        first = dict(here.kernel.vault.values())
        [seen] = await here.run(LOOK)
        assert seen.startswith("200 401 ")
        # The server said it back, in a header and in the body: it was taken out.
        assert "authorization: [redacted]" in seen and "ring0-kept-" in seen
        assert here.resource.tokens == [first["oauth/api/access"], "", first["oauth/api/access"]]
        requests = await here.requests()
        outcomes = [json.loads(await here.kernel.store.blob(call.outcome)) for call in requests]
        assert [one["value"]["credential"] for one in outcomes] == ["api", "", "api"]
        processes = subprocess.run(["ps", "axeww"], capture_output=True).stdout
        shown = f"{here.kernel.outside!r} {here.kernel.keeping!r} {here.kernel.keeping.logins!r}"
    kept = {path.name: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert "journal.db" in kept and "vault.json" in kept
    kept |= {"seen": seen.encode(), "log": caplog.text.encode(), "ps": processes}
    kept |= {"repr": shown.encode(), "env": repr(dict(os.environ)).encode()}
    for token in first.values():
        cores = [base64.b64encode(b"x" * n + token.encode())[4:-4] for n in range(3)]
        for form in (token.encode(), token.encode().hex().encode(), *cores):
            assert [name for name, content in kept.items() if form in content] == []


async def test_a_token_that_ends_is_renewed_before_it_is_used(tmp_path: Path) -> None:
    async with oauth_world(tmp_path) as here:
        here.issuer.access_s = 30  # Less than it is renewed ahead of time.
        await log_in(tmp_path / "home", here.issuer)
        await here.kernel.keeping.reload()
        old = dict(here.kernel.vault.values())
        assert await here.run("print(ask('/v1/a')[0])") == ["200\n"]
        assert here.issuer.refreshed == 1
        now = dict(Vault(tmp_path / "home").values())
        assert here.resource.tokens == [now["oauth/api/access"]] != [old["oauth/api/access"]]
        assert now["oauth/api/refresh"] != old["oauth/api/refresh"]
        for value in (*old.values(), *now.values()):  # The old ones for a while longer.
            assert value not in here.kernel.keeping.secrets.redact_text(f"a {value} b")


async def test_a_login_that_the_server_has_ended_says_so_and_needs_a_person(tmp_path: Path) -> None:
    async with oauth_world(tmp_path) as here:
        here.issuer.access_s = 30
        await log_in(tmp_path / "home", here.issuer)
        await here.kernel.keeping.reload()
        here.issuer.revoke_all()
        [said] = await here.run("print(ask('/v1/a'))")
        assert "403" in said and "ring0 secret login api" in said, said
        assert here.resource.tokens == []
        assert access_name("api") not in Vault(tmp_path / "home").names()
        assert refresh_name("api") not in Vault(tmp_path / "home").names()
        [again] = await here.run("print(ask('/v1/a'))")
        assert "ring0 secret login api" in again and here.issuer.refreshed == 0
        # And once somebody has: at once, without a restart.
        here.issuer.access_s = 3_600
        await log_in(tmp_path / "home", here.issuer)
        await here.kernel.keeping.reload()
        assert await here.run("print(ask('/v1/a')[0])") == ["200\n"]


async def test_a_token_that_a_host_takes_no_more_is_renewed_for_the_next_use(
    tmp_path: Path,
) -> None:
    async with oauth_world(tmp_path) as here:
        here.issuer.access.clear()
        said = await here.run("print(ask('/v1/a')[0], ask('/v1/a')[0])")
        assert said == ["401 200\n"] and here.issuer.refreshed == 1
        # A host that refuses whatever comes does not make the kernel ask over and over.
        here.issuer.access.clear()
        await here.run("for _ in range(5): ask('/v1/a')")
        assert here.issuer.refreshed == 1


async def test_only_the_agents_that_a_credential_is_for_can_use_it(tmp_path: Path) -> None:
    async with oauth_world(tmp_path, agents='["somebody", "else"]') as here:
        with pytest.raises(ManifestInvalid, match="not for caller"):
            await here.run("print(ask('/v1/a')[0])")
        assert here.resource.tokens == []
    other = tmp_path / "other"
    other.mkdir()
    async with oauth_world(other, agents='["caller"]') as here:
        assert await here.run("print(ask('/v1/a')[0])") == ["200\n"]


async def test_a_login_server_that_is_gone_stops_no_token_that_is_still_good(
    tmp_path: Path,
) -> None:
    async with oauth_world(tmp_path) as here:
        here.issuer.access_s = 45
        await log_in(tmp_path / "home", here.issuer)
        await here.kernel.keeping.reload()
        here.issuer.misbehave.add("error-500")
        assert await here.run("print(ask('/v1/a')[0])") == ["200\n"]
        assert here.issuer.refreshed == 0


async def test_a_secret_that_is_set_anew_is_used_at_once_and_the_old_one_kept_back(
    tmp_path: Path,
) -> None:
    static = """
[credentials.key]
secret = "secret://corp/key"
use_for = "https://localhost:PORT/key/*"
"""
    async with oauth_world(tmp_path, static=static) as here:
        here.manifest.tools["py"]["secrets"] = ["api", "key"]
        home = tmp_path / "home"
        assert here.kernel.secret("secret://corp/key") == "first-value-of-it"
        await here.run("ask('/key/a')")
        Vault(home).set("corp/key", "second-value-of-it", 2)
        await here.kernel.keeping.reload()
        await here.run("ask('/key/a')")
        assert here.resource.tokens == ["first-value-of-it", "second-value-of-it"]
        hidden = here.kernel.gate.secrets.redact_text("first-value-of-it second-value-of-it")
        assert hidden == "«secret:corp/key» «secret:corp/key»"
        Vault(home).remove("corp/key")
        Vault(home).set("corp/other", "third-value-of-it", 3)
        with pytest.raises(ManifestInvalid, match="not set"):
            await here.kernel.keeping.reload()  # ring0.toml names it.
        [said] = await here.run("print(ask('/key/a'))")
        assert "403" in said and "was removed" in said
        assert len(here.resource.tokens) == 2


async def test_a_models_key_that_is_set_anew_is_used_from_the_next_call_on(tmp_path: Path) -> None:
    Vault(tmp_path).set("OPENAI_API_KEY", "sk-first-of-two", 1)
    kernel = await open_kernel(tmp_path, Runtime(), {"OPENAI_API_KEY": "sk-of-environment"})
    try:
        manifest = AgentManifest(
            name="a", models={"m": ModelConfig(provider="openai", model="gpt-5")}
        )
        before = kernel.providers.of(manifest, "m")
        assert before is kernel.providers.of(manifest, "m")
        Vault(tmp_path).set("OPENAI_API_KEY", "sk-second-of-two", 2)
        await kernel.keeping.reload()
        after = kernel.providers.of(manifest, "m")
        assert isinstance(before, HttpProvider) and isinstance(after, HttpProvider)
        keys = [one._redact.authorization()["Authorization"] for one in (before, after)]
        assert keys == ["Bearer sk-first-of-two", "Bearer sk-second-of-two"]
    finally:
        await kernel.close()


async def test_a_server_elsewhere_is_looked_at_with_the_login_too(tmp_path: Path) -> None:
    """`ring0 tools add` works without a kernel."""
    far = '[credentials.far]\noauth = "api"\nuse_for = "POST https://localhost:PORT/v1/mcp"\n'
    async with oauth_world(tmp_path, static=far) as here:
        here.issuer.access_s = 30
        await log_in(tmp_path / "home", here.issuer)
        url = f"https://localhost:{here.resource.port}/v1/mcp"
        said = Settings(url=url, secrets=("far",))
        place = Place(home=tmp_path / "home", environment={}, runtime=Runtime())
        answer = await sender_of(place, "far", said)("POST", url, {}, b"{}")
        assert answer.status == 200 and here.issuer.refreshed == 1
        assert here.resource.tokens == [Vault(tmp_path / "home").value(access_name("api"))]
        assert here.resource.tokens[0].encode() not in answer.body
