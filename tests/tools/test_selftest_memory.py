"""The attacks on memory: what counts as having it, and that a sandbox that gives too much of it is
found out."""

from __future__ import annotations

import mmap
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from selftest_world import ATTACK, attacked, named, outcome, states

from ring0 import limits
from ring0.tools.sandbox import cgroups
from ring0.tools.sandbox.selftest import State, places
from ring0.tools.sandbox.selftest.attack import SMALL, Proof
from ring0.tools.sandbox.selftest.places import source
from ring0.tools.sandbox.selftest.programs import resources
from ring0.tools.sandbox.selftest.trial import Verdict, counted, heard
from ring0.tools.sandbox.spec import SandboxLimits


def with_memory(mib: int) -> SandboxLimits:
    return msgspec.structs.replace(SMALL, memory_bytes=mib * limits.MIB)


async def test_a_sandbox_that_gives_too_much_memory_is_found_out() -> None:
    """Within the CPU time that the attacks have."""
    asked = named("heap", "shared-memory", "many-heaps")
    report = await attacked(asked, limits=with_memory(400))
    as_a_whole = State.OPEN if cgroups.found().controllers else State.GAP
    assert states(report) == {
        "heap": State.OPEN, "shared-memory": as_a_whole, "many-heaps": as_a_whole,
    }  # fmt: skip


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Adds lines to the program of the attacks on limits."""
    programs = shutil.copytree(places.PROGRAMS, tmp_path / "programs")
    monkeypatch.setattr(places, "PROGRAMS", programs)

    def add(text: str) -> None:
        with (programs / "resources.py").open("a") as file:
            file.write(text)
        source.cache_clear()

    yield add
    source.cache_clear()


async def test_processes_that_hold_memory_one_after_the_other_do_not_hold_it_together(
    added: Callable[[str], None],
) -> None:
    """Each fills its part when it is its turn. Who let go of it too early would get by with far
    less than what the sandbox gives, and say that they had more."""
    if not cgroups.found().controllers:
        pytest.skip("nothing bounds a sandbox as a whole here")
    added("""
waiting, next_one = os.pipe()
os.write(next_one, b".")
at_once = _fill

def _fill(memory):
    os.read(waiting, 1)
    noise = at_once(memory)
    os.write(next_one, b".")
    return noise
""")
    for _ in range(3):  # One after the other takes its time; cut short, it says nothing.
        report = await attacked(named("many-heaps"), limits=with_memory(192))
        if states(report) != {"many-heaps": State.BROKEN}:
            break
    assert states(report) == {"many-heaps": State.CLOSED} and report.held == 1, report.findings


async def test_memory_that_only_the_host_saw_is_found_out(added: Callable[[str], None]) -> None:
    if not cgroups.found().controllers:
        pytest.skip("nothing counts a sandbox as a whole here")
    added("""
def _check(memory, noise):
    raise OSError(errno.ENOMEM, "")
""")
    (finding,) = (await attacked(named("heap"), limits=with_memory(400))).findings
    assert finding.state is State.OPEN and "ENOMEM; the host counted 2" in finding.inside


def test_memory_is_filled_with_what_takes_all_its_room_and_checked() -> None:
    memory = mmap.mmap(-1, 2 * limits.MIB)
    noise = resources._fill(memory)
    pages = {memory[at : at + mmap.PAGESIZE] for at in range(0, len(memory), mmap.PAGESIZE)}
    assert len(pages) == len(memory) // mmap.PAGESIZE, "no two are alike"
    assert all(len(zlib.compress(page)) > len(page) * 0.99 for page in pages)
    resources._check(memory, noise)
    for at in (0, limits.MIB + mmap.PAGESIZE - 1, len(memory) - 1):
        kept = memory[at]
        memory[at] = kept ^ 1
        with pytest.raises(RuntimeError, match="changed"):
            resources._check(memory, noise)
        memory[at] = kept


# --- judging ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("stopped", "known"), [("memory", True), ("cpu", False), ("wall", False)])
def test_memory_that_there_was_no_time_to_take_is_not_held_off(stopped: str, known: bool) -> None:
    attack = msgspec.structs.replace(ATTACK, small=True, proof=Proof.MEMORY)
    assert heard(attack, outcome({}, stopped=stopped, signal=9)).known is known


def test_the_hosts_count_proves_what_the_program_did_not_live_to_say() -> None:
    killed = Verdict(False, "killed: SIGKILL", known=False)
    assert counted(killed, 256 * limits.MIB, 256 * limits.MIB) == Verdict(
        True, "killed: SIGKILL; the host counted 256 MiB"
    )
    assert counted(killed, 256 * limits.MIB - 1, 256 * limits.MIB) == killed
    assert counted(killed, -1, 256 * limits.MIB) == killed


def test_a_low_count_disproves_nothing() -> None:
    """The memory may be held where the host does not look."""
    for peak_bytes in (limits.MIB, -1):
        assert counted(Verdict(True, "256 MiB"), peak_bytes, 256 * limits.MIB).got
