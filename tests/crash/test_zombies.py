"""Processes that are stopped (SIGSTOP) for longer than the lease, and what they do once woken.

A worker under `ring0 serve` is dead before another takes over; so it is never woken. What can be:
an agent's process, a tool's sandbox, what sandboxes are cloned from. Nothing of them is written
late, and no effect of theirs comes late.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from desk_checks import check
from desk_world import Desks

from ring0 import limits
from ring0.store import events as ev
from ring0.store.events import decode_entry
from ring0.types import LIVE

SHORT = ("effect.begins",)
LONG = (
    *SHORT,
    "group.written",
    "call.intended",
    "effect.over",
    "call.ended",
    "group.committed",
    "run.started",
    "lock.taken",
    "message.sent",
    "child.spawned",
    "",
)

STOPS_EACH = 3
"""A supervisor gives up where WORKER_FAILURES_MAX workers in a row die young."""


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> None:
    """`make test` has one of these; `make crash` all."""
    if request.config.getoption("--kills") <= 8:
        pytest.skip("takes its time: `make crash` has it")


@contextlib.asynccontextmanager
async def served(folder: Path, **environment: str) -> AsyncIterator[Desks]:
    d = Desks(folder, 1, random.Random(1), served=True, **environment)
    try:
        await d.open()
        yield d
    finally:
        d.close()


async def until(done: Callable[[], Any], wait_s: float, what: str) -> None:
    ends = time.monotonic() + wait_s
    while not done():
        assert time.monotonic() < ends, what
        await asyncio.sleep(0.02)


async def settled(d: Desks) -> None:
    """To the end of all runs; every promise holds."""
    await d.finish()
    # What was cut off here is counted by the journal itself: no test stood beside each death.
    d.cut_off = {
        entry.body.call
        for *_, body in d.store.stored()  # type: ignore[union-attr]
        if isinstance((entry := decode_entry(body)).body, ev.CallCutOff)
    }
    await check(d)
    assert not d.problems, "\n".join(d.problems)


async def test_a_worker_stopped_at_a_point_writes_nothing_and_does_nothing_any_more(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    points = SHORT if request.config.getoption("--kills") <= 8 else LONG
    longest_s = 0.0
    async with served(tmp_path) as d:
        for number, point in enumerate(points):
            if number and number % STOPS_EACH == 0:
                d.worker.stop()
                await asyncio.to_thread(d.worker.process.wait, 60)
                d.worker = d.served()
            await until(lambda: d.worker.is_ready, 60, d.errors)
            await _resume_held(d)
            old = d.worker.pid
            if point:
                d.page.arm(point, 1, signal.SIGSTOP)
                await until(lambda: d.page.met, 60, f"{point} was not passed: {d.errors}")
            else:
                await asyncio.sleep(1)
                os.kill(old, signal.SIGSTOP)
            stopped_us = time.time_ns() // 1_000
            await until(lambda old=old: d.worker.pid != old and d.worker.is_ready, 60, d.errors)
            longest_s = max(longest_s, time.time_ns() / 1e9 - stopped_us / 1e6)
            with pytest.raises(ProcessLookupError):
                os.kill(old, signal.SIGCONT)
            assert not _written(d, stopped_us), "the stopped worker wrote on"
        await _resume_held(d)
        await settled(d)
    print(f"\n{len(points)} workers stopped: 0 late writes, 0 late effects;"
          f" the next one was at work after {longest_s:.1f} s at the latest")  # fmt: skip
    assert longest_s <= 2 * limits.LEASE_S


async def _resume_held(d: Desks) -> None:
    """What was at work at the second of two quick deaths is held until a person says that it may go
    on."""
    assert d.store is not None
    for row in await d.store.runs(states=LIVE, most=1_000):
        if row.paused_by:
            await d.remote.resume(row.id)


def _written(d: Desks, since_us: int) -> list[object]:
    """What stands in the journal between the stop and the next kernel's start."""
    found: list[object] = []
    for *_, body in d.store.stored():  # type: ignore[union-attr]
        entry = decode_entry(body)
        if isinstance(entry.body, ev.KernelStarted):
            if found and entry.at_us > since_us:
                return found
            found = []
        elif entry.at_us > since_us + 500_000:
            found.append(entry.body)
    return []


