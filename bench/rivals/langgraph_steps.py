"""LangGraph with SqliteSaver: a chain of nodes that do nothing, each step on disk before the next.

As its documentation has it: `AsyncSqliteSaver` (the saver for more than one run at a time) on its
own file, one node a step, `durability="sync"`. The saver sets WAL; `synchronous` is set to FULL.
Prints one JSON object. Run by `ring0 bench scheduler` with the Python of `.venv-rivals`.
"""

# mypy: disable-error-code="import-not-found, no-untyped-call"

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    """What goes from step to step."""

    number: int


async def step(state: State) -> dict[str, int]:
    """An effect that costs nothing."""
    return {"number": state["number"] + 1}


def chain(steps: int, saver: Any) -> Any:
    """One node a step."""
    graph = StateGraph(State)
    names = [f"step{number}" for number in range(steps)]
    for name in names:
        graph.add_node(name, step)
    for one, other in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(one, other)
    return graph.compile(checkpointer=saver)


async def main(folder: Path, runs: int, steps: int, at_once: int) -> dict[str, Any]:
    async with AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db")) as saver:
        await saver.setup()
        await saver.conn.execute("PRAGMA synchronous = FULL")
        graph, turn = chain(steps, saver), asyncio.Semaphore(at_once)

        async def run(name: str) -> None:
            async with turn:
                config = {"configurable": {"thread_id": name}, "recursion_limit": steps + 5}
                ended = await graph.ainvoke({"number": 0}, config, durability="sync")
                assert ended["number"] == steps

        await run("warm")
        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(run(str(number)) for number in range(runs)))
        taken, cpu = time.perf_counter() - begun, time.process_time() - cpu
        pragmas = {}
        for name in ("journal_mode", "synchronous"):
            async with saver.conn.execute(f"PRAGMA {name}") as cursor:
                pragmas[name] = (await cursor.fetchone())[0]
    what = f"langgraph {version('langgraph')}, SqliteSaver {version('langgraph-checkpoint-sqlite')}"
    return {"what": what, "taken_s": taken, "cpu_s": cpu, **pragmas}


if __name__ == "__main__":
    runs, steps, at_once = (int(one) for one in sys.argv[2:5])
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), runs, steps, at_once))))
