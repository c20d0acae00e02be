"""kill -9 of the kernel at random moments, on real processes, with a ledger outside ring0.

The kernel is killed while an isolated agent makes 50 calls, ten of them `once`. After the kills it
is started once more to the end; an operator settles what is unknown by looking at the ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store.sqlite import open_store
from ring0.types import CallState, Effect, RunState

HERE = Path(__file__).parent
ENTRIES = [f"entry-{number:02d}" for number in range(10)]
MANIFEST = """
name = "clerk"
entry = "agent.py:clerk"
[tools.files]
use = "files"
[tools.bank]
use = "sql"
database = "ledger.db"
"""
POLICY = """
@id("ledger") @reason("Entries of the ledger need no approval here.")
permit (principal, action in Action::"tool", resource == Tool::"bank.execute")
when { context.tables == ["ledger"] || context.rows == 0 };
"""


class World:
    """One data folder, one ledger, one run that is killed again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "ring0.toml").write_text('policy = ["ledger.cedar"]\n')
        (self.home / "ledger.cedar").write_text(POLICY)
        (folder / "agent.py").write_text((HERE / "crash_agent.py").read_text())
        (folder / "agent.toml").write_text(MANIFEST)
        ledger = apsw.Connection(str(folder / "ledger.db"))
        ledger.execute("CREATE TABLE ledger (id INTEGER PRIMARY KEY, entry TEXT NOT NULL)")
        ledger.close()
        self.kills = 0
        self.kills_in_effect = 0

    def ring0(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "ring0", *arguments],
            cwd=self.folder,
            env={**os.environ, "RING0_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "stderr.txt").open("ab"),
        )

    def ledger(self) -> list[str]:
        # Not read-only: what a killed writer left half-done is rolled back by the next opener.
        found = apsw.Connection(str(self.folder / "ledger.db"))
        found.set_busy_timeout(5_000)
        rows = [str(entry) for (entry,) in found.execute("SELECT entry FROM ledger ORDER BY id")]
        found.close()
        return rows

    def journal(self, statement: str) -> list[tuple[object, ...]]:
        """The journal as another process sees it, while the kernel is at work."""
        path = self.home / "journal.db"
        if not path.exists():
            return []
        try:
            found = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            found.execute("PRAGMA busy_timeout = 2000")
            return list(found.execute(statement))
        except apsw.Error:
            return []

    def in_effect(self) -> bool:
        """A `once` call stands between its intent and its outcome."""
        return bool(
            self.journal(
                "SELECT 1 FROM call WHERE state = 'intended' AND row ->> 'effect' = 'once' LIMIT 1"
            )
        )

    def begun(self) -> bool:
        return bool(self.journal("SELECT 1 FROM run"))

    def ended(self) -> bool:
        return bool(
            self.journal("SELECT 1 FROM run WHERE state IN ('done', 'failed', 'cancelled')")
        )

    def kill(self, process: subprocess.Popen[bytes]) -> bool:
        """kill -9; returns whether it met a `once` effect between its intent and its outcome."""
        process.send_signal(signal.SIGKILL)
        process.wait()
        if self.ended():
            return False
        cut_off = self.in_effect()
        self.kills += 1
        self.kills_in_effect += cut_off
        return cut_off


def life(world: World, dice: random.Random, kills: int) -> None:
    """Starts the run, kills its kernel `kills` times, half of them inside a `once` effect."""
    process = world.ring0(
        "run", "agent.py", json.dumps({"entries": ENTRIES, "work": 200_000, "step": 1})
    )
    while not world.begun() and process.poll() is None:
        time.sleep(0.005)
    for number in range(kills):
        until = time.monotonic() + 20
        if number % 2:
            while not world.in_effect() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
        else:
            time.sleep(dice.uniform(0.0, 0.5) if number == 0 else dice.uniform(0.3, 1.0))
        if process.poll() is not None:
            break
        cut_off = world.kill(process)
        process = world.ring0("recover")
        if cut_off:
            settle(world)
    finish(world, process)


def settle(world: World) -> None:
    """What an operator does after a crash: looks at the ledger and says what happened.

    The kernel that boots next marks the cut-off call unknown, and the run waits for an answer.
    """
    unknown = (
        "SELECT call.key, blob.value -> 'parameters' ->> 0 FROM call"
        " JOIN blob ON blob.address = call.row ->> 'args' WHERE call.state = 'unknown'"
    )
    until = time.monotonic() + 20
    while not (found := world.journal(unknown)) and time.monotonic() < until:
        time.sleep(0.01)
    for call, entry in found:
        word = "happened" if entry in world.ledger() else "did-not-happen"
        assert world.ring0("settle", str(call), word).wait(timeout=30) == 0


def finish(world: World, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not world.ended() and time.monotonic() < until:
        if process.poll() is not None:
            process = world.ring0("recover")
        time.sleep(0.05)
    assert world.ended(), (world.folder / "stderr.txt").read_text()[-2000:]
    process.wait(timeout=30)


async def check(world: World) -> None:
    """Every promise of the issue, from the journal and from the ledger outside it."""
    store = open_store(world.home, Runtime(), write=False)
    (run,) = await store.runs()
    calls = await store.calls(run.id)
    once = [call for call in calls if call.effect is Effect.ONCE]
    cut_off = world.journal(
        "SELECT count(*) FROM event WHERE body ->> '$.body.event' = 'call-cut-off'"
    )
    entries = world.ledger()
    assert run.state is RunState.DONE
    assert len(calls) == 50 and len(once) == 10
    assert len(entries) == len(set(entries)), "an effect stands twice"
    for call in once:
        args = json.loads(await store.blob(call.args))
        happened = args["parameters"][0] in entries
        assert happened == (call.state is CallState.OK), f"{call.id} is {call.state}"
    assert cut_off[0][0] == world.kills_in_effect, "unknowns are exactly the kills in an effect"
    result = json.loads(json.loads(await store.blob(run.result))["value"])
    files = {
        file.path: (await store.blob(file.blob)).decode() for file in await store.files(run.id)
    }
    wanted = {f"notes/{line.partition(' ')[0]}.md": line for line in result}
    assert files == {**wanted, "notes/all.md": "\n".join(result)}
    report = await verify(store)
    assert report.ok, report.problems
    assert not await store.sandboxes_alive()
    await store.close()


def test_a_run_whose_kernel_is_killed_ends_as_it_would_have(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kills = request.config.getoption("--kills")
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)
    done = in_effect = runs = 0
    while done < kills or in_effect < kills // 5:
        runs += 1
        folder = tmp_path / f"life-{runs}"
        folder.mkdir()
        world = World(folder)
        life(world, dice, min(8, kills - done) or 2)
        asyncio.run(check(world))
        done += world.kills
        in_effect += world.kills_in_effect
        assert runs < kills + 5, "the kills never met the run"
    print(
        f"\n{done} kills in {runs} runs of 50 calls, {in_effect} of them between an intent and its"
        f" outcome (seed {seed}): every run ended, every effect once or unknown, files and"
        " journal as they must be"
    )
