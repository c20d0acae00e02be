"""A yes is for one call, exactly as it was shown, once, and for a time."""

import fnmatch
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import AnswerRefused, CallDenied
from ring0.governance import bound_to, check, standing
from ring0.governance.approvals import check_person, unlike
from ring0.types import (
    Approval,
    ApprovalState,
    Confidentiality,
    Integrity,
    Label,
    Operator,
    Origin,
    Reason,
    Role,
    Shown,
    Verdict,
    VerdictKind,
)

LABEL = Label(integrity=Integrity.UNTRUSTED, sources=("task", "crm"))
BOUND = bound_to("r-1/0/3", "d1", b"{}", LABEL, "d2")


def approval(**changes) -> Approval:
    fields = {
        "id": "a-1",
        "run": "r-1",
        "call": "r-1/0/3",
        "bound_to": BOUND,
        "state": ApprovalState.APPROVED,
        "shown": "s",
        "policy_digest": "p",
        "asked_us": 0,
        "expires_us": 100,
    }
    return Approval(**(fields | changes))


def refusal(bound=BOUND, now_us=99, **changes) -> str:
    with pytest.raises(CallDenied) as caught:
        check(approval(**changes), bound, now_us)
    return caught.value.what


def test_an_approval_covers_the_call_it_was_given_for():
    check(approval(), BOUND, 99)


def test_every_state_but_approved_is_refused_each_with_its_own_text():
    states = [state for state in ApprovalState if state is not ApprovalState.APPROVED]
    texts = {refusal(state=state) for state in states}
    texts |= {refusal(now_us=100), refusal(bound="0" * 64)}
    assert len(texts) == len(states) + 2


def test_an_approval_is_single_use():
    assert "used already" in refusal(state=ApprovalState.CONSUMED)


def test_expiry_denies_from_its_very_microsecond():
    assert "expired" in refusal(now_us=100)


def test_an_empty_binding_covers_nothing():
    assert "something else" in refusal(bound="", bound_to="")


@pytest.mark.parametrize(
    "parts",
    [
        ("r-1/0/4", "d1", b"{}", LABEL, "d2"),
        ("r-1/0/3", "dX", b"{}", LABEL, "d2"),
        ("r-1/0/3", "d1", b"{ }", LABEL, "d2"),
        ("r-1/0/3", "d1", b"{}", LABEL, "dX"),
        ("r-1/0/3", "d1", b"{}", Label(integrity=Integrity.USER, sources=("task", "crm")), "d2"),
        ("r-1/0/3", "d1", b"{}", Label(integrity=Integrity.UNTRUSTED, sources=("taskcrm",)), "d2"),
        (
            "r-1/0/3",
            "d1",
            b"{}",
            Label(integrity=Integrity.UNTRUSTED, sources=("crm", "task")),
            "d2",
        ),
        (
            "r-1/0/3",
            "d1",
            b"{}",
            Label(
                integrity=Integrity.UNTRUSTED,
                confidentiality=Confidentiality.SECRET,
                sources=("task", "crm"),
            ),
            "d2",
        ),
    ],
)
def test_an_approval_for_one_call_never_covers_another(parts):
    assert "something else" in refusal(bound=bound_to(*parts))


def test_a_yes_is_to_the_request_as_it_was_asked():
    assert "something else" in refusal(
        bound=bound_to("r-1/0/3", "d1", b"{}", LABEL, "d2", request_digest="r")
    )


ASKED = Verdict(kind=VerdictKind.ASK, reasons=(Reason(rule="a", text="x"),))


@pytest.mark.parametrize(
    "other",
    [
        {"approvers": 1},
        {"approvers": 2},
        {"reasons": ()},
        {"reasons": (Reason(rule="b", text="x"),)},
        {"reasons": (Reason(rule="a", text="x"), Reason(rule="b", text="x"))},
        {"kind": VerdictKind.ALLOW},
    ],
)
def test_a_yes_to_some_rules_is_none_to_others_nor_for_more_people(other):
    parts = ("r-1/0/3", "d1", b"{}", LABEL, "d2")
    one, two = ASKED, replace(ASKED, **other)
    assert bound_to(*parts, verdict=one) != bound_to(*parts, verdict=two)
    words = replace(ASKED, reasons=(Reason(rule="a", text="other words"),))
    assert bound_to(*parts, verdict=one) == bound_to(*parts, verdict=words)


_texts = st.text("ab|\0", max_size=4)
_labels = st.builds(
    Label,
    integrity=st.sampled_from(Integrity),
    confidentiality=st.sampled_from(Confidentiality),
    sources=st.lists(_texts, max_size=3).map(tuple),
)
_tuples = st.tuples(_texts, _texts, _texts.map(str.encode), _labels, _texts)


