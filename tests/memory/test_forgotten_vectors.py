"""Vectors on disk: gone before it is on record that something was forgotten, whole again after it,
and made anew where somebody broke them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from embedding_world import needs_models
from kernel_world import world
from vector_stores import HAS_LANCE

from ring0.errors import StoreFailed
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.memory import directing, forgetting
from ring0.kernel.memory.indexing import Indexing
from ring0.kernel.operating import erasing
from ring0.memory.embedding.offlinemodels import STATIC
from ring0.memory.forgetting import Selector
from ring0.runtime import Runtime
from ring0.types import (
    CallKind,
    CallState,
    Integrity,
    Label,
    MemoryKind,
    NewRecord,
    RunState,
    Scope,
)

OWNER = ("local", "ann", "desk")
SCOPE = Scope(tenant="local", principal="ann", agent="desk", run=None)
PUBLIC = Label(integrity=Integrity.USER)
TURNS = ("My little kitten sleeps on the sofa.", "The bond market fell.", "We had pizza.")

pytestmark = [
    needs_models,
    pytest.mark.skipif(not HAS_LANCE, reason="no LanceDB: `make optional` installs it"),
]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ring0.limits.INDEXING_VECTORS_AFTER_S", 0)


async def opened(home: Path) -> tuple[Kernel, Indexing]:
    home.mkdir(exist_ok=True)
    (home / "ring0.toml").write_text('[memory]\nembeddings = "static"\nvectors = "lance"\n')
    kernel = await open_kernel(home, Runtime(), {})
    assert kernel.memory.indexing is not None
    return kernel, kernel.memory.indexing


async def remember(kernel: Kernel, turns: Sequence[str] = TURNS) -> list[str]:
    new = [
        NewRecord(kind=MemoryKind.EPISODE, text=text, label=PUBLIC, role="note") for text in turns
    ]
    _, ids = await directing.write(kernel, OWNER, new, by="op")
    return ids


async def all_of(indexing: Indexing) -> None:
    while await indexing.step():
        pass


async def forget(kernel: Kernel, *ids: str) -> forgetting.Receipt:
    tenant, principal, agent = OWNER
    meant = Selector(tenant=tenant, principal=principal, agent=agent, ids=ids)
    return await forgetting.forget(kernel, meant, by="op")


async def on_disk(indexing: Indexing) -> int:
    return await indexing.placing.places[STATIC.identity].count(OWNER)


def files(home: Path) -> list[Path]:
    return list((home / "vectors").glob("*/*.lance"))


async def meanings(kernel: Kernel) -> list[str]:
    """Texts that were found by what they mean, for a query of which none has a word."""
    found = await kernel.memory.recall(SCOPE, "a cat lies around", k=3, label=PUBLIC)
    return [one.record.text for one in found if one.why.get("meaning")]


async def test_what_is_forgotten_is_on_no_disk_before_it_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two leaves too little on disk, never too much."""
    kernel, indexing = await opened(tmp_path)
    ids = await remember(kernel)
    await all_of(indexing)
    assert files(tmp_path) and await on_disk(indexing) == 3

    async def crash(*_: Any, **__: Any) -> None:
        assert not files(tmp_path)
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_write", crash)
        with pytest.raises(RuntimeError):
            await forget(kernel, ids[0])
    await all_of(indexing)
    assert await on_disk(indexing) == 3, "nothing was forgotten: all of it is back"
    await forget(kernel, ids[0])
    await all_of(indexing)
    assert await on_disk(indexing) == 2
    await kernel.close()


async def test_a_vector_made_while_its_record_is_forgotten_gets_on_no_disk(tmp_path: Path) -> None:
    kernel, indexing = await opened(tmp_path)
    await remember(kernel)
    await all_of(indexing)
    (late,) = await remember(kernel, ["The secret number is 4711."])
    index, reached, go = kernel.store.index, asyncio.Event(), asyncio.Event()

    async def held(model: str, rows: Any) -> None:
        reached.set()
        await go.wait()
        await index(model, rows)

    kernel.store.index = held  # type: ignore[method-assign]
    step = asyncio.ensure_future(indexing.step())
    await reached.wait()
    await forget(kernel, late)
    go.set()
    await step
    await remember(kernel, ["Another one."])
    await all_of(indexing)
    assert await on_disk(indexing) == 4, "the three of before, and the new one"
    await kernel.close()


async def test_an_erased_run_leaves_no_vector_on_disk(tmp_path: Path) -> None:
    (tmp_path / "ring0.toml").write_text('[memory]\nembeddings = "static"\nvectors = "lance"\n')
    async with world(tmp_path, principal="ann") as w:
        indexing = w.kernel.memory.indexing
        assert indexing is not None
        assert (await w.kind(CallKind.MEMORY_APPEND, {"text": "pin 4711"})).state is CallState.OK
        w.end.set_result("done")
        await w.until(RunState.DONE)
        await all_of(indexing)
        assert files(tmp_path)
        await erasing.erase(w.kernel, [w.run.id], by="op")
        assert not files(tmp_path)


@pytest.mark.parametrize("how", ["deleted", "emptied", "overwritten"])
async def test_a_broken_vector_store_is_made_anew_and_words_serve_meanwhile(
    tmp_path: Path, how: str
) -> None:
    kernel, indexing = await opened(tmp_path)
    await remember(kernel)
    await all_of(indexing)
    before = await meanings(kernel)
    assert before[0] == TURNS[0]
    folder = tmp_path / "vectors"
    if how == "deleted":
        shutil.rmtree(folder)
    for path in list(folder.rglob("*")):
        if path.is_file() and how == "emptied":
            path.unlink()
        elif path.is_file():
            path.write_bytes(b"\x5a" * path.stat().st_size)
    found = await kernel.memory.recall(SCOPE, "kitten", k=1, label=PUBLIC)
    assert [one.record.text for one in found] == [TURNS[0]], "by its words at least"
    await remember(kernel, ["A new one."])
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StoreFailed):  # The background goes on after a while.
                await all_of(indexing)
            if await meanings(kernel) and await on_disk(indexing) == 4:
                break
    assert (await meanings(kernel))[0] == TURNS[0]
    await kernel.close()
    kernel, indexing = await opened(tmp_path)
    await all_of(indexing)
    assert await on_disk(indexing) == 4
    await kernel.close()


async def test_a_scope_whose_vectors_are_broken_can_be_forgotten(tmp_path: Path) -> None:
    kernel, indexing = await opened(tmp_path)
    ids = await remember(kernel)
    await all_of(indexing)
    for path in (tmp_path / "vectors").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x5a" * path.stat().st_size)
    assert (await forget(kernel, ids[0])).left == ()
    assert not files(tmp_path)
    await kernel.close()
