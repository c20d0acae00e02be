"""Cedar is not asked again what it has answered, unless a policy could tell the two apart."""

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_questions import question

from ring0.governance import Policies, statements
from ring0.types import Effect, Integrity

ANY = 'permit(principal, action in Action::"tool", resource)'
READERS = {
    "calls_used": [
        f"{ANY} when {{ context.calls_used < 3 }};",
        f'{ANY} when {{ context["calls_used"] < 3 }};',
        f'{ANY} when {{ context["calls\\u{{5f}}used"] < 3 }};',
        f"{ANY} unless {{ !(context has calls_used) || context.calls_used >= 3 }};",
        f"{ANY} when {{ (if context.mutates then context else context).calls_used < 3 }};",
        f"{ANY} when {{ [context.calls_used].contains(1) }};",
        f"{ANY} when {{ {{a: {{b: context.calls_used}}}}.a.b == 1 }};",
    ],
    "cost_microusd": [f"{ANY} when {{ context.cost_microusd * 2 + 1 < 5 }};"],
    "run": [
        f'{ANY} when {{ principal == Run::"r-1" }};',
        f'{ANY} when {{ principal in [Run::"r-1", Run::"r-9"] }};',
        f'{ANY} when {{ [Run::"r-1"].contains(principal) }};',
        'permit(principal == Run::"r-1", action in Action::"tool", resource);',
        'permit(principal in Run::"r-1", action in Action::"tool", resource);',
        'permit(principal is Run in Run::"r-1", action in Action::"tool", resource);',
    ],
}
NOT_READERS = [
    ANY + ";",
    f'{ANY} when {{ context.forbidden == "calls_used" && context.rows < 5 }};',
    f'{ANY} when {{ principal in Tenant::"acme" && principal.depth < 3 }};',
    f'@reason("context.run") {ANY} unless {{ resource.reversal == "Run" }};',
]


@pytest.fixture
def asked(monkeypatch):
    """How often Cedar was asked."""
    asked = []
    real = cedarpy.is_authorized

    def count(*args):
        asked.append(args)
        return real(*args)

    monkeypatch.setattr(cedarpy, "is_authorized", count)
    return asked


@pytest.mark.parametrize(
    ("fact", "text"), [(fact, text) for fact, texts in READERS.items() for text in texts]
)
def test_what_a_policy_reads_is_looked_at_every_time(fact, text):
    policies = Policies.from_text(text)
    first, other = {"run": ("r-1", "r-2")}.get(fact, (1, 5))
    assert policies.decide(question(**{fact: first})).kind == "allow"
    assert policies.decide(question(**{fact: other})).kind == "deny"
    assert policies.decide(question(**{fact: first})).kind == "allow"


@pytest.mark.parametrize("text", NOT_READERS)
def test_what_no_policy_reads_is_not_asked_about_again(asked, text):
    policies = Policies.from_text(text)
    first = policies.decide(question())
    count = len(asked)
    assert policies.decide(question(run="r-2", calls_used=7, cost_microusd=9)) == first
    assert len(asked) == count


def test_everything_else_is_always_looked_at(asked):
    policies = Policies.load()
    policies.decide(question())
    for changed in (
        {"tenant": "b"}, {"principal": "b"}, {"agent": "b"}, {"depth": 1}, {"rows": 2},
        {"own": True}, {"mutates": False}, {"tables": ("b",)}, {"host": "b"}, {"method": "PUT"},
        {"operator": True}, {"forbidden": "ATTACH"}, {"changes_schema": True},
        {"untrusted_args": ("a",)}, {"unfounded_args": ("a",)}, {"reversal": "irreversible"},
        {"run_integrity": Integrity.USER}, {"resource": "other"}, {"action": "egress"},
        {"effect": Effect.PURE},
    ):  # fmt: skip
        count = len(asked)
        policies.decide(question(**changed))
        assert len(asked) > count, changed


@pytest.mark.parametrize(
    "bad",
    [
        {"calls_used": 2**63},
        {"cost_microusd": 2**64},
        {"calls_used": -(2**63) - 1},
        {"calls_used": 1.0},
        {"cost_microusd": True},
        {"run": {"__entity": {"type": "Run", "id": "r-1"}}},
        {"run": None},
        {"run": "\ud800"},
    ],
)
def test_what_cedar_does_not_take_is_a_deny_though_no_policy_reads_it_and_the_rest_is_known(bad):
    policies = Policies.from_text(ANY + ";")
    assert policies.decide(question()).kind == "allow"
    assert policies.decide(question(**bad)).reasons[0].rule == "ring0.undecided"


def test_a_fault_is_not_remembered(monkeypatch):
    policies = Policies.from_text(ANY + ";")
    with monkeypatch.context() as broken:
        broken.setattr(cedarpy, "is_authorized", lambda *_: 1 / 0)
        assert policies.decide(question()).kind == "deny"
    assert policies.decide(question()).kind == "allow"


def test_an_error_in_a_policy_is_not_remembered(asked):
    policies = Policies.from_text(f"{ANY} when {{ context.rows * 9223372036854775807 == 1 }};")
    for times in (1, 2):
        assert policies.decide(question(rows=2)).reasons[0].rule == "ring0.undecided"
        assert len(asked) == times


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("ring0.governance.policy.DECISIONS_KEPT_MAX", 3)
    policies = Policies.from_text(ANY + ";")
    for rows in range(10):
        policies.decide(question(rows=rows))
    assert len(policies._decided) == 3


FACTS = {
    "run": st.sampled_from(["r-1", "r-2", ""]),
    "calls_used": st.integers(0, 6),
    "cost_microusd": st.integers(0, 4),
    "rows": st.integers(0, 2),
    "mutates": st.booleans(),
    "run_integrity": st.sampled_from(Integrity),
}
TEXTS = [text for texts in READERS.values() for text in texts] + NOT_READERS
FORBIDS = [text.replace("permit", "forbid", 1) for text in TEXTS]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(TEXTS + FORBIDS), min_size=1, max_size=3, unique=True),
    st.lists(st.fixed_dictionaries(FACTS), min_size=2, max_size=8),
)
def test_an_answer_is_the_same_whatever_was_asked_before(texts, asks):
    text = "\n".join(texts)
    known = Policies.from_text(text)
    for ask in asks:
        assert known.decide(question(**ask)) == Policies.from_text(text).decide(question(**ask))


def test_a_policy_whose_form_is_not_known_reads_everything():
    assert statements._reads({"new": [{"Var": "context"}]}) == statements.VARYING
