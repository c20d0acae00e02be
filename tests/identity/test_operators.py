"""Who operates: by the uid at the other end, or by a login; never by what somebody says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from issuer import Issuer
from operators_world import HERE, as_login, came, entered, log_in, refused, served, toml

from ring0 import limits
from ring0.errors import AnswerRefused, ManifestInvalid, Ring0Error
from ring0.gateway.control import Remote
from ring0.identity import operator_name
from ring0.identity.roles import Roles
from ring0.types import ApprovalState, CallState, Operator, Role

ME = operator_name(os.getuid())
ALL = sorted(Role)


# --- by the uid ------------------------------------------------------------------------------


async def test_without_a_table_of_roles_whoever_has_the_folders_uid_may_do_everything(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as w:
        assert await Remote(w.home).ask("whoami", {}) == {
            "name": ME, "login": "peer", "roles": ALL
        }  # fmt: skip


async def test_with_a_table_who_is_not_named_in_it_has_no_role(tmp_path: Path) -> None:
    async with served(tmp_path, '[roles]\nadmin = ["somebody else (uid 4711)"]\n') as w:
        assert (await Remote(w.home).ask("whoami", {}))["roles"] == []
        error = await refused(Remote(w.home).kill("run", w.run.id), "role_missing")
        assert "operator" in error.what and ME in error.what and "ring0.toml" in error.todo
        assert (await w.row()).state == "running"


async def test_an_approver_need_not_be_able_to_end_a_run(tmp_path: Path) -> None:
    async with served(tmp_path, f'[roles]\napprover = ["{ME}"]\n') as w:
        call = w.start("act", {})
        approval = await w.pending()
        await refused(Remote(w.home).kill("run", w.run.id), "role_missing")
        assert (await Remote(w.home).answer(approval.id, yes=True)).answered_by == ME
        assert (await call).state is CallState.OK


async def test_an_operator_need_not_be_able_to_approve(tmp_path: Path) -> None:
    async with served(tmp_path, f'[roles]\noperator = ["{ME}"]\n') as w:
        call = w.start("act", {})
        approval = await w.pending()
        await refused(Remote(w.home).answer(approval.id, yes=True), "role_missing")
        await refused(Remote(w.home).answer(approval.id, yes=False), "role_missing")
        assert (await w.store.approval(approval.id)).state is ApprovalState.PENDING
        await Remote(w.home).kill("run", w.run.id)
        await asyncio.gather(call, return_exceptions=True)


# --- by an issuer's word ----------------------------------------------------------------------


async def test_somebody_logs_in_and_acts_by_that_name_with_the_roles_of_the_groups(
    tmp_path: Path,
) -> None:
    async with (
        Issuer() as issuer,
        served(tmp_path, toml(issuer, 'approver = ["group:oncall"]')) as w,
    ):
        value = await log_in(w, issuer, "ada", ["oncall"])
        who = await as_login(w, value).ask("whoami", {})
        assert who["name"] == f"ada ({issuer.url})" and who["login"] == "oidc"
        assert who["roles"] == ["approver"] and who["email"] == "ada@example.com"
        call = w.start("act", {})
        approval = await w.pending()
        answered = await as_login(w, value).answer(approval.id, yes=True)
        assert answered.answered_by == f"ada ({issuer.url})"
        assert (await call).state is CallState.OK
        await refused(as_login(w, value).kill("run", w.run.id), "role_missing")


async def test_an_approver_is_the_subject_of_a_login_or_a_peer_uid_never_a_name_in_a_request(
    tmp_path: Path,
) -> None:
    async with (
        Issuer() as issuer,
        served(tmp_path, toml(issuer, 'approver = ["group:oncall"]')) as w,
    ):
        value = await log_in(w, issuer, "ada", ["oncall"])
        call = w.start("act", {})
        approval = await w.pending()
        for name in ("as", "by", "name", "login", "sub", "email", "roles", "uid", "presented"):
            body = {"approval": approval.id, "yes": True, name: "boss"}
            await refused(as_login(w, value).ask("answer", body), "call_invalid")
            body = {"redirect_uri": HERE, name: "boss"}
            await refused(Remote(w.home).ask("login", body), "call_invalid")
        assert not call.done()
        await refused(Remote(w.home).answer(approval.id, yes=True), "role_missing")
        await as_login(w, value).answer(approval.id, yes=False)
        assert (await call).state is CallState.REFUSED


async def test_a_role_by_address_is_only_for_whom_the_issuer_has_verified(tmp_path: Path) -> None:
    async with Issuer() as issuer:
        said = toml(issuer, 'admin = ["email:Ada@Example.com"]')
        async with served(tmp_path, said, start=False) as w:
            value = await log_in(w, issuer, "ada")
            assert (await as_login(w, value).ask("whoami", {}))["roles"] == ["admin"]
            issuer.claims |= {"email_verified": False}
            other = await entered(w, issuer)
            assert (await as_login(w, other["value"]).ask("whoami", {}))["roles"] == []


async def test_a_login_by_a_device_that_says_yes_elsewhere(tmp_path: Path) -> None:
    async with (
        Issuer() as issuer,
        served(tmp_path, toml(issuer, f'viewer = ["ada ({issuer.url})"]')) as w,
    ):
        to = Remote(w.home)
        begun = await to.ask("login", {})
        waits = asyncio.create_task(to.ask("login-finish", {"id": begun["id"]}))
        await asyncio.sleep(0.2)
        assert not waits.done() and begun["user_code"]
        issuer.approve(begun["user_code"])
        value = (await waits)["value"]
        assert (await as_login(w, value).ask("whoami", {}))["roles"] == ["viewer"]
        begun = await to.ask("login", {})
        issuer.deny(begun["user_code"])
        await refused(to.ask("login-finish", {"id": begun["id"]}), "login_failed")


@pytest.mark.parametrize(
    "misbehaviour",
    ["no-iss", "wrong-iss", "wrong-state", "alg-none", "hs256", "wrong-aud", "expired",
     "wrong-issuer-in-token", "wrong-nonce", "unknown-kid", "huge", "not-json", "redirect",
     "error-500", "other-issuer-in-discovery", "no-s256"],
)  # fmt: skip
async def test_an_issuer_that_misbehaves_logs_nobody_in(tmp_path: Path, misbehaviour: str) -> None:
    async with Issuer() as issuer:
        said = toml(issuer, 'admin = ["group:admins"]')
        async with served(tmp_path, said, start=False) as w:
            issuer.misbehave = {misbehaviour}
            issuer.claims = {"sub": "ada", "groups": ["admins"]}
            with pytest.raises(Ring0Error) as caught:
                await entered(w, issuer)
            assert caught.value.what and caught.value.code != "kernel_busy"
            assert await w.store.logins() == []
            issuer.misbehave = set()
            assert (await entered(w, issuer))["name"] == f"ada ({issuer.url})"


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
async def test_keys_that_an_issuer_changes_are_followed_and_old_ones_are_dead(
    tmp_path: Path, alg: str
) -> None:
    async with Issuer(alg=alg) as issuer, served(tmp_path, toml(issuer), start=False) as w:
        assert await entered(w, issuer)
        issuer.rotate_keys(keep_old=False)
        assert await entered(w, issuer)
        issuer.keys.reverse()
        issuer.rotate_keys()
        to = Remote(w.home)
        begun = await to.ask("login", {"redirect_uri": HERE})
        brought = await came(issuer, begun)
        forged = issuer.keys[0]
        issuer.keys = [issuer.keys[-1]]
        shown = issuer.id_token

        def by_old_key(nonce: str | None = None) -> str:
            issuer.keys.insert(0, forged)
            try:
                return shown(nonce)
            finally:
                issuer.keys.pop(0)

        issuer.id_token = by_old_key  # type: ignore[method-assign]
        finish = {"id": begun["id"], "came": brought}
        await refused(to.ask("login-finish", finish), "token_refused")


async def test_what_a_browser_brings_back_counts_once_and_for_its_own_login_only(
    tmp_path: Path,
) -> None:
    async with Issuer() as issuer, served(tmp_path, toml(issuer), start=False) as w:
        to = Remote(w.home)
        mine, other = [await to.ask("login", {"redirect_uri": HERE}) for _ in range(2)]
        brought = await came(issuer, mine)
        await refused(to.ask("login-finish", {"id": other["id"], "came": brought}),
                      "login_failed")  # fmt: skip
        await refused(to.ask("login-finish", {"id": "0" * 32, "came": brought}), "login_over")
        assert await to.ask("login-finish", {"id": mine["id"], "came": brought})
        await refused(to.ask("login-finish", {"id": mine["id"], "came": brought}),
                      "login_over")  # fmt: skip


async def test_a_browser_is_sent_back_to_this_machine_only(tmp_path: Path) -> None:
    async with Issuer() as issuer, served(tmp_path, toml(issuer), start=False) as w:
        for where in ("https://attacker.example/", "http://attacker.example/",
                      "http://127.0.0.1.attacker.example/", "file:///etc/passwd",
                      "http://127.0.0.1@attacker.example/", "//127.0.0.1/"):  # fmt: skip
            await refused(Remote(w.home).ask("login", {"redirect_uri": where}), "call_invalid")
        assert issuer.heard == []


async def test_logins_that_were_begun_and_left_are_bounded(tmp_path: Path) -> None:
    async with Issuer() as issuer, served(tmp_path, toml(issuer), start=False) as w:
        to = Remote(w.home)
        first = await to.ask("login", {"redirect_uri": HERE})
        for _ in range(limits.LOGINS_BEGUN_MAX):
            await to.ask("login", {"redirect_uri": HERE})
        finish = {"id": first["id"], "came": await came(issuer, first)}
        await refused(to.ask("login-finish", finish), "login_over")


async def test_people_who_say_yes_elsewhere_are_waited_for_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOGINS_BEGUN_MAX", 2)
    async with Issuer() as issuer, served(tmp_path, toml(issuer), start=False) as w:
        to, begun, waits = Remote(w.home), [], []
        for _ in range(3):
            begun.append(await to.ask("login", {}))
            finish = to.ask("login-finish", {"id": begun[-1]["id"]})
            waits.append(asyncio.create_task(finish))
            await asyncio.sleep(0.1)
        await refused(waits[0], "login_over")
        for one in begun[1:]:
            issuer.approve(one["user_code"])
        assert all(one["value"] for one in await asyncio.gather(*waits[1:]))
        assert w.kernel.logins._waits == {}


async def test_a_kernel_that_ends_waits_for_nobody_who_is_logging_in(tmp_path: Path) -> None:
    async with Issuer() as issuer:
        async with asyncio.timeout(10):
            async with served(tmp_path, toml(issuer), start=False) as w:
                begun = await Remote(w.home).ask("login", {})
                finish = Remote(w.home).ask("login-finish", {"id": begun["id"]})
                wait = asyncio.create_task(finish)
                await asyncio.sleep(0.2)
        with pytest.raises(Ring0Error):
            await wait


async def test_the_clients_secret_stays_with_the_kernel(tmp_path: Path) -> None:
    from ring0.runtime import Runtime

    async with Issuer() as issuer:
        issuer.client_secret = "hush-hush-client-secret"
        said = toml(issuer, more='client_secret = "OIDC_SECRET"')
        environment = {"OIDC_SECRET": issuer.client_secret}
        async with served(tmp_path, said, environment=environment, runtime=Runtime(),
                          start=False) as w:  # fmt: skip
            begun = await Remote(w.home).ask("login", {"redirect_uri": HERE})
            assert issuer.client_secret not in str(begun)
            finish = {"id": begun["id"], "came": await came(issuer, begun)}
            assert (await Remote(w.home).ask("login-finish", finish))["value"]
            await w.forget()
            assert issuer.client_secret.encode() not in w.on_disk()


# --- what nobody brings along -----------------------------------------------------------------


async def test_a_quorum_above_one_needs_people_who_logged_in(tmp_path: Path) -> None:
    policy = """
