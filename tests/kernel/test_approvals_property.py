"""Whatever people, agents, crashes and clocks do: nothing is done that nobody said yes to, as it
is. All 10,000: `.venv/bin/python tests/kernel/approvals_machine.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import approvals_machine
import pytest

from ring0.governance import approvals, standing
from ring0.kernel.steps import opening
from ring0.store.sqlite import guards

SEQUENCES = 200
FIRST = 1_000_000
HEAT = int(os.environ.get("RING0_APPROVAL_SEQUENCES", SEQUENCES))


async def test_nothing_is_done_that_was_not_said_yes_to_as_it_is(tmp_path: Path) -> None:
    violations, covered = await approvals_machine.sequences(FIRST, HEAT, tmp_path)
    assert not violations
    for what in ("executed after 1", "executed after 2", "edit taken", "crash", "batch taken"):
        assert covered[what] > 0, f"the machine never came to: {what}"


def everybody(*_: Any, **__: Any) -> None:
    """Any answer is good."""


ALL_EQUAL = "b" * 64
BROKEN: dict[str, list[tuple[Any, str, Any]]] = {
    "anybody counts": [(approvals, "_check_yes", everybody)],
    "a yes is for whatever comes": [
        (approvals, "bound_to", lambda *_, **__: ALL_EQUAL),
    ],
    "an edit counts whatever was read since": [
        (approvals, "counts", lambda *_: True),
    ],
    "an edit is a yes to a dry run that nobody saw": [(opening, "is_unseen", lambda *_: False)],
    "a yes in advance covers all arguments": [(standing, "fits", lambda *_: True)],
    "a yes in advance covers whatever was read": [(standing, "_worse", lambda *_: False)],
    "a yes is good for ever": [
        (approvals, "check", everybody),
        (guards, "_approval", everybody),
    ],
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_the_machine_finds_a_kernel_in_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A machine that finds nothing must not be one that looks at nothing."""
    for place, name, instead in BROKEN[fault]:
        monkeypatch.setattr(place, name, instead)
    for first in range(FIRST, FIRST + 600, 10):
        home = tmp_path / str(first)
        home.mkdir()
        violations, _ = await approvals_machine.sequences(first, 10, home)
        if violations:
            return
    raise AssertionError(f"{fault}: nobody noticed")
