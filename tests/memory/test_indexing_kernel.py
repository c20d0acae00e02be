"""What a kernel remembers is found by its meaning, once vectors of it were made in a sandbox: after
a change of the model, and where its vectors are on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from embedding_world import needs_models
from vector_stores import HAS_LANCE

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.memory import directing
from ring0.kernel.memory.embedders import Embedders
from ring0.kernel.memory.indexing import Indexing
from ring0.memory.embedding.offlinemodels import MINILM, STATIC
from ring0.runtime import Runtime
from ring0.types import Confidentiality, Integrity, Label, MemoryKind, NewRecord, Scope

OWNER = ("local", "ann", "desk")
SCOPE = Scope(tenant="local", principal="ann", agent="desk", run=None)
PUBLIC = Label(integrity=Integrity.USER)
TURNS = ("My little kitten sleeps on the sofa.", "The bond market fell.", "We had pizza.")


async def opened(home: Path, memory: str) -> Kernel:
    home.mkdir(exist_ok=True)
    (home / "ring0.toml").write_text(f"[memory]\n{memory}\n")
    return await open_kernel(home, Runtime(), {})


def parts(kernel: Kernel) -> tuple[Embedders, Indexing]:
    embedders, indexing = kernel.memory.embedders, kernel.memory.indexing
    assert embedders is not None and indexing is not None
    return embedders, indexing


async def remember(kernel: Kernel, turns: tuple[str, ...] = TURNS) -> None:
    new = [
        NewRecord(kind=MemoryKind.EPISODE, text=text, label=PUBLIC, role="note") for text in turns
    ]
    await directing.write(kernel, OWNER, new, by="op")


async def all_of(kernel: Kernel) -> None:
    while await parts(kernel)[1].step():
        pass


@needs_models
async def test_a_change_of_model_in_ring0_toml_is_taken_up_by_the_next_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INDEXING_VECTORS_AFTER_S", 0)
    kernel = await opened(tmp_path, 'embeddings = "static"')
    assert parts(kernel)[0].serving is None
    await remember(kernel)
    await all_of(kernel)
    await kernel.close()

    kernel = await opened(tmp_path, 'embeddings = "minilm"')
    embedders, indexing = parts(kernel)
    assert embedders.serving is not None and embedders.serving.name == STATIC.identity
    kernel.memory.begin()
    async with asyncio.timeout(60):
        while (await indexing.status()).vectors != {MINILM.identity: 3}:
            await asyncio.sleep(0.02)
    assert embedders.serving.name == MINILM.identity
    found = await kernel.memory.recall(SCOPE, "Does she own a cat?", k=1, label=PUBLIC)
    assert found[0].record.text == TURNS[0]
    await kernel.close()

    kernel = await opened(tmp_path, 'embeddings = "none"')
    found = await kernel.memory.recall(SCOPE, "cat", k=3, label=PUBLIC)
    assert not found, "by its words alone there is none"
    await kernel.close()


@needs_models
async def test_a_kernel_with_little_to_do_starts_no_embedder(tmp_path: Path) -> None:
    kernel = await opened(tmp_path, 'embeddings = "minilm"')
    await remember(kernel)
    kernel.memory.begin()
    assert await kernel.memory.recall(SCOPE, "kitten", k=1, label=PUBLIC)
    await asyncio.sleep(0.1)
    assert not [row for row in await kernel.store.sandboxes_alive() if row.purpose == "embedder"]
    await kernel.close()


@needs_models
@pytest.mark.skipif(not HAS_LANCE, reason="no LanceDB: `make optional` installs it")
async def test_vectors_on_disk_find_what_those_in_memory_find_and_are_forgotten(
    tmp_path: Path,
) -> None:
    kernel = await opened(tmp_path, 'embeddings = "static"\nvectors = "lance"')
    await remember(kernel)
    await remember(kernel, ("A dog barks at the postman.", "Rain again today."))
    await all_of(kernel)
    _, indexing = parts(kernel)
    folder = tmp_path / "vectors" / STATIC.identity
    assert await indexing.placing.places[STATIC.identity].count(OWNER) == 5
    queries = ("the kitten and a sofa", "stocks and bonds", "weather", "an Italian dinner")
    on_disk = [await kernel.memory.recall(SCOPE, one, k=2, label=PUBLIC) for one in queries]
    assert all("meaning" in found[0].why for found in on_disk)
    async with kernel.memory.forgetting([OWNER]):
        assert not list(folder.glob("*.lance"))
    await all_of(kernel)
    assert await indexing.placing.places[STATIC.identity].count(OWNER) == 5
    await kernel.close()

    kernel = await opened(tmp_path, 'embeddings = "static"')
    in_memory = [await kernel.memory.recall(SCOPE, one, k=2, label=PUBLIC) for one in queries]
    for disk, memory in zip(on_disk, in_memory, strict=True):
        assert [one.record.id for one in disk] == [one.record.id for one in memory]
        assert [one.score for one in disk] == pytest.approx([one.score for one in memory], abs=0.02)
    assert list(folder.glob("*.lance"))
    async with kernel.memory.forgetting([OWNER]):
        assert not list(folder.glob("*.lance")), "nor where nobody has them open"
    await kernel.close()


async def test_a_query_that_is_not_public_is_shown_to_no_remote_embedder(tmp_path: Path) -> None:
    remote = '{provider = "ollama", model = "m", dimensions = 8}'
    kernel = await opened(tmp_path, f"embeddings = {remote}")
    embedders, _ = parts(kernel)
    embedders.serving = embedders.wanted
    private = Label(integrity=Integrity.USER, confidentiality=Confidentiality.PRIVATE)
    assert embedders.for_label(PUBLIC) is embedders.wanted is not None
    assert embedders.for_label(private) is None and embedders.sends_away()
    assert "is sent there" in embedders.told
    await kernel.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('embeddings = "maxilm"', "embeddings"),
        ('embeddings = {provider = "openai", model = "m"}', "dimensions"),
        ('embeddings = {provider = "openai", model = "", dimensions = 8}', "needs a model"),
        ('embeddings = {provider = "evil", model = "m", dimensions = 8}', "evil"),
        ('embeddings = {provider = "openai", model = "m", dimensions = 0}', "dimensions"),
        (
            'embeddings = {provider = "vllm", model = "m", dimensions = 8, base_url = "ftp://x"}',
            "no address",
        ),
        ('embeddings = {provider = "openai", model = "m", dimensions = 8, key = "GONE"}', "GONE"),
        ('vectors = "faiss"', "vectors"),
        ("embedings = 1", "embedings"),
    ],
)
async def test_what_ring0_toml_says_wrongly_of_memory_starts_no_kernel(
    tmp_path: Path, said: str, told: str
) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        await opened(tmp_path, said)
    assert told in f"{refused.value.what} {refused.value.why}"


async def test_a_model_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ring0.memory.embedding.offlinemodels._is_there", lambda module: False)
    with pytest.raises(ManifestInvalid, match="is not installed") as refused:
        await opened(tmp_path, 'embeddings = "minilm"')
    assert "extra `embeddings`" in refused.value.todo
    kernel = await opened(tmp_path, "")
    embedders, indexing = parts(kernel)
    assert embedders.wanted is None and "found by its words" in (await indexing.status()).embeddings
    await kernel.close()