@id("two") @reason("two people") @approvers("2")
forbid (principal, action in Action::"tool", resource) when { context.mutates }
  unless { context.approved };
permit (principal, action in Action::"tool", resource) when { context.approved };
"""
    async with Issuer() as issuer:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "own.cedar").write_text(policy)
        roles = f'approver = ["{ME}", "group:oncall"]\noperator = ["{ME}"]'
        said = 'policy = ["own.cedar"]\n' + toml(issuer, roles)
        async with served(tmp_path, said) as w:
            call = w.start("act", {})
            approval = await w.pending()
            await refused(Remote(w.home).answer(approval.id, yes=True), AnswerRefused.code)
            ada = as_login(w, await log_in(w, issuer, "ada", ["oncall"]))
            first = await ada.answer(approval.id, yes=True)
            assert first.state is ApprovalState.PENDING
            again = as_login(w, await log_in(w, issuer, "ada", ["oncall"]))
            await refused(again.answer(approval.id, yes=True), AnswerRefused.code)
            assert not call.done()
            bob = as_login(w, await log_in(w, issuer, "bob", ["oncall"]))
            await bob.answer(approval.id, yes=True)
            assert (await call).state is CallState.OK
            stored = msgspec.to_builtins(await w.store.approval(approval.id))
            assert f"ada ({issuer.url})" in str(stored) and f"bob ({issuer.url})" in str(stored)


# --- [roles] and [oidc] -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        '[roles]\nroot = ["ada"]\n',
        '[roles]\nadmin = "ada"\n',
        '[roles]\nadmin = [""]\n',
        '[roles]\nadmin = ["ada\\n"]\n',
        '[oidc]\nissuer = "https://login.example.com"\nclient_id = "x"\n',
        '[oidc]\nissuer = "https://login.example.com"\n[roles]\n',
        '[oidc]\nissuer = ""\nclient_id = "x"\n[roles]\n',
        '[oidc]\nissuer = "https://x.example"\nclient_id = "x"\nscopes = ["email"]\n[roles]\n',
        '[oidc]\nissuer = "https://x.example"\nclient_id = "x"\nleeway = 1\n[roles]\n',
    ],
)
async def test_a_table_that_does_not_fit_starts_nothing(tmp_path: Path, said: str) -> None:
    with pytest.raises(ManifestInvalid):
        async with served(tmp_path, said, start=False):
            pass


async def test_an_issuer_over_plain_http_is_taken_on_this_machine_only(tmp_path: Path) -> None:
    said = '[oidc]\nissuer = "http://login.example.com"\nclient_id = "x"\n[roles]\n'
    async with served(tmp_path, said, start=False) as w:
        error = await refused(Remote(w.home).ask("login", {"redirect_uri": HERE}), "invalid_input")
        assert "https" in error.todo


def test_what_an_issuer_says_never_fits_a_name_of_this_machine() -> None:
    roles = Roles(
        {Role.ADMIN: ("root (uid 0)", "group:wheel"), Role.VIEWER: ("email:a@x.example",)}
    )
    assert roles.of_peer("root (uid 0)") == {Role.ADMIN}
    for name in ("root (uid 0) (https://x.example)", "group:wheel (https://x.example)"):
        assert roles.of_login(name, "", ()) == frozenset()
    assert roles.of_login("x (https://x.example)", "", ("root (uid 0)",)) == frozenset()
    assert roles.of_peer("group:wheel (uid 5)") == frozenset()
    assert Roles(None).of_login("x (https://x.example)", "a@x.example", ("wheel",)) == frozenset()


def test_an_operator_without_a_role_is_told_which() -> None:
    from ring0.identity.roles import RoleMissing, check

    who = Operator(name="ada (uid 1)", roles=frozenset({Role.VIEWER}))
    check(who, Role.VIEWER, "load")
    with pytest.raises(RoleMissing) as caught:
        check(who, Role.APPROVER, "answer")
    assert "approver" in caught.value.what and "viewer" in caught.value.why


def test_security_md_says_who_the_operator_is() -> None:
    """Whoever reads only that page has to find it there."""
    said = (Path(__file__).parents[2] / "SECURITY.md").read_text("utf-8")
    assert "Every unsandboxed process of that uid is the operator" in said
