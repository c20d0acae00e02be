"""A login is kept fresh: once however many ask, and never lost by what happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from issuer import Issuer
from oauth_world import log_in

from ring0 import limits
from ring0.errors import CallDenied, Ring0Error, StoreDamaged, ToolFailed
from ring0.gateway.holding import holder
from ring0.guardrails import Secrets
from ring0.identity import Vault
from ring0.identity.refreshing import Refreshing, access_name, login_lock, refresh_name
from ring0.kernel.agent.config_credentials import OAuthTable
from ring0.kernel.agent.manifests import Config
from ring0.kernel.keeping import Keeping
from ring0.runtime import Runtime

HERE = Path(__file__).parent


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as found:
        found.access_s = 30  # Each use renews it.
        yield found


async def keeping(home: Path, issuer: Issuer, *, logged_in: bool = True) -> Keeping:
    if logged_in:
        await log_in(home, issuer)
    config = Config(oauth={"api": OAuthTable(client_id="ring0", issuer=issuer.url)})
    return Keeping(Vault(home), config, {}, Runtime())


async def test_many_who_ask_at_once_renew_it_once_and_get_the_same(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    issuer.access_s = 3_600
    real, renewals = kept.logins._renew, []

    async def renew(name: str) -> str:
        renewals.append(name)
        return await real(name)

    kept.logins._renew = renew  # type: ignore[method-assign]
    found = await asyncio.gather(*(kept.logins.token("api") for _ in range(50)))
    assert (
        renewals == ["api"]
        and issuer.refreshed == 1
        and len(set(found)) == 1
        and issuer.is_good(found[0])
    )
    assert await kept.logins.token("api") == found[0] and issuer.refreshed == 1


async def test_what_another_process_has_renewed_is_not_renewed_again(
    tmp_path: Path, issuer: Issuer
) -> None:
    one = await keeping(tmp_path, issuer)
    other = await keeping(tmp_path, issuer, logged_in=False)
    issuer.access_s = 3_600
    assert await one.logins.token("api") == await other.logins.token("api")
    assert issuer.refreshed == 1


async def test_each_renewal_is_with_the_newest_refresh_token(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    for _ in range(5):
        assert issuer.is_good(await kept.logins.token("api"))
    assert issuer.refreshed == 5 and not issuer.dead_families


async def test_a_server_that_keeps_the_refresh_token_is_asked_with_it_again(
    tmp_path: Path, issuer: Issuer
) -> None:
    issuer.misbehave.add("no-rotation")
    kept = await keeping(tmp_path, issuer)
    first = Vault(tmp_path).value(refresh_name("api"))
    for _ in range(3):
        assert issuer.is_good(await kept.logins.token("api"))
    assert Vault(tmp_path).value(refresh_name("api")) == first


async def test_a_new_refresh_token_is_on_disk_before_anybody_gets_the_access_token(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    old = Vault(tmp_path).value(refresh_name("api"))
    seen: list[bool] = []
    real = kept.vault.put

    def put(changes: Any, now_us: int, **where: Any) -> None:
        assert Vault(tmp_path).value(refresh_name("api")) == old
        real(changes, now_us, **where)
        new = Vault(tmp_path).value(refresh_name("api"))
        seen.append(new not in ("", old) and new == kept.vault.value(refresh_name("api")))

    kept.vault.put = put  # type: ignore[method-assign]
    token = await kept.logins.token("api")
    assert seen == [True] and Vault(tmp_path).value(access_name("api")) == token


async def test_new_tokens_are_kept_back_before_anybody_gets_them(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    old = dict(kept.vault.values())
    token = await kept.logins.token("api")
    for value in (*old.values(), token, kept.vault.value(refresh_name("api"))):
        assert value not in kept.secrets.redact_text(f"said: {value}.")


async def test_who_goes_away_does_not_take_the_renewal_along(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    asked = asyncio.create_task(kept.logins.token("api"))
    await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await kept.logins.close()
    assert issuer.refreshed == 1
    await kept.logins.token("api")
    assert not issuer.dead_families


async def test_a_login_that_the_server_ended_is_removed_and_only_a_person_can_help(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    old = dict(kept.vault.values())
    issuer.revoke_all()
    for _ in range(2):
        with pytest.raises(CallDenied) as told:
            await kept.logins.token("api")
        assert "ring0 secret login api" in told.value.todo
        assert not any(value in str(told.value) for value in old.values())
    asked = [form for path, form in issuer.heard if form.get("grant_type") == "refresh_token"]
    assert len(asked) == 1 and not Vault(tmp_path).names()


async def test_nobody_logged_in_is_told_without_asking_the_server(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer, logged_in=False)
    with pytest.raises(CallDenied, match="Nobody is logged in"):
        await kept.logins.token("api")
    assert issuer.heard == []


@pytest.mark.parametrize("wrong", ["error-500", "not-json", "huge", "redirect", "echo"])
async def test_a_server_in_trouble_ends_no_login(
    tmp_path: Path, issuer: Issuer, wrong: str
) -> None:
    issuer.access_s = 0
    kept = await keeping(tmp_path, issuer)
    # Its endpoints are known; the trouble is in the renewal itself.
    await kept.logins._oauth_of("api")
    issuer.misbehave.add(wrong)
    refresh = kept.vault.value(refresh_name("api"))
    with pytest.raises(ToolFailed) as told:
        await kept.logins.token("api")
    assert refresh not in str(told.value) and told.value.why
    assert Vault(tmp_path).value(refresh_name("api")) == refresh
    issuer.misbehave.clear()
    issuer.access_s = 3_600
    assert issuer.is_good(await kept.logins.token("api"))


async def test_a_renewal_that_nobody_heard_the_answer_of_is_told_when_the_server_says_no(
    tmp_path: Path, issuer: Issuer
) -> None:
    """The server changed the token and the answer was lost: nothing on our side can mend that."""
    issuer.access_s = 0
    kept = await keeping(tmp_path, issuer)
    issuer.misbehave.add("cut-off")
    with pytest.raises(ToolFailed):
        await kept.logins.token("api")
    issuer.misbehave.clear()
    with pytest.raises(CallDenied, match="has ended"):
        await kept.logins.token("api")


async def test_a_person_who_logs_in_meanwhile_is_not_overwritten(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    real = kept.logins._oauth_of

    async def oauth_of(name: str) -> Any:
        Vault(tmp_path).set(refresh_name("api"), "another-persons-token", 9)
        return await real(name)

    kept.logins._oauth_of = oauth_of
    with pytest.raises(CallDenied, match="changed just now"):
        await kept.logins.token("api")
    assert Vault(tmp_path).value(refresh_name("api")) == "another-persons-token"


async def test_a_person_who_logs_out_meanwhile_stays_logged_out(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    real = kept.logins._oauth_of

    async def oauth_of(name: str) -> Any:
        Vault(tmp_path).remove(refresh_name("api"))
        return await real(name)

    kept.logins._oauth_of = oauth_of
    with pytest.raises(CallDenied):
        await kept.logins.token("api")
    assert refresh_name("api") not in Vault(tmp_path).names()


# --- the disk -------------------------------------------------------------------------------------


async def test_a_token_that_could_not_be_kept_is_not_asked_for(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await keeping(tmp_path, issuer)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreDamaged, match="No space left"):
            await kept.logins.token("api")
        assert issuer.refreshed == 0
    assert issuer.is_good(await kept.logins.token("api"))


async def test_a_token_that_no_disk_took_is_kept_in_memory_and_written_as_soon_as_one_does(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    real = kept.vault.put

    def full(*_: Any, **__: Any) -> None:
        raise StoreDamaged("The disk is full since just now.")

    kept.vault.put = full  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(StoreDamaged):
            await kept.logins.token("api")
    assert issuer.refreshed == 1
    kept.vault.put = real  # type: ignore[method-assign]
    issuer.access_s = 3_600
    assert issuer.is_good(await kept.logins.token("api"))
    assert not issuer.dead_families
    assert Vault(tmp_path).value(refresh_name("api")) in issuer._refresh


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("step", ["before it asks", "when it is answered", "when it is on disk"])
async def test_a_crash_in_a_renewal_loses_the_login_only_where_the_answer_is_lost(
    tmp_path: Path, issuer: Issuer, step: str
) -> None:
    kept = await keeping(tmp_path, issuer)
    real_put, real_room = kept.vault.put, kept.vault.check_room

    def room() -> None:
        real_room()
        if step == "before it asks":
            raise Crash

    def put(changes: Any, now_us: int, **where: Any) -> None:
        if step == "when it is answered":
            raise Crash
        real_put(changes, now_us, **where)
        raise Crash

    kept.vault.check_room, kept.vault.put = room, put  # type: ignore[method-assign]
    asked = asyncio.create_task(kept.logins._renew("api"))
    with pytest.raises(Crash):
        await asked
    after = await keeping(tmp_path, issuer, logged_in=False)  # The next process.
    if step == "when it is answered":  # Nobody can have it back: it is told, and not tried again.
        for _ in range(2):
            with pytest.raises(CallDenied, match="login api"):
                await after.logins.token("api")
    else:
        assert issuer.is_good(await after.logins.token("api"))
        assert not issuer.dead_families


async def test_a_client_with_a_secret_takes_it_from_the_vault_as_it_is_now(
    tmp_path: Path, issuer: Issuer
) -> None:
    await log_in(tmp_path, issuer)
    vault = Vault(tmp_path)
    vault.set("corp/client", "first-client-secret", 1)
    login = OAuthTable(client_id="ring0", issuer=issuer.url, client_secret="secret://corp/client")
    kept = Keeping(vault, Config(oauth={"api": login}), {}, Runtime())
    issuer.client_secret = "first-client-secret"
    assert issuer.is_good(await kept.logins.token("api"))
    issuer.client_secret = "second-client-secret"
    with pytest.raises(ToolFailed, match="could not be renewed") as told:
        issuer.access.clear()
        kept.vault.set(access_name("api"), "an-old-access-token", 1, ends_us=1)
        await kept.logins.token("api")
    assert "invalid_client" in told.value.why, "a wrong secret of ours ends no login"
    Vault(tmp_path).set("corp/client", "second-client-secret", 2)
    await kept.reload()
    assert issuer.is_good(await kept.logins.token("api"))


async def test_a_server_that_says_nothing_of_itself_is_reached_by_its_addresses(
    tmp_path: Path, issuer: Issuer
) -> None:
    await log_in(tmp_path, issuer)
    asked = len(issuer.heard)
    login = OAuthTable(
        client_id="ring0", token_url=f"{issuer.base}/token", device_url=f"{issuer.base}/device"
    )
    kept = Keeping(Vault(tmp_path), Config(oauth={"api": login}), {}, Runtime())
    assert issuer.is_good(await kept.logins.token("api"))
    assert [path for path, _ in issuer.heard[asked:]] == ["/token"]


async def test_what_a_server_says_of_itself_is_asked_once_in_a_while(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await keeping(tmp_path, issuer)
    asked = len(issuer.heard)
    for _ in range(3):
        await kept.logins.token("api")
    paths = [path for path, _ in issuer.heard[asked:]]
    assert paths == ["/.well-known/openid-configuration", "/token", "/token", "/token"]
    monkeypatch.setattr(limits, "OAUTH_DISCOVERED_S_MAX", -1)
    await kept.logins.token("api")
    assert issuer.heard[-2][0] == "/.well-known/openid-configuration"


# --- several processes ----------------------------------------------------------------------------

RENEW = """
import asyncio, sys
from pathlib import Path
from ring0.identity import Vault
from ring0.kernel.agent.config_credentials import OAuthTable
from ring0.kernel.agent.manifests import Config
from ring0.kernel.keeping import Keeping
from ring0.runtime import Runtime

