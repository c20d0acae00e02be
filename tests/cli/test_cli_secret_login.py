"""`ring0 secret login`, `rekey`, and a daemon that takes up what was set without a restart."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cli_world import RING0, World
from serving_world import daemon, journal

sys.path.insert(0, str(Path(__file__).parent.parent / "identity"))

from issuer import Issuer
from mcp_login_world import McpServer

from ring0.cli import vaulting
from ring0.identity import Vault
from ring0.identity.oauth import Client, Endpoints, OAuth
from ring0.kernel.logins import Begun
from ring0.runtime import Runtime
from ring0.store import events as ev

CANARY = "tok-canary-5b0d9f31"


@pytest.fixture
async def issuer(world: World) -> AsyncIterator[Issuer]:
    async with Issuer() as found:
        world.home.mkdir(mode=0o700)
        (world.home / "ring0.toml").write_text(
            f'[oauth.api]\nissuer = "{found.url}"\nclient_id = "ring0"\nscopes = ["read"]\n'
            '[credentials.api]\noauth = "api"\nuse_for = "https://api.example.com/v1/*"\n'
        )
        yield found


async def started(world: World, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        RING0,
        *arguments,
        cwd=world.folder,
        env=world.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def said(process: asyncio.subprocess.Process, pattern: str) -> str:
    """What stands there on its standard error, once it does."""
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while line := (await process.stderr.readline()).decode():
            if found := re.search(pattern, line):
                return found[1]
    raise AssertionError(f"{pattern} was not said")


async def test_a_person_logs_in_with_a_browser_and_the_tokens_are_in_the_vault_alone(
    world: World, issuer: Issuer
) -> None:
    login = await started(world, "secret", "login", "api")
    url = await said(login, r"(http://\S+/authorize\S+)")
    assert await issuer.come_back(url) == 200
    out, err = await login.communicate()
    assert login.returncode == 0, err
    kept = dict(Vault(world.home).values())
    assert set(kept) == {"oauth/api/access", "oauth/api/refresh"}
    assert issuer.is_good(kept["oauth/api/access"])
    for path in world.home.iterdir():
        assert not any(value.encode() in path.read_bytes() for value in kept.values())
    assert not any(value.encode() in out + err for value in kept.values())
    listed = world.ring0("secret", "list", "--json")
    assert [row["name"] for row in listed.json] == sorted(kept)
    assert all(value not in listed.all for value in kept.values())


async def test_a_person_logs_in_on_another_device(world: World, issuer: Issuer) -> None:
    login = await started(world, "secret", "login", "api", "--device")
    code = await said(login, r"yes to the code ([0-9A-F]+)")
    for place in ("cmdline", "environ"):
        content = Path(f"/proc/{login.pid}/{place}").read_bytes()
        assert not any(known.encode() in content for known in issuer._devices)
    issuer.approve(code)
    _, err = await login.communicate()
    assert login.returncode == 0, err
    assert issuer.is_good(Vault(world.home).value("oauth/api/access"))


async def test_a_person_logs_in_for_an_mcp_server_by_its_address_alone(world: World) -> None:
    """What is shown before is what was found; an approval then works with that login."""
    async with Issuer() as issuer, McpServer(issuer) as server:
        issuer.registers = True
        world.home.mkdir(mode=0o700)
        (world.home / "ring0.toml").write_text(
            f'[network]\nallow_private = ["127.0.0.0/8"]\nplain_credentials = ["127.0.0.1"]\n'
            f'[oauth.far]\nmcp = "{server.url}"\n'
        )
        (world.folder / "agent.toml").write_text(
            f'name = "a"\nentry = "agent.py:plain"\n'
            f'[tools.far]\nuse = "mcp"\nurl = "{server.url}"\nsecrets = ["far"]\n'
        )
        add = ("tools", "add", "far", "--from", str(world.folder), "--yes")
        refused = await asyncio.to_thread(world.ring0, *add)
        assert refused.code == 3 and "`ring0 secret login far`" in refused.err, refused.all
        login = await started(world, "secret", "login", "far", "--scope", "read", "--scope", "more")
        assert await said(login, r"The server is (\S+)") == server.url
        assert await said(login, r"One logs in at (\S+)") == issuer.url
        assert await said(login, r"asked for (.*)") == "read more"
        url = await said(login, r"(http://\S+/authorize\S+)")
        assert await issuer.come_back(url) == 200
        out, err = await login.communicate()
        assert login.returncode == 0 and b"for runs of" in out, out + err
        kept = dict(Vault(world.home).values())
        assert {name.rpartition("/")[2] for name in kept} == {"access", "refresh", "client"}
        added = await asyncio.to_thread(world.ring0, *add)
        assert added.code == 0 and "far.act" in added.out, added.all
        assert not any(value in added.all for value in kept.values())
        other = await started(world, "secret", "login", "far", "--for", "bob (uid 7)")
        url = await said(other, r"(http://\S+/authorize\S+)")
        await issuer.come_back(url)
        out, err = await other.communicate()
        assert b"for runs of bob (uid 7)" in out, out + err
        assert len(Vault(world.home).names()) == 6


@pytest.mark.parametrize("token", ["https://login.example/token", "https://evil.example/token"])
def test_a_person_is_told_where_goes_what_another_servers_page_gives(
    token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A login server may name another's page: one that tells nobody whose it is can't be told."""
    page = "https://login.example/authorize"
    endpoints = Endpoints(issuer="https://evil.example", authorize_url=page, token_url=token)
    client = Client(client_id="x", resource="https://mcp.example/mcp")
    nobody: Any = None
    oauth = OAuth(endpoints, client, nobody, Runtime())
    vaulting._show_where(Begun(key="far", oauth=oauth, kept={}))
    told = "page of login.example, and what that page gives goes to evil.example"
    assert (told in capsys.readouterr().err) == ("evil" in token)


