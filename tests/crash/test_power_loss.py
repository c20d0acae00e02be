"""The power goes at random moments: what was not synced is lost, or torn. A kill tests no fsync."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from lossy_disk import live_until_the_power_goes

from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import events as ev
from ring0.store.sqlite import open_store, sql


def live(folder: Path, run: str, after_s: float, order: bytes) -> dict[int, int]:
    """A process writes until the power goes; what it was told is on disk: number by seq."""
    read, told = os.pipe()
    orders, give = os.pipe()
    body = multiprocessing.get_context("fork").Process(
        target=live_until_the_power_goes, args=(folder, run, told, orders), daemon=True
    )
    body.start()
    os.close(told)
    os.close(orders)
    with os.fdopen(read) as pipe:
        assert pipe.readline() == "ready\n", "it wrote nothing at all"
        time.sleep(after_s)
        os.write(give, order)
        lines = [line.split() for line in pipe if line.endswith("\n")]
    body.join(20)
    os.close(give)
    assert body.exitcode == -signal.SIGKILL
    return {int(seq): int(number) for seq, number in lines}


async def found(folder: Path, run: str) -> dict[int, int]:
    """What the journal holds of the run, opened as a kernel does that starts again."""
    store = open_store(folder, Runtime(), write=True)
    report = await verify(store)
    assert report.ok, report.problems
    numbers = {}
    async for entry in store.entries(run):
        if isinstance(entry.body, ev.RunMoved) and entry.body.note:
            numbers[entry.seq] = int(entry.body.note)
    await store.close()
    return numbers


@pytest.mark.parametrize("torn", [False, True], ids=["lost", "torn"])
def test_the_power_goes_and_nothing_that_was_acknowledged_is_lost(
    tmp_path: Path, request: pytest.FixtureRequest, torn: bool
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)
    cuts = max(16, request.config.getoption("--kills"))
    acknowledged = 0
    for turn in range(cuts):
        run = f"r-{turn}"
        order = f"torn {dice.randrange(10**9)}" if torn else "plain"
        told = live(tmp_path, run, dice.uniform(0, 0.25), order.encode())
        there = asyncio.run(found(tmp_path, run))
        assert list(there.values()) == list(range(len(there))), f"no prefix (seed {seed})"
        for seq, number in told.items():
            assert there.get(seq) == number, f"{run} #{seq} is lost (seed {seed}, turn {turn})"
        acknowledged += len(told)
    assert acknowledged > 10 * cuts, "the cuts never met the work"
    print(f"\n{cuts} power cuts, {acknowledged} acknowledged, none lost (seed {seed})")


def test_a_store_that_does_not_sync_loses_what_it_acknowledged_on_this_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above can fail."""
    monkeypatch.setattr(sql, "PRAGMAS", sql.PRAGMAS.replace("= FULL", "= OFF"))
    told = live(tmp_path, "r-1", 0.2, b"plain")
    monkeypatch.undo()
    lost = False
    try:
        there = asyncio.run(found(tmp_path, "r-1"))
        lost = any(there.get(seq) != number for seq, number in told.items())
    except Exception as error:
        lost = "cut short" in str(error) or "damaged" in str(error)
    assert told and lost
