"""Words and vectors are made in the background, of everything, once; a change of model leaves no
gap."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from embedding_world import Letters
from vector_stores import HAS_LANCE

from ring0 import limits
from ring0.kernel.memory.indexing import Indexing
from ring0.kernel.memory.placing import fill
from ring0.memory.embedding import vectors
from ring0.memory.vectors import ExactVectors
from ring0.runtime import Runtime
from ring0.store.rows import Indexed, Loaded, ScopeSize, Unindexed
from ring0.store.terms import terms_of
from ring0.types import Confidentiality, Integrity, Label, MemoryKind, Owner, Record, RecordState

ANN = ("acme", "ann", "desk")
BOB = ("acme", "bob", "desk")


class Held:
    """What a store says and takes of records, words and vectors."""

    def __init__(self) -> None:
        self.rows: dict[int, Unindexed] = {}
        self.terms: dict[int, tuple[bytes, int]] = {}
        self.vectors: dict[str, dict[int, bytes]] = {}
        self.private: set[str] = set()
        self.fails = 0

    def remember(self, text: str, owner: Owner = ANN, previous: str = "") -> int:
        number = len(self.rows) + 1
        self.rows[number] = Unindexed(number, owner, f"r-x#{number}", text, previous, "note", 5)
        return number

    async def unindexed(self, model: str, most: int) -> list[Unindexed]:
        if self.fails:
            self.fails -= 1
            raise OSError("the disk is away")
        there = self.vectors.get(model, {}) if model else self.rows
        rows = self.rows.values()
        return [r for r in rows if r.number not in self.terms or r.number not in there][:most]

    async def index(self, model: str, rows: list[Indexed]) -> None:
        for row in rows:
            self.terms[row.number] = (row.terms, row.length)
            if row.vector is not None:
                self.vectors.setdefault(model, {})[row.number] = row.vector

    async def drop_vectors(self, model: str) -> int:
        others = [name for name in self.vectors if name != model]
        return sum(len(self.vectors.pop(name)) for name in others[:1])

    async def vector_models(self) -> dict[str, int]:
        return {name: len(found) for name, found in self.vectors.items()}

    async def scopes(self) -> list[ScopeSize]:
        owners = dict.fromkeys(row.owner for row in self.rows.values())
        return [
            ScopeSize(owner, sum(r.owner == owner for r in self.rows.values()), 0, 0)
            for owner in owners
        ]

    async def records_of(self, ids: list[str]) -> dict[str, Record]:
        return {one: record(one, private=one in self.private) for one in ids}

    async def load_scope(self, owner: Owner, model: str, after: int = -1) -> list[Loaded]:
        there = self.vectors.get(model, {})
        return [
            Loaded(
                row.number, row.id, MemoryKind.EPISODE, row.role, "", "r-x", 1, 1,
                RecordState.CURRENT, 0, 0, 0, 0, b"", 0, there.get(row.number), None,
            )
            for row in self.rows.values()
            if row.owner == owner and row.number > after
        ]  # fmt: skip


def record(name: str, *, private: bool) -> Record:
    secrecy = Confidentiality.PRIVATE if private else Confidentiality.PUBLIC
    return Record(
        id=name, kind=MemoryKind.EPISODE, tenant="acme", principal="ann", agent="desk", act="r-x",
        seq=1, role="note", text="", at_us=1,
        label=Label(integrity=Integrity.USER, confidentiality=secrecy),
    )  # fmt: skip


class Kept:
    """Embedders: which is wanted, and which of the others can still be asked."""

    def __init__(self, wanted: Letters | None, *others: Letters, away: bool = False) -> None:
        self.wanted: Any = wanted
        self.serving: Any = wanted
        self.told = wanted.name if wanted else "none"
        self._others = {one.name: one for one in others}
        self._away = away

    def named(self, name: str) -> Any:
        return self._others.get(name)

    def sends_away(self) -> bool:
        return self._away


class Clock(Runtime):
    """One that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.at_us = 0

    def monotonic_us(self) -> int:
        return self.at_us

    async def sleep(self, seconds: float) -> None:
        self.at_us += int(seconds * 1_000_000)
        await asyncio.sleep(0)


def indexing(held: Held, kept: Kept, runtime: Runtime | None = None, **more: Any) -> Indexing:
    def embedded(row: Unindexed) -> str:
        return f"{row.previous}|{row.text}"

    return Indexing(held, runtime or Clock(), kept, embedded, **more)  # type: ignore[arg-type]


async def all_of(work: Indexing) -> None:
    while await work.step():
        pass


async def test_all_that_is_remembered_gets_its_words_and_a_vector_once() -> None:
    held, letters = Held(), Letters("one")
    for place in range(300):
        held.remember(f"text {place} abc", (ANN, BOB)[place % 2], previous="before")
    told: list[Owner] = []
    work = indexing(held, Kept(letters), told=told.append)
    await all_of(work)
    assert len(held.terms) == len(held.vectors["one"]) == 300
    assert held.terms[1] == (terms_of("text 0 abc").packed, 3)
    assert letters.asked[0] == "before|text 0 abc" and len(letters.asked) == 300
    assert set(told) == {ANN, BOB}
    await all_of(work)
    assert len(letters.asked) == 300


async def test_without_an_embedder_there_are_words() -> None:
    held = Held()
    held.vectors["gone"] = {1: b"old"}
    for place in range(5):
        held.remember(f"text {place}")
    work = indexing(held, Kept(None))
    await all_of(work)
    assert len(held.terms) == 5 and held.vectors == {"gone": {1: b"old"}}
    status = await work.status()
    assert (status.model, status.serving, status.records) == ("", "", 5)


