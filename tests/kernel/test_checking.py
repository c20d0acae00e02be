"""What keeps a kernel from coming up is refused by a reload too; what may be misspelt is named."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

import pytest
from kernel_world import World, begin, world

from ring0.errors import InvalidInput, ManifestInvalid
from ring0.gateway.calls import CallDoor
from ring0.identity import Vault, operator_name
from ring0.kernel.agent import profiles
from ring0.kernel.operating import changing
from ring0.kernel.operating.changing import Changed
from ring0.types import AgentManifest, Budget

ME = operator_name(os.getuid())


def say(home: Path, policy: str = "", more: str = "") -> None:
    home.mkdir(exist_ok=True)
    (home / "own.cedar").write_text(policy)
    (home / "ring0.toml").write_text(f'policy = ["own.cedar"]\n{more}')


async def reload(w: World) -> Changed:
    return await changing.reload(w.kernel, by=ME)


def no_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "grpclib" else find(name)
    )


@pytest.mark.parametrize(
    "said",
    [
        "[identity]\nspiffe = true\n",  # No grpclib: see above.
        '[identity]\nlisten = "0.0.0.0:7421"\n',
        'secrets = ["NOT_SET_ANYWHERE"]\n',
        '[[caps]]\ntool = "crm.*"\nof = "rows"\nmost = 1\nwindow = "soon"\n',
        '[network]\nallow_private = ["10.0.0.0/33"]\n',
        '[network]\nauthorities = ["nothing.pem"]\n',
        '[credentials.github]\nsecret = "NOT_SET"\nuse_for = "GET https://api.github.com/*"\n',
        '[credentials.github]\noauth = "github"\nuse_for = "GET https://api.github.com/*"\n',
        '[[notify]]\nurl = "https://hooks.example.com/x"\nsecret = "NOT_SET"\n',
        '[[notify]]\nurl = "http://hooks.example.com/x"\nsecret = "SET_API_KEY"\n',
        f'[principals."{ME}"]\nonly = ["a b"]\n',
        '[principals."ada"]\nonly = ["a"]\n',
        '[principals."ada (uid 4000000000)"]\nonly = ["a"]\n',
        '[models.m]\nprovider = "openai"\nmodel = "m"\nbase_url = "http://[::1"\n',
        '[models.m]\nprovider = "openai"\nmodel = "m"\nbase_url = "https://a.org:port"\n',
        '[oidc]\nissuer = "https://a.org"\nclient_id = "x"\n',
    ],
)
async def test_what_keeps_the_next_start_from_coming_up_is_refused_by_a_reload_in_the_same_words(
    tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_grpc(monkeypatch)
    environment = {"SET_API_KEY": "a value that signs"}
    (tmp_path / "home").mkdir()
    async with world(tmp_path / "home", start=False, environment=environment) as w:
        before, config = await w.store.settings(), w.kernel.config
        say(w.home, more=said)
        with pytest.raises(InvalidInput) as at_reload:
            await reload(w)
        assert await w.store.settings() == before and w.kernel.config is config
    with pytest.raises(InvalidInput) as at_start:
        async with world(tmp_path / "home", start=False, environment=environment):
            pass
    assert str(at_start.value) == str(at_reload.value)


async def test_a_reload_looks_at_the_secrets_as_the_next_start_will_find_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "home").mkdir()
    async with world(tmp_path / "home", start=False) as w:
        say(w.home, more='secrets = ["TOKEN"]\n')
        with pytest.raises(ManifestInvalid, match="TOKEN"):
            await reload(w)
        Vault(w.home).set("TOKEN", "a value of some length", 1)
        assert (await reload(w)).changes
    async with world(tmp_path / "home", start=False) as w:
        assert w.kernel.config.secrets == ["TOKEN"]


async def test_a_port_that_another_has_is_refused_and_the_kernels_own_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "home").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with world(tmp_path / "home", start=False) as w:
            say(w.home, more=f'[identity]\nlisten = "127.0.0.1:{port}"\n')
            with pytest.raises(InvalidInput, match="can't be listened at"):
                await reload(w)
    async with world(tmp_path / "home", start=False) as w:
        door = CallDoor(w.kernel)
        await door.open()
        try:
            assert (await reload(w)).changes == ()
        finally:
            await door.close()


async def test_a_reload_names_the_rules_for_tools_that_no_agent_of_the_folder_has(
    tmp_path: Path,
) -> None:
    tools = {"files": {"use": "files"}}
    async with world(tmp_path / "home", tools=tools) as w:
        say(w.home, 'forbid (principal, action == Action::"files.wriet", resource);\n')
        done = await reload(w)
        (warning,) = done.warnings
        assert "own.cedar:1" in warning and "Did you mean 'files.write'?" in warning
        say(w.home, 'forbid (principal, action == Action::"files.write", resource);\n')
        assert (await reload(w)).warnings == ()


async def test_a_rule_for_another_agents_tool_is_no_warning_at_a_run_that_has_it_not(
    tmp_path: Path,
) -> None:
    rule = 'forbid (principal, action == Action::"files.write", resource);\n'
    say(tmp_path / "home", rule)
    async with world(tmp_path / "home") as w:
        (warning,) = await profiles.warnings(w.kernel, w.run.id)
        assert "files.write" in warning and "no agent" in warning
        assert await profiles.warnings(w.kernel, w.run.id) == [], "said once"
    async with world(tmp_path / "home", start=False) as w:
        other = AgentManifest(name="other", tools={"files": {"use": "files"}})
        await begin(w, "x", Budget(), other)
        assert await profiles.warnings(w.kernel, w.run.id) == []
        await begin(w, "x", Budget(), AgentManifest(name="third"))
        assert await profiles.warnings(w.kernel, w.run.id) == []
        assert ("third", "embedded", w.kernel.policies.digest) in w.kernel.looked_for_tools


async def test_what_certificates_need_is_asked_for_though_not_even_its_package_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def absent(name: str) -> object:
        if name == "google.protobuf":
            raise ModuleNotFoundError("No module named 'google'", name="google")
        return find(name)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    say(tmp_path / "home", more="[identity]\nspiffe = true\n")
    with pytest.raises(ManifestInvalid, match="not installed"):
        async with world(tmp_path / "home", start=False):
            pass
