"""The attacks on this machine's sandboxes; and that they would find a sandbox that leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sandbox_world import AS_ROOT, REPO, RUNTIME, uids
from selftest_world import ATTACK, attacked, maker, named, outcome, states

from ring0.runtime import Runtime
from ring0.tools.sandbox import Mount, spec
from ring0.tools.sandbox.selftest import ATTACKS, Attack, Finding, State, selftest
from ring0.tools.sandbox.selftest.outlets import Outlets
from ring0.tools.sandbox.selftest.places import source
from ring0.tools.sandbox.selftest.trial import Trial, Verdict, heard, judge
from ring0.tools.sandbox.selftest.world import VARIABLE, world

USER = next(uids)  # Nobody else's: the bound on processes is by uid, and other tests use nobody's.


# --- this machine's sandboxes -----------------------------------------------------------------


async def test_no_attack_gets_through_and_each_works_outside() -> None:
    heard_of: list[Finding] = []
    async with maker() as make:
        report = await selftest(make, RUNTIME, tier="ns", found=heard_of.append)
    bad = [f for f in report.findings if f.state not in (State.CLOSED, State.NOT_HERE, State.GAP)]
    assert report.good and not bad, bad
    assert [f.name for f in heard_of] == [a.name for a in ATTACKS]
    assert len(report.findings) >= 160 and report.held >= 100


def test_nor_where_the_kernel_is_an_ordinary_user() -> None:
    """The whole of it by a Python of the system, as a user of its own."""
    if not AS_ROOT:
        pytest.skip("the tests run as an ordinary user already")
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = shutil.which(ours, path="/usr/bin:/usr/local/bin")
    packages = str(Path(msgspec.__file__).parent.parent)
    if python is None or not _can_run(python, packages):
        pytest.skip(f"there is no {ours} with ring0's dependencies for uid {USER} to use")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(REPO / "src/ring0", Path(folder, "ring0"))
        done = subprocess.run(
            ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
             python, "-c", "from ring0.cli.main import main; main()",
             "sandbox", "selftest", "--json"],
            env={"PATH": os.environ["PATH"], "HOME": folder, "PYTHONPATH": f"{folder}:{packages}"},
            cwd="/", capture_output=True, text=True, timeout=170,
        )  # fmt: skip
    told = json.loads(done.stdout)
    assert "good" in told, told
    wrong = [f for f in told["findings"] if f["state"] in ("OPEN", "broken", "control failed")]
    assert done.returncode == 0 and told["good"], wrong
    assert told["kernel_uid"] == USER and told["controls_held"] >= 60


def _can_run(python: str, packages: str) -> bool:
    """May the user use them?"""
    probe = "import msgspec, typer, uvloop, cryptography, aiohttp, apsw, cedarpy"
    return (
        subprocess.run(
            ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
             python, "-c", probe],
            env={"PYTHONPATH": packages}, capture_output=True, timeout=30,
        ).returncode
        == 0
    )  # fmt: skip


# --- it finds what leaks ----------------------------------------------------------------------


async def test_a_sandbox_without_a_filter_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_all = b"\x06\x00\x00\x00\x00\x00\xff\x7f"
    monkeypatch.setattr(spec, "_filter", lambda *_: allow_all)
    asked = named("unshare-user", "io-uring-setup", "keyctl", "netlink", "home-key")
    report = await attacked(asked)
    assert states(report) == {
        "unshare-user": State.OPEN, "io-uring-setup": State.OPEN, "keyctl": State.OPEN,
        "netlink": State.OPEN, "home-key": State.CLOSED,
    }  # fmt: skip
    assert not report.good and report.count(State.OPEN) == 4


async def test_a_sandbox_that_shows_a_host_folder_is_found_out() -> None:
    shown = (Mount("/boot" if os.path.isdir("/boot") else "/srv", "/srv"),)
    assert states(await attacked(named("host-root"), mounts=shown))["host-root"] is State.OPEN


async def test_a_sandbox_with_higher_limits_is_found_out() -> None:
    assert states(await attacked(named("tmp", "open-files"), limits=spec.SandboxLimits())) == {
        "tmp": State.OPEN, "open-files": State.OPEN,
    }  # fmt: skip


async def test_a_proxy_that_answers_nothing_holds_nothing_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy without rules refuses everything, also what a good one lets through."""
    monkeypatch.setattr(Outlets, "_texts", lambda _: [])
    (finding,) = (await attacked(named("proxy-nul"))).findings
    assert finding.state is State.BROKEN and "nothing gets through" in finding.inside


async def test_an_attack_that_does_not_work_outside_proves_nothing() -> None:
    useless = Attack(name="useless", family="files", tries="", program="exists", given="/nowhere")
    report = await attacked([useless, msgspec.structs.replace(useless, name="n", needs="luck")])
    assert states(report) == {"useless": State.NO_CONTROL, "n": State.NOT_HERE}
    assert not report.good and report.held == 0


async def test_an_attack_whose_program_is_wrong_is_no_success() -> None:
    wrong = Attack(name="wrong", family="files", tries="", program="read", given="no such target")
    report = await attacked([wrong])
    assert states(report) == {"wrong": State.BROKEN} and not report.good


