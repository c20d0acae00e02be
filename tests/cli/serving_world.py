"""A daemon of real processes on a data folder of its own, and its end, whatever happened."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cli_world import RING0, WAIT_S, World

from ring0.gateway.holding import holder
from ring0.runtime import Runtime
from ring0.store.events import decode_entry
from ring0.store.sqlite import open_store

COUNTING = """
from ring0 import Context, agent


@agent(builtins={"crm": {"use": "sql", "database": "crm.db"}})
async def counts(ctx: Context, task: str):
    done = 0
    for _ in range(int(task)):
        try:
            await ctx.tool("crm.execute", statement="INSERT INTO hits DEFAULT VALUES")
            done += 1
        except Exception as error:
            print("failed:", error)
        await ctx.sleep(0.02)
    return done
"""
OPEN_POLICY = """
permit (principal, action in Action::"tool", resource) when { context.mutates };
"""


class Daemon:
    """`ring0 serve`, its log as it comes."""

    def __init__(self, world: World, *more: str) -> None:
        self.world = world
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [RING0, "serve", *more],
            cwd=world.folder,
            env=world.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def says(self, what: str, times: int = 1, wait_s: float = WAIT_S) -> None:
        ends = time.monotonic() + wait_s
        while self.log.count(what) < times:
            assert time.monotonic() < ends, f"{what!r} was not said {times} times:\n{self.log}"
            time.sleep(0.02)

    def worker(self) -> int:
        """The process of the kernel at work."""
        found = holder(self.world.home / "kernel.lock")
        assert found is not None, self.log
        return found

    def next_worker(self, old: int, wait_s: float = WAIT_S) -> int:
        """Another one than `old`, once it is at work."""
        ends = time.monotonic() + wait_s
        while True:
            found = holder(self.world.home / "kernel.lock")
            if found not in (None, old) and f"worker {found} is at work" in self.log:
                return found or 0
            assert time.monotonic() < ends, self.log
            time.sleep(0.01)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        self._reading.join(WAIT_S)
        return code


@contextlib.contextmanager
def daemon(world: World, *more: str, ready: bool = True) -> Iterator[Daemon]:
    """A daemon that is at work; killed where it has not ended."""
    d = Daemon(world, *more)
    try:
        if ready:
            d.says("is at work")
        yield d
    finally:
        worker = holder(world.home / "kernel.lock")
        if d.process.poll() is None:
            d.process.kill()
        d.process.wait(WAIT_S)
        if worker is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            gone(worker)


def gone(pid: int, wait_s: float = 10) -> None:
    """Returns when the process is no more (or a zombie that nobody has buried yet)."""
    ends = time.monotonic() + wait_s
    while state(pid) not in ("", "Z", "X"):
        assert time.monotonic() < ends, f"process {pid} lives on"
        time.sleep(0.01)


def state(pid: int) -> str:
    """Its state as Linux tells it: T is stopped; empty: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def counting(world: World) -> None:
    """An agent that adds to a table, call by call, and may."""
    import sqlite3

    world.write("counting.py", COUNTING)
    world.home.mkdir(mode=0o700)
    (world.home / "own.cedar").write_text(OPEN_POLICY)
    (world.home / "ring0.toml").write_text('policy = ["own.cedar"]\n')
    with sqlite3.connect(world.folder / "crm.db") as db:
        db.execute("CREATE TABLE hits (id INTEGER PRIMARY KEY)")


def hits(world: World) -> int:
    import sqlite3

    with sqlite3.connect(world.folder / "crm.db") as db:
        return int(db.execute("SELECT count(*) FROM hits").fetchone()[0])


def journal(world: World) -> list[tuple[int, object]]:
    """When each entry was written, and what it says, in the order of the log."""
    store = open_store(world.home, Runtime(), write=False)
    entries = [decode_entry(body) for *_, body in store.stored()]
    return [(entry.at_us, entry.body) for entry in entries]
