"""A short `make replays`: it comes out as the long one has to, and it can fail."""

from __future__ import annotations

from typing import Any

import pytest
from bench import replay

from ring0.kernel.steps import recalling


@pytest.mark.timeout(170)
def test_run_graphs_replay_to_the_byte_and_changes_are_located() -> None:
    seen, _ = replay.measure(seeds=30, changed=14, jobs=1, first=20_000)
    assert not seen.differ and seen.replayed == len(seen.programs) == 30
    assert not seen.lost and seen.located == sum(seen.tried.values()) >= 10
    assert seen.runs > 30 and {"spawn ok", "tool error", "tool refused"} <= set(seen.kinds)


@pytest.mark.timeout(120)
def test_a_recall_that_brings_back_another_value_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ring0.kernel.steps import recording

    real = recording.load

    async def load(*given: Any) -> Any:
        outcome = await real(*given)
        if isinstance(outcome.value, float):
            object.__setattr__(outcome, "value", outcome.value / 2)
        return outcome

    monkeypatch.setattr(recording, "load", load)
    seen, _ = replay.measure(seeds=12, changed=0, jobs=1, first=30_000)
    assert seen.differ, "a random number came back as another"


@pytest.mark.timeout(120)
def test_a_change_that_nobody_checks_is_not_located(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalling, "check_same", lambda *_: None)
    seen, _ = replay.measure(seeds=12, changed=10, jobs=1, first=40_000)
    assert seen.lost
