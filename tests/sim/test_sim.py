"""The simulator in `make test`: a short run of many worlds, and whether it can be trusted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from ring0.kernel import gate
from ring0.store.sqlite import committing
from sim import coverage
from sim.loop import Clock, Deadlock, SimulatedLoop
from sim.world import Report, simulate

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
"""Those of dead processes."""
SEEDS = range(1, 61)
_reports: list[Report] = []


def reports() -> list[Report]:
    if not _reports:
        _reports.extend(simulate(seed) for seed in SEEDS)
    return _reports


@pytest.mark.timeout(300)
def test_in_many_worlds_nothing_that_must_hold_is_broken() -> None:
    broken = {report.seed: report.violations for report in reports() if report.violations}
    assert not broken, f"replay with `make sim ARGS='--seed {next(iter(broken))}'`: {broken}"


@pytest.mark.timeout(300)
def test_the_worlds_are_not_empty() -> None:
    seen: Counter[str] = Counter()
    for report in reports():
        seen += report.seen
    missing = coverage.missing(seen)
    # A short run can't come to all of it; `make sim` must.
    assert len(missing) < len(coverage.wanted()) // 3, missing
    assert seen["a kernel ended: died"] > 50 and seen["call tool ok"] > 300


def test_a_seed_is_the_same_world_each_time() -> None:
    for seed in (3, 7, 11):
        first, second = simulate(seed), simulate(seed)
        assert first.events > 10 and first.root == second.root
        assert (first.seen, first.seconds) == (second.seen, second.seconds)


def test_different_seeds_are_different_worlds() -> None:
    assert len({report.root for report in reports()}) == len(SEEDS)


# --- it sees what is broken ------------------------------------------------------------


def noticed(invariant: str, seeds: int = 300) -> bool:
    """Whether some seed breaks it; any, where none is named."""
    for seed in range(1, seeds):
        for violation in simulate(seed, twin=False).violations:
            if violation.startswith(invariant):
                return True
    return False


def test_a_once_intent_that_is_not_durable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def rides(job: committing.Job) -> bool:
        return job.write is None

    monkeypatch.setattr(committing.Job, "waits", property(rides))
    assert noticed("a once intent is on disk before its effect")


def test_a_once_call_that_is_begun_again_after_a_crash_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(*given: Any) -> list[Any]:
        return []

    async def again(self: gate.Gate, run: Any, held: Any, why: str) -> Any:
        return run.records[held.id]

    monkeypatch.setattr("ring0.kernel.life.cutting.cut_off", nothing)
    monkeypatch.setattr(gate.Gate, "_cut_off", again)
    assert noticed("a once effect begins once")


def test_a_budget_that_nobody_checks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ring0.store.sqlite.guards._room", lambda guard, run: None)
    assert noticed("no budget is overspent at any moment")


def test_a_lock_that_shuts_nobody_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ring0.scheduler.locks.LockTable._may", lambda *given: True)
    monkeypatch.setattr("ring0.store.sqlite.guards._lock_free", lambda *given: None)
    assert noticed("a lock shuts others out")


def test_a_kill_that_leaves_children_alive_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(self: Any, runs: list[str], *, by: str) -> None:
        """Says that it ended them."""

    monkeypatch.setattr("ring0.kernel.life.runs.Runs.end_all", nobody)
    assert noticed("a kill reaches all beneath")


def test_an_acknowledged_write_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.disk.SplitCommitter.end", lambda self: self._finish(self._jobs))
    assert noticed("", 20)


# --- its clock ----------------------------------------------------------------------


def test_time_is_only_what_is_waited_for() -> None:
    clock = Clock()
    loop = SimulatedLoop(clock)

    async def waits() -> str:
        try:
            await asyncio.wait_for(asyncio.sleep(3_600), 60)
        except TimeoutError:
            return "timed out"
        return "slept"

    assert loop.run_until_complete(waits()) == "timed out"
    assert clock.monotonic_us() == 60_000_000
    loop.close()


def test_waiting_for_what_never_comes_is_an_error_that_says_where() -> None:
    loop = SimulatedLoop(Clock())

    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match="waits_for_ever"):
        loop.run_until_complete(waits_for_ever())
    loop.drop()
