"""Vectors at a run's door: a question to a model like any other."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from model_doors import FREE, Asked, asked
from msgspec.structs import replace

from ring0.models import provider
from ring0.runtime import Runtime
from ring0.types import CallKind

PATH = "/v1/embeddings"
ASKS = {"model": "text-embedding-3-small", "input": ["one", "two"]}


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def vectors(*found: Any, **more: Any) -> dict[str, Any]:
    data = [{"index": place, "embedding": one} for place, one in enumerate(found)]
    return {"object": "list", "data": data, "usage": {"prompt_tokens": 9}, **more}


class Behind:
    """A provider on loopback that says one thing."""

    def __init__(self, a: Asked, answer: Any, kind: str = "openai") -> None:
        self.a, self.answer, self.kind = a, answer, kind
        self.seen: list[Any] = []

    async def __aenter__(self) -> Behind:
        app = web.Application()
        app.router.add_post("/v1/embeddings", self._on)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        config = replace(FREE, provider=self.kind, model="e-1", base_url=base)
        self._made: Any = provider(config, "", "", Runtime())
        run, driver = self.a.w.run, self.a.w.kernel.gate.kinds[CallKind.MODEL].driver
        run.models |= {"embeddings"}
        ports: Any = driver._ports  # type: ignore[attr-defined]
        ports.provider = lambda run, name: self._made
        ports.model_config = lambda run, name: config
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._made.close()
        await self._runner.cleanup()

    async def _on(self, request: web.Request) -> web.Response:
        self.seen.append(await request.json())
        return web.json_response(self.answer)


async def test_vectors_come_in_order_and_are_a_call_on_record(tmp_path: Path) -> None:
    there = vectors(packed(0.5, 1.0), [0.25, -2])
    there["data"].reverse()
    for kind in ("openai", "openai-responses"):
        async with asked(tmp_path / kind) as a, Behind(a, there, kind) as behind:
            status, body = await a.post(PATH, {**ASKS, "dimensions": 2})
            assert status == 200, body
            assert [one["embedding"] for one in body["data"]] == [[0.5, 1.0], [0.25, -2.0]]
            assert body["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
            (sent,) = behind.seen
            assert sent["model"] == "e-1" and sent["input"] == ["one", "two"]
            assert sent["dimensions"] == 2 and sent["encoding_format"] == "base64"
            (call,) = await a.w.calls()
            assert (call.kind, call.name, call.tokens) == (CallKind.MODEL, "embeddings", 9)
            _, again = await a.post(
                PATH, {**ASKS, "dimensions": 2}, **{"x-stainless-retry-count": "1"}
            )
            assert again == body and len(behind.seen) == 1


async def test_a_client_gets_them_packed_if_it_asks_for_that(tmp_path: Path) -> None:
    async with asked(tmp_path) as a, Behind(a, vectors([0.5, 1])):
        asks = {"model": "m", "input": "one", "encoding_format": "base64"}
        _, body = await a.post(PATH, asks)
        assert body["data"][0]["embedding"] == packed(0.5, 1.0)


@pytest.mark.parametrize(
    "extra",
    [
        {"input": []},
        {"input": ""},
        {"input": [[1, 2, 3]]},
        {"input": [1, 2, 3]},
        {"input": ["x"] * 2_049},
        {"dimensions": 0},
        {"encoding_format": "int8"},
        {"trick": 1},
    ],
)
async def test_what_can_not_be_asked_is_refused(tmp_path: Path, extra: dict[str, Any]) -> None:
    async with asked(tmp_path) as a, Behind(a, vectors([1])) as behind:
        status, body = await a.post(PATH, {**ASKS, **extra})
        assert status == 422 and next(iter(extra)) in body["error"]["message"]
        assert not behind.seen


@pytest.mark.parametrize(
    "there",
    [
        vectors([1, 2]),
        vectors([1, 2], [1]),
        vectors([1, 2], []),
        vectors([1, 2], "AAA"),
        vectors([1, 2], "not base64!"),
        vectors([1, 2], [1e300, 1]),
        vectors([1, 2], packed(float("nan"), 1)),
        vectors([1, 2], ["1", "2"]),
        {"data": [{"index": 1, "embedding": [1]}, {"index": 1, "embedding": [1]}]},
        {"data": "none"},
    ],
)
async def test_a_provider_that_says_something_else_is_an_error(
    tmp_path: Path, there: dict[str, Any]
) -> None:
    async with asked(tmp_path) as a, Behind(a, there):
        status, body = await a.post(PATH, ASKS)
        assert status == 502 and body["error"]["code"] == "model_failed"


async def test_who_has_no_model_for_it_hears_so(tmp_path: Path) -> None:
    async with asked(tmp_path / "one") as a:
        status, body = await a.post(PATH, ASKS)
        assert status != 200 and "embeddings" in body["error"]["message"]
    async with asked(tmp_path / "two") as a, Behind(a, vectors([1])) as behind:
        ports: Any = a.w.kernel.gate.kinds[CallKind.MODEL].driver._ports  # type: ignore[attr-defined]
        ports.model_config = lambda run, name: replace(FREE, provider="scripted")
        status, body = await a.post(PATH, ASKS)
        assert status == 422 and "makes no vectors" in body["error"]["message"]
        assert not behind.seen
