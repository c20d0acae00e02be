"""What the operator's files say is taken up as one, by somebody who may, and on record."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing, World, database, world

from ring0.errors import CallDenied, ManifestInvalid, PolicyInvalid
from ring0.governance import Policies
from ring0.identity import operator_name
from ring0.kernel.operating import changing, proving
from ring0.kernel.operating.changing import ProfileLooser
from ring0.store import events as ev
from ring0.types import CallState, Effect, Operator, Role

ME = operator_name(os.getuid())
OPEN = 'permit (principal, action in Action::"tool", resource) when { context.mutates };\n'
ASK = OPEN.replace("};", "&& context.approved };")
NEVER = (
    '@id("no-more") @reason("not any more") forbid (principal, action, resource == Tool::"pay");\n'
)


def say(home: Path, policy: str = "", more: str = "") -> None:
    home.mkdir(exist_ok=True)
    (home / "own.cedar").write_text(policy)
    (home / "ring0.toml").write_text(f'policy = ["own.cedar"]\n{more}')


async def changes(w: World) -> list[ev.SettingChanged]:
    await w.store.flush()
    entries = [entry async for entry in w.store.entries(ev.KERNEL)]
    return [one.body for one in entries if isinstance(one.body, ev.SettingChanged)]


async def reload(w: World, *, by: str = ME, loosen: bool = False) -> list[str]:
    done = await changing.reload(w.kernel, by=by, loosen=loosen)
    return [change.name for change in done.changes]


def pay(w: World) -> Doing:
    driver: Doing = w.tool(Doing("pay", effect=Effect.ONCE, mutates=True, own=False))
    return driver


async def test_a_policy_that_is_taken_up_counts_for_the_next_call_of_a_run_that_goes_on(
    tmp_path: Path,
) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home") as w:
        driver = pay(w)
        assert (await w.call("pay", {"x": 1})).state is CallState.OK
        before = w.kernel.policies.digest
        say(w.home, OPEN + NEVER)
        assert await reload(w, by="ann (uid 5)") == ["policy"]
        refused = await w.call("pay", {"x": 1})
        assert refused.state is CallState.REFUSED and driver.done == 1
        assert "not any more" in str(refused.error)
        last = (await changes(w))[-1]
        assert (last.before, last.after) == (before, w.kernel.policies.digest)
        assert last.by == "ann (uid 5)"
        assert await w.store.blob(last.text) == w.kernel.policies.text.encode()


async def test_a_call_that_waits_for_a_person_is_judged_again_by_the_new_set(
    tmp_path: Path,
) -> None:
    say(tmp_path / "home", ASK)
    async with world(tmp_path / "home") as w:
        driver = pay(w)
        call = w.start("pay", {"x": 1})
        approval = await w.pending()
        say(w.home, ASK + NEVER)
        await reload(w)
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="ann"))
        outcome = await call
        assert outcome.state is CallState.REFUSED and driver.done == 0
        assert "not any more" in str(outcome.error)


async def test_a_call_that_waits_for_its_turn_is_judged_again_by_the_new_set(
    tmp_path: Path,
) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home") as w:
        driver = pay(w)
        await w.kernel.pause(w.run.id, by=ME)
        call = w.start("pay", {"x": 1})
        await asyncio.sleep(0.1)
        say(w.home, OPEN + NEVER)
        await reload(w)
        await w.kernel.resume(w.run.id, by=ME)
        assert (await call).state is CallState.REFUSED and driver.done == 0


async def test_what_a_call_was_decided_by_stays_on_record_after_the_set_has_changed(
    tmp_path: Path,
) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home") as w:
        pay(w)
        await w.call("pay", {"x": 1}, counter=1)
        say(w.home, OPEN + NEVER)
        await reload(w)
        call = await w.recorded(f"{w.run.id}/0/1")
        loaded = [e.body async for e in w.store.entries(ev.KERNEL)]
        (text,) = {b.text for b in loaded if isinstance(b, ev.PolicyLoaded)
                   and b.digest == call.verdict.policy_digest}  # fmt: skip
        old = Policies.from_text((await w.store.blob(text)).decode())
        assert old.digest == call.verdict.policy_digest != w.kernel.policies.digest


@pytest.mark.parametrize(
    "policy",
    ["permit (", "permit (principal, action, resource) when { context.nonsense };", NEVER + "x"],
)
async def test_a_set_that_does_not_fit_is_refused_with_its_place_and_the_old_one_holds(
    tmp_path: Path, policy: str
) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home") as w:
        pay(w)
        before, on_record = w.kernel.policies, await changes(w)
        say(w.home, policy, '[roles]\nadmin = ["nobody (uid 1)"]\n')
        with pytest.raises(PolicyInvalid) as caught:
            await reload(w)
        assert "own.cedar:" in str(caught.value)
        assert w.kernel.policies is w.kernel.gate.policies is before
        assert w.kernel.logins.peer(os.getuid()).roles == frozenset(Role)
        assert await changes(w) == on_record
        assert (await w.call("pay", {"x": 1})).state is CallState.OK


async def test_a_set_that_fails_the_cases_of_its_owner_is_not_taken_up(tmp_path: Path) -> None:
    more = 'policy_tests = ["cases.toml"]\n'
    say(tmp_path / "home", OPEN, more)
    cases = """