async def test_a_change_of_model_is_searched_with_the_old_vectors_until_the_new_are_there() -> None:
    held, old, new = Held(), Letters("old"), Letters("new")
    for place in range(200):
        held.remember(f"text {place}")
    await all_of(indexing(held, Kept(old)))
    kept = Kept(new, old)
    work = indexing(held, kept)
    served = []
    while await work.step():
        counts = await held.vector_models()
        served.append(kept.serving.name)
        # Whoever is asked has vectors of as much as there was before the change.
        assert counts[kept.serving.name] == 200
    assert served[0] == "old" and kept.serving is new
    assert set(held.vectors) == {"new"} and len(held.vectors["new"]) == 200


async def test_a_kernel_that_dies_in_the_middle_of_a_change_goes_on_with_it() -> None:
    held, old, new = Held(), Letters("old"), Letters("new")
    for place in range(200):
        held.remember(f"text {place}")
    await all_of(indexing(held, Kept(old)))
    first = indexing(held, Kept(new, old))
    await first.step()
    kept = Kept(new, old)
    second = indexing(held, kept)
    await second.step()
    assert kept.serving is old and len(new.asked) == 2 * limits.INDEXING_PAGE_RECORDS
    await all_of(second)
    assert kept.serving is new and len(new.asked) == 200


async def test_where_the_old_model_is_gone_words_serve_until_the_new_one_is_through() -> None:
    held, new = Held(), Letters("new")
    for place in range(200):
        held.remember(f"text {place}")
    await all_of(indexing(held, Kept(Letters("old"))))
    kept = Kept(new)
    work = indexing(held, kept)
    await work.step()
    assert kept.serving is None
    await all_of(work)
    assert kept.serving is new


async def test_an_embedder_that_is_down_keeps_nobody_from_being_found_by_words() -> None:
    held, letters, clock = Held(), Letters("one"), Clock()
    letters.is_broken = True
    said: list[str] = []
    for place in range(10):
        held.remember(f"text {place}")
    work = indexing(held, Kept(letters), clock, say=said.append)
    await all_of(work)
    assert len(held.terms) == 10 and not held.vectors.get("one")
    assert (await work.status()).trouble == "It made no vectors. A test says so."
    letters.is_broken = False
    assert not await work.step()  # It rests.
    clock.at_us += limits.EMBEDDER_REST_S * 1_000_000
    await all_of(work)
    assert len(held.vectors["one"]) == 10 and len(said) == 1
    assert (await work.status()).trouble == ""


async def test_a_text_that_an_embedder_fails_at_keeps_no_other_from_its_vector() -> None:
    held, letters = Held(), Letters("one")
    letters.fails_at = "poison"
    for place in range(20):
        held.remember("poison" if place in (3, 11) else f"abc {place}")
    work = indexing(held, Kept(letters))
    await all_of(work)
    nothing = vectors.nothing(8)
    bad = [number for number, vector in held.vectors["one"].items() if vector == nothing]
    assert bad == [4, 12] and len(held.vectors["one"]) == 20
    asked = len(letters.asked)
    await all_of(work)
    assert len(letters.asked) == asked


async def test_nothing_private_is_sent_to_a_remote_embedder() -> None:
    held, letters = Held(), Letters("far")
    held.remember("public abc", previous="private before")
    number = held.remember("private secret")
    held.private.add(f"r-x#{number}")
    await all_of(indexing(held, Kept(letters, away=True)))
    assert letters.asked == ["|public abc"]
    assert held.vectors["far"][number] == vectors.nothing(8) and number in held.terms


async def test_it_goes_on_where_a_store_could_not_be_read_for_a_while() -> None:
    held, letters = Held(), Letters("one")
    held.remember("abc")
    held.fails = 2
    said: list[str] = []
    work = indexing(held, Kept(letters), say=said.append)
    work.begin()
    async with asyncio.timeout(5):
        while not held.vectors.get("one"):
            await asyncio.sleep(0.001)
    held.remember("new")
    work.wake()
    async with asyncio.timeout(5):
        while len(held.vectors["one"]) < 2:
            await asyncio.sleep(0.001)
    await work.close()
    assert said and "the disk is away" in said[0]


@pytest.mark.parametrize("kind", ["exact", "lance"])
async def test_a_vector_store_on_disk_is_filled_from_where_it_is(kind: str, tmp_path: Path) -> None:
    held, letters = Held(), Letters("one")
    for place in range(30):
        held.remember(f"abc {place}", (ANN, BOB)[place % 2])
    work = indexing(held, Kept(letters))
    await all_of(work)
    place: Any = ExactVectors(8, Runtime())
    if kind == "lance":
        if not HAS_LANCE:
            pytest.skip("no LanceDB: `make optional` installs it")
        from ring0.memory.vectors.lance import LanceVectors

        place = LanceVectors(tmp_path, 8, Runtime())
    assert await fill(held, place, "one") == 30  # type: ignore[arg-type]
    assert await fill(held, place, "one") == 0  # type: ignore[arg-type]
    work.placing.places["one"] = place
    held.remember("hhhh", BOB)
    await all_of(work)
    assert await place.count(ANN) == 15 and await place.count(BOB) == 16
    (near,) = await place.search(BOB, held.vectors["one"][31], 1)
    assert near.number == 31
    await work.close()
    await place.close()
