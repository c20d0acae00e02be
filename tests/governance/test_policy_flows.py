"""Each finding on what flows into a call has a rule that a person lifts, and no permit does."""

from __future__ import annotations

import pytest
from policy_questions import ALLOW, ASK, DENY, decide, question, with_extra

from ring0.governance import Policies
from ring0.types import VerdictKind

CHOSEN = {"chosen": True, "unattended": True}
FINDINGS = [
    ({"untrusted_args": ("to",)}, "untrusted-target"),
    ({"unfounded_args": ("to",)}, "unfounded-target"),
    ({"unchosen_args": ("to",)}, "unchosen-target"),
    ({"untrusted_urls": ("body",)}, "untrusted-url"),
    ({"private_args": ("body",)}, "private-to-place"),
    ({"recipients": 11}, "many-recipients"),
    ({"removals": 21}, "many-removals"),
]
LIFT = """@id("lift") permit(principal, action in Action::"tool", resource);"""


def test_what_the_users_words_choose_goes_on_where_the_manifest_lets_it() -> None:
    assert decide(**CHOSEN) == (ALLOW, ["users-choice"])


@pytest.mark.parametrize("missing", ["chosen", "unattended"])
def test_neither_the_words_nor_the_manifest_do_it_alone(missing) -> None:
    assert decide(**(CHOSEN | {missing: False})) == (ASK, ["mutation"])


@pytest.mark.parametrize(("found", "rule"), FINDINGS)
def test_each_finding_is_asked_though_all_else_is_chosen(found, rule) -> None:
    assert decide(**CHOSEN, **found) == (ASK, [rule])


@pytest.mark.parametrize(("found", "rule"), FINDINGS)
def test_no_permit_lifts_one(tmp_path, found, rule) -> None:
    assert decide(with_extra(tmp_path, LIFT), **found) == (ASK, [rule])


@pytest.mark.parametrize(("found", "rule"), FINDINGS)
def test_what_an_operator_takes_back_is_spared(found, rule) -> None:
    verdict = decide(**found, operator=True)[0]
    assert verdict is ALLOW


@pytest.mark.parametrize("found", [{"recipients": 10}, {"removals": 20}])
def test_as_many_as_the_caps_allow_are_not_asked_about(found) -> None:
    assert decide(**CHOSEN, **found) == (ALLOW, ["users-choice"])


def test_an_address_that_is_only_read_is_asked_about_too() -> None:
    assert decide(mutates=False, untrusted_urls=("url",)) == (ASK, ["untrusted-url"])
    assert decide(mutates=False, untrusted_args=("id",)) == (ALLOW, ["read"])


def test_strict_lets_nothing_private_out_and_asks_whatever_the_words_choose() -> None:
    strict = Policies.load(profile="strict")
    kind, rules = decide(strict, **CHOSEN, private_args=("body",))
    assert kind is DENY and "strict-private-to-place" in rules
    assert decide(strict, **CHOSEN)[0] is ASK


def test_a_decision_on_record_from_before_these_facts_is_none_that_the_user_chose() -> None:
    old = question()
    assert not old.chosen and not old.unattended and old.hinted
    assert Policies.load().decide(old).kind is VerdictKind.ASK


def test_a_policy_may_speak_of_each_fact(tmp_path) -> None:
    text = """
    @id("mine") permit(principal, action in Action::"tool", resource)
    when { context.hinted && context.chosen && !resource.unattended && context.recipients < 3
           && context.removals == 0 && context.unchosen_args.isEmpty()
           && context.untrusted_urls.isEmpty() && context.private_args.isEmpty() };"""
    policies = with_extra(tmp_path, text)
    assert decide(policies, chosen=True, recipients=2) == (ALLOW, ["mine"])
    assert decide(policies, chosen=True, recipients=3)[0] is ASK
