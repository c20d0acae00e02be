"""Vectors of texts: what goes in and out of an embedder's process, and what becomes of it where
that process misbehaves."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
from embedding_world import Played, needs_models, vector_lines

from ring0 import limits
from ring0.kernel.agent.config_embeddings import RecallTable
from ring0.kernel.memory.embedders import Embedders, spec
from ring0.kernel.sandboxes import Sandboxes
from ring0.memory.embedding import vectors
from ring0.memory.embedding.base import EmbeddingFailed
from ring0.memory.embedding.offline import OfflineEmbedder
from ring0.memory.embedding.offlinemodels import MINILM, MODELS
from ring0.runtime import Runtime


class Clock(Runtime):
    """One that stands still until it is told."""

    def __init__(self) -> None:
        self.at_us = 0

    def monotonic_us(self) -> int:
        return self.at_us


def test_a_vector_survives_packing_as_nearly_the_same_direction() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 384))
    rows *= np.logspace(-30, 30, 200)[:, None]
    back = vectors.unpack_all(vectors.pack_all(rows), 384)
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.all((back * directions).sum(axis=1) > 0.999)
    assert np.allclose(np.linalg.norm(back, axis=1), 1, atol=0.01)
    assert np.array_equal(vectors.unpack(vectors.pack(rows[3])), back[3])


def test_what_is_no_vector_is_packed_as_one_that_is_like_no_other() -> None:
    bad = np.array([[np.nan, 1], [np.inf, 0], [0, 0], [3, 4]])
    packed = vectors.pack_all(bad)
    assert packed[:3] == [vectors.nothing(2)] * 3 and packed[3] != vectors.nothing(2)
    assert not vectors.unpack_all(packed, 2)[:3].any()
    with pytest.raises(ValueError, match="has 6 bytes"):
        vectors.unpack_all([packed[0] + b"\0"], 2)


def test_the_name_of_an_embedder_is_of_all_that_its_vectors_depend_on() -> None:
    import msgspec

    names = {MINILM.identity}
    for change in ({"weights_sha256": "0"}, {"tokens_sha256": "0"}, {"tokens_max": 7}):
        names.add(msgspec.structs.replace(MINILM, **change).identity)
    assert len(names) == 4 and len({model.identity for model in MODELS.values()}) == len(MODELS)


async def test_a_query_waits_for_what_is_under_way_and_nothing_else() -> None:
    world = Played()
    embedder = OfflineEmbedder(MINILM, world.start, Runtime())
    world.hold.clear()
    many = asyncio.create_task(embedder.embed([f"old {n}" for n in range(100)], query=False))
    while not world.asked:
        await asyncio.sleep(0)
    query = asyncio.create_task(embedder.embed(["who?"], query=True))
    await asyncio.sleep(0)
    world.hold.set()
    (vector,) = await query
    assert world.asked[1] == ["who?"] and len(world.asked[0]) == limits.EMBEDDING_BATCH_TEXTS_MAX
    assert len(vector) == vectors.size_bytes(MINILM.dimensions)
    assert len(await many) == 100 and world.starts == 1
    await embedder.close()
    assert world.alive == 0


async def test_long_texts_are_cut_and_asked_a_few_at_a_time() -> None:
    world = Played()
    embedder = OfflineEmbedder(MINILM, world.start, Runtime())
    found = await embedder.embed(
        ["xa" * 25_000, "ya" * 25_000, "za" * 25_000, "\ud800"], query=False
    )
    assert len(found) == 4 and found[0] != found[1]
    assert all(sum(map(len, part)) <= limits.EMBEDDING_BATCH_CHARS_MAX for part in world.asked)
    assert max(len(text) for part in world.asked for text in part) == 2_000
    assert await embedder.embed([], query=True) == []
    await embedder.close()


async def test_who_stops_waiting_gets_nobody_elses_vector() -> None:
    world = Played()
    embedder = OfflineEmbedder(MINILM, world.start, Runtime())
    world.hold.clear()
    gone = asyncio.create_task(embedder.embed(["gone"], query=True))
    while not world.asked:
        await asyncio.sleep(0)
    unasked = asyncio.create_task(embedder.embed(["never asked"], query=True))
    await asyncio.sleep(0)
    gone.cancel()
    unasked.cancel()
    await asyncio.gather(gone, unasked, return_exceptions=True)
    world.hold.set()
    (found,) = await embedder.embed(["here"], query=True)
    told = json.loads(vector_lines(["here"]))["vector"]
    assert found == vectors.pack(np.frombuffer(base64.b64decode(told), "<f4"))
    assert world.asked == [["gone"], ["here"]] and world.starts == 1
    await embedder.close()


LIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello\n",
    "no vector": b"{}\n",
    "no base64": b'{"vector": "%%%"}\n',
    "too short": b'{"vector": "AAAA"}\n',
    "no numbers": json.dumps(
        {"vector": base64.b64encode(np.full(384, np.nan, "<f4").tobytes()).decode()}
    ).encode()
    + b"\n",
    "an error": b'{"error": "the library says no"}\n',
    "a list": b"[1]\n",
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_process_that_says_what_is_no_vector_is_ended(lie: str) -> None:
    world = Played(lambda texts: LIES[lie])
    embedder = OfflineEmbedder(MINILM, world.start, Runtime())
    with pytest.raises(EmbeddingFailed, match="made no vectors") as told:
        await embedder.embed(["x"], query=True)
    assert told.value.why and "embeddings" in told.value.todo and world.alive == 0
    world.say = vector_lines
    assert len(await embedder.embed(["x"], query=True)) == 1 and world.starts == 2
    await embedder.close()


async def test_a_process_that_dies_and_dies_is_left_alone_for_a_while() -> None:
    world, clock = Played(lambda texts: b""), Clock()
    embedder = OfflineEmbedder(MINILM, world.start, clock)
    for _ in range(20):
        with pytest.raises(EmbeddingFailed):
            await embedder.embed(["x"], query=True)
    assert world.starts == limits.EMBEDDER_FAILURES_MAX
    world.say = vector_lines
    with pytest.raises(EmbeddingFailed, match="rests for"):
        await embedder.embed(["x"], query=True)
    clock.at_us += limits.EMBEDDER_REST_S * 1_000_000
    assert len(await embedder.embed(["x"], query=True)) == 1
    await embedder.close()


async def test_a_process_that_is_silent_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EMBEDDER_START_S", 0.05)
    world = Played()
    world.hold.clear()
    embedder = OfflineEmbedder(MINILM, world.start, Runtime())
    with pytest.raises(EmbeddingFailed) as told:
        await embedder.embed(["x"], query=True)
    assert told.value.why == "It took too long." and world.alive == 0
    await embedder.close()


async def test_a_process_that_nobody_asks_ends_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "EMBEDDER_IDLE_S", 0.02)
    world = Played()
    embedder = OfflineEmbedder(MINILM, world.start, Runtime())
    for times in (1, 2):
        await embedder.embed(["x"], query=True)
        assert embedder.is_running and world.starts == times
        while embedder.is_running:
            await asyncio.sleep(0.005)
        assert world.alive == 0
    await embedder.close()


async def test_too_many_texts_that_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EMBEDDING_JOBS_MAX", 3)
    embedder = OfflineEmbedder(MINILM, Played().start, Runtime())
    with pytest.raises(EmbeddingFailed, match="Too many"):
        await embedder.embed(["x"] * 100, query=False)
    await embedder.close()


async def test_a_stop_of_the_kernel_ends_who_waits() -> None:
    world = Played()
    world.hold.clear()
    embedder = OfflineEmbedder(MINILM, world.start, Runtime())
    waiting = [asyncio.create_task(embedder.embed([str(n)], query=False)) for n in range(3)]
    while not world.asked:
        await asyncio.sleep(0)
    await embedder.close()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert world.alive == 0
    assert all(isinstance(one, EmbeddingFailed | asyncio.CancelledError) for one in told)


# --- the real ones --------------------------------------------------------------------------------


def made(kind: Any) -> tuple[Embedders, Sandboxes]:
    runtime = Runtime()
    sandboxes = Sandboxes(None, runtime)
    return Embedders(RecallTable(embeddings=kind), sandboxes, runtime, lambda name: ""), sandboxes


@needs_models
@pytest.mark.parametrize("kind", ["minilm", "static"])
async def test_texts_that_mean_the_same_have_vectors_that_are_near(kind: str) -> None:
    """Also: nothing of a batch is in the vector of another text of it, and a mark of the model's
    that a text writes is text."""
    embedders, sandboxes = made(kind)
    embedder = embedders.wanted
    assert embedder is not None
    texts = [
        "The cat sat on the mat.", "A kitten is lying on the rug.", "Shares fell in Frankfurt.",
        "", "\x00\ud800\u202e", "[SEP] [CLS] [PAD]", "word " * 5_000,
    ]  # fmt: skip
    try:
        found = vectors.unpack_all(await embedder.embed(texts, query=False), embedder.dimensions)
        alone = vectors.unpack_all(await embedder.embed(texts[:1], query=True), embedder.dimensions)
        assert found[0] @ found[1] > found[0] @ found[2] + 0.2
        assert alone[0] @ found[0] > 0.98
        assert np.isfinite(found).all()
    finally:
        await embedders.close()
        await sandboxes.close()


@needs_models
async def test_weights_that_are_not_the_ones_that_are_known_make_no_vectors() -> None:
    import msgspec

    other = msgspec.structs.replace(MODELS["static"], weights_sha256="0" * 64)
    embedders, sandboxes = made("none")
    embedder = OfflineEmbedder(other, embedders._start, Runtime())
    try:
        with pytest.raises(EmbeddingFailed) as told:
            await embedder.embed(["x"], query=True)
        assert "is not the file that ring0 knows" in told.value.why
    finally:
        await embedder.close()
        await sandboxes.close()


@needs_models
def test_an_embedders_sandbox_has_no_door_and_sees_nothing_but_its_files() -> None:
    files = MINILM.files()
    assert files is not None
    made_for = spec(MINILM, *files)
    assert not made_for.doors and not made_for.egress and not made_for.workspace
    assert {mount.source for mount in made_for.mounts} == {str(path.resolve()) for path in files}
    assert made_for.env.keys().isdisjoint({"HOME", "RING0_HOME", "OPENAI_API_KEY"})
