"""Both engines behind the real gate: what an agent was talked into, and what a human is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import kernel_world
from postgres_world import PASSWORD, Shop

from ring0.tools import sql
from ring0.types import Outcome


def sqlite_tool(here: kernel_world.World, file: str) -> None:
    give(here, {"use": "sql", "database": file})


def postgres_tool(here: kernel_world.World, shop: Shop, **more: Any) -> None:
    give(here, {"use": "sql", "url": shop.url, "password_secret": "PG", **more})


def give(here: kernel_world.World, config: dict[str, Any]) -> None:
    for driver in sql.drivers(
        "db", config, Path("/"), here.kernel.runtime, here.home, {"PG": PASSWORD}.__getitem__
    ):
        here.tool(driver)


async def refused(here: kernel_world.World, statement: str, parameters: Any = ()) -> None:
    """Both operations say no, at once: nobody is even asked."""
    for operation in ("db.query", "db.execute"):
        async with asyncio.timeout(20):
            outcome = await here.call(
                operation, {"statement": statement, "parameters": list(parameters)}
            )
        assert outcome.error is not None, f"{operation} did {statement!r}"


async def asked(here: kernel_world.World, statement: str) -> tuple[Any, asyncio.Task[Outcome]]:
    """What is shown to a human; the call waits."""
    task = here.start("db.execute", {"statement": statement})
    approval = await here.pending()
    return await here.shown(approval), task
