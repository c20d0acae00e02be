"""`use = "agent"`: what a manifest may say of a tool that lives in the agent's own process."""

from __future__ import annotations

from typing import Any

import pytest

from ring0.errors import ManifestInvalid
from ring0.tools.agentside import AgentSide

SCHEMA = {"type": "object", "properties": {"order": {"type": "string"}}}


def made(**table: Any) -> AgentSide:
    return AgentSide("refund", {"use": "agent", **table})


def test_what_is_not_said_of_it_is_taken_for_the_worst() -> None:
    manifest = made().manifest
    assert (manifest.effect, manifest.reversal) == ("once", "irreversible")
    assert manifest.where == "agent"


def test_a_critical_argument_that_its_schema_does_not_have_is_refused() -> None:
    assert made(schema=SCHEMA, critical=["order"]).manifest.critical == ("order",)
    with pytest.raises(ManifestInvalid, match="'ordr' critical"):
        made(schema=SCHEMA, critical=["ordr"])


def test_without_a_schema_any_argument_can_be_critical() -> None:
    assert made(critical=["order"]).manifest.critical == ("order",)


@pytest.mark.parametrize("way", ["reversible", "compensable:unrefund"])
def test_nobody_can_claim_that_what_the_agent_does_itself_is_taken_back(way: str) -> None:
    with pytest.raises(ManifestInvalid, match="reversal"):
        made(reversal=way)