[[case]]
name = "payments are never made by an agent"
want = "deny"
tool = "pay"
facts = { mutates = true }
rules = ["no-more"]
"""
    (tmp_path / "home" / "cases.toml").write_text(cases)
    async with world(tmp_path / "home", start=False) as w:
        before = w.kernel.policies
        say(w.home, OPEN + "// nothing else\n", more)
        with pytest.raises(PolicyInvalid) as caught:
            await reload(w)
        assert "payments are never made" in caught.value.what and "cases.toml" in caught.value.what
        assert w.kernel.policies is before
        say(w.home, OPEN + NEVER, more)
        assert await reload(w) == ["policy"]
        (w.home / "cases.toml").unlink()
        say(w.home, OPEN, more)
        with pytest.raises(PolicyInvalid):
            await reload(w)


async def test_the_cases_of_its_owner_are_held_against_the_tools_of_the_manifest_beside_them(
    tmp_path: Path,
) -> None:
    more = 'policy_tests = ["../checks/cases.toml"]\n'
    say(tmp_path / "home", OPEN, more)
    checks = tmp_path / "checks"
    checks.mkdir()
    database(checks)
    (checks / "clerk.toml").write_text(
        'name = "clerk"\ncommand = ["true"]\n[tools.crm]\nuse = "sql"\ndatabase = "crm.db"\n'
    )
    case = """