async def main():
    config = Config(oauth={"api": OAuthTable(client_id="ring0", issuer=sys.argv[2])})
    kept = Keeping(Vault(Path(sys.argv[1])), config, {}, Runtime())
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(3):
        print(await kept.logins.token("api"), flush=True)

asyncio.run(main())
"""


async def _renewing(home: Path, issuer: Issuer) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", RENEW, str(home), issuer.url,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


async def test_processes_that_ask_at_once_never_use_one_refresh_token_twice(
    tmp_path: Path, issuer: Issuer
) -> None:
    await keeping(tmp_path, issuer)
    others = [await _renewing(tmp_path, issuer) for _ in range(3)]
    for other in others:
        assert other.stdout is not None
        assert await other.stdout.readline() == b"ready\n"
    said = await asyncio.gather(*(other.communicate(b"go\n") for other in others))
    assert [other.returncode for other in others] == [0, 0, 0]
    tokens = b"".join(out for out, _ in said).split()
    assert len(tokens) == 9 and all(issuer.is_good(token.decode()) for token in tokens)
    assert not issuer.dead_families, "a refresh token was used twice"


async def test_a_process_that_dies_in_the_midst_of_renewing_holds_nobody_up(
    tmp_path: Path, issuer: Issuer
) -> None:
    kept = await keeping(tmp_path, issuer)
    issuer.misbehave.add("slow")
    other = await _renewing(tmp_path, issuer)
    assert other.stdin is not None and other.stdout is not None
    await other.stdout.readline()
    other.stdin.write(b"go\n")
    async with asyncio.timeout(20):
        while holder(tmp_path / "oauth-api.lock") is None:
            await asyncio.sleep(0.02)
    other.kill()
    await other.wait()
    issuer.misbehave.clear()
    assert issuer.is_good(await kept.logins.token("api"))


async def test_who_holds_a_login_for_ever_is_not_waited_for(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await keeping(tmp_path, issuer)
    monkeypatch.setattr(limits, "OAUTH_LOCK_S_MAX", 0.2)
    async with login_lock(tmp_path, "api", Runtime()):
        with pytest.raises(ToolFailed, match="another process"):
            await kept.logins.token("api")
    assert issuer.is_good(await kept.logins.token("api"))


# --- what is kept back ----------------------------------------------------------------------------


async def test_an_old_value_is_kept_back_for_a_while_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(Runtime):
        at_us = 1_000_000_000_000_000

        def now_us(self) -> int:
            return self.at_us

    runtime = Clock()
    vault = Vault(tmp_path)
    vault.set("A", "first-value-of-it", 1)
    kept = Keeping(vault, Config(), {}, runtime)
    other = Vault(tmp_path)
    other.set("A", "second-value-of-it", 2)
    assert await kept.reload() == ["A"]
    text = "first-value-of-it second-value-of-it third-value-of-it"
    assert kept.value("A") == kept.value("secret://A") == "second-value-of-it"
    assert kept.secrets.redact_text(text) == "«secret:A» «secret:A» third-value-of-it"
    runtime.at_us += limits.SECRET_OLD_S_MAX * 1_000_000 + 1
    other.set("A", "third-value-of-it", 3)
    await kept.reload()
    assert kept.secrets.redact_text(text) == "first-value-of-it «secret:A» «secret:A»"
    monkeypatch.setattr(limits, "SECRETS_OLD_MAX", 3)
    for number in range(9):
        other.set("A", f"another-value-{number}", 4)
        await kept.reload()
    assert len(kept._old) == 3


async def test_a_removed_secret_is_of_no_use_and_still_kept_back(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.set("A", "first-value-of-it", 1)
    kept = Keeping(vault, Config(), {}, Runtime())
    Vault(tmp_path).remove("A")
    await kept.reload()
    assert kept.value("A") == ""
    assert "first" not in kept.secrets.redact_text("it was first-value-of-it")


async def test_a_change_that_can_not_be_kept_back_is_not_taken_up(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.set("A", "first-value-of-it", 1)
    kept = Keeping(vault, Config(secrets=["A"]), {}, Runtime())
    other = Vault(tmp_path)
    other.put(
        {"A": None, "B": ("second-value-of-it", 0), access_name("api"): ("token-value", 0)}, 2
    )
    with pytest.raises(Ring0Error, match="not set"):
        await kept.reload()
    assert "first" not in kept.secrets.redact_text("it was first-value-of-it")
    # What is not kept back is not used either.
    assert kept.value("A") == kept.value("B") == ""
    with pytest.raises(Ring0Error, match="not set"):
        await kept.logins.token("api")


def test_the_redactor_takes_all_of_a_change_or_nothing() -> None:
    secrets = Secrets({"A": "first-value-of-it"})
    with pytest.raises(Ring0Error):
        secrets.replace({"B": "second-value-of-it", "C": "short"})
    assert secrets.redact_text("first-value-of-it second-value-of-it") == (
        "«secret:A» second-value-of-it"
    )


def test_nothing_that_is_printed_shows_a_token(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.set(access_name("api"), "canary-access-token", 1)
    never: Callable[..., Any] = lambda *_: None  # noqa: E731
    refreshing = Refreshing(tmp_path, vault, never, Runtime(), never)
    kept = Keeping(vault, Config(), {}, Runtime())
    assert "canary" not in f"{refreshing!r} {kept!r} {kept.secrets!r} {vault!r}"
