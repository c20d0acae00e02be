"""`ring0 login`, `logout`, `whoami`, `reload`: real processes, a daemon, a login server."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from cli_world import Done, World
from serving_world import daemon

from identity.issuer import Issuer
from ring0.cli.app import guarded
from ring0.identity import operator_name

ME = operator_name(os.getuid())


def says(world: World, text: str) -> None:
    world.home.mkdir(exist_ok=True, mode=0o700)
    (world.home / "ring0.toml").write_text(text)


def kept(world: World) -> list[Path]:
    return list((world.folder / ".config" / "ring0" / "logins").glob("*"))


def oidc(issuer: Issuer, roles: str) -> str:
    return (
        f'[oidc]\nissuer = "{issuer.url}"\nclient_id = "ring0"\ngroups_claim = "groups"\n'
        f"[roles]\n{roles}\n"
    )


async def log_in(world: World, issuer: Issuer) -> Done:
    """`ring0 login`, and a browser that follows what it prints."""
    process = await asyncio.to_thread(world.start, "login", "--no-browser")
    assert process.stderr is not None
    url = ""
    while not url.startswith("http"):
        url = (await asyncio.to_thread(process.stderr.readline)).strip()
        assert process.poll() is None or url, "it ended before it said where"
    assert await issuer.come_back(url) == 200
    return await asyncio.to_thread(world.finish, process)


async def test_a_person_logs_in_with_a_browser_and_every_command_is_by_that_name(
    world: World,
) -> None:
    async with Issuer() as issuer:
        says(world, oidc(issuer, 'operator = ["group:oncall"]'))
        issuer.claims = {"sub": "ada", "groups": ["oncall"]}

        def with_daemon() -> None:
            with daemon(world):
                done = asyncio.run_coroutine_threadsafe(log_in(world, issuer), loop).result(60)
                assert done.code == 0 and f"ada ({issuer.url})" in done.out, done.all
                (file,) = kept(world)
                assert file.stat().st_mode & 0o777 == 0o600
                value = re.search(r"r0l_[0-9a-f]{64}", file.read_text())
                assert value and value[0] not in done.all
                who = world.ring0("whoami", "--json").json
                assert who["name"] == f"ada ({issuer.url})" and who["roles"] == ["operator"]
                run = world.ring0("run", "agent.py:plain", "hi", "--json")
                assert run.code == 0, run.all
                shown = world.ring0("show", "last", "--json").out
                assert f"ada ({issuer.url})" in shown
                refused = world.ring0("reload")
                assert refused.code == 3 and "role admin" in refused.err
                out = world.ring0("logout")
                assert out.code == 0 and kept(world) == []
                assert world.ring0("whoami", "--json").json["roles"] == []
                denied = world.ring0("run", "agent.py:plain", "hi")
                assert denied.code == 3 and "role operator" in denied.err
                listed = world.ring0("audit", "changes").out
                assert f"ada ({issuer.url})" in listed and "in, by oidc" in listed

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(with_daemon)


async def test_without_a_daemon_a_login_counts_just_as_well(world: World) -> None:
    async with Issuer() as issuer:
        says(world, oidc(issuer, 'viewer = ["group:oncall"]'))
        issuer.claims = {"sub": "ada", "groups": ["oncall"]}
        assert (await log_in(world, issuer)).code == 0
        denied = await asyncio.to_thread(world.ring0, "run", "agent.py:plain", "hi")
        assert denied.code == 3 and "role operator" in denied.err and "ada" in denied.err
        denied = await asyncio.to_thread(world.ring0, "deny", "a-000000000000")
        assert "`approve / deny` takes the role approver" in denied.err, denied.all
        denied = await asyncio.to_thread(world.ring0, "kill", "--all")
        assert denied.code == 3 and "role operator" in denied.err


def test_the_first_start_of_a_daemon_makes_a_code_that_logs_in_once(world: World) -> None:
    with daemon(world) as d:
        d.says("operator.code logs one in")
        code = (world.home / "operator.code").read_text().strip()
        assert code not in d.log
        done = world.ring0("login", "--code")
        assert done.code == 0 and ME in done.out and code not in done.all
        assert not (world.home / "operator.code").exists()
        assert world.ring0("whoami", "--json").json["expires_us"] > 0
        again = world.ring0("login", "--code", stdin=f"{code}\n")
        assert again.code == 3 and "logs nobody in" in again.err
        worker = d.worker()
        os.kill(worker, 9)
        d.next_worker(worker)
        assert world.ring0("whoami", "--json").json["expires_us"] > 0  # It outlives a worker.
        assert d.log.count("operator.code") == 1


def test_a_daemon_takes_up_its_files_without_an_end_and_says_what_changed(world: World) -> None:
    with daemon(world):
        says(world, f'profile = "strict"\n[roles]\nadmin = ["{ME}"]\n')
        done = world.ring0("reload")
        assert done.code == 0 and "profile default to strict" in done.out, done.all
        assert world.ring0("kill", "--all").code == 3
        says(world, f'profile = "observe"\n[roles]\nadmin = ["{ME}"]\n')
        refused = world.ring0("reload")
        assert refused.code == 3 and "--yes-loosen" in refused.err
        done = world.ring0("reload", "--yes-loosen")
        assert done.code == 0 and "Less is held back" in done.out
        says(world, "policy = 1\n")
        bad = world.ring0("reload")
        assert bad.code == 2 and "ring0.toml" in bad.err
        listed = world.ring0("audit", "changes", "--json").json["changes"]
        assert [one["loosened"] for one in listed].count(True) == 1
        assert {one["by"] for one in listed} == {ME}
    assert world.ring0("audit", "verify").code == 0


@pytest.mark.parametrize("option", ["--approve-as", "--as", "--by", "--operator", "--principal"])
def test_no_command_takes_a_name_to_act_by(
    world: World, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RING0_HOME", str(world.home))
    for command in (("approve", "a-1"), ("deny", "a-1"), ("kill", "--all"), ("reload",),
                    ("run", "agent.py:plain", "hi"), ("undo", "last"), ("login",)):  # fmt: skip
        assert guarded([*command, option, "boss"]) == 2
        assert "No such option" in capsys.readouterr().err
    assert not world.home.exists()


def test_who_has_no_issuer_is_told_what_to_do(world: World) -> None:
    done = world.ring0("login", "--no-browser")
    assert done.code == 2 and "[oidc]" in done.err
    assert world.ring0("logout").code == 0
    assert world.ring0("login", "--device", "--code").code == 2
