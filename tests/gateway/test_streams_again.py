"""An answer that went out in pieces goes out in the same pieces whenever it is heard again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from model_doors import Asked, asked, said

from ring0.gateway.models import streams
from ring0.models import Delta
from ring0.models.base import Part
from ring0.observability.verify import verify

CHAT = {"messages": [{"role": "user", "content": "go on"}], "stream": True}
TEXT = "One piece, and another one, and Grüße, and then it is done."


async def raw(a: Asked, path: str = "/v1/chat/completions", body: Any = CHAT, **more: str) -> bytes:
    async with a.session.post(path, json=body, headers=more) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def paced(a: Asked) -> None:
    """Its pieces come one by one: who reads them has each before the next is there."""
    real = a.model.answer

    async def answer(request: Any, key: str, again: Any = None, sink: Any = None) -> Any:
        async def slowly(delta: Delta) -> None:
            assert sink is not None
            await sink(delta)
            await asyncio.sleep(0.01)

        return await real(request, key, again, slowly if sink is not None else None)

    a.model.answer = answer  # type: ignore[method-assign]


async def test_a_retry_and_a_run_that_goes_on_hear_the_same_bytes_in_the_same_pieces(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path, said(TEXT)) as a:
        await paced(a)
        first = await raw(a)
        assert first.count(b"data: ") > 6, "it came in pieces"
        (call,) = await a.w.store.calls(a.w.run.id)
        again = await raw(a, **{"x-stainless-retry-count": "1"})
        assert again == first and len(a.model.asked) == 1, "nobody was asked once more"
        run = a.w.run
        await a.w.store.flush()
        run.records = {one.id: one for one in await a.w.store.calls(run.id)}
        run.unmet = {call.id}
        run._occurrences.clear()
        run.strict = True
        assert await raw(a) == first, "and a strict replay hears it so"
        report = await verify(a.w.store)
        assert report.ok, report.problems


async def test_an_answer_that_broke_in_the_middle_breaks_there_again(tmp_path: Path) -> None:
    from ring0.errors import ModelFailed

    async with asked(tmp_path, said(TEXT)) as a:
        await paced(a)
        a.model.breaks = ModelFailed("The line broke.", why="A test.", todo="Nothing.")
        first = await raw(a)
        assert b"The line broke" in first and first.count(b"data: ") > 6
        run = a.w.run
        await a.w.store.flush()
        run.records = {one.id: one for one in await a.w.store.calls(run.id)}
        run._occurrences.clear()
        run.strict = True
        assert await raw(a) == first


async def test_parts_of_another_dialect_come_again_in_their_order(tmp_path: Path) -> None:
    thinking = Part(kind="opaque", name="messages", native={"type": "thinking", "thinking": "hm"},
                    blob="sig")  # fmt: skip
    parts = (thinking, Part(kind="text", text=TEXT))
    body = {"model": "m", "max_tokens": 50, **CHAT}
    async with asked(tmp_path, said(TEXT, parts=parts)) as a:
        await paced(a)
        first = await raw(a, "/v1/messages", body)
        assert b"thinking" in first
        run = a.w.run
        await a.w.store.flush()
        run.records = {one.id: one for one in await a.w.store.calls(run.id)}
        run._occurrences.clear()
        run.strict = True
        assert await raw(a, "/v1/messages", body) == first


GROUPS: list[list[Delta]] = [
    [Delta(text="One "), Delta(text="two")],
    [],
    [Delta(kind="part", part=Part(kind="text"))],
    [Delta(text=" three"), Delta(text="\u0000é\U0001f600")],
]


@pytest.mark.parametrize("text", ["One two three\u0000é\U0001f600", "One", "", "another"])
def test_pieces_are_kept_as_they_were_whatever_the_answer_says(text: str) -> None:
    stored = streams.encoded(GROUPS, text)
    assert streams.decoded(stored, text) == GROUPS
    assert (b"two" in stored) == (not text.startswith("One two"))


@pytest.mark.parametrize("stored", [b"", b"{}", b"[[true]]", b"[[null]]", b'[["a"]', b"[[1.5]]"])
def test_what_is_no_record_of_pieces_is_not_read_as_one(stored: bytes) -> None:
    with pytest.raises(ValueError):
        streams.decoded(stored, "text")
