"""One suite for every vector store: what is near is found, of one owner alone, and what is removed
is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vector_stores import DIMENSIONS, HAS_LANCE, Open, opener, some

from ring0.errors import StoreFailed
from ring0.memory.embedding import vectors

ANN = ("acme", "ann", "desk")
BOB = ("acme", "bob", "desk")


@pytest.fixture(params=["exact", "lance"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return opener(request.param, tmp_path)


async def test_the_nearest_are_those_of_brute_force(open_store: Open) -> None:
    store = open_store()
    rows, packed = some(500, 1)
    await store.put(ANN, list(enumerate(packed)))
    asked, queries = some(50, 2)
    for query, told in zip(asked, queries, strict=True):
        scores = rows @ query
        wanted = np.sort(scores)[::-1][:10]
        found = await store.search(ANN, told, 10)
        assert np.allclose([one.score for one in found], wanted, atol=1e-4)
        assert np.allclose([scores[one.number] for one in found], wanted, atol=1e-4)
    await store.close()


async def test_a_search_finds_nothing_but_what_is_allowed(open_store: Open) -> None:
    store = open_store()
    rows, packed = some(300, 3)
    await store.put(ANN, list(enumerate(packed)))
    _, queries = some(20, 4)
    allowed = set(range(0, 300, 7))
    for told in queries:
        found = [one.number for one in await store.search(ANN, told, 12, allowed)]
        scores = rows[sorted(allowed)] @ vectors.unpack(told)
        best = [sorted(allowed)[place] for place in np.argsort(-scores, kind="stable")[:12]]
        assert found == best
    assert await store.search(ANN, queries[0], 12, set()) == []
    assert await store.search(ANN, queries[0], 12, {9_999}) == []
    await store.close()


async def test_a_search_never_leaves_its_owner(open_store: Open) -> None:
    """Owners whose names run into each other, too; each of them finds nothing but its own."""
    store = open_store()
    owners = [
        ("a", "b", "c"), ("a", "b", "d"), ("a", "bc", ""), ("ab", "", "c"), ("", "ab", "c"),
        ("a\0b", "", "c"), ("a", "\0b", "c"), ("a/../b", "x", "y"),
        ("A", "b", "c"), ("é", "b", "c"),
    ]  # fmt: skip
    _, packed = some(400, 5)
    mine: dict[tuple[str, str, str], set[int]] = {owner: set() for owner in owners}
    for number in range(400):
        mine[owners[number % len(owners)]].add(number)
    for owner, numbers in mine.items():
        await store.put(owner, [(number, packed[number]) for number in sorted(numbers)])
    _, queries = some(100, 6)
    for place, told in enumerate(queries):
        owner = owners[place % len(owners)]
        found = await store.search(owner, told, 100)
        assert {one.number for one in found} == mine[owner]
        assert not await store.search(owner, told, 100, set(range(400)) - mine[owner])
    assert await store.search(("a", "b", "nobody"), queries[0], 5) == []
    await store.close()


async def test_ten_thousand_queries_across_owners_find_nothing_of_others(tmp_path: Path) -> None:
    store = opener("exact", tmp_path)()
    _, packed = some(2_000, 7)
    for number, vector in enumerate(packed):
        await store.put(("t", f"p{number % 20}", "a"), [(number, vector)])
    for place in range(10_000):
        found = await store.search(("t", f"p{place % 20}", "a"), packed[place % 2_000], 10)
        assert len(found) == 10 and all(one.number % 20 == place % 20 for one in found)


async def test_what_is_put_twice_is_there_once_as_it_was_put_last(open_store: Open) -> None:
    store = open_store()
    _, (first, second, third) = some(3, 8)
    await store.put(ANN, [(5, first), (9, second), (5, third)])
    await store.put(ANN, [(7, first)])
    await store.put(ANN, [(9, third), (2, second)])
    assert await store.count(ANN) == 4 and await store.newest(ANN) == 9
    found = {one.number: one.score for one in await store.search(ANN, third, 9)}
    assert found[5] == pytest.approx(1, abs=0.02) and found[9] == pytest.approx(1, abs=0.02)
    assert await store.newest(BOB) == -1 and await store.count(BOB) == 0
    await store.close()


async def test_what_is_removed_is_found_no_more_and_its_neighbours_are(open_store: Open) -> None:
    store = open_store()
    _, packed = some(200, 9)
    await store.put(ANN, list(enumerate(packed)))
    await store.put(BOB, list(enumerate(packed)))
    await store.remove(ANN, [3, 150, 9_999])
    assert await store.count(ANN) == 198 and await store.count(BOB) == 200
    for number in (3, 150):
        near = [one.number for one in await store.search(ANN, packed[number], 200)]
        assert number not in near and len(near) == 198
    assert {one.number for one in await store.search(BOB, packed[3], 1)} == {3}
    await store.remove(ANN, range(200))
    assert await store.count(ANN) == 0 and await store.search(ANN, packed[0], 5) == []
    await store.remove(("nobody", "", ""), [1])
    await store.close()


async def test_equal_scores_come_by_number(open_store: Open) -> None:
    store = open_store()
    _, (one, *_) = some(2, 10)
    await store.put(ANN, [(number, one) for number in range(50)])
    assert [near.number for near in await store.search(ANN, one, 50)] == list(range(50))
    await store.close()


async def test_a_vector_of_another_size_is_refused(open_store: Open) -> None:
    store = open_store()
    with pytest.raises(ValueError, match="numbers has"):
        await store.put(ANN, [(1, vectors.nothing(DIMENSIONS + 1))])
    with pytest.raises(ValueError, match="numbers has"):
        await store.search(ANN, b"", 1)
    assert await store.count(ANN) == 0
    await store.close()


async def test_no_bytes_of_what_was_removed_or_wiped_are_left_in_the_folder(
    open_store: Open, tmp_path: Path
) -> None:
    store = open_store()
    rows, packed = some(200, 11)
    for start in range(0, 200, 20):
        await store.put(ANN, [(place, packed[place]) for place in range(start, start + 20)])
    await store.put(BOB, [(7, packed[7])])
    await store.remove(ANN, [7, 11])
    assert not (left := _holding(tmp_path, rows[11])), left
    assert len(_holding(tmp_path, rows[7])) == (1 if list(tmp_path.rglob("*.lance")) else 0)
    await store.wipe(ANN)
    assert not _holding(tmp_path, rows[12]) and await store.count(ANN) == 0
    assert await store.count(BOB) == 1
    await store.wipe()
    assert await store.count(BOB) == 0 and not _holding(tmp_path, rows[7])
    await store.close()


async def test_it_is_filled_from_where_it_is(open_store: Open) -> None:
    store = open_store()
    _, packed = some(60, 12)
    await store.put(ANN, list(enumerate(packed[:40])))
    await store.close()
    store = open_store()
    after = await store.newest(ANN)
    await store.put(ANN, [(n, packed[n]) for n in range(after + 1, 60)])
    assert await store.count(ANN) == 60 and await store.newest(ANN) == 59
    assert [one.number for one in await store.search(ANN, packed[10], 1)] == [10]
    await store.close()


needs_lance = pytest.mark.skipif(not HAS_LANCE, reason="no LanceDB: `make optional` installs it")


@needs_lance
async def test_an_index_on_disk_finds_nineteen_of_twenty(tmp_path: Path) -> None:
    store = opener("lance", tmp_path)(index_rows=2_000)
    rows, packed = some(4_000, 13)
    await store.put(ANN, list(enumerate(packed)))
    await store.close()
    store = opener("lance", tmp_path)(index_rows=2_000)
    asked, queries = some(60, 14)
    hit = 0
    for query, told in zip(asked, queries, strict=True):
        best = set(np.argsort(-(rows @ query))[:10].tolist())
        hit += len(best & {one.number for one in await store.search(ANN, told, 10)})
    assert hit >= 0.95 * 600
    await store.put(ANN, [(9_000, queries[0])])  # Beside the index, and found.
    assert (await store.search(ANN, queries[0], 1))[0].number == 9_000
    await store.close()


@needs_lance
async def test_a_removal_that_a_crash_cut_off_is_as_if_it_had_not_begun(tmp_path: Path) -> None:
    open_store = opener("lance", tmp_path)
    store = open_store()
    _, packed = some(30, 15)
    await store.put(ANN, list(enumerate(packed)))
    await store.close()
    (table,) = (tmp_path / "vectors").glob("*.lance")
    half = table.with_name(table.name.replace("-0.", "-1."))
    (half / "data").mkdir(parents=True)
    (half / "data" / "x.lance").write_bytes(b"half of it")
    store = open_store()
    assert await store.count(ANN) == 30 and not half.exists()
    await store.remove(ANN, [4])
    assert await store.count(ANN) == 29 and not table.exists()
    await store.close()


@needs_lance
async def test_a_folder_that_is_damaged_is_told_with_what_to_do(tmp_path: Path) -> None:
    open_store = opener("lance", tmp_path)
    store = open_store()
    _, packed = some(30, 16)
    await store.put(ANN, list(enumerate(packed)))
    for path in (tmp_path / "vectors").rglob("data/*"):
        path.write_bytes(b"\0" * 100)
    with pytest.raises(StoreFailed, match="vector store") as told:
        await open_store().search(ANN, packed[0], 3)
    assert "made again from the journal" in told.value.todo
    await store.wipe()
    await store.put(ANN, [(1, packed[1])])
    assert await store.count(ANN) == 1
    await store.close()


def _holding(folder: Path, row: object) -> list[Path]:
    """Files that have these numbers in them."""
    wanted = np.asarray(row, "<f4").tobytes()
    return [path for path in folder.rglob("*") if path.is_file() and wanted in path.read_bytes()]
