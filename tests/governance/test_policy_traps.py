"""Traps of policy engines that were met and measured: each ends in a deny."""

import msgspec
import pytest
from policy_questions import ALLOW, DENY, decide, question, with_extra

from ring0.governance import Policies, Question, questions


def test_a_forbid_that_errors_is_a_deny_and_not_skipped(tmp_path):
    overflow = "forbid(principal,action,resource) when {context.rows + 9223372036854775807 > 0};"
    broken = with_extra(tmp_path, "permit(principal,action,resource);", overflow)
    verdict = broken.decide(question(mutates=False))
    assert verdict.kind is DENY
    assert "overflow" in verdict.reasons[0].text


def test_a_forbid_that_errors_only_before_approval_is_a_deny_and_no_ask():
    text = "permit(principal,action,resource) when {context.approved};"
    text += "forbid(principal,action,resource) when {!context.approved && context.rows + "
    text += "9223372036854775807 > 0};"
    assert decide(Policies.from_text(text)) == (DENY, ["ring0.undecided"])


def test_a_forbid_that_errors_only_once_approved_is_a_deny():
    text = "permit(principal,action,resource) when {context.approved};"
    text += "forbid(principal,action,resource) when {context.approved && context.rows + "
    text += "9223372036854775807 > 0};"
    assert decide(Policies.from_text(text)) == (DENY, ["ring0.undecided"])


@pytest.mark.parametrize(
    "name",
    [
        "operator",
        "mutates",
        "own",
        "changes_schema",
        "forbidden",
        "rows",
        "tables",
        "untrusted_args",
        "unfounded_args",
        "calls_used",
        "cost_microusd",
        "budget_left_calls",
        "budget_left_tokens",
        "budget_left_microusd",
        "host",
        "method",
    ],
)
def test_a_missing_required_attribute_is_a_deny(monkeypatch, name):
    whole = questions.context
    monkeypatch.setattr(
        questions,
        "context",
        lambda q: {key: value for key, value in whole(q).items() if key != name},
    )
    assert decide(Policies.load(), mutates=False) == (DENY, ["ring0.undecided"])


@pytest.mark.parametrize(
    "bad",
    [
        {"rows": 2**63},
        {"rows": 1.5},
        {"rows": None},
        {"rows": True},
        {"cost_microusd": 2**70},
        {"depth": 2**63},
        {"forbidden": None},
        {"mutates": "no"},
        {"tables": ("a", 1)},
        {"effect": "onec"},
        {"run_integrity": "trusted"},
        {"resource": "\ud800"},
        {"resource": None},
        {"tables": [{}]},
        {"action": "drop"},
        {"tenant": []},
    ],
    ids=repr,
)
def test_what_cedar_cannot_hold_is_a_deny(bad):
    assert decide(**({"mutates": False} | bad)) == (DENY, ["ring0.undecided"])


@pytest.mark.parametrize("name", ["forbidden", "tables", "untrusted_args", "resource", "run"])
@pytest.mark.parametrize(
    "data",
    [
        {"__entity": {"type": "Tool", "id": "x"}},
        {"__extn": {"fn": "ip", "arg": "1.2.3.4"}},
        {"type": "Tool", "id": "x"},
    ],
)
def test_an_entity_in_the_data_is_a_deny_and_as_text_it_stays_text(name, data):
    assert decide(**{"mutates": False, name: data})[0] is DENY
    text = msgspec.json.encode(data).decode()
    plain = text if name in ("resource", "run") else (text,)
    if name != "forbidden":
        assert decide(**{"mutates": False, name: plain})[0] is ALLOW


def test_a_fault_of_the_engine_is_a_deny(monkeypatch):
    class Panic(BaseException):
        pass

    def panic(*_):
        raise Panic("\x1b[2Jboom")

    monkeypatch.setattr("cedarpy.is_authorized", panic)
    verdict = Policies.load().decide(question(mutates=False))
    assert verdict.kind is DENY
    assert "boom" in verdict.reasons[0].text
    assert "\x1b" not in verdict.reasons[0].text


def test_a_misspelt_name_case_or_blank_does_not_slip_past_a_forbid():
    for name in ("DROP", "drop", "Drop "):
        assert decide(forbidden=name)[0] is DENY


def test_an_agent_cannot_approve_itself():
    assert "approved" not in Question.__struct_fields__
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(question()) | {"approved": True}, Question)
