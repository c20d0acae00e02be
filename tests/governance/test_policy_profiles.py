"""Profiles, and what a rule says of who is asked: none of it ever loosens what another says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_questions import ALLOW, ASK, DEFAULT, DENY, LIFT, question

from ring0.errors import PolicyInvalid
from ring0.governance import Policies
from ring0.governance.policy import OBSERVED
from ring0.types import Confidentiality, Integrity

OBSERVE = Policies.load(profile="observe")
STRICT = Policies.load(profile="strict")
BALANCED = Policies.load(profile="balanced")
TRUSTED = {"run_integrity": Integrity.USER}


def rules(verdict):
    return [reason.rule for reason in verdict.reasons]


QUESTIONS = st.fixed_dictionaries(
    {
        "action": st.sampled_from(["tool", "egress", "ask", "model", "now"]),
        "mutates": st.booleans(),
        "own": st.booleans(),
        "changes_schema": st.booleans(),
        "forbidden": st.sampled_from(["", "ATTACH"]),
        "rows": st.sampled_from([0, 1, 101, 1001]),
        "run_integrity": st.sampled_from(Integrity),
        "run_confidentiality": st.sampled_from(Confidentiality),
        "untrusted_args": st.sampled_from([(), ("id",)]),
        "unfounded_args": st.sampled_from([(), ("id",)]),
        "operator": st.booleans(),
        "reversal": st.sampled_from(["reversible", "irreversible"]),
        "host": st.sampled_from(["", "example.com"]),
    }
)


@settings(max_examples=300, deadline=None)
@given(QUESTIONS)
def test_what_is_denied_stays_denied_in_every_profile(facts):
    asked = question(**facts)
    sets = {"": DEFAULT, "observe": OBSERVE, "balanced": BALANCED, "strict": STRICT}
    found = {name: policies.decide(asked) for name, policies in sets.items()}
    kinds = {name: verdict.kind for name, verdict in found.items()}
    assert kinds["balanced"] is kinds[""]
    if kinds[""] is DENY:
        assert set(kinds.values()) == {DENY}
    if kinds[""] is ASK:
        assert kinds["strict"] in (ASK, DENY)
        assert kinds["observe"] is (ASK if facts["action"] == "ask" else ALLOW)
    if kinds[""] is ALLOW:
        assert kinds["observe"] is ALLOW and found["observe"].reasons == found[""].reasons


def test_observe_lets_through_what_would_be_asked_and_names_the_rules_that_would_have():
    verdict = OBSERVE.decide(question())
    assert verdict.kind is ALLOW
    assert rules(verdict) == [OBSERVED.rule, "mutation"]
    assert verdict.approvers == 0 and verdict.approver == ()


def test_observe_gives_no_budget_that_only_a_person_gives():
    assert OBSERVE.decide(question(action="ask", resource="")).kind is ASK


def test_a_decision_under_observe_is_replayed_as_it_was():
    again = Policies.from_text(OBSERVE.text)
    assert again.profile == "observe" and again.digest == OBSERVE.digest
    assert again.decide(question()) == OBSERVE.decide(question())


def test_profiles_have_digests_of_their_own():
    assert len({p.digest for p in (DEFAULT, OBSERVE, BALANCED, STRICT)}) == 4


@pytest.mark.parametrize("head", ["observ", "observe ", "observe, profile strict"])
def test_a_profile_that_there_is_not_is_refused(head):
    first, _, rest = OBSERVE.text.partition("\n")
    with pytest.raises(PolicyInvalid):
        Policies.from_text(first.replace("profile observe", f"profile {head}") + "\n" + rest)


def test_a_file_cannot_give_itself_a_profile(tmp_path):
    path = tmp_path / "own.cedar"
    path.write_text(OBSERVE.text.partition("\n")[0] + "\n")
    found = Policies.load([path])
    assert found.profile == "" and Policies.from_text(found.text).profile == ""
    assert found.decide(question()).kind is ASK


# --- strict ------------------------------------------------------------------------------------


def test_strict_asks_for_every_mutation_of_an_untrusted_run_whatever_a_permit_says(tmp_path):
    path = tmp_path / "own.cedar"
    path.write_text(LIFT)
    assert Policies.load([path]).decide(question()).kind is ALLOW
    strict = Policies.load([path], "strict")
    assert rules(strict.decide(question())) == ["strict-untrusted-run"]
    assert strict.decide(question(**TRUSTED)).kind is ALLOW


def test_strict_denies_an_unfounded_target():
    verdict = STRICT.decide(question(**TRUSTED, unfounded_args=("id",)))
    assert verdict.kind is DENY and "strict-unfounded-target" in rules(verdict)


@pytest.mark.parametrize("level", ["private", "secret"])
@pytest.mark.parametrize("action", ["tool", "egress"])
def test_strict_sends_nothing_out_from_a_run_that_has_read_what_is_not_public(level, action):
    facts = {"action": action, "host": "example.com", "mutates": False, **TRUSTED}
    assert STRICT.decide(question(**facts)).kind is ALLOW
    verdict = STRICT.decide(question(**facts, run_confidentiality=Confidentiality(level)))
    assert verdict.kind is DENY and rules(verdict) == ["strict-private-outgoing"]


@pytest.mark.parametrize("facts", [{"reversal": "irreversible"}, {"rows": 101}])
def test_strict_wants_two_people_for_what_is_irreversible_or_bulk(facts):
    verdict = STRICT.decide(question(**TRUSTED, **facts))
    assert verdict.kind is ASK and verdict.approvers == 2
    assert STRICT.decide(question(**TRUSTED)).approvers == 0


def test_strict_spares_what_an_operator_takes_back():
    facts = {"operator": True, "reversal": "irreversible", "rows": 500, "unfounded_args": ("id",)}
    facts |= {"host": "example.com", "run_confidentiality": Confidentiality.SECRET}
    assert STRICT.decide(question(**facts)).kind is ALLOW


# --- who is asked ------------------------------------------------------------------------------

ASKS = 'permit (principal, action in Action::"tool", resource) when { context.approved }'
HOLDS = 'forbid (principal, action in Action::"tool", resource) unless { context.approved }'


def asked(*texts):
    return Policies.from_text("\n".join(f"{text};" for text in texts)).decide(question())


def test_a_verdict_hands_on_whom_to_ask_how_many_and_for_how_long():
    verdict = asked('@approver("treasury") @approvers("3") @expires("2 h") ' + ASKS)
    assert (verdict.approver, verdict.approvers, verdict.expires_s) == (("treasury",), 3, 7_200)


def test_the_strictest_of_the_deciding_rules_counts():
    verdict = asked(
        '@approver("a") @approvers("2") @expires("2 h") ' + HOLDS,
        '@approver("b") @approvers("3") @expires("30 min") ' + HOLDS,
        '@approver("a") ' + ASKS,
    )
    assert (verdict.approver, verdict.approvers, verdict.expires_s) == (("a", "b"), 3, 1_800)


def test_one_more_reason_to_ask_never_makes_it_fewer_people():
    wants = '@approvers("2") @expires("1 h") ' + ASKS
    assert asked(wants).approvers == 2
    verdict = asked(wants, '@id("more") ' + HOLDS)
    assert rules(verdict) == ["more"]
    assert (verdict.approvers, verdict.expires_s) == (2, 3_600)


def test_rules_that_do_not_decide_count_for_nothing():
    other = HOLDS.replace("unless", "when { context.rows > 5 } unless")
    assert asked('@approvers("5") ' + other, ASKS).approvers == 0


def test_only_an_ask_says_how_many():
    verdict = asked('@approvers("2") ' + HOLDS)
    assert verdict.kind is DENY and verdict.approvers == 0


@pytest.mark.parametrize(
    ("notes", "says"),
    [
        ('@approver("a") @aprovers("2")', "aprovers"),
        ('@Reason("a")', "Reason"),
        ('@approvers("two")', "people"),
        ('@approvers("0")', "people"),
        ('@approvers("-1")', "people"),
        ('@approvers("02")', "people"),
        ('@approvers("2 ")', "people"),
        ('@approvers("99")', "people"),
        ('@approvers("²")', "people"),
        ("@approvers", "nothing"),
        ('@approvers("")', "nothing"),
        ('@expires("")', "nothing"),
        ('@expires("1h")', "time"),
        ('@expires("0 s")', "time"),
        ('@expires("31 d")', "time"),
        ('@expires("never")', "time"),
        ('@expires("1 h\\n")', "time"),
        ('@approver("' + "a" * 200 + '")', "long"),
        ("@id", "nothing"),
    ],
)
def test_an_annotation_that_says_nothing_known_is_refused_with_its_line(notes, says):
    with pytest.raises(PolicyInvalid) as caught:
        Policies.from_text(f"\n{notes} {ASKS};")
    assert "policy:2" in caught.value.what
    assert says in f"{caught.value.why} {caught.value.todo}"


@pytest.mark.parametrize("note", ['@approvers("2")', '@expires("1 h")', '@approver("a")'])
def test_whom_to_ask_in_a_rule_that_never_asks_is_refused(note):
    with pytest.raises(PolicyInvalid) as caught:
        Policies.from_text(f'{note} forbid (principal, action in Action::"tool", resource);')
    assert "never does" in caught.value.why


def test_a_partial_configuration_erases_no_default_denial(tmp_path):
    path = tmp_path / "own.cedar"
    path.write_text('@id("mine") permit (principal, action, resource);')
    for profile in ("", "observe", "balanced", "strict"):
        found = Policies.load([path], profile)
        for facts in ({"changes_schema": True}, {"forbidden": "ATTACH"}):
            assert found.decide(question(**facts)).kind is DENY
        with pytest.raises(PolicyInvalid):
            path.write_text('@id("schema-change") permit (principal, action, resource);')
            Policies.load([path], profile)
        path.write_text('@id("mine") permit (principal, action, resource);')
