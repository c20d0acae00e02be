"""Real `ring0` processes on data folders of their own, for the tests of the command line."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import forking

RING0 = str(Path(sys.executable).with_name("ring0"))
WAIT_S = 30

AGENT = '''
from helper import GREETING
from ring0 import Context, agent, tool


@tool(effect="pure")
def double(n: int) -> int:
    """Doubles."""
    return 2 * n


@agent(tools=[double], builtins={"files": {"use": "files"},
                                 "crm": {"use": "sql", "database": "crm.db"}})
async def clerk(ctx: Context, task: str):
    print("asked:", task)
    print("\\x1b[31mred\\x1b[0m \\u202eevil [bold]markup[/bold]")
    rows = await ctx.tool("crm.query", statement="SELECT id FROM customers WHERE name = ?",
                          parameters=["Ann"])
    await ctx.tool("files.write", path="note.txt", text="\\x1b[2J\\u202e[red]hi[/red]")
    refused = ""
    try:
        await ctx.tool("crm.execute", statement="DROP TABLE customers")
    except Exception as error:
        refused = str(error)
    done = await ctx.tool("crm.execute", statement="DELETE FROM customers WHERE id = ?",
                          parameters=[1])
    return {"greeting": GREETING, "n": await ctx.tool("double", n=21), "rows": rows["rows"],
            "refused": refused, "done": done}


@agent(builtins={"files": {"use": "files"}})
async def plain(ctx: Context, task: str):
    await ctx.tool("files.write", path="a.txt", text=task)
    return task


@agent(agents=["plain"], builtins={"files": {"use": "files"}})
async def parent(ctx: Context, task: str):
    child = await ctx.spawn("plain", "a small part")
    return await child.wait()


@agent
async def fails(ctx: Context, task: str):
    raise ValueError("\\x1b[31mno luck\\x1b[0m")


@agent(builtins={"files": {"use": "files"}})
async def sleeps(ctx: Context, task: str):
    await ctx.tool("files.write", path="before.txt", text="before")
    await ctx.sleep(float(task))
    return "slept"
'''


@dataclass
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def all(self) -> str:
        return self.out + self.err


class World:
    """A folder with an agent and a database, and an empty data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._started: list[subprocess.Popen[str]] = []
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RING0_HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
        }
        self.write("agent.py", AGENT)
        self.write("helper.py", 'GREETING = "hello"\n')
        with sqlite3.connect(folder / "crm.db") as db:
            db.executescript("""
                CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT);
                CREATE TABLE orders (id INTEGER PRIMARY KEY,
                    customer INTEGER REFERENCES customers (id) ON DELETE CASCADE);
                INSERT INTO customers VALUES (1, 'Ann'), (2, 'Bob');
                INSERT INTO orders VALUES (1, 1), (2, 1), (3, 2);
            """)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def customers(self) -> list[str]:
        with sqlite3.connect(self.folder / "crm.db") as db:
            return [name for (name,) in db.execute("SELECT name FROM customers ORDER BY id")]

    def ring0(self, *arguments: str, stdin: str = "") -> Done:
        """One command, to its end. Never a traceback, whatever it was asked."""
        code, out, err = forking(RING0).run(
            arguments, self.folder, self.environment, stdin.encode(), WAIT_S
        )
        done = Done(code, out.decode(), err.decode())
        ours = [line for line in done.all.splitlines() if "│" not in line]
        assert not any(line.startswith("Traceback") for line in ours), done.all
        assert done.code != 70, done.all
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """One command, left to go on."""
        process = subprocess.Popen(
            [RING0, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """Ends what a test that failed has left to go on."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=WAIT_S)

    def finish(self, process: subprocess.Popen[str]) -> Done:
        out, err = process.communicate(timeout=WAIT_S)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def pending(self) -> str:
        """The one approval that waits, once there is one."""
        return str(self.until(lambda: self._listed("approvals"))[0]["id"])

    def waits_for(self, what: str) -> str:
        """The id of the run that waits for `what`, once there is one."""
        return str(
            self.until(lambda: [row for row in self.live() if row["waiting_for"] == what])[0]["id"]
        )

    def waits_or_runs(self) -> str:
        """The id of the one run that goes on, once there is one with a call."""
        return str(self.until(lambda: [row for row in self.live() if row["calls_used"]])[0]["id"])

    @contextlib.contextmanager
    def holding(self, *arguments: str) -> Iterator[None]:
        """Meanwhile a kernel is at work for this command; it is killed afterwards."""
        process = self.start(*arguments)
        try:
            self.waits_or_runs()
            yield
        finally:
            process.kill()
            process.communicate(timeout=WAIT_S)

    def live(self) -> list[dict[str, Any]]:
        """The runs that go on."""
        return self._listed("ps", "runs")

    def _listed(self, verb: str, what: str = "") -> list[dict[str, Any]]:
        # While a first kernel makes its folder, there is a moment without a journal.
        found: list[dict[str, Any]] = self.ring0(verb, "--json").json.get(what or verb, [])
        return found

    def calls(self, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ring0("show", run, "--json").json["calls"]
        return found

    def until(self, look: Any) -> Any:
        ends = time.monotonic() + WAIT_S
        while not (found := look()):
            assert time.monotonic() < ends, "it did not happen in time"
            time.sleep(0.05)
        return found


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, world: World, *arguments: str) -> None:
        self.shown = ""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(world.folder)
            os.execve(RING0, [RING0, *arguments], world.environment)

    def wait_for(self, text: str, *, times: int = 1, wait_s: float = WAIT_S) -> None:
        ends = time.monotonic() + wait_s
        while plain(self.shown).count(text) < times:
            assert time.monotonic() < ends, f"{text!r} did not appear:\n{self.shown}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._master, 65_536).decode("utf-8", "replace")
                except OSError:
                    assert plain(self.shown).count(text) >= times, self.shown
                    return

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Its exit code, once it has ended."""
        ends = time.monotonic() + WAIT_S
        while time.monotonic() < ends:
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    self.shown += os.read(self._master, 65_536).decode("utf-8", "replace")
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self._master)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError(f"it did not end:\n{self.shown}")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
