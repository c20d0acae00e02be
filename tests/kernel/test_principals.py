"""A principal that ring0.toml narrows is somebody: a misspelt name would narrow nobody."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from kernel_world import world

from ring0.errors import ManifestInvalid
from ring0.identity import operator_name
from ring0.kernel.agent import manifests
from ring0.kernel.operating import changing, principals
from ring0.store import Write
from ring0.store import events as ev
from ring0.types import Login

ME = operator_name(os.getuid())
NOBODY = pwd.getpwnam("nobody").pw_uid
ISSUER = "https://login.example.com"
OIDC = f'[oidc]\nissuer = "{ISSUER}"\nclient_id = "ring0"\n[roles]\nadmin = ["{ME}"]\n'


def say(home: Path, *names: str, more: str = "") -> None:
    home.mkdir(exist_ok=True)
    tables = (f'[principals."{name}"]\nonly = ["crm.*"]\n' for name in names)
    (home / "ring0.toml").write_text(more + "".join(tables))


async def refused(home: Path) -> str:
    with pytest.raises(ManifestInvalid) as caught:
        async with world(home, start=False):
            pass
    return f"{caught.value.what} {caught.value.why}"


@pytest.mark.parametrize(
    "name",
    ["ada", "ada (1000)", "(uid 1)", "uid", "uid -1", "ada (uid x)", "group:staff", " (uid 1)",
     "email:ada@example.com", "ada (login.example.com)", "uid 12345678901", "ada\\u0007 (uid 1)"],
)  # fmt: skip
def test_a_name_of_no_form_that_a_principal_has_is_refused_by_whoever_reads_the_file(
    tmp_path: Path, name: str
) -> None:
    say(tmp_path / "home", name)
    with pytest.raises(ManifestInvalid, match="no principal is called"):
        manifests.read_config(tmp_path / "home")


@pytest.mark.parametrize("name", [ME, "uid 1000", "ada (uid 1000)", f"00u1 x ({ISSUER})"])
def test_every_form_that_a_principal_has_is_read(tmp_path: Path, name: str) -> None:
    say(tmp_path / "home", name)
    assert list(manifests.read_config(tmp_path / "home").principals) == [name]


@pytest.mark.parametrize(
    "name",
    [f"Nobody (uid {NOBODY})", f"root (uid {NOBODY})", f"uid {NOBODY}", "ada (uid 4000000000)"],
)
async def test_another_name_of_a_uid_is_nobody_here_and_starts_no_kernel(
    tmp_path: Path, name: str
) -> None:
    say(tmp_path / "home", name)
    told = await refused(tmp_path / "home")
    assert name in told and "is nobody here" in told and "is called" in told


async def test_somebody_of_another_issuer_is_nobody_here(tmp_path: Path) -> None:
    say(tmp_path / "home", f"00u1 ({ISSUER})")
    assert "There is no [oidc]" in await refused(tmp_path / "home")
    say(tmp_path / "home", "00u1 (https://login.exmaple.com)", more=OIDC)
    assert ISSUER in await refused(tmp_path / "home")


async def test_somebody_who_has_never_logged_in_may_be_misspelt_and_is_named(
    tmp_path: Path,
) -> None:
    say(tmp_path / "home", ME, f"00u1 ({ISSUER})", more=OIDC)
    async with world(tmp_path / "home", start=False) as w:
        (warning,) = w.kernel.unmatched
        assert f"00u1 ({ISSUER})" in warning and "narrows nobody" in warning
        done = await changing.reload(w.kernel, by=ME)
        assert done.warnings == (warning,)
        login = Login(
            key="k", name=f"00u1 ({ISSUER})", how="oidc", uid=0, email="", groups=(),
            begun_us=1, expires_us=2,
        )  # fmt: skip
        await w.store.append(Write(run=ev.KERNEL, durable=True, events=[ev.LoggedIn(login=login)]))
        assert (await changing.reload(w.kernel, by=ME)).warnings == ()
    async with world(tmp_path / "home", start=False) as w:
        assert w.kernel.unmatched == []


async def test_whoever_had_runs_under_a_name_is_known_by_it_though_the_uid_has_another_now(
    tmp_path: Path,
) -> None:
    old = "ada (uid 4000000000)"
    async with world(tmp_path / "home", principal=old):
        pass
    say(tmp_path / "home", old)
    async with world(tmp_path / "home", start=False) as w:
        assert w.kernel.unmatched == []
        assert await principals.check(w.kernel.config, w.store) == []


async def test_a_reload_refuses_a_principal_that_would_keep_the_next_start_from_coming_up(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", start=False) as w:
        say(w.home, f"root (uid {NOBODY})")
        with pytest.raises(ManifestInvalid, match="is nobody here"):
            await changing.reload(w.kernel, by=ME)
