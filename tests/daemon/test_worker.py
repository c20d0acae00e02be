"""What a worker says of itself: a sign of life from its event loop, and of nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from ring0 import limits
from ring0.daemon.channel import Beat, Channel, Failed, Options, Stop, bounded, pair
from ring0.daemon.worker import Worker, _failed
from ring0.errors import RunFailed
from ring0.runtime import Runtime


async def test_a_loop_that_is_stuck_does_not_beat() -> None:
    ours, its = (Channel(end) for end in pair())
    worker = Worker(Options(home="/nowhere", parent=1), its, Runtime(), {})
    beating = asyncio.ensure_future(worker._beat())
    await asyncio.sleep(3 * limits.BEAT_S)
    beats = ours.receive()
    assert beats and len(beats) >= 2 and all(isinstance(beat, Beat) for beat in beats)
    time.sleep(3 * limits.BEAT_S)
    assert ours.receive() == []
    await asyncio.sleep(2 * limits.BEAT_S)
    assert ours.receive()
    beating.cancel()


async def test_a_worker_ends_when_it_is_told_to_and_when_its_supervisor_is_gone(
    tmp_path: Path,
) -> None:
    for way in ("told", "alone"):
        ours, its = (Channel(end) for end in pair())
        home = tmp_path / way
        worker = Worker(Options(home=str(home), parent=1), its, Runtime(), {})
        serving = asyncio.ensure_future(worker.serve())
        async with asyncio.timeout(20):
            while not (home / "kernel.sock").exists():
                await asyncio.sleep(0.02)
            if way == "told":
                ours.send(Stop())
            else:
                ours.close()
            await serving
        assert not (home / "kernel.sock").exists()


def test_a_successor_touches_nothing_until_it_may_and_ends_with_its_supervisor(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    ours, its = pair()
    options = msgspec.json.encode(Options(home=str(home), parent=os.getpid())).decode()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ring0.daemon.worker", options, str(its.fileno())],
        pass_fds=[its.fileno()],
    )
    its.close()
    try:
        time.sleep(3)  # It waits to be let go.
        assert process.poll() is None and not home.exists()
        ours.close()
        assert process.wait(10) == 0 and not home.exists()
    finally:
        process.kill()
        process.wait()


def test_an_error_of_any_length_and_of_any_characters_is_told_to_the_supervisor() -> None:
    for letter in ("x", "é", "\U0001f600", "\x00", '"'):
        ours, its = (Channel(end) for end in pair())
        its.send(_failed(RunFailed(letter * 50_000, why=letter * 50_000, todo=letter * 50_000)))
        (told,) = ours.receive() or []
        assert isinstance(told, Failed) and told.what.startswith(letter * 600)
        assert told.what.endswith("…") and told.exit_code == RunFailed.exit_code
    assert bounded("as it is") == "as it is"