@given(_tuples, _tuples)
def test_no_two_different_tuples_share_a_digest(one, other):
    assume(one != other)
    assert bound_to(*one) != bound_to(*other)


@given(_tuples)
def test_the_same_tuple_has_the_same_digest(parts):
    assert bound_to(*parts) == bound_to(*parts)


# --- who may answer, and what one answer may be given to -----------------------------------------


def shown(**changes) -> Shown:
    origin = Origin(
        argument="to", value="bob", sources=("mail@r-1/0/1",), integrity=Integrity.UNTRUSTED
    )
    fields = {
        "title": "pay",
        "tool": "pay",
        "arguments": {"to": "bob"},
        "origins": (origin,),
        "reversal": "reversible",
        "run_label": LABEL,
        "reasons": (Reason(rule="mutation", text="It changes something."),),
    }
    return Shown(**(fields | changes))


def origins(**changes) -> tuple[Origin, ...]:
    return tuple(replace(origin, **changes) for origin in shown().origins)


@pytest.mark.parametrize(
    ("row", "looks", "differs"),
    [
        ({"run": "r-2"}, {}, "the run that asks"),
        ({"tool_digest": "other"}, {}, "the tool"),
        ({}, {"tool": "pay2"}, "the tool"),
        ({"needs": 2}, {}, "more than one person"),
        ({"policy_digest": "q"}, {}, "the rules that ask"),
        ({}, {"reasons": (Reason(rule="else", text="Else."),)}, "the rules that ask"),
        ({}, {"reversal": "irreversible"}, "the way back"),
        ({}, {"run_label": Label(integrity=Integrity.USER)}, "what the run has read"),
        ({}, {"origins": origins(integrity=Integrity.USER)}, "the integrity of to"),
        ({}, {"origins": origins(sources=("task",))}, "where to came from"),
        ({}, {"origins": origins(argument="cc")}, "the arguments that choose a target"),
        ({}, {"origins": ()}, "how many arguments"),
        ({}, {"edited": {"to": "carol"}}, "what people changed"),
    ],
)
def test_asks_that_differ_in_what_counts_are_not_alike(row, looks, differs):
    for one, other in (((row, looks), ({}, {})), (({}, {}), (row, looks))):
        said = unlike(approval(**one[0]), shown(**one[1]), approval(**other[0]), shown(**other[1]))
        assert said.startswith(differs) or differs in said, said


def test_asks_that_differ_in_their_arguments_alone_are_alike():
    other = shown(arguments={"to": "bob", "amount": 2}, title="another", dry_run=("1 row",))
    assert (
        unlike(approval(), shown(), approval(id="a-2", call="r-1/0/4", bound_to="x"), other) == ""
    )


@given(
    needs=st.integers(1, 4),
    apart=st.booleans(),
    name=st.sampled_from(("ada", "bob", "alice")),
    login=st.sampled_from(("peer", "oidc")),
    roles=st.frozensets(st.sampled_from(Role)),
    said=st.lists(st.sampled_from(("ada", "bob", "alice")), unique=True).map(tuple),
    yes=st.booleans(),
)
def test_who_may_answer_is_who_has_the_role_and_counts(needs, apart, name, login, roles, said, yes):
    asked = approval(state=ApprovalState.PENDING, needs=needs, apart=apart, yes_by=said)
    may = Role.APPROVER in roles
    if yes:
        may = may and not (apart and name == "alice") and name not in said
        may = may and (needs == 1 or login == "oidc")
    try:
        check_person(asked, "alice", Operator(name=name, roles=roles, login=login), yes=yes)
        answered = True
    except AnswerRefused as refused:
        answered = False
        assert refused.why and refused.todo
    assert answered == may


@given(_texts, st.text("ab*?/.", max_size=6))
def test_a_pattern_fits_what_shell_patterns_fit_within_a_folder(value, glob):
    assume("**" not in glob and "/" not in value + glob and value.isprintable() and value != "..")
    pattern = standing.Pattern(same={}, like={"x": glob})
    fits = standing.fits(pattern, {"x": value})
    assert fits == (glob == "*" or fnmatch.fnmatchcase(value, glob.replace("[", "[[]")))


def test_a_pattern_takes_no_more_time_than_its_length_times_the_values():
    hostile = "a*" * 127 + "b"
    before = time.process_time()
    assert not standing.fits(
        standing.Pattern(same={}, like={"x": hostile}), {"x": "a" * limits.STANDING_VALUE_CHARS_MAX}
    )
    assert time.process_time() - before < 2
