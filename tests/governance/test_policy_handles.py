"""What Cedar is given: parsed once, the policies that can fit, and always with the schema."""

from __future__ import annotations

from typing import Any

import cedarpy
import pytest
from cedarpy import Entities, PolicySet, Schema
from policy_questions import ALLOW, ASK, DENY, question

from ring0.governance import Policies

OTHERS = "\n".join(
    f'@id("other-{number}") forbid (principal, action == Action::"other{number}.execute", resource)'
    " unless { context.approved };"
    for number in range(1_000)
)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Each request as Cedar gets it."""
    found: list[tuple[Any, ...]] = []
    authorized = cedarpy.is_authorized

    def listening(*args: Any) -> Any:
        found.append(args)
        return authorized(*args)

    monkeypatch.setattr(cedarpy, "is_authorized", listening)
    return found


def test_cedar_is_always_given_what_was_parsed_and_the_schema(given: list[tuple[Any, ...]]) -> None:
    """As text 1,000 policies take 20 times longer, and without the schema what looks like an
    entity is one."""
    policies = Policies.load()
    kinds = ("tool", "egress", "model", "spawn", "memory.append", "ask", "now")
    for kind in kinds:
        policies.decide(question(action=kind, resource="" if kind == "now" else "x"))
    assert len(given) >= len(kinds)
    for _, policy_set, entities, schema in given:
        assert isinstance(policy_set, PolicySet)
        assert isinstance(entities, Entities)
        assert isinstance(schema, Schema)


def test_a_thousand_policies_for_other_tools_are_not_even_looked_at(
    given: list[tuple[Any, ...]],
) -> None:
    few, many = Policies.load(), Policies.from_text(Policies.load().text + "\n" + OTHERS)
    asked = question()
    assert few.decide(asked).kind is many.decide(asked).kind is ASK
    alone, beside = (policy_set for _, policy_set, *_ in (given[0], given[-1]))
    assert len(alone) == len(beside) < 30
    one = many.decide(question(resource="other7.execute", mutates=False))
    assert one.kind is ASK and [reason.rule for reason in one.reasons] == ["other-7"]
    assert len(given[-1][1]) == len(beside) + 1


def test_the_same_policies_are_parsed_once(
    given: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ring0.governance.policy.DECISION_KEY_BYTES_MAX", 0)  # Nothing is kept.
    policies = Policies.load()
    kinds = {policies.decide(question(rows=rows)).kind for rows in range(20)}
    assert kinds == {ASK} and len(given) == 40
    assert len({id(policy_set) for _, policy_set, *_ in given}) == 1
    kinds = {policies.decide(question(mutates=False, rows=rows)).kind for rows in range(20)}
    assert kinds == {ALLOW} and DENY not in kinds
    assert len({id(policy_set) for _, policy_set, *_ in given}) == 1
