"""What the tests of back-ups share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ring0.kernel.operating import backing, restoring
from ring0.runtime import Runtime
from ring0.store.sqlite import open_store


async def backed_up(w: Any, folder: Path, *, keys: bool = False) -> backing.BackedUp:
    return await backing.back_up(w.kernel, folder, keys=keys, by="ann")


def restore(home: Path, folder: Path, **more: Any) -> Any:
    return restoring.restore(home, folder, Runtime(), by="ann", **more)


async def reads(home: Path, look: Callable[[Any], Any]) -> Any:
    store = open_store(home, Runtime(), write=False)
    try:
        return await look(store)
    finally:
        await store.close()
