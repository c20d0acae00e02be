"""What the store keeps of a value that is in its run's archive: where it is, and no byte of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import journal_storage
import journals
from ring0.errors import ValueArchived
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.sqlite import JOURNAL, SqliteStore, open_store
from ring0.types import RunState

PRINTED = b"the books of the whole year, page by page; " * 500


async def ended(folder: Path) -> SqliteStore:
    """A run that has ended, and printed something."""
    store = open_store(folder, Runtime(), write=True)
    await store.append(journals.queued("r-1"))
    await store.append(journals.moved("r-1", epoch=1))
    blobs = {**journals.named("r-1", b"the result"), **journals.named("r-1", PRINTED)}
    result, output = blobs
    end = ev.RunEnded(state=RunState.DONE, result=result, output=output, epoch=2, by="kernel")
    await store.append(Write(run="r-1", durable=True, blobs=blobs, events=[end]))
    return store


async def test_no_byte_of_an_archived_value_stays_in_the_file(tmp_path: Path) -> None:
    store = await ended(tmp_path)
    await store.append(journal_storage.archived("r-1", PRINTED))
    await store.close()
    assert b"page by page" not in (tmp_path / JOURNAL).read_bytes()
    assert not (tmp_path / f"{JOURNAL}-wal").exists()


async def test_a_value_that_is_written_again_stays_in_its_archive(tmp_path: Path) -> None:
    """A message to a run that has ended may hold what the run once printed."""
    store = await ended(tmp_path)
    await store.append(journal_storage.archived("r-1", PRINTED))
    (where,) = journals.named("r-1", PRINTED)
    await store.append(journals.queued("r-2"))
    await store.append(journals.sent("r-2", "r-1", PRINTED, key_of_run="r-1"))
    await store.flush()
    with pytest.raises(ValueArchived):
        await store.blob(where)
    report = await verify(store)
    assert report.ok and report.archived == 1, report.problems
    await store.append(journal_storage.returned("r-1", PRINTED))
    assert await store.blob(where) == PRINTED
    report = await verify(store)
    assert report.ok and report.archived == 0, report.problems
    await store.close()
