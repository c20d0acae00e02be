"""A tier is a minimum: given, or more, or an error. And what a tier is found to be, it is."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sandbox_world import RUNTIME, uids

from ring0.cli import checks
from ring0.errors import InvalidInput, SandboxFailed, SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.sandbox import Sandbox, SandboxSpec, containers, host, microvm, tiers
from ring0.tools.sandbox.probe import Probe, ask, start


def _spec(tier: str, *argv: str, **fields: object) -> SandboxSpec:
    argv = argv or ("/bin/sh", "-c", "echo ring0")
    return SandboxSpec(argv=argv, host_uid=next(uids), tier=tier, **fields)  # type: ignore[arg-type]


async def _refuse(*_: object, **__: object) -> Sandbox:
    raise SandboxUnavailable("Not here.", why="The test says so.", todo="Ask it.")


@pytest.fixture(autouse=True)
def _nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "_seen", {})


def _say(monkeypatch: pytest.MonkeyPatch, **there: bool) -> None:
    error = {"what": "Not here.", "why": "The test says so.", "todo": "Ask it."}
    for name in tiers.ORDER:
        available = there.get(name, False)
        seen = Probe(available=available, error=None if available else error, tier=name)
        monkeypatch.setitem(tiers._seen, name, seen)


# --- the choice --------------------------------------------------------------------------------


async def test_the_default_is_ns() -> None:
    made = await tiers.make(_spec(SandboxSpec().tier), RUNTIME)
    try:
        assert made.tier == "ns"
    finally:
        await made.close()


@pytest.mark.parametrize("tier", [*tiers.ORDER])
async def test_what_is_made_is_never_less_than_what_was_asked(tier: str) -> None:
    try:
        made = await tiers.make(_spec(tier), RUNTIME)
    except SandboxUnavailable as error:
        assert error.why and error.todo
        return
    try:
        assert tiers.ORDER.index(made.tier) >= tiers.ORDER.index(tier)
        await made.go()
        assert await made.stdout.read() == b"ring0\n"
    finally:
        await made.close()


async def test_where_ns_is_forbidden_the_next_stronger_is_taken_not_the_weaker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    async def container(kind: object, spec: SandboxSpec, runtime: Runtime) -> str:
        made.append(kind)
        return "a container"

    monkeypatch.setattr(host, "launch", _refuse)
    monkeypatch.setattr(containers, "make", container)
    _say(monkeypatch, landlock=True, container=True, gvisor=True)
    assert await tiers.make(_spec("ns"), RUNTIME) == "a container"  # type: ignore[comparison-overlap]
    assert made == [containers.CONTAINER]


async def test_where_nothing_is_strong_enough_there_is_an_error_that_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "launch", _refuse)
    _say(monkeypatch, landlock=True)
    with pytest.raises(SandboxUnavailable, match="No sandbox of the tier ns or above") as error:
        await tiers.make(_spec("ns"), RUNTIME)
    assert "The test says so." in error.value.why and error.value.todo == "Ask it."


async def test_a_failure_is_no_reason_to_take_another_tier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> Sandbox:
        raise SandboxFailed("It should have worked.")

    monkeypatch.setattr(host, "launch", fail)
    monkeypatch.setattr(containers, "make", fail)
    _say(monkeypatch, container=True, gvisor=True)
    for tier in ("ns", "container"):
        with pytest.raises(SandboxFailed, match="should have worked"):
            await tiers.make(_spec(tier), RUNTIME)


async def test_an_unknown_tier_is_an_error_not_a_default() -> None:
    with pytest.raises(InvalidInput, match="no sandbox tier 'docker'"):
        await tiers.make(_spec("docker"), RUNTIME)


async def test_a_runtime_that_was_not_seen_to_work_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(runtime: Runtime) -> Probe:
        return Probe(available=False, error={"what": "It hangs.", "why": "", "todo": ""})

    for name in ("container", "gvisor", "microvm"):
        monkeypatch.setitem(tiers._TIERS, name, tiers._TIERS[name]._replace(probe=broken))
    with pytest.raises(SandboxUnavailable) as error:
        await tiers.make(_spec("container"), RUNTIME)
    assert "It hangs." in error.value.why


@pytest.mark.parametrize("asked", ["doors", "egress"])
async def test_what_a_tier_cannot_give_is_refused_not_left_out(asked: str) -> None:
    with pytest.raises(SandboxUnavailable) as error:
        await tiers.make(_spec("gvisor", **{asked: True}), RUNTIME)
    if (await tiers._TIERS["gvisor"].probe(RUNTIME)).available:
        assert "no doors and no egress" in error.value.why


# --- the probes --------------------------------------------------------------------------------


async def test_every_tier_is_reported_in_order_with_what_it_does_not_keep() -> None:
    found = await tiers.probe_all(RUNTIME)
    assert tuple(seen.tier for seen in found) == tiers.ORDER
    for seen in found:
        if seen.available:
            assert seen.enforced and seen.not_enforced and seen.start_ms > 0 and seen.totals
        else:
            assert seen.error is not None and seen.error["why"] and seen.error["todo"]


async def test_a_runtime_that_hangs_is_no_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(spec: SandboxSpec, runtime: Runtime) -> Sandbox:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("ring0.limits.TIER_PROBE_S_MAX", 0.1)
    seen = await start(RUNTIME, "gvisor", hang, enforced=(), gaps=())
    assert not seen.available and seen.error is not None
    assert "does not work" in seen.error["what"]
    seen = await ask(RUNTIME, "container", hang)
    assert not seen.available


async def test_a_sandbox_that_says_something_else_is_no_tier() -> None:
    async def other(spec: SandboxSpec, runtime: Runtime) -> Sandbox:
        return await host.launch(_spec("ns", "/bin/echo", "else"), runtime)

    seen = await start(RUNTIME, "gvisor", other, enforced=(), gaps=())
    assert not seen.available


async def test_a_virtual_machine_counts_only_when_it_has_spoken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ring0.limits.MICROVM_BOOT_S_MAX", 1)
    monkeypatch.setattr(os, "access", lambda *_: True)
    guest = tmp_path / "vmlinuz"
    guest.touch()
    says = microvm.MARK.decode().strip()
    for script, booted in (
        ("sleep 60", False),
        ("echo kvm is there", False),
        (f"echo {says}", True),
    ):
        vmm = tmp_path / "vmm"
        vmm.write_text(f"#!/bin/sh\n{script}\n")
        vmm.chmod(vmm.stat().st_mode | stat.S_IXUSR)
        boot = await microvm.boot(RUNTIME, str(guest), str(vmm))
        assert boot.booted == booted, script
        assert boot.took_ms < 5_000


async def test_a_machine_without_what_a_virtual_machine_needs_says_what(tmp_path: Path) -> None:
    boot = await microvm.boot(RUNTIME, guest=str(tmp_path), vmm="")
    if not boot.booted:
        assert boot.why and boot.todo


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="x86_64")
def test_the_first_program_of_a_guest_says_its_line(tmp_path: Path) -> None:
    """In a process namespace its `reboot` ends the namespace only."""
    program = tmp_path / "init"
    program.write_bytes(microvm.first_program())
    program.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--fork", "--pid", str(program)],
        capture_output=True, check=False, timeout=10,
    )  # fmt: skip
    if done.returncode == 1 and b"unshare" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.stdout == microvm.MARK
    assert microvm.first_program() in microvm.initramfs()


# --- what `ring0 doctor` says of it --------------------------------------------------------------


async def _doctor() -> list[checks.Check]:
    return await checks._sandbox(SimpleNamespace(runtime=RUNTIME))  # type: ignore[arg-type]


async def test_doctor_names_each_tier_the_mechanism_of_limits_and_what_is_not_enforced() -> None:
    found = await _doctor()
    assert found[0].name == "limits" and found[0].state in ("ok", "note")
    assert list(dict.fromkeys(check.name for check in found[1:])) == list(tiers.ORDER)
    works = next(check for check in found if check.name == "ns")
    assert works.state == "ok" and "seccomp" in works.what and "started in" in works.what
    assert any(check.what.startswith("Not enforced: ") for check in found)


async def test_doctor_calls_it_missing_only_when_no_tier_of_the_default_or_above_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_not_there(name: str) -> None:
        async def none(runtime: Runtime) -> Probe:
            error = {"what": "Not here.", "why": "The test says so.", "todo": "Ask it."}
            return Probe(available=False, error=error, tier=name)

        monkeypatch.setitem(tiers._TIERS, name, tiers._TIERS[name]._replace(probe=none))

    for name in ("ns", "gvisor", "microvm"):
        is_not_there(name)
    if (await tiers._TIERS["container"].probe(RUNTIME)).available:
        assert "missing" not in {check.state for check in await _doctor()}
    is_not_there("container")
    missing = [check for check in await _doctor() if check.state == "missing"]
    assert [check.todo for check in missing] == ["Ask it."]