async def test_a_person_who_says_no_logs_nobody_in(world: World, issuer: Issuer) -> None:
    login = await started(world, "secret", "login", "api", "--device")
    issuer.deny(await said(login, r"yes to the code ([0-9A-F]+)"))
    _, err = await login.communicate()
    assert login.returncode == 1 and b"access_denied" in err and b"Do:" in err
    assert not Vault(world.home).names()


async def test_a_login_that_is_interrupted_leaves_nothing(world: World, issuer: Issuer) -> None:
    login = await started(world, "secret", "login", "api")
    await said(login, r"(http://\S+/authorize\S+)")
    login.send_signal(signal.SIGINT)
    _, err = await login.communicate()
    assert login.returncode == 130 and b"Traceback" not in err
    assert not Vault(world.home).names()


async def test_a_login_that_ring0_toml_does_not_name_says_what_to_write(
    world: World, issuer: Issuer
) -> None:
    done = await asyncio.to_thread(world.ring0, "secret", "login", "other")
    assert done.code == 2 and "[oauth.other]" in done.err


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ('[oauth.a]\nclient_id = "x"\n', "issuer"),
        ('[oauth.a]\nclient_id = "x"\nissuer = "http://login.example.com"\n', "not private"),
        ('[oauth.a]\nclient_id = "x"\ntoken_url = "https://a.example/t"\n', "log in there"),
        ('[oauth.a]\nclient_id = ""\nissuer = "https://a.example"\n', "client_id"),
        ('[oauth.a]\nclient_id = "x"\nissuer = "https://a.example"\nscopes = ["a b"]\n', "scope"),
        ('[oauth."a/b"]\nclient_id = "x"\nissuer = "https://a.example"\n', "no name"),
        ('[credentials.c]\nuse_for = "a.example"\n', "0 sources"),
        ('[credentials.c]\nuse_for = "a.example"\nsecret = "S"\noauth = "a"\n', "2 sources"),
        ('[credentials.c]\nuse_for = "a.example"\noauth = "a"\n', "not there"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_name(world: World, table: str, what: str) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "ring0.toml").write_text(table)
    done = world.ring0("secret", "login", "a")
    assert done.code == 2 and what in done.err and "Do:" in done.err, done.err