async def _process_of(d: Desks, purpose: str) -> int:
    """A sandbox's own first process."""
    assert d.store is not None
    for _ in range(3_000):
        for box in await d.store.sandboxes_alive():
            if box.purpose == purpose:
                return int(box.pid)
        await asyncio.sleep(0.01)
    raise AssertionError(f"no sandbox is {purpose}: {d.errors}")


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(one) for one in task.read_text().split()]
    return found


def _tree(pid: int) -> list[int]:
    """The process and all that it began."""
    return [pid, *(one for child in _children(pid) for one in _tree(child))]


@contextlib.asynccontextmanager
async def stopped(*processes: int) -> AsyncIterator[None]:
    """Meanwhile they stand still; then those that are still there are woken."""
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def test_an_agent_whose_process_is_stopped_goes_on_by_replay_and_does_nothing_twice(
    tmp_path: Path, slow: None
) -> None:
    async with served(tmp_path, CRASH_FROZEN_S="2") as d:
        first = await _process_of(d, "agent")
        await asyncio.sleep(0.3)
        begun_s = time.monotonic()
        async with stopped(*_tree(first)):
            await until(lambda: not Path(f"/proc/{first}").exists(), 20, "it stands for ever")
        assert time.monotonic() - begun_s >= 1.5, "it was not ended because it stood still"
        await settled(d)


async def test_a_tools_sandbox_that_is_stopped_ends_with_its_time_and_leaves_its_effect_unknown(
    tmp_path: Path, slow: None
) -> None:
    async with served(tmp_path) as d:
        assert d.store is not None
        await until(lambda: d.http.entries, 30, d.errors)
        d.http.holds_s = 2  # A request is under way while its sandbox is stopped.
        tool = 0
        while not tool:
            boxes = [box for box in await d.store.sandboxes_alive() if box.purpose == "post"]
            tool = boxes[-1].pid if boxes else 0
            await asyncio.sleep(0.01)
        async with stopped(*_tree(tool)):
            d.http.holds_s = 0.05
            await until(lambda: not Path(f"/proc/{tool}").exists(), 40, "it stands for ever")
        await settled(d)
        assert d.cut_off


async def test_what_sandboxes_are_cloned_from_is_stopped_and_every_run_ends_all_the_same(
    tmp_path: Path, slow: None
) -> None:
    async with served(tmp_path) as d:
        await _process_of(d, "agent")
        zygotes = [pid for pid in _children(d.worker.pid) if "launcher.py" in _command(pid)]
        assert zygotes
        async with stopped(*zygotes):
            await asyncio.sleep(limits.LEASE_S + 1)
        await settled(d)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def test_a_second_supervisor_is_refused_and_the_first_goes_on(
    tmp_path: Path, slow: None
) -> None:
    async with served(tmp_path) as d:
        worker = d.worker.pid
        second = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "ring0", "serve"],
            env={**os.environ, "RING0_HOME": str(d.home)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert second.returncode == 6 and "serves" in second.stderr
        assert d.worker.pid == worker
        await settled(d)


async def test_a_supervisor_that_is_killed_takes_its_worker_with_it_and_the_next_one_goes_on(
    tmp_path: Path, slow: None
) -> None:
    async with served(tmp_path) as d:
        worker = d.worker.pid
        await asyncio.sleep(1)
        os.kill(worker, signal.SIGSTOP)
        d.worker.kill()
        d.worker = d.served()
        await until(lambda: d.worker.pid != worker and d.worker.is_ready, 30, d.errors)
        assert _state(worker) in ("", "Z"), "a worker outlived its supervisor"
        await settled(d)


def _state(pid: int) -> str:
    """As Linux tells it: Z is dead, and nobody has buried it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""
