"""A short `ring0 bench memory --isolation`: it comes out as the long one, and it can fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from bench.memory import kept, storing, strangers

from ring0.memory.index import Indexes, ScopeIndex


def measured(place: Path, backend: str) -> dict[str, float]:
    told = asyncio.run(strangers._rows(place, {backend: 60}, 20))
    return {one["name"].removeprefix(f"{backend}: "): one["value"] for one in told}


@pytest.fixture(autouse=True)
def few_scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "SCOPES", 4)
    monkeypatch.setattr(strangers, "TIMED", 5)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("backend", ["exact", "lance"])
def test_scopes_are_strangers_to_each_other(tmp_path: Path, backend: str) -> None:
    if backend == "lance":
        pytest.importorskip("lancedb")
    told = measured(tmp_path, backend)
    assert told["hits of another scope"] == told["answers moved by others' data"] == 0
    assert told["p50 with others' data, to without"] > 0


@pytest.mark.timeout(60)
def test_a_hit_that_another_scope_holds_is_counted(tmp_path: Path) -> None:
    async def leaks() -> strangers.Asked:
        store = kept.opened(tmp_path / "one")
        mine, other = strangers.owner_of(0), strangers.owner_of(1)
        await kept.fill(store, mine, ["w1x the secret"], "m-1")
        asked = await strangers.asked_at_random(
            kept.memory_over(store), {mine: [], other: ["w1x the secret"]}, 40
        )
        await store.close()
        return asked

    asked = asyncio.run(leaks())
    assert asked.leaks == asked.hits > 0


@pytest.mark.timeout(60)
def test_scores_that_move_with_others_data_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ScopeIndex.search

    def search(self: ScopeIndex, *given: object, **named: object) -> object:
        hits = real(self, *given, **named)  # type: ignore[arg-type]
        return [hit._replace(score=hit.score * len(held[0])) for hit in hits]

    held: list[Indexes] = []
    of = Indexes._of

    def noted(self: Indexes, *given: object) -> object:
        held[:] = [self]
        return of(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(ScopeIndex, "search", search)
    monkeypatch.setattr(Indexes, "_of", noted)
    assert measured(tmp_path, "exact")["answers moved by others' data"] > 0


@pytest.mark.timeout(60)
def test_insert_rate_disk_and_cold_start_stand_beside_raw_sqlite() -> None:
    told = {one["name"]: one["value"] for one in storing.rows(1_100)}
    steps = ("itself and its event", "with words", "with words and vector")
    sizes = [told[f"disk a record, {name}"] for name in steps]
    assert sizes == sorted(sizes) and sizes[0] > told["disk a record, of which text"]
    assert sizes[2] - sizes[1] > kept.DIMENSIONS, "a vector takes a byte a number"
    assert told[f"{storing.FLOOR}: disk a record"] < sizes[0]
    assert told["1,100 records in a store: first recall after that"] > 0
