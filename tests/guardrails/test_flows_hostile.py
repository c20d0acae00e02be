"""Hostile results and arguments cost bounded time, and what is beyond a bound is asked about."""

from __future__ import annotations

from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowing import Desk, tool
from ring0 import limits
from ring0.guardrails.words import Words

DELETE = tool("delete_file", "file_id", removes=True)
MAIL = tool("send_mail", recipients=("to",), content=("text",))
TASK = "Delete the file 'Plan B' and mail the result to ann@example.com, the largest file first"


def seconds(work) -> float:
    begun = thread_time()
    work()
    return thread_time() - begun


def test_a_list_with_more_values_than_are_kept_chooses_nothing() -> None:
    desk = Desk(TASK)
    desk.saw("list_files", [{"id": "f-900", "name": "Plan B"}])
    assert desk.asks(DELETE, file_id="f-900") == []
    desk.saw("list_files", [{"id": n, "name": "x"} for n in range(limits.FLOW_LEAVES_MAX // 2 + 1)])
    assert desk.asks(DELETE, file_id="f-900") == ["unchosen-target"]


def test_names_that_repeat_the_users_words_without_end_are_given_up_on() -> None:
    desk = Desk(" ".join(["plan b file"] * 600))
    names = [{"id": f"f-{n}", "name": "plan b file " * 16} for n in range(4_000)]
    assert seconds(lambda: desk.saw("list_files", names)) < 20
    assert desk.seen.records.overflowed
    assert desk.asks(DELETE, file_id="f-1") == ["unchosen-target"]


@pytest.mark.parametrize(
    "value",
    [
        [{"id": f"f-{n}", "name": "Plan B", "size": n} for n in range(5_000)],
        {"id": 1, "deep": {str(n): {"name": "Plan B"} for n in range(5_000)}},
        [[n, "Plan B"] for n in range(5_000)],
        {"names": ["Plan B"] * 10_000, "id": 7},
        {"text": "https://a.example/" * 20_000, "id": 7},
    ],
)
def test_a_decision_after_a_large_result_is_quick(value) -> None:
    desk = Desk(TASK)
    desk.saw("list_files", value)
    desk.asks(DELETE, file_id="f-77")  # The order of a list is worked out once.
    assert seconds(lambda: desk.asks(DELETE, file_id="f-78")) < 0.05


def test_a_call_with_many_recipients_is_looked_at_in_bounded_time() -> None:
    desk = Desk(TASK)
    desk.saw("list_people", [{"id": n, "email": f"p{n}@x.example"} for n in range(2_000)])
    to = [f"p{n}@x.example" for n in range(2_000)]
    assert seconds(lambda: desk.asks(MAIL, to=to, text="x")) < 2
    assert "untrusted-target" in desk.asks(MAIL, to=to, text="x")


@pytest.mark.parametrize(
    "text", ["http://" * 30_000, "a." * 100_000, "www." * 60_000, "<" * 200_000, "x@" * 100_000]
)
def test_content_that_is_made_to_be_slow_is_not(text) -> None:
    desk = Desk(TASK)
    desk.saw("read_file", {"id": 1, "text": "secret 48350"}, private=True)
    post = tool("post_message", recipients=("channel",), content=("text",))
    assert seconds(lambda: desk.asks(post, channel="#x", text=text)) < 5


@given(st.text(max_size=300), st.text(max_size=60))
def test_no_text_makes_it_fail(typed, seen) -> None:
    desk = Desk(typed)
    desk.saw("list_things", [{"id": seen, "name": seen, "when": seen, "n": 3}], {"query": seen})
    desk.asks(DELETE, file_id=seen)
    desk.asks(MAIL, to=[seen], text=seen)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
        max_leaves=20,
    )
)
def test_no_shape_of_a_result_makes_it_fail(value) -> None:
    desk = Desk(TASK)
    desk.saw("get_thing", value, {"q": "x"})
    assert desk.asks(DELETE, file_id="f-0") == ["unfounded-target"]


def test_what_the_user_typed_is_bounded() -> None:
    words = Words()
    words.add("x " * limits.FLOW_WORDS_CHARS_MAX)
    assert words.too_long and not words.tokens


def test_invisible_signs_and_other_letters_of_like_form_make_no_name_of_another() -> None:
    desk = Desk("Delete the file 'Plan B'")
    desk.saw("list_files", [{"id": "f-1\u200b", "name": "Pl\u0430n B"}])  # a Cyrillic letter
    assert desk.asks(DELETE, file_id="f-1\u200b") != []


def test_a_record_with_more_fields_than_are_looked_at_is_selected_by_no_superlative() -> None:
    desk = Desk("Delete the largest file")
    small = {"id": "f-2", "size": 1}
    desk.saw("list_files", [{"id": "f-1", "size": 9}, small])
    assert desk.asks(DELETE, file_id="f-1") == []
    many = {f"size_{n}": 9 for n in range(20_000)}
    desk.saw("list_files", [{"id": "f-3", **many}, {"id": "f-4", **dict.fromkeys(many, 1)}])
    assert seconds(lambda: desk.asks(DELETE, file_id="f-3")) < 1
    assert desk.asks(DELETE, file_id="f-3") == ["unchosen-target"]


def test_many_amounts_of_one_call_are_computed_once() -> None:
    numbers = " ".join(map(str, range(11, 11 + limits.FLOW_OPERANDS_MAX - 1)))
    desk = Desk(f"Pay half, a third and double of the split total minus 10% plus {numbers}")
    pay = tool("pay", "amounts")
    wrong = [n + 0.123 for n in range(250)]
    assert seconds(lambda: desk.flow(pay, amounts=wrong)) < 5
    right, other = desk.origins(pay, amounts=[11.5, 11.123])  # half of 23
    assert right.chosen and not other.chosen
