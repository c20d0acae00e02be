"""A run that can't go on just now is no lost run: it is tried again, and its deadline finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parking_agents as agents
import pytest
from kernel_world import JumpingRuntime
from parking_world import begun, parking

from ring0 import limits
from ring0.errors import ManifestInvalid, StoreFailed
from ring0.kernel.life import recovery
from ring0.types import RunState


def broken(
    times: int, real: Callable[..., Any], error: Exception, failed: asyncio.Event | None = None
) -> Callable[..., Any]:
    """As `real`, after it has failed so many times. `failed` is set when it has."""
    left = times

    def act(*args: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            if failed is not None:
                failed.set()
            raise error
        return real(*args, **more)

    return act


@pytest.mark.parametrize(
    "error", [ManifestInvalid("No such tool."), StoreFailed("Crowded.")], ids=lambda e: e.code
)
async def test_a_woken_run_that_can_not_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.sleeper, "1000")
        await p.away(run, "timer")
        failed = asyncio.Event()
        monkeypatch.setattr(p.runs, "tools", broken(1, p.runs.tools, error, failed))
        runtime.jump(1_001)
        await asyncio.wait_for(failed.wait(), 10)  # Only then time goes on: on a full machine too.
        await asyncio.sleep(0.2)
        assert begun(run) == 1 and (await p.row(run)).state is RunState.WAITING
        runtime.jump(limits.LOOK_AGAIN_S + 1)
        assert await _ended(p, run) is RunState.DONE
        assert begun(run) == 2


async def test_a_run_that_can_never_be_started_again_ends_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.sleeper, "1000")
        row = await p.away(run, "timer")
        error = ManifestInvalid("No such tool.")
        monkeypatch.setattr(p.runs, "tools", broken(1_000, p.runs.tools, error))
        runtime.jump(1_001)
        await asyncio.sleep(0.2)
        assert (await p.row(run)).state is RunState.WAITING
        runtime.jump((row.deadline_us - runtime.now_us()) / 1_000_000 + 1)
        assert await _ended(p, run) is RunState.FAILED


async def test_a_run_that_could_not_be_recovered_ends_at_its_deadline_all_the_same(
    tmp_path: Path,
) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.sleeper, "1000")
        p.kernel.runs.put_away = lambda _: None  # type: ignore[method-assign]
        deadline_us = (await p.row(run)).deadline_us
    async with parking(tmp_path, runtime=runtime) as p:

        def find(_: Any) -> Any:
            raise ManifestInvalid("Its database is gone.")

        with pytest.raises(ManifestInvalid):
            await recovery.recover(p.runs, find)
        runtime.jump(1_001)  # Its timer is over, and nothing of it can be started.
        await asyncio.sleep(0.2)
        assert (await p.row(run)).ended_us == 0 and list(p.runs.not_recovered) == [run]
        runtime.jump((deadline_us - runtime.now_us()) / 1_000_000 + 1)
        assert await _ended(p, run) is RunState.FAILED
        assert not p.runs.not_recovered


async def test_a_look_at_a_run_that_fails_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.sleeper, "1000")
        await p.away(run, "timer")
        waiting = p.kernel.gate.waiting
        failed = asyncio.Event()
        crowded = broken(1, waiting.expire, StoreFailed("Crowded."), failed)
        monkeypatch.setattr(waiting, "expire", crowded)
        runtime.jump(1_001)
        await asyncio.wait_for(failed.wait(), 10)
        await asyncio.sleep(0.2)
        assert begun(run) == 1
        runtime.jump(limits.LOOK_AGAIN_S + 1)
        assert await _ended(p, run) is RunState.DONE


async def _ended(p: Any, run: str) -> RunState:
    """The state that it ended with."""
    async with asyncio.timeout(10):
        while not (row := await p.row(run)).ended_us:
            await asyncio.sleep(0.01)
    return RunState(row.state)
