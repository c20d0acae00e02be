"""dbos on SQLite: workflows of steps that do nothing, each step on disk before the next.

As its documentation has it: async workflows and async steps, the system database in one SQLite
file. What it sets by itself is the journal of old (DELETE) with `synchronous` FULL; `wal` as the
last argument turns on WAL in its file beforehand, which it keeps: then it stands on the same ground
as the others. Prints one JSON object. Run by `ring0 bench scheduler` with the Python of
`.venv-rivals`.
"""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator"

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOS
from dbos._dbos import _get_dbos_instance


@DBOS.step()
async def step(number: int) -> int:
    """An effect that costs nothing."""
    return number + 1


@DBOS.workflow()
async def workflow(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await step(number)
    return number


def settings() -> dict[str, Any]:
    """Of one of its own connections, as it opens them."""
    with _get_dbos_instance()._sys_db.engine.connect() as connection:
        return {
            name: connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous")
        }


async def main(folder: Path, runs: int, steps: int, at_once: int, wal: bool) -> dict[str, Any]:
    file = folder / "dbos.db"
    if wal:
        with closing(sqlite3.connect(file)) as db:
            db.execute("PRAGMA journal_mode = WAL")
    DBOS(
        config={
            "name": "ring0-bench",
            "system_database_url": f"sqlite:///{file}",
            "log_level": "ERROR",
            "enable_otlp": False,
        }
    )
    DBOS.launch()
    turn = asyncio.Semaphore(at_once)

    async def run() -> None:
        async with turn:
            assert await workflow(steps) == steps

    try:
        await run()
        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(run() for _ in range(runs)))
        taken, cpu = time.perf_counter() - begun, time.process_time() - cpu
        pragmas = settings()
    finally:
        DBOS.destroy()
    return {"what": f"dbos {version('dbos')}", "taken_s": taken, "cpu_s": cpu, **pragmas}


if __name__ == "__main__":
    runs, steps, at_once = (int(one) for one in sys.argv[2:5])
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), runs, steps, at_once, "wal" in sys.argv))))
