"""Directives and runs that are gone through once more: a replay, a fork, what a question costs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kernel_world import world
from spoken import Spoken, said

from ring0 import Context, agent
from ring0.gateway.playing import play
from ring0.kernel.memory import directing
from ring0.kernel.replaying.exporting import export
from ring0.models import ModelAnswer
from ring0.runtime import Runtime
from ring0.sdk.embedded import Ring, code_of, embedded
from ring0.types import AgentManifest, Budget, CallKind, ModelConfig, RecordState, Run

pytestmark = pytest.mark.filterwarnings("ignore::ring0.sdk.embedded.NotContained")
FREE = ModelConfig(
    provider="openai",
    model="m",
    base_url="http://127.0.0.1:9/v1",
    price_in_microusd_per_mtok=0,
    price_out_microusd_per_mtok=0,
)
OLD, NEW = "Answer in English.", "Answer in German."
QUESTION = {"messages": [{"role": "user", "content": "How much?"}], "max_tokens": 10}


@agent(name="looper", models={"default": FREE}, budget="20 calls, 1 min, 100000 tokens")
async def looper(ctx: Context, task: str) -> Any:
    whole = (await ctx.loop(system="Be brief.", user=task)).text
    return [whole, (await ctx.loop(user=task, window_tokens=600)).text]


class Heard:
    """A provider that keeps what it is asked."""

    def __init__(self, ring: Ring) -> None:
        self.asked: list[list[tuple[str, str]]] = []
        driver: Any = ring.kernel.gate.kinds[CallKind.MODEL].driver
        driver._ports.provider = lambda run, name: self

    async def answer(self, request: Any, key: str, again: Any = None) -> ModelAnswer:
        self.asked.append([(one.role, one.content) for one in request.messages])
        return ModelAnswer(text=f"{len(self.asked)}", tokens_in=1, tokens_out=1, model="m")

    def given(self, text: str) -> list[int]:
        """How often each question held it."""
        return [sum(said.count(text) for _, said in one) for one in self.asked]


async def run_once(ring: Ring) -> Run:
    row = await ring.start(looper, "How much?")
    done = await asyncio.wait_for(ring.kernel.runs.wait(row.id), 10)
    await ring.kernel.store.flush()
    return done


async def change(ring: Ring, row: Run, name: str) -> None:
    await directing.settle(ring.kernel, name, RecordState.RETIRED, by="ada")
    await directing.add(ring.kernel, (row.tenant, row.principal, "looper"), NEW, by="ada")


async def first_order(ring: Ring) -> tuple[str, Run]:
    before = await run_once(ring)  # Whose they are is what a run says.
    owner = (before.tenant, before.principal, "looper")
    return (await directing.add(ring.kernel, owner, OLD, by="ada")).id, before


async def test_a_loop_is_given_them_once_in_each_question_with_a_window_and_without(
    tmp_path: Path,
) -> None:
    async with embedded(tmp_path, {}) as ring:
        model = Heard(ring)
        await first_order(ring)
        assert model.given("# Directives") == [0, 0], "where there are none nothing is added"
        await run_once(ring)
        assert model.given(OLD) == [0, 0, 1, 1]
        heads = [one[0] for one in model.asked[2:]]
        assert [role for role, _ in heads] == ["system", "system"]
        assert heads[0][1].endswith("Be brief.")
        # What is the same for all questions comes first, for caches of prompts.
        assert heads[0][1].removesuffix("Be brief.").rstrip() == heads[1][1].rstrip()


async def test_a_replay_asks_the_same_whatever_people_have_said_since(tmp_path: Path) -> None:
    async with embedded(tmp_path, {}) as ring:
        Heard(ring)
        name, _ = await first_order(ring)
        row = await run_once(ring)
        await change(ring, row, name)
        assert await ring.kernel.store.recalled(row.id) == [name], "what it was given is on record"
        done = await export(tmp_path, ring.kernel.store, ring.kernel.runtime, row)
    (found,) = await play(done.data, Runtime(), agent=looper)
    assert found.ok and found.matched == 2, found.divergence


async def test_a_fork_keeps_the_past_and_is_given_what_holds_now(tmp_path: Path) -> None:
    async with embedded(tmp_path, {}) as ring:
        model = Heard(ring)
        name, _ = await first_order(ring)
        row = await run_once(ring)
        ends = [
            entry.seq
            async for entry in ring.kernel.store.entries(row.id)
            if type(entry.body).__name__ == "CallEnded"
        ]
        await change(ring, row, name)
        made = await ring.kernel.forking.fork(
            row.id, ends[0], {}, by=row.principal, code=code_of(looper)
        )
        await asyncio.wait_for(ring.kernel.runs.wait(made.id), 10)
        assert model.given(OLD) == [0, 0, 1, 1, 0], "the first question is not asked again"
        assert model.given(NEW) == [0, 0, 0, 0, 1]


async def ask(folder: Path, order: str, tokens: int) -> tuple[str, Any]:
    """How a question ends where this is ordered, and the run's label after it."""
    manifest = AgentManifest(
        name="clerk", models={"default": FREE}, budget=Budget(tokens=tokens, cost_microusd=0)
    )
    async with world(folder, manifest=manifest) as w:
        Spoken(w, said(1, 1))
        if order:
            row = w.run.row
            await directing.add(w.kernel, (row.tenant, row.principal, "clerk"), order, by="ada")
        outcome = await w.call("default", QUESTION, kind=CallKind.MODEL)
        label = (await w.row()).label
        code = outcome.error["code"] if outcome.error else "ok"
        return code, (label.integrity, label.confidentiality)


async def test_what_they_take_counts_as_the_rest_of_the_question_does_and_no_label_falls(
    tmp_path: Path,
) -> None:
    long = "Mind the cat. " * 100
    code, label = await ask(tmp_path / "none", "", 1_000)
    assert code == "ok"
    assert await ask(tmp_path / "short", OLD, 1_000) == ("ok", label)
    assert await ask(tmp_path / "wide", long, 10_000) == ("ok", label)
    assert (await ask(tmp_path / "long", long, 1_000))[0] == "limit_reached"