async def test_a_canary_is_never_printed() -> None:
    """It is a secret of nobody's; but a report may be kept where it was tested."""
    report = await attacked(named("home-key", "proc-environ", "docker-sock"))
    told = msgspec.json.encode(report)
    assert b"canary-" not in told and b"(the canary)" in told


async def test_nothing_is_left_of_it(own_folder: Path) -> None:
    """No descriptor, file, task, variable; no process whose name has a part of the canary."""
    seen: list[str] = []

    class Noting(Runtime):
        def random_bytes(self, count: int) -> bytes:
            drawn = super().random_bytes(count)
            seen.append(drawn.hex())
            return drawn

    attacks = named("kill", "double-fork", "proxy-host", "planted-link")
    async with maker() as make:
        await selftest(make, RUNTIME, tier="ns", attacks=attacks)  # some things are kept for ever
        gc.collect()
        fds, tasks = len(os.listdir("/proc/self/fd")), asyncio.all_tasks()
        await selftest(make, Noting(), tier="ns", attacks=attacks)
        gc.collect()
        await asyncio.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) <= fds and asyncio.all_tasks() <= tasks
    assert not list(own_folder.iterdir()) and VARIABLE not in os.environ
    assert seen
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            told = (entry / "cmdline").read_text(errors="replace")
            assert not any(drawn[-8:] in told for drawn in seen if len(drawn) == 32), told


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made; short, because sockets have their paths in there."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


async def test_the_world_is_taken_down_when_something_fails(own_folder: Path) -> None:
    with pytest.raises(LookupError):
        async with world(RUNTIME) as made:
            victim = made.facts["victim"]
            raise LookupError
    assert not list(own_folder.iterdir()) and not Path(f"/proc/{victim}").exists()


async def test_a_cancel_ends_it_also_where_an_attack_ends_at_the_same_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way = asyncio.Event()

    async def find(trial: Trial, attack: Attack) -> Finding:
        under_way.set()
        with contextlib.suppress(asyncio.CancelledError):  # as what was just about to be over
            await asyncio.sleep(60)
        return Finding(
            name=attack.name, family=attack.family, tries="", state=State.CLOSED, why="",
            inside="", control="", held=True,
        )  # fmt: skip

    monkeypatch.setattr(Trial, "find", find)
    testing = asyncio.create_task(attacked(named("unshare-user")))
    await under_way.wait()
    testing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await testing


async def test_who_hears_of_a_finding_and_fails_ends_it_all(own_folder: Path) -> None:

    def full(_: Finding) -> None:
        raise LookupError("no room")

    async with maker() as make:
        with pytest.raises(LookupError, match="no room"):
            await selftest(make, RUNTIME, tier="ns", attacks=named("wall", "kill"), found=full)
    assert not list(own_folder.iterdir())


# --- judging ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "fields", "got", "known"),
    [
        ({"got": "x"}, {}, True, True),
        ({"got": ""}, {}, False, True),
        ({"refused": "EPERM"}, {}, False, True),
        ({"broken": "NameError"}, {}, False, False),
        ({}, {"signal": 31, "ended": "SIGSYS"}, False, True),
        ({}, {"signal": 9, "ended": "SIGKILL"}, False, False),
        ({}, {"stopped": "wall"}, False, False),
        ({}, {}, False, False),
    ],
)
def test_silence_is_no_proof(
    said: dict[str, str], fields: dict[str, Any], got: bool, known: bool
) -> None:
    verdict = heard(ATTACK, outcome(said, **fields))
    assert (verdict.got, verdict.known) == (got, known)


def test_what_a_limit_ends_is_held_off_only_where_a_limit_was_the_point() -> None:
    ended = outcome({}, stopped="memory", signal=9)
    assert not heard(ATTACK, ended).known
    assert heard(msgspec.structs.replace(ATTACK, small=True), ended).known


@pytest.mark.parametrize(
    ("tried", "control", "state"),
    [
        (Verdict(False, ""), Verdict(True, ""), State.CLOSED),
        (Verdict(True, ""), Verdict(True, ""), State.OPEN),
        (Verdict(True, ""), Verdict(False, ""), State.OPEN),
        (Verdict(False, ""), Verdict(False, ""), State.NO_CONTROL),
        (Verdict(False, "", known=False), Verdict(True, ""), State.BROKEN),
        (Verdict(False, ""), Verdict(False, "", known=False), State.NO_CONTROL),
    ],
)
def test_held_off_is_what_works_outside_and_not_inside(
    tried: Verdict, control: Verdict, state: State
) -> None:
    assert judge(ATTACK, tried, control, "ns")[0] is state


def test_what_is_done_to_a_linux_of_its_own_is_not_open_but_only_there() -> None:
    attack = msgspec.structs.replace(ATTACK, on_linux=True)
    got = Verdict(True, "")
    assert judge(attack, got, got, "gvisor")[0] is State.NOT_HERE
    assert judge(attack, got, got, "container")[0] is State.OPEN
    assert judge(ATTACK, got, got, "gvisor")[0] is State.OPEN


def test_every_attack_has_a_name_of_its_own_and_a_program_that_compiles() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names))
    for attack in ATTACKS:
        compile(source(attack.family, attack.program), attack.name, "exec")
