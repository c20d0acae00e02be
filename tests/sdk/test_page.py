"""The example that the SDK is described by, to the letter, embedded; tests/cli runs it isolated."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest
from page import PAGE, PLAIN, PUPPET, loaded

from ring0.sdk.declare import agent_of
from ring0.sdk.embedded import Ring, embedded
from ring0.types import ApprovalState, Operator, RunState

MODEL = '[models.default]\nprovider = "scripted"\nscript = "puppet.toml"\n'


async def run(ring: Ring, agent: Any, task: str, *, yes: bool) -> Any:
    """The agent's result; what is held is answered."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = await ring.start(agent, task)
    result = asyncio.create_task(ring.result(row.id))
    async with asyncio.timeout(20):
        while not result.done():
            for ask in await ring.kernel.store.approvals(states=[ApprovalState.PENDING]):
                await ring.kernel.answer(ask.id, yes=yes, by=Operator(name="ada"))
            await asyncio.sleep(0.01)
    return await result


def test_a_budget_is_read_as_the_page_writes_it(tmp_path: Path) -> None:
    declared = agent_of(loaded(tmp_path, "page_budget", PAGE).support)
    assert declared is not None
    budget = declared.manifest.budget
    assert (budget.cost_microusd, budget.tokens, budget.wall_s) == (500_000, 200_000, 600)
    assert declared.model == "default"


@pytest.mark.parametrize("source", [PAGE, PLAIN], ids=["async", "plain"])
async def test_the_pages_agent_works_embedded_and_its_tool_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(MODEL)
    (tmp_path / "puppet.toml").write_text(PUPPET)
    monkeypatch.chdir(tmp_path)  # Where the paths of an agent without a manifest begin.
    module = loaded(tmp_path, "page_" + ("plain" if source is PLAIN else "async"), source)
    async with embedded(home, {}) as ring:
        said = await run(ring, module.support, "Refund 80 for order A-17", yes=True)
        assert "refund (a refund)" in said and module.WORLD == ["paid 80 for A-17"]
        (first,) = await ring.kernel.store.runs(states=[RunState.DONE])
        undone = await ring.undo(module.support, first.id)
        assert undone.state is RunState.DONE
        assert module.WORLD == ["paid 80 for A-17", "cancelled A-17"]
        said = await run(ring, module.support, "Refund 80 for order A-18", yes=False)
        assert "Refused:\n- refund" in said and len(module.WORLD) == 2
