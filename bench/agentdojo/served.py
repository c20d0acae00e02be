"""The other end of `worker.py`: AgentDojo's environments, served by a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-agentdojo" / "bin" / "python"
WORKER = Path(__file__).with_name("worker.py")
LINE_BYTES_MAX = 64 * 1024 * 1024
"""Of one answer: a result, or all of a suite's tools."""
CLOSE_S_MAX = 10


class Broken(Exception):
    """The worker said that a question was wrong, or died."""


class Pair(NamedTuple):
    """A user's task and what is injected into it; no injection: the task alone."""

    suite: str
    user: str
    injection: str = ""

    @property
    def name(self) -> str:
        task = f"{self.suite}/{self.user.removeprefix('user_')}"
        return f"{task} + {self.injection}" if self.injection else task


class Served:
    """Asks the worker; many may ask at once, and each gets its own answer."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._to, self._from = process.stdin, process.stdout
        self._waiting: deque[asyncio.Future[dict[str, Any]]] = deque()
        self._reader = asyncio.ensure_future(self._read())

    async def ask(self, do: str, **given: Any) -> dict[str, Any]:
        """One question, one answer. Raises Broken."""
        if self._reader.done():
            raise Broken("The worker has ended.")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._to.write(json.dumps({"do": do, **given}).encode() + b"\n")
        await self._to.drain()
        found = await answer
        if "error" in found:
            raise Broken(f"{do}: {found['error']}")
        return found

    async def _read(self) -> None:
        while line := await self._from.readline():
            self._waiting.popleft().set_result(json.loads(line))
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(Broken("The worker died without an answer."))

    async def close(self) -> None:
        """Ends the worker, and waits until it has."""
        self._to.close()
        try:
            await asyncio.wait_for(self._process.wait(), CLOSE_S_MAX)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader


@contextlib.asynccontextmanager
async def served(python: Path = PYTHON, worker: Path = WORKER) -> AsyncIterator[Served]:
    """The worker, for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        str(python),
        "-B",
        str(worker),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        env={"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "LANG": "C.UTF-8"},
    )
    serving = Served(process)
    try:
        yield serving
    finally:
        await serving.close()
