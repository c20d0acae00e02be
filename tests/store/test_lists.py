"""Values that are kept in parts: what a conversation adds takes room for what is new of it."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

import journal_storage
import journals
from journals import queued
from ring0 import limits
from ring0.errors import StoreDamaged
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import Write, address
from ring0.store import events as ev
from ring0.store.lists import ADDRESS_BYTES, SPREAD, Listed, form_of, grown, list_address, whole
from ring0.store.sqlite import JOURNAL, SqliteStore, open_store

PARTS = [b"first,", b"second,", b"third"]


def blobs_of(count: int) -> tuple[dict[str, bytes], list[str]]:
    """All blobs of a list of so many parts, and what its topmost holds."""
    blobs: dict[str, bytes] = {}

    def add(form: Listed) -> str:
        where = list_address(b"k", form)
        blobs[where] = form
        return where

    parts = []
    for number in range(count):
        value = b"part %d;" % number
        parts.append(address(b"k", value))
        blobs[parts[-1]] = value
    return blobs, grown(parts, add)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 31, 256, 257, 273, 4_096, 5_000])
def test_a_list_is_its_parts_one_after_the_other(count: int) -> None:
    blobs, top = blobs_of(count)

    def read(where: str) -> tuple[bool, bytes]:
        return isinstance(blobs[where], Listed), blobs[where]

    assert whole(form_of(top), read) == b"".join(b"part %d;" % n for n in range(count))
    most = SPREAD * max(1, len(hex(count)) - 2)
    assert len(top) <= most
    assert all(len(blob) <= SPREAD * ADDRESS_BYTES for blob in blobs.values())


def test_what_one_turn_adds_to_a_list_does_not_grow_with_it() -> None:
    def new(turn: int) -> int:
        before, after = blobs_of(2 * turn)[0], blobs_of(2 * turn + 2)[0]
        _, top = blobs_of(2 * turn + 2)
        added = sum(len(after[where]) for where in after.keys() - before.keys())
        return added + ADDRESS_BYTES * len(top)

    sizes = [new(turn) for turn in range(1, 500)]
    late = sum(sizes[-100:]) / 100
    assert late < 3 * SPREAD * ADDRESS_BYTES, "a turn near the end"
    assert sum(sizes) < 500 * 3 * SPREAD * ADDRESS_BYTES


def test_no_value_can_pass_for_a_list() -> None:
    form = form_of([address(b"k", b"one")])
    assert list_address(b"k", form) != address(b"k", form)


async def test_who_asks_for_a_list_gets_the_whole_value(tmp_path: Path) -> None:
    store = await told(tmp_path)
    where, _ = journal_storage.in_parts("r-1", *PARTS)
    assert await store.blob(where) == b"first,second,third"
    await store.close()


async def test_a_list_is_verified_with_its_parts(tmp_path: Path) -> None:
    store = await told(tmp_path)
    report = await verify(store)
    assert report.ok and report.unnamed == 0, report
    await store.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM blob WHERE CAST(value AS TEXT) = 'second,'",
        "UPDATE blob SET value = CAST('secoNd,' AS BLOB) WHERE CAST(value AS TEXT) = 'second,'",
        "UPDATE blob SET form = 0 WHERE form = 1",
        "UPDATE blob SET form = 1 WHERE CAST(value AS TEXT) = 'second,'",
        "UPDATE blob SET form = 2, value = CAST('r-1' AS BLOB)"
        " WHERE CAST(value AS TEXT) = 'second,'",
        "UPDATE blob SET value = CAST(value || value AS BLOB) WHERE form = 1",
        "UPDATE blob SET form = 9 WHERE form = 1",
    ],
)
async def test_a_part_that_was_changed_is_found(tmp_path: Path, change: str) -> None:
    await (await told(tmp_path)).close()
    connection = apsw.Connection(str(tmp_path / JOURNAL))
    connection.execute(change).fetchall()
    assert connection.changes() == 1
    connection.close()
    store = open_store(tmp_path, Runtime(), write=False)
    assert not (await verify(store)).ok
    await store.close()


def test_a_list_that_holds_itself_is_not_read_for_ever() -> None:
    form = form_of(["aa" * 32] * 3)
    with pytest.raises(StoreDamaged, match="put together"):
        whole(form, lambda _: (True, form))


def test_a_list_that_would_be_longer_than_any_value_is_not_put_together() -> None:
    part = b"x" * (limits.BLOB_SIZE_BYTES_MAX // 4)
    with pytest.raises(StoreDamaged, match="put together"):
        whole(form_of(["aa" * 32] * 5), lambda _: (False, part))


def test_what_is_no_list_of_addresses_is_not_read_as_one() -> None:
    for form in (b"", b"x" * 31, b"x" * 33):
        with pytest.raises(StoreDamaged, match="put together"):
            whole(Listed(form), lambda _: (False, b""))


async def told(folder: Path) -> SqliteStore:
    """A journal with a call whose arguments lie in parts."""
    store = open_store(folder, Runtime(), write=True)
    await store.append(queued("r-1"))
    await store.append(journals.moved("r-1", epoch=1))
    where, blobs = journal_storage.in_parts("r-1", *PARTS)
    call = journals.call_row("r-1", 0, args=where)
    blobs |= journals.named("r-1", b"what was known")
    await store.append(
        Write(run="r-1", durable=True, events=[ev.CallIntended(call=call)], blobs=blobs)
    )
    return store
