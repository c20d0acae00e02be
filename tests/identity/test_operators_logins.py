"""A login from its beginning to its end: the first start's code, hours, logging out, its file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from issuer import Issuer
from kernel_world import JumpingRuntime
from operators_world import as_login, log_in, refused, served, toml

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.gateway.control import Remote
from ring0.identity import logins, operator_name
from ring0.kernel.operating.entering import CODE_FILE
from ring0.types import Role

ME = operator_name(os.getuid())
ALL = sorted(Role)


# --- a login's life ---------------------------------------------------------------------------


async def test_only_the_digest_of_a_logins_value_is_on_record(tmp_path: Path) -> None:
    async with Issuer() as issuer, served(tmp_path, toml(issuer), start=False) as w:
        value = await log_in(w, issuer, "ada")
        (row,) = await w.store.logins()
        assert row.key == logins.key_of(value)
        await w.forget()
        found = w.on_disk()
        assert row.key.encode() in found
        assert value.encode() not in found and value[4:].encode() not in found


async def test_a_login_outlives_the_kernel_and_ends_when_somebody_logs_out(tmp_path: Path) -> None:
    async with Issuer() as issuer:
        async with served(tmp_path, toml(issuer), start=False) as w:
            value = await log_in(w, issuer, "ada")
        async with served(tmp_path, start=False) as w:
            assert (await as_login(w, value).ask("whoami", {}))["name"] == f"ada ({issuer.url})"
            left = await Remote(w.home).ask("logout", {"value": value})
            assert left == {"name": f"ada ({issuer.url})"}
            await refused(as_login(w, value).ask("whoami", {}), "login_over")
            assert await Remote(w.home).ask("logout", {"value": value}) == {"name": ""}
        async with served(tmp_path, start=False) as w:
            await refused(as_login(w, value).ask("whoami", {}), "login_over")


async def test_a_login_is_over_after_its_hours_and_is_never_somebody_else_then(
    tmp_path: Path,
) -> None:
    runtime = JumpingRuntime()
    async with (
        Issuer() as issuer,
        served(tmp_path, toml(issuer), start=False, runtime=runtime) as w,
    ):
        value = await log_in(w, issuer, "ada")
        runtime.jump(limits.LOGIN_HOURS_MAX * 3_600 - 60)
        assert await as_login(w, value).ask("whoami", {})
        runtime.jump(120)
        await refused(as_login(w, value).ask("whoami", {}), "login_over")
        await refused(as_login(w, value).kill("all", ""), "login_over")


async def test_roles_that_change_count_at_once_for_who_is_logged_in(tmp_path: Path) -> None:
    async with Issuer() as issuer:
        roles = f'admin = ["{ME}"]\nviewer = ["group:oncall"]'
        async with served(tmp_path, toml(issuer, roles), start=False) as w:
            value = await log_in(w, issuer, "ada", ["oncall"])
            await refused(as_login(w, value).kill("all", ""), "role_missing")
            (w.home / "ring0.toml").write_text(
                toml(issuer, f'admin = ["{ME}"]\noperator = ["group:oncall"]')
            )
            await Remote(w.home).ask("reload", {})
            assert await as_login(w, value).kill("all", "") == []
            (w.home / "ring0.toml").write_text(toml(issuer, f'admin = ["{ME}"]'))
            await Remote(w.home).ask("reload", {})
            await refused(as_login(w, value).kill("all", ""), "role_missing")


async def test_a_login_by_an_issuer_that_ring0_toml_names_no_more_is_over(tmp_path: Path) -> None:
    async with Issuer() as issuer:
        async with served(tmp_path, toml(issuer), start=False) as w:
            value = await log_in(w, issuer, "ada")
        async with served(tmp_path, f'[roles]\nviewer = ["{ME}"]\n', start=False) as w:
            await refused(as_login(w, value).ask("whoami", {}), "login_over")


async def test_a_login_is_of_no_use_to_another_uid(tmp_path: Path) -> None:
    async with Issuer() as issuer, served(tmp_path, toml(issuer), start=False) as w:
        value = await log_in(w, issuer, "ada")
        await refused(w.kernel.logins.operator(os.getuid() + 1, value), "login_over")
        assert await w.kernel.logins.operator(os.getuid(), value)


async def test_a_login_is_ended_by_its_own_uid_alone_however_large_that_is(tmp_path: Path) -> None:
    async with served(tmp_path, start=False) as w:
        from ring0.identity.oidc import Subject

        login = await w.kernel.logins._enter(Subject(name="ada (x)"), "oidc", 70_000)
        assert await w.kernel.logins.leave(70_001, login.value) == ""
        assert len(await w.store.logins()) == 1
        assert await w.kernel.logins.leave(int("70000"), login.value) == "ada (x)"
        assert await w.store.logins() == []


@pytest.mark.parametrize(
    "value", ["r0l_", "r0l_" + "0" * 64, "r0l_" + "z" * 64, "x", "r0l_" + "0" * 65, "é"]
)
async def test_a_value_that_nobody_was_given_is_nobody_and_not_the_peer(
    tmp_path: Path, value: str
) -> None:
    async with served(tmp_path, start=False) as w:
        await refused(w.kernel.logins.operator(os.getuid(), value), "login_over")


async def test_as_many_logins_as_there_may_be_and_the_oldest_makes_room(tmp_path: Path) -> None:
    async with served(tmp_path, start=False) as w:
        enter = w.kernel.logins._enter
        from ring0.identity.oidc import Subject

        first = await enter(Subject(name="first (x)"), "oidc", os.getuid())
        for n in range(limits.LOGINS_MAX):
            await enter(Subject(name=f"{n} (x)"), "oidc", os.getuid())
        rows = await w.store.logins()
        assert len(rows) == limits.LOGINS_MAX
        assert logins.key_of(first.value) not in {row.key for row in rows}


# --- the first start's code -------------------------------------------------------------------


async def test_the_first_starts_code_logs_in_once_and_is_gone(tmp_path: Path) -> None:
    async with served(tmp_path, start=False) as w:
        path = await w.kernel.logins.first_code()
        assert path == w.home / CODE_FILE and path.stat().st_mode & 0o777 == 0o600
        code = path.read_text().strip()
        entered = await Remote(w.home).ask("login-code", {"code": code})
        who = await as_login(w, entered["value"]).ask("whoami", {})
        assert (who["name"], who["login"], who["roles"]) == (ME, "peer", ALL)
        assert not path.exists()
        await refused(Remote(w.home).ask("login-code", {"code": code}), "denied")
        assert await w.kernel.logins.first_code() is None
        await w.forget()
        assert code.encode() not in w.on_disk()
    async with served(tmp_path, start=False) as w:
        assert await w.kernel.logins.first_code() is None
        await refused(Remote(w.home).ask("login-code", {"code": code}), "denied")


async def test_a_few_wrong_codes_end_the_code_for_good(tmp_path: Path) -> None:
    async with served(tmp_path, start=False) as w:
        path = await w.kernel.logins.first_code()
        assert path is not None
        code = path.read_text().strip()
        for n in range(limits.LOGIN_CODE_TRIES_MAX):
            await refused(Remote(w.home).ask("login-code", {"code": f"{n:032x}"}), "denied")
        await refused(Remote(w.home).ask("login-code", {"code": code}), "denied")
        assert not path.exists()
        made = Path(await Remote(w.home).ask("code", {}))
        assert await Remote(w.home).ask("login-code", {"code": made.read_text().strip()})


async def test_of_many_who_bring_the_code_at_the_same_time_one_is_let_in(tmp_path: Path) -> None:
    async with served(tmp_path, start=False) as w:
        path = await w.kernel.logins.first_code()
        assert path is not None
        code = path.read_text()
        came = await asyncio.gather(
            *(w.kernel.logins.by_code(os.getuid(), code) for _ in range(4)),
            return_exceptions=True,
        )
        assert sum(not isinstance(one, BaseException) for one in came) == 1
        assert all(getattr(one, "code", "denied") == "denied" for one in came if
                   isinstance(one, BaseException))  # fmt: skip


async def test_a_code_gives_no_more_than_the_uid_has(tmp_path: Path) -> None:
    async with served(tmp_path, f'[roles]\nviewer = ["{ME}"]\n', start=False) as w:
        path = await w.kernel.logins.first_code()
        assert path is not None
        entered = await Remote(w.home).ask("login-code", {"code": path.read_text().strip()})
        await refused(as_login(w, entered["value"]).kill("all", ""), "role_missing")
        await refused(Remote(w.home).ask("code", {}), "role_missing")


# --- where a login is kept --------------------------------------------------------------------


def test_a_login_is_kept_where_only_its_owner_reads(tmp_path: Path) -> None:
    path = logins.place(tmp_path / "home", {"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert logins.kept(path) is None
    kept = logins.Kept(value="r0l_" + "1" * 64, name="ada (x)", expires_us=5)
    logins.keep(path, kept)
    assert logins.kept(path) == kept and path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert kept.value not in repr(kept)
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="not used"):
        logins.kept(path)
    path.chmod(0o600)
    path.write_bytes(b"{}")
    with pytest.raises(InvalidInput, match="not used"):
        logins.kept(path)
    logins.forget(path)
    path.symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match="not used"):
        logins.kept(path)


def test_each_data_folder_has_a_login_of_its_own(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    one, two = (logins.place(tmp_path / name, environment) for name in ("one", "two"))
    assert one != two and one.parent == tmp_path / ".config" / "ring0" / "logins"
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert logins.place(tmp_path / "link", environment) == one
    assert "one" not in one.name
