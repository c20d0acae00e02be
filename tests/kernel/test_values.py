"""What is JSON to ring0, and what is refused because two readers could differ about it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.kernel import values

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


def refused(body: bytes) -> str:
    with pytest.raises(CallInvalid) as caught:
        values.parse(body)
    assert caught.value.todo
    return f"{caught.value.what} {caught.value.why}"


@given(VALUE)
def test_what_is_written_canonically_is_read_back_as_the_same_value(value: object) -> None:
    again = values.parse(values.canonical(value))
    assert again == value
    assert values.canonical(again) == values.canonical(value)


@given(st.dictionaries(TEXT, LEAF, max_size=8), st.randoms())
def test_canonical_bytes_do_not_depend_on_the_order_of_keys(value: dict, dice) -> None:
    shuffled = list(value.items())
    dice.shuffle(shuffled)
    assert values.canonical(dict(shuffled)) == values.canonical(value)


@given(VALUE)
def test_white_space_and_escapes_do_not_change_the_canonical_bytes(value: object) -> None:
    for text in (json.dumps(value, indent=3), json.dumps(value, ensure_ascii=False)):
        assert values.canonical(values.parse(text.encode())) == values.canonical(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_one_clear_error(body: bytes) -> None:
    try:
        values.parse(body)
    except CallInvalid as error:
        assert error.why


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'[{"x":{"y":0,"y":0}}]',
        b'{"a":{"__entity":1,"__entity":2}}',
    ],
)
def test_a_key_that_stands_twice_is_refused(body: bytes) -> None:
    assert "twice" in refused(body)


@pytest.mark.parametrize(
    "body", [b"NaN", b"[Infinity]", b'{"a":-Infinity}', b"1e999", b"-1e999", b"[1E+400]"]
)
def test_what_is_no_finite_number_is_refused(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize("body", [b'"\\ud800"', b'{"\\udc00":1}', b'["a\\ud83d"]', b'"\\udfff!"'])
def test_half_of_a_surrogate_pair_is_refused(body: bytes) -> None:
    assert "surrogate" in refused(body)


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert values.parse(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400, 10**4299])
def test_an_integer_beyond_64_bits_is_refused(number: int) -> None:
    refused(str(number).encode())
    with pytest.raises(CallInvalid):
        values.check(number)


def test_an_integer_of_more_digits_than_python_reads_is_refused() -> None:
    refused(b"9" * 10_000)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 0, 2**53 + 1])
def test_an_integer_of_64_bits_keeps_every_digit(number: int) -> None:
    assert values.parse(str(number).encode()) == number


def test_a_value_may_be_nested_as_deep_as_the_limit_and_no_deeper() -> None:
    deepest = limits.CALL_DEPTH_MAX
    values.parse(b"[" * deepest + b"]" * deepest)
    for deeper in (deepest + 2, 1_000, limits.CALL_VALUES_MAX - 1):
        assert "deep" in refused(b"[" * deeper + b"]" * deeper)
        assert "deep" in refused(b'{"a":' * deeper + b"1" + b"}" * deeper)


def test_a_body_or_a_string_beyond_its_size_is_refused() -> None:
    assert "too large" in refused(b" " * (limits.CALL_BODY_SIZE_BYTES_MAX + 1))
    longest = limits.CALL_STRING_SIZE_BYTES_MAX
    assert len(values.parse(b'"' + b"a" * longest + b'"')) == longest
    assert "longer" in refused(b'"' + b"a" * (longest + 1) + b'"')


@pytest.mark.parametrize(
    "body", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", "{}".encode("utf-16")]
)
def test_what_is_not_plain_utf8_is_refused(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{} {}", b"{'a':1}", b"[1,]", b"// a\n1", b"01", b"+1", b'"\t"', b"\0"]
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, {True: 1}, {("a",): 1}, {b"a": 1}])
def test_a_key_that_is_not_a_string_is_refused(value: object) -> None:
    with pytest.raises(CallInvalid, match="taken as it is"):
        values.check(value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), 1j, float("nan"), "\ud800"])
def test_what_json_cannot_say_is_refused_from_embedded_callers_too(value: object) -> None:
    with pytest.raises(CallInvalid):
        values.check([{"a": value}])


def test_nothing_is_normalised_on_the_way_in() -> None:
    for text in ("‥／", "ﬁ", "e\u0301", "\u202e", " a "):
        assert values.parse(json.dumps(text).encode()) == text


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_no_two_lists_of_parts_share_a_digest(one: list[bytes], other: list[bytes]) -> None:
    key = b"k" * 32
    same = values.keyed_digest(key, *one) == values.keyed_digest(key, *other)
    assert same == (one == other)
    assert values.keyed_digest(b"x" * 32, *one) != values.keyed_digest(key, *one)


# --- how many values ----------------------------------------------------------------------------

MANY = limits.CALL_VALUES_MAX


@pytest.mark.parametrize("one", [b"[]", b"{}", b"0", b'""', b'{"":0}', b'["",""]'])
def test_a_body_of_tiny_values_is_refused_before_one_of_them_is_made(
    one: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(values.json, "loads", lambda *given, **more: made.append(given))
    body = (
        b"[" + b",".join([one] * ((limits.CALL_BODY_SIZE_BYTES_MAX - 2) // (len(one) + 1))) + b"]"
    )
    assert "too many values" in refused(body)
    assert not made


@pytest.mark.parametrize(
    "text", ["a, b, ", "[{,", '\\", [', "\\\\", '\\\\\\", ', "\\u0022,["], ids=range(6)
)
def test_what_stands_in_a_text_is_no_value(text: str) -> None:
    whole = text * (2 * MANY // len(text))
    body = json.dumps([whole, {"[": whole}]).encode()
    assert len(body) < limits.CALL_BODY_SIZE_BYTES_MAX
    assert values.parse(body) == [whole, {"[": whole}]


@pytest.mark.parametrize(
    "hides", [b'["', b'["\\"', b'["\\\\",', b'["\\\\\\",', b'"', b'[\\",', b'["a"b",', b'\\"']
)
def test_no_quote_hides_values_that_a_parser_would_make(
    hides: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted are at least as many as a parser makes before it stops at what is no JSON."""
    made: list[object] = []
    monkeypatch.setattr(values, "_unique", lambda pairs: made.append(pairs))
    for body in (hides + b"{}," * MANY, b"[" + b"{}," * MANY + hides):
        assert refused(body)
        assert len(made) <= 1


def test_as_many_values_as_a_call_may_hold_are_taken() -> None:
    assert len(values.parse(b"[" + b"1," * (MANY - 3) + b"1]")) == MANY - 2
    assert "too many values" in refused(b"[" + b"1," * (MANY - 1) + b"1]")
