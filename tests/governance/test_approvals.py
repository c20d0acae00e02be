"""A yes is for one call, exactly as it was shown, once, and for a time."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ring0.errors import CallDenied
from ring0.governance import bound_to, check
from ring0.types import Approval, ApprovalState, Confidentiality, Integrity, Label

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