def test_a_daemon_takes_up_a_change_without_a_restart(world: World) -> None:
    with daemon(world) as d:
        worker = d.worker()
        done = world.ring0("secret", "set", "secret://github/repo-x", stdin=CANARY + "\n")
        assert done.code == 0 and "has taken it up" in done.out, done.all
        again = world.ring0("secret", "set", "github/repo-x", stdin=CANARY + "-2\n")
        assert "version 2" in again.out and "has taken it up" in again.out
        assert "has taken it up" in world.ring0("secret", "rekey").out
        assert "has taken it up" in world.ring0("secret", "remove", "github/repo-x").out
        assert d.worker() == worker and CANARY not in d.log
    changes = [body for _, body in journal(world) if isinstance(body, ev.SettingChanged)]
    changes = [change for change in changes if change.name == "secrets"]
    # Set, set anew, removed: another key is no other secret.
    assert len(changes) == 3 and all("(uid " in change.by for change in changes)
    assert CANARY.encode() not in (world.home / "journal.db").read_bytes()


def test_the_secret_of_a_new_hook_is_kept_back_from_then_on(world: World) -> None:
    with daemon(world):
        made = world.ring0("hook", "add", "gh", "agent.py:plain", "a task", "--json")
        assert made.code == 0, made.all
        other = world.ring0("secret", "set", "corp/hook", stdin=CANARY + "\n")
        assert other.code == 0
        named = ("hook", "add", "gl", "agent.py:plain", "a task", "--secret", "secret://corp/hook")
        assert world.ring0(*named).code == 0
        assert world.ring0(*named[:-1], "secret://corp/none", "--force").code == 2
    changes = [body for _, body in journal(world) if isinstance(body, ev.SettingChanged)]
    assert [change.name for change in changes].count("secrets") == 2


def test_a_daemon_that_can_not_take_it_up_is_said_so(world: World) -> None:
    world.home.mkdir(mode=0o700)
    world.ring0("secret", "set", "TOKEN", stdin=CANARY + "\n")
    (world.home / "ring0.toml").write_text('secrets = ["TOKEN"]\n')
    with daemon(world):
        done = world.ring0("secret", "remove", "TOKEN")
        assert done.code == 0 and "has not taken it up" in done.out and "TOKEN" in done.out


def test_rekey_says_how_many_and_leaves_all_in_place(world: World) -> None:
    world.ring0("secret", "set", "A", stdin=CANARY + "\n")
    before = (world.home / "vault.key").read_bytes()
    done = world.ring0("secret", "rekey")
    assert done.code == 0 and "1 secret under a new key" in done.out
    assert (world.home / "vault.key").read_bytes() != before
    assert Vault(world.home).value("A") == CANARY


def test_a_secret_that_does_not_open_is_named_and_set_again(world: World) -> None:
    world.ring0("secret", "set", "A", stdin=CANARY + "\n")
    world.ring0("secret", "set", "B", stdin=CANARY + "-2\n")
    path = world.home / "vault.json"
    content = json.loads(path.read_bytes())
    content["secrets"]["A"] = content["secrets"]["B"]
    path.write_text(json.dumps(content))
    assert "does not open" in world.ring0("secret", "list").out
    refused = world.ring0("run", "agent.py:plain", "hi")
    assert refused.code == 6 and "ring0 secret set" in refused.err
    assert world.ring0("secret", "set", "A", stdin=CANARY + "\n").code == 0
    assert world.ring0("run", "agent.py:plain", "hi").code == 0


def test_doctor_reads_a_credential_whose_secret_is_named_with_its_scheme(world: World) -> None:
    world.ring0("secret", "set", "secret://github/repo-x", stdin=CANARY + "\n")
    (world.home / "ring0.toml").write_text(
        'secrets = ["secret://github/repo-x"]\n[credentials.github]\n'
        'secret = "secret://github/repo-x"\nuse_for = "api.github.com"\n'
    )
    done = world.ring0("doctor", "--json")
    [config] = [check for check in done.json["checks"] if check["name"] == "configuration"]
    assert config["state"] == "ok" and CANARY not in done.all, config
    assert world.ring0("run", "agent.py:plain", "hi").code == 0
