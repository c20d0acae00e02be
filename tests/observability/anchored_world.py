"""A kernel with its signer, in this process, and what somebody does to its folder."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ring0 import agent
from ring0.observability.proof.anchors import Anchors, notes_here
from ring0.observability.proof.notes import Key, read_key
from ring0.observability.verify import Report, verify
from ring0.runtime import Runtime
from ring0.sdk.embedded import Ring, embedded
from ring0.store.sqlite import open_store

JOURNAL = ("journal.db", "journal.head")


@agent
async def clerk(ctx, task):
    return f"did {task}"


@asynccontextmanager
async def ring_at(
    home: Path, config: str = "", environment: dict[str, str] | None = None
) -> AsyncIterator[Ring]:
    home.mkdir(mode=0o700, exist_ok=True)
    if config:
        (home / "ring0.toml").write_text(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        async with embedded(home, environment or {}) as ring:
            yield ring


async def ran(home: Path, *tasks: str, config: str = "") -> None:
    """A kernel that does these tasks, and ends."""
    async with ring_at(home, config) as ring:
        for task in tasks:
            await ring.run(clerk, task)


async def verified(
    home: Path, notes: list[str] | None = None, keys: tuple[Key, ...] = ()
) -> Report:
    store = open_store(home, Runtime(), write=False)
    try:
        return await verify(store, Anchors(notes_here(home) if notes is None else notes, keys))
    finally:
        await store.close()


async def keys_of(home: Path) -> list[Key]:
    """In the order in which the journal names them."""
    seen = Anchors((), ())
    store = open_store(home, Runtime(), write=False)
    try:
        for *_, body in store.stored():
            seen.note_key(body)
    finally:
        await store.close()
    return [read_key(name) for name in seen.keys]


def keep(home: Path, where: Path) -> None:
    """The journal as it is now, put aside."""
    where.mkdir()
    for name in JOURNAL:
        shutil.copy(home / name, where / name)


def put_back(home: Path, where: Path) -> None:
    for name in JOURNAL:
        shutil.copy(where / name, home / name)
    for name in ("journal.db-wal", "journal.db-shm"):
        (home / name).unlink(missing_ok=True)
