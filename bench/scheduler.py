"""`ring0 bench scheduler`: durable calls a second through the whole gate, beside what others do.

The same work for all, in turns in the same run (the machine is never quiet): 200 runs of 20 steps,
50 at once, each step an effect that costs nothing and that is on disk before the next. ring0 writes
two events a call, each on disk: an intent before the effect, its outcome after it. LangGraph and
dbos write one row a step, after it. Beside them the floor: raw SQLite with those two events, 50 to
a commit. The rivals live in an environment of their own, which `make rivals` makes; without it they
are absent. Then: how long a queued run stands before it begins, and 10,000 runs that wait.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import uvloop

from bench import waiting
from bench.gate import CALLS, CONCURRENCY, EVENT, FLOOR, POLICY, RUNS, writer
from bench.rows import Row, row
from ring0.sdk.embedded import embedded

ROUNDS = 3
RIVAL_S_MAX = 900
ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-rivals" / "bin" / "python"
RIVALS: dict[str, tuple[str, ...]] = {
    "LangGraph": ("langgraph_steps.py",),
    "dbos": ("dbos_steps.py", "wal"),
}
AS_IT_COMES = ("dbos_steps.py",)
FEWER_RUNS = RUNS // 4
"""Without WAL dbos takes minutes for all of them."""

Turn = tuple[float, float]
"""Steps a second, and CPU time of one in microseconds."""


def run() -> list[Row]:
    """All figures. Takes some minutes."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as folder:
        rows = _beside(Path(folder))
    return rows + waiting.run()


def _beside(folder: Path) -> list[Row]:
    """Each in turn, ROUNDS times; the medians, and what each is to the others of its round."""
    turns: dict[str, Callable[[Path], Turn]] = {"floor": _floor, "ring0": _ring0}
    settings: dict[str, str] = {}
    if PYTHON.exists():
        for name, script in RIVALS.items():
            turns[name] = lambda home, name=name, script=script: _rival(  # type: ignore[misc]
                home, script, RUNS, settings, name
            )
    found: dict[str, list[Turn]] = {name: [] for name in turns}
    for number in range(ROUNDS):
        for name, turn in turns.items():
            home = folder / f"{name}{number}"
            home.mkdir()
            found[name].append(turn(home))
    rows = _rows(found, settings)
    if not PYTHON.exists():
        return [*rows, row("LangGraph, dbos: absent; `make rivals` gets them", 0, "", 0)]
    home = folder / "as-it-comes"
    home.mkdir()
    rate, cpu_us = _rival(home, AS_IT_COMES, FEWER_RUNS, settings, "as it comes")
    what = f"{settings['as it comes']}, as it comes"
    return [
        *rows,
        row(what, rate, "steps/s", FEWER_RUNS * CALLS),
        row(f"{what}: CPU of a step", cpu_us, "us", FEWER_RUNS * CALLS),
    ]


def _rows(found: dict[str, list[Turn]], settings: dict[str, str]) -> list[Row]:
    steps = ROUNDS * RUNS * CALLS
    names = {
        "floor": f"floor: {FLOOR} of {CONCURRENCY}, 2 events a call",
        "ring0": f"ring0, whole gate: {RUNS} runs x {CALLS} calls, {CONCURRENCY} at once",
    } | settings
    rows = []
    for name, turns in found.items():
        what = names[name]
        rows.append(row(what, _median([rate for rate, _ in turns]), "steps/s", steps))
        rows.append(row(f"{what}: CPU of a step", _median([cpu for _, cpu in turns]), "us", steps))
    for name in list(found):
        if name == "ring0":
            continue
        pairs = list(zip(found["ring0"], found[name], strict=True))
        rate = _median([ours[0] / theirs[0] for ours, theirs in pairs])
        cpu = _median([theirs[1] / ours[1] for ours, theirs in pairs])
        rows.append(row(f"ring0: steps/s, times those of {name}", rate, "ratio", ROUNDS, name))
        rows.append(row(f"ring0: CPU of a step, {name}'s by it", cpu, "ratio", ROUNDS, name))
    return rows


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _floor(home: Path) -> Turn:
    """Nothing but the writing."""
    db = apsw.Connection(str(home / "floor.db"))
    db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, body BLOB)")
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(2 * RUNS * CALLS // CONCURRENCY):
        db.execute("BEGIN IMMEDIATE")
        for _ in range(CONCURRENCY):
            db.execute("INSERT INTO event (body) VALUES (?)", (EVENT,))
        db.execute("COMMIT")
    turn = _turn(begun, cpu)
    db.close()
    return turn


def _turn(begun: float, cpu: float) -> Turn:
    taken, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return RUNS * CALLS / taken, cpu / (RUNS * CALLS) * 1e6


def _ring0(home: Path) -> Turn:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_crowd(home))


async def _crowd(home: Path) -> Turn:
    (home / "ring0.toml").write_text('policy = ["bench.cedar"]\n')
    (home / "bench.cedar").write_text(POLICY)
    async with embedded(home, dict(os.environ)) as ring:
        places = asyncio.Semaphore(CONCURRENCY)

        async def one(number: int) -> None:
            async with places:
                await ring.run(writer, str(number))

        await one(RUNS)  # Warm.
        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(one(number) for number in range(RUNS)))
        return _turn(begun, cpu)


def _rival(
    home: Path, script: tuple[str, ...], runs: int, settings: dict[str, str], name: str
) -> Turn:
    """One turn of a rival, in a process of its own; how it said it was set goes to `settings`."""
    file, *more = script
    numbers = (str(runs), str(CALLS), str(CONCURRENCY))
    done = subprocess.run(
        [PYTHON, ROOT / "bench" / "rivals" / file, home, *numbers, *more],
        capture_output=True,
        text=True,
        timeout=RIVAL_S_MAX,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{file} failed:\n{done.stderr[-2_000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    full = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}[said["synchronous"]]
    settings[name] = f"{said['what']}, {said['journal_mode']}, synchronous {full}"
    return runs * CALLS / said["taken_s"], said["cpu_s"] / (runs * CALLS) * 1e6
