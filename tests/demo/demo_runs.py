"""Runs the demo as a person does, in a home of its own, and reads afterwards what is on record."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import msgspec

from ring0.demo import world
from ring0.runtime import Runtime
from ring0.store.sqlite import SqliteStore, open_store
from ring0.types import Call, Outcome

RING0 = Path(sys.prefix) / "bin" / "ring0"
WALL_S = 55
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "variable-of-the-host-4f9c1d",
    "ssh": "private-key-of-the-host-77ab02",
    "project": "file-of-the-project-c0ffee11",
}


@dataclass
class Demo:
    """One home in which demos run."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / ".local" / "share" / "ring0-demo"

    @property
    def database(self) -> Path:
        return self.folder / "world" / world.DATABASE

    def environment(self, **more: str) -> dict[str, str]:
        name = "AWS_SECRET_ACCESS_KEY"
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8",
                "COLUMNS": "100", name: SECRETS[name], **more}  # fmt: skip

    def run(
        self, *arguments: str, wall_s: float = WALL_S, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """`ring0 demo` without a terminal."""
        return subprocess.run(
            [RING0, "demo", *arguments], env=self.environment(**more), cwd=self.home, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=wall_s)  # fmt: skip

    def run_in_terminal(self, answer: str) -> tuple[int, str]:
        """`ring0 demo` in a terminal, where somebody types `answer` to every question."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [RING0, "demo"], env=self.environment(TERM="xterm"), cwd=self.home,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)  # fmt: skip
        os.close(theirs)
        printed, answered = b"", 0
        try:
            while select.select([ours], [], [], WALL_S)[0]:
                try:
                    printed += os.read(ours, 65_536)
                except OSError:
                    break  # the program has closed its terminal
                while printed.count(b"approve? ") > answered:
                    answered += 1
                    os.write(ours, answer.encode() + b"\n")
            return process.wait(WALL_S), printed.decode(errors="replace")
        finally:
            process.kill()
            process.wait()
            os.close(ours)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[SqliteStore]:
        store = open_store(self.folder, Runtime(), write=False)
        try:
            yield store
        finally:
            await store.close()


def new_demo(home: Path) -> Demo:
    """A home with what an attacker would look for."""
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text(SECRETS["ssh"])
    (home / "project.txt").write_text(SECRETS["project"])
    return Demo(home)


def untouched(folder: Path) -> world.Rows:
    """The database as it is before any agent has seen it, built once more."""
    path = folder / "untouched.db"
    world.build_database(path)
    return world.rows_of(path)


def rows_beneath(folder: Path, customer: int) -> world.Rows:
    """The rows of one customer in every table, of the untouched database, by its own keys."""
    db = apsw.Connection(str(folder / "untouched.db"), flags=apsw.SQLITE_OPEN_READONLY)
    orders = "SELECT id FROM orders WHERE customer_id = ?"
    found = {
        "customers": db.execute("SELECT * FROM customers WHERE id = ?", (customer,)),
        "orders": db.execute("SELECT * FROM orders WHERE customer_id = ?", (customer,)),
        "order_items": db.execute(
            f"SELECT * FROM order_items WHERE order_id IN ({orders})", (customer,)
        ),
    }
    return {table: frozenset(rows) for table, rows in found.items()}


async def statements(store: SqliteStore, run: str) -> list[tuple[Call, dict[str, Any]]]:
    """The run's calls of crm.execute, with their arguments."""
    return [
        (call, json.loads(await store.blob(call.args)))
        for call in await store.calls(run)
        if call.name == "crm.execute"
    ]


async def outcome(store: SqliteStore, call: Call) -> Outcome:
    return msgspec.json.decode(await store.blob(call.outcome), type=Outcome)


async def agent_runs(store: SqliteStore) -> list[str]:
    """The runs of the demo's agent, the newest first."""
    return [row.id for row in await store.runs() if row.agent == "support-desk"]
