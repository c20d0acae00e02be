"""What agent.toml says of an agent's budget and priority."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.kernel.agent.manifests import read_agent
from ring0.types import AgentManifest, Budget


def read(folder: Path, text: str) -> AgentManifest:
    path = folder / "agent.toml"
    path.write_text(f'name = "a"\nentry = "a.py"\n{text}\n')
    return read_agent(path)


def test_a_manifest_says_all_of_a_budget(tmp_path: Path) -> None:
    text = "priority = 2\n[budget]\ncalls = 7\ntokens = 1_000\ncost_usd = '0.5'\nwall_s = 9\n"
    found = read(tmp_path, text + "children = 3\ndepth = 1")
    assert found.priority == 2
    assert found.budget == Budget(
        calls=7, tokens=1_000, cost_microusd=500_000, wall_s=9, children=3, depth=1
    )


def test_a_manifest_that_says_nothing_has_the_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, "")
    assert (found.budget, found.priority) == (Budget(), limits.PRIORITY_DEFAULT)


@pytest.mark.parametrize(
    "text",
    [
        "priority = 10",
        "priority = -1",
        "[budget]\ncalls = 0",
        "[budget]\ntokens = -1",
        "[budget]\nwall_s = 0",
        "[budget]\nchildren = 65",
        "[budget]\ndepth = 4",
        "[budget]\ncost_usd = 'nan'",
        "[budget]\nmoney = 1",
        f"[budget]\ncalls = {10**30}",
    ],
)
def test_a_budget_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestInvalid):
        read(tmp_path, text)
