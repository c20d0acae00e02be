"""A data folder, two ledgers outside it, kernels that are killed, and an operator who looks on.

The kernels are real workers of `ring0 serve`, processes of their own. They are started as the
supervisor does it, a successor ready before the death of the one at work, but without giving up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import apsw
from desk_kernels import Ledger, Served, Worker
from entry.page import Page

from ring0.cli.starting import agent_of_file
from ring0.errors import Ring0Error
from ring0.gateway.remote import Remote
from ring0.runtime import Runtime
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore, open_store
from ring0.types import LIVE, ApprovalState, Call, CallState, Run

HERE = Path(__file__).parent
ROUNDS = 2
CALM_S = 0.3
"""What was on its way when a kernel died has arrived outside after that."""
MANIFEST = """
name = "desk"
entry = "agent.py:desk"
agents = ["helper"]
[tools.files]
use = "files"
[tools.bank]
use = "sql"
database = "bank.db"
[tools.vault]
use = "sql"
database = "vault.db"
[functions.post]
egress = ["POST http://127.0.0.2:PORT/ledger"]
[models.default]
provider = "scripted"
script = "script.toml"
[budget]
calls = 4000
"""
SETTINGS = """
policy = ["own.cedar"]
[network]
allow_private = ["127.0.0.0/8"]
"""
POLICY = """
@id("ledgers") @reason("Entries of these ledgers need no approval here; those of the vault do.")
permit (principal, action in Action::"tool", resource)
when { resource in [Tool::"bank.execute", Tool::"post"] };
"""
SCRIPT = """
answer = "{said}"
[[rules]]
when = 'say (?P<what>\\S+)'
say = "{what}"
call = "nothing"
args = { what = "{what}" }
"""


class Desks:
    """Runs of the desk, `load` of them at a time, under kernels that die."""

    def __init__(
        self,
        folder: Path,
        load: int,
        dice: random.Random,
        *,
        served: bool = False,
        **environment: str,
    ) -> None:
        """`served`: by `ring0 serve`, whose own supervisor sees to its workers."""
        self.folder, self.load, self.dice = folder, load, dice
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        self.http = Ledger()
        port = str(self.http.port)
        (self.home / "ring0.toml").write_text(SETTINGS)
        (self.home / "own.cedar").write_text(POLICY)
        (folder / "agent.py").write_text((HERE / "desk_agent.py").read_text().replace("PORT", port))
        (folder / "agent.toml").write_text(MANIFEST.replace("PORT", port))
        (folder / "script.toml").write_text(SCRIPT)
        for name in ("bank", "vault"):
            made = apsw.Connection(str(folder / f"{name}.db"))
            made.execute("CREATE TABLE ledger (id INTEGER PRIMARY KEY, entry TEXT NOT NULL)")
            made.close()
        self.page = Page(str(folder / "page"))
        self.bare = agent_of_file("", folder / "agent.toml")
        self.remote = Remote(self.home)
        self.acknowledged: set[str] = set()
        self.asked = 0
        self.kills: list[str] = []
        """At which point each was; empty: at random."""
        self.cut_off: set[str] = set()
        """`once` calls that had an intent on disk and no outcome when a kernel was dead."""
        self.takeovers_us: list[int] = []
        self.problems: list[str] = []
        self.store: SqliteStore | None = None
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(HERE / "entry"),
            "CRASH_PAGE": str(folder / "page"),
            "RING0_HOME": str(self.home),
            **environment,
        }
        self._errors = os.open(folder / "errors.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.worker: Any = self.served() if served else self._worker()
        self.spare = None if served else self._worker()
        self._tasks: list[asyncio.Task[None]] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()
        self.takes_more = True

    def _worker(self) -> Worker:
        return Worker(self.home, self._environment, self._errors)

    def served(self) -> Served:
        return Served(self.home, self._environment, self.folder / "errors.txt")

    @property
    def errors(self) -> str:
        return (self.folder / "errors.txt").read_text()[-3000:]

    # --- kernels ------------------------------------------------------------------------------

    async def open(self) -> None:
        self.worker.go()
        await self._until(lambda: self.worker.is_ready, 60, "the first kernel")
        self.store = open_store(self.home, Runtime(), write=False)
        self._tasks = [asyncio.create_task(self._operate()), asyncio.create_task(self._order())]

    async def effect(self) -> None:
        """Until one is under way outside."""
        known = len(self.http.entries)
        while len(self.http.entries) == known and self.worker.lives:
            await asyncio.sleep(0.005)

    async def die(self, after_s: float = 0.0) -> str:
        """The kernel at work dies after so many seconds, or earlier at the point that is armed;
        the next one begins. The point at which it died; empty: it was at none."""
        ends = time.monotonic() + after_s
        while self.worker.lives and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        killed_us = time.time_ns() // 1_000
        self.worker.kill()
        if met := self.page.take_met():
            killed_us = self.page.met_us
        elif self.worker.process.returncode != -signal.SIGKILL:
            self.ended_by_itself()
        self.cut_off |= self.intended()
        self.kills.append(met)
        self.worker = self.spare
        self.worker.go()
        self.spare = self._worker()
        self._tasks.append(asyncio.create_task(self._measure(self.worker, killed_us)))
        return met

    def ended_by_itself(self) -> None:
        """Only we kill kernels: one that ended otherwise is a bug."""
        said = self.worker.heard[-3:]
        self.problems.append(f"a kernel ended by itself: {said} {self.errors}")

    async def _measure(self, worker: Worker, killed_us: int) -> None:
        """From a kernel's death to the next one at work."""
        while worker.lives and not worker.is_ready:
            await asyncio.sleep(0.01)
        if worker.is_ready:
            self.takeovers_us.append(time.time_ns() // 1_000 - killed_us)

    def intended(self) -> set[str]:
        """`once` calls with an intent on disk and no outcome, while no kernel lives."""
        statement = "SELECT key FROM call WHERE state = 'intended' AND row ->> 'effect' = 'once'"
        journal = apsw.Connection(str(self.home / "journal.db"))
        try:
            journal.set_busy_timeout(5_000)
            return {str(key) for (key,) in journal.execute(statement)}
        finally:
            journal.close()

    async def finish(self, wait_s: float = 150) -> None:
        """No more kills: every run that was begun ends. Then the kernel ends in order."""
        self.takes_more = False
        self.page.disarm()
        ends = time.monotonic() + wait_s
        while time.monotonic() < ends and self.worker.lives:
            live = await self._rows(LIVE)
            if not live and not self._starting and self.worker.is_ready:
                break
            await asyncio.sleep(0.1)
        if not self.worker.lives:
            self.ended_by_itself()
        for row in await self._rows(LIVE):
            calls = [(c.name or c.kind, c.state) for c in await self._store.calls(row.id)][-3:]
            self.problems.append(f"stuck: {row.id} is {row.state} ({row.waiting_for}): {calls}")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.worker.stop()
        await asyncio.to_thread(self.worker.process.wait, 60)

    def close(self) -> None:
        for task in [*self._tasks, *self._starting]:
            task.cancel()
        for worker in (self.worker, self.spare):
            if worker is not None and worker.lives:
                worker.kill()
        self.http.close()
        os.close(self._errors)

    # --- those who use it ---------------------------------------------------------------------

    @property
    def _store(self) -> SqliteStore:
        assert self.store is not None
        return self.store

    async def _rows(self, states: frozenset[Any]) -> list[Run]:
        return await self._store.runs(states=states, most=1_000)

    async def _until(self, done: Any, wait_s: float, what: str) -> None:
        ends = time.monotonic() + wait_s
        while not done():
            said = f"{self.worker.process.poll()} {self.worker.heard[-3:]} {self.errors}"
            assert time.monotonic() < ends and self.worker.lives, f"{what} did not come: {said}"
            await asyncio.sleep(0.02)

    async def _order(self) -> None:
        """Someone always wants so many runs at a time."""
        while True:
            roots = [row for row in await self._rows(LIVE) if not row.parent]
            if self.takes_more and len(roots) + len(self._starting) < self.load:
                self.asked += 1
                task = asyncio.create_task(self._start(f"desk{self.asked:03d}"))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
            await asyncio.sleep(0.1)

    async def _start(self, name: str) -> None:
        order = json.dumps({"name": name, "rounds": ROUNDS})
        with contextlib.suppress(Ring0Error):
            row = await self.remote.start(self.bare.manifest, self.bare.around, order, None)
            self.acknowledged.add(row.id)

    async def _operate(self) -> None:
        """Says yes, says what became of what was cut off, and tells each desk something."""
        while True:
            try:
                await self._operated()
            except Ring0Error:
                pass  # There is no kernel just now.
            except Exception as fault:
                self.problems.append(f"the operator's tool broke: {fault!r}")
            await asyncio.sleep(0.1)

    async def _operated(self) -> None:
        for approval in await self._store.approvals(states=[ApprovalState.PENDING]):
            await self.remote.answer(approval.id, yes=True)
        for row in await self._rows(LIVE):
            calls = await self._store.calls(row.id)
            unknown = [call for call in calls if call.state is CallState.UNKNOWN]
            if unknown:
                await asyncio.sleep(CALM_S)
                for call in unknown:
                    await self.remote.settle(call.id, happened=await self.happened(call))
            if not row.parent and not await self._was_told(row):
                await self.remote.send(row.id, "from the operator")

    async def _was_told(self, row: Run) -> bool:
        if row.id not in self._told:
            async for entry in self._store.entries(row.id):
                if isinstance(entry.body, ev.MessageSent) and entry.body.to == row.id:
                    self._told.add(row.id)
        return row.id in self._told

    # --- what is outside ----------------------------------------------------------------------

    def entries(self) -> list[str]:
        """Everything that was entered anywhere outside."""
        found = [entry for entry, _ in self.http.entries]
        for name in ("bank", "vault"):
            ledger = apsw.Connection(str(self.folder / f"{name}.db"))
            ledger.set_busy_timeout(5_000)
            found += [str(entry) for (entry,) in ledger.execute("SELECT entry FROM ledger")]
            ledger.close()
        return found

    async def entry_of(self, call: Call) -> str:
        """What a `once` call enters."""
        args = json.loads(await self._store.blob(call.args))
        if "parameters" in args:
            return str(args["parameters"][0])
        return str(args["entry"] if "entry" in args else args["body"])

    async def happened(self, call: Call) -> bool:
        return await self.entry_of(call) in self.entries()
