"""Vectors from a provider: asked as OpenAI's are, believed as little as any stranger."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from ring0.kernel.agent.config_embeddings import RemoteTable
from ring0.kernel.memory.remoteembedder import RemoteEmbedder
from ring0.memory.embedding import vectors
from ring0.memory.embedding.base import EmbeddingFailed
from ring0.runtime import Runtime


class Server:
    """What it was asked, and how it answers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.dimensions = 8
        self.status = 200
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("Authorization", ""))
        if self.status != 200:
            return web.json_response(
                {"error": {"message": "no sk-secret here"}}, status=self.status
            )
        rows = [np.full(self.dimensions, len(text), "<f4") for text in body["input"]]
        data = [
            {"index": n, "embedding": base64.b64encode(row.tobytes()).decode()}
            for n, row in enumerate(rows)
        ]
        return web.json_response({"data": data[::-1], "model": "m", "usage": {"prompt_tokens": 3}})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    there = Server()
    app = web.Application()
    app.router.add_post("/v1/embeddings", there.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield there
    await runner.cleanup()


def embedder(server: Server, **more: Any) -> RemoteEmbedder:
    said = {"provider": "openai", "model": "text-embedding-3-small", "dimensions": 8, **more}
    return RemoteEmbedder(RemoteTable(base_url=server.url, **said), "sk-secret", Runtime())


async def test_a_provider_is_asked_for_a_few_texts_at_a_time_with_its_key(server: Server) -> None:
    remote = embedder(server)
    found = await remote.embed(
        ["x" * (n + 1) for n in range(40)] + ["", " ", "y" * 99_999], query=False
    )
    assert len(found) == 43 and found[40] == found[41] == vectors.nothing(8)
    assert all(len(one) == vectors.size_bytes(8) for one in found)
    asked = [text for body in server.asked for text in body["input"]]
    assert len(asked) == 41 and max(map(len, asked)) == 2_000 and len(server.asked) == 3
    assert server.asked[0]["dimensions"] == 8 and set(server.keys) == {"Bearer sk-secret"}
    assert remote.texts_sent == 41
    await remote.close()


async def test_a_provider_that_answers_with_what_is_no_vector_gets_no_word_in(
    server: Server,
) -> None:
    remote = embedder(server)
    server.dimensions = 9
    with pytest.raises(EmbeddingFailed) as told:
        await remote.embed(["x"], query=True)
    assert "dimensions" in told.value.why
    server.status = 401
    with pytest.raises(EmbeddingFailed) as told:
        await remote.embed(["x"], query=True)
    assert "sk-secret" not in f"{told.value} {told.value.why} {told.value.todo} {remote!r}"
    await remote.close()


def test_the_name_of_a_remote_embedder_is_of_the_model_its_place_and_its_size(
    server: Server,
) -> None:
    names = {embedder(server).name, embedder(server, model="other").name}
    names |= {embedder(server, dimensions=9).name, embedder(server, provider="vllm").name}
    assert len(names) == 4 and embedder(server).name in names
