"""What the tests of storage share: a world whose run has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kernel_world import Doing, world

from ring0.types import Budget

LONG = "what the tool was given, again and again; " * 400


@asynccontextmanager
async def ended(home: Path, *, calls: int = 5) -> AsyncIterator[Any]:
    """A world whose one run has made some calls, and ended."""
    async with world(home, budget=Budget(calls=1_000, cost_microusd=1_000)) as w:
        await some_calls(w, calls)
        yield w


async def some_calls(w: Any, calls: int) -> None:
    w.tool(Doing("look"))
    for number in range(calls):
        assert (await w.call("look", {"text": f"{number}: {LONG}"})).error is None
    w.end.set_result("all looked at")
    await w.kernel.runs.wait(w.run.id)
    await w.store.flush()