manifest = "clerk.toml"
[[case]]
name = "nothing is changed"
want = "deny"
tool = "crm.execute"
facts = { mutates = true }
rules = ["no-more"]
"""
    async with world(tmp_path / "home", start=False) as w:
        before = w.kernel.policies
        say(w.home, OPEN + NEVER.replace("pay", "crm.execute"), more)
        (checks / "cases.toml").write_text(f'{case}args = {{ sql = "DELETE FROM t" }}\n')
        with pytest.raises(PolicyInvalid) as caught:
            await reload(w)
        assert "statement" in str(caught.value) and w.kernel.policies is before
        (checks / "cases.toml").write_text(f'{case}args = {{ statement = "DELETE FROM t" }}\n')
        assert await reload(w) == ["policy"]


@pytest.mark.parametrize("said", ["[roles", "unknown = 1\n", '[roles]\nking = ["x"]\n'])
async def test_a_ring0_toml_that_does_not_fit_changes_nothing(tmp_path: Path, said: str) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home") as w:
        before = await changes(w)
        (w.home / "ring0.toml").write_text(said)
        with pytest.raises(ManifestInvalid):
            await reload(w)
        assert await changes(w) == before


async def test_files_that_say_the_same_are_no_change(tmp_path: Path) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home") as w:
        before = await changes(w)
        assert [one.name for one in before] == ["policy"]
        assert await reload(w) == []
        assert await changes(w) == before
    async with world(tmp_path / "home", start=False) as w:
        assert await changes(w) == before


async def test_a_kernel_that_starts_with_other_files_says_who_started_it(tmp_path: Path) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home", start=False) as w:
        first = w.kernel.policies.digest
    say(tmp_path / "home", NEVER, f'[roles]\nadmin = ["{ME}"]\n')
    async with world(tmp_path / "home", start=False) as w:
        named = {one.name: one for one in (await changes(w))[1:]}
        assert set(named) == {"policy", "roles"}
        assert named["policy"].before == first and named["policy"].by == ME
        assert ME.encode() in await w.store.blob(named["roles"].text)
        rows = await w.store.settings()
        assert rows["policy"].value == w.kernel.policies.digest and rows["policy"].by == ME
    (tmp_path / "home" / "ring0.toml").unlink()
    async with world(tmp_path / "home", start=False) as w:
        last = {one.name: one.after for one in (await changes(w))[3:]}
        assert last["roles"] == changing.DEFAULT


async def test_roles_and_policy_change_in_one_step(tmp_path: Path) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home", start=False) as w:
        say(w.home, NEVER, f'[roles]\nviewer = ["{ME}"]\n')
        assert sorted(await reload(w)) == ["policy", "roles"]
        assert w.kernel.logins.peer(os.getuid()).roles == {Role.VIEWER}


async def test_of_two_who_take_the_files_up_at_the_same_time_each_change_is_on_record_once(
    tmp_path: Path,
) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home", start=False) as w:
        say(w.home, NEVER)
        came: list[Any] = await asyncio.gather(
            *(changing.reload(w.kernel, by=f"p{n}") for n in range(5)), return_exceptions=True
        )
        assert all(not isinstance(one, BaseException) or isinstance(one, CallDenied)
                   for one in came)  # fmt: skip
        assert len(await changes(w)) == 2
        assert w.kernel.policies.digest == (await w.store.settings())["policy"].value


async def test_what_was_read_first_never_takes_the_place_of_what_is_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home", start=False) as w:
        begun, go_on, prove = asyncio.Event(), asyncio.Event(), proving.prove

        async def slow(*given: Any) -> None:
            if not begun.is_set():  # The first one only.
                begun.set()
                await go_on.wait()
            await prove(*given)

        monkeypatch.setattr(proving, "prove", slow)
        older = asyncio.create_task(reload(w))
        await begun.wait()
        say(w.home, NEVER)
        newer = asyncio.create_task(reload(w))
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await older, await newer) == ([], ["policy"])
        assert w.kernel.gate.policies.digest == (await w.store.settings())["policy"].value
        assert "not any more" in w.kernel.gate.policies.text


async def test_what_waits_for_the_next_start_is_named(tmp_path: Path) -> None:
    say(tmp_path / "home", OPEN)
    async with world(tmp_path / "home", start=False) as w:
        say(w.home, OPEN, 'tenant = "acme"\n[scheduler]\ncalls_at_once = 3\n')
        done = await changing.reload(w.kernel, by=ME)
        assert done.changes == () and done.later == ("tenant", "scheduler")
        assert w.kernel.config.tenant == "local"


# --- profiles ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"), [("strict", "balanced"), ("strict", ""), ("balanced", "observe"),
                          ("", "observe"), ("strict", "observe")],
)  # fmt: skip
async def test_a_looser_profile_is_taken_up_only_by_somebody_who_says_so(
    tmp_path: Path, before: str, after: str
) -> None:
    def profile(name: str) -> str:
        return f'profile = "{name}"\n' if name else ""

    say(tmp_path / "home", more=profile(before))
    async with world(tmp_path / "home", start=False) as w:
        holds = w.kernel.policies
        say(w.home, more=profile(after))
        with pytest.raises(ProfileLooser) as caught:
            await reload(w)
        assert "--yes-loosen" in caught.value.todo
        assert w.kernel.policies is holds
    async with world(tmp_path / "home", start=False) as w:  # Nor by starting it anew.
        assert w.kernel.policies.digest == holds.digest
        assert w.kernel.held_profile == (after or changing.DEFAULT)
        assert "--yes-loosen" in changing.told(w.kernel)
        assert not any(one.loosened for one in await changes(w))
        assert "profile" in await reload(w, by="ann (uid 5)", loosen=True)
        (last,) = [one for one in await changes(w) if one.loosened]
        assert (last.name, last.by) == ("profile", "ann (uid 5)")
        assert w.kernel.held_profile == "" and w.kernel.policies.digest != holds.digest
    async with world(tmp_path / "home", start=False) as w:  # It was said: it stays so.
        assert w.kernel.held_profile == "" and w.kernel.config.profile == after


async def test_a_stricter_profile_needs_no_word(tmp_path: Path) -> None:
    say(tmp_path / "home", more='profile = "balanced"\n')
    async with world(tmp_path / "home", start=False) as w:
        say(w.home, more='profile = "strict"\n')
        assert sorted(await reload(w)) == ["policy", "profile"]
        assert not any(one.loosened for one in await changes(w))
        assert w.kernel.policies.profile == "strict"
