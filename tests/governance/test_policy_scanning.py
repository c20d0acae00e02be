"""What scanners find in what goes out: what is asked about, what is refused, what is neither."""

from __future__ import annotations

import pytest
from policy_questions import ALLOW, ASK, DENY, decide, question, with_extra

from ring0.governance import Policies

CHOSEN = {"chosen": True, "unattended": True}
ASKING = [("secret", "secret-leaving"), ("link", "link-leaving"), ("not-scanned", "not-scanned")]
LIFT = """@id("lift") permit(principal, action in Action::"tool", resource);"""


@pytest.mark.parametrize(("kind", "rule"), ASKING)
def test_what_is_found_is_asked_about_though_the_users_words_choose_the_rest(kind, rule) -> None:
    assert decide(**CHOSEN, findings=(kind,)) == (ASK, [rule])


@pytest.mark.parametrize(("kind", "rule"), ASKING)
def test_no_permit_lifts_what_is_found(tmp_path, kind, rule) -> None:
    assert decide(with_extra(tmp_path, LIFT), findings=(kind,)) == (ASK, [rule])


@pytest.mark.parametrize(("kind", "rule"), ASKING)
def test_what_an_operator_takes_back_is_not_asked_about_for_what_is_in_it(kind, rule) -> None:
    assert decide(findings=(kind,), operator=True)[0] is ALLOW


def test_what_only_has_the_look_of_one_asks_nobody() -> None:
    found = ("secret/named", "personal/iban", "hidden/zero-width", "link/query-is-long")
    assert decide(**CHOSEN, findings=found, severity=4) == (ALLOW, ["users-choice"])


@pytest.mark.parametrize("kind", ["secret", "link", "not-scanned"])
def test_what_goes_nowhere_is_not_asked_about(kind) -> None:
    assert decide(mutates=False, findings=(kind,)) == (ALLOW, ["read"])


@pytest.mark.parametrize("kind", ["secret", "not-scanned"])
def test_a_request_that_only_reads_takes_its_address_along(kind) -> None:
    egress = {"action": "egress", "mutates": False, "host": "example.com"}
    assert decide(**egress)[0] is ALLOW
    assert decide(**egress, findings=(kind,))[0] is ASK


def test_a_proposal_stays_in_the_agents_own_process() -> None:
    assert decide(action="proposal", findings=("secret",)) == (ALLOW, ["proposal"])


@pytest.mark.parametrize("action", ["tool", "egress"])
def test_strict_refuses_what_has_the_form_of_a_secret(action) -> None:
    strict = Policies.load(profile="strict")
    kind, rules = decide(strict, action=action, findings=("secret",), host="example.com")
    assert kind is DENY and "strict-secret-leaving" in rules


def test_a_decision_on_record_from_before_scanning_found_nothing() -> None:
    old = question()
    assert old.findings == () and old.severity == 0


def test_a_policy_may_speak_of_a_single_rule_and_of_the_severity(tmp_path) -> None:
    mine = """
    @id("mine") forbid(principal, action in Action::"tool", resource)
    when { context.findings.contains("personal/iban") || context.severity > 3 };"""
    policies = with_extra(tmp_path, mine)
    assert decide(policies, **CHOSEN)[0] is ALLOW
    assert decide(policies, **CHOSEN, findings=("personal/iban",), severity=2)[0] is DENY
    assert decide(policies, **CHOSEN, findings=("secret/named",), severity=4)[0] is DENY
