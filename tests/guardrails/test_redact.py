"""Known secrets never leave, in any form that a program would write them in."""

import base64
import json
import urllib.parse

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ring0.errors import InvalidInput
from ring0.guardrails import Secrets
from ring0.guardrails.stream import StreamFilter

KEY = 'sk-a/"b+c\\é=123'
SECRETS = Secrets({"api": KEY, "pin": "1234567890"})


def test_a_secret_is_replaced_and_named_in_values_and_keys():
    value = {"a": [f"Bearer {KEY}", 1], f"k{KEY}": None}
    clean, found = SECRETS.redact(value)
    assert clean == {"a": ["Bearer «secret:api»", 1], "k«secret:api»": None}
    assert found == ("api",)


def test_without_a_finding_the_same_object_comes_back():
    value = {"a": [{"b": "text"}, 1, 2.5, None, True]}
    clean, found = SECRETS.redact(value)
    assert clean is value
    assert found == ()


@pytest.mark.parametrize(
    "encode",
    [
        lambda s: s,
        lambda s: s.encode().hex(),
        lambda s: s.encode().hex().upper(),
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
        urllib.parse.quote,
        urllib.parse.quote_plus,
        lambda s: urllib.parse.quote(s, safe="").lower(),
        lambda s: "".join(f"%{b:02x}" for b in s.encode()),
        json.dumps,
        lambda s: json.dumps(s, ensure_ascii=False),
        lambda s: json.dumps(json.dumps(s)),
        lambda s: json.dumps(s).replace("/", "\\/"),
    ],
)
def test_its_encoded_forms_are_found_too(encode):
    clean, found = SECRETS.redact(f"x {encode(KEY)} y")
    assert found == ("api",)
    assert "«secret:api»" in clean


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "user: "])
def test_base64_of_something_longer_is_found_at_every_offset(before):
    text = base64.b64encode(f"{before}{KEY} and more".encode()).decode()
    assert "«secret:api»" in SECRETS.redact_text(text)


def test_a_secret_of_digits_is_found_as_a_number():
    assert SECRETS.redact({"n": 1234567890}) == ({"n": "«secret:pin»"}, ("pin",))


def test_secrets_that_overlap_leave_no_rest_of_either():
    both = Secrets({"one": "abcdefgh", "two": "efgh" + "Z" * 40})
    assert both.redact_text("<abcdefgh" + "Z" * 40 + ">") == "<«secret:one»«secret:two»>"
    inner = Secrets({"long": "Y" * 9 + "abcdefgh" + "Z" * 9, "short": "abcdefgh"})
    assert inner.redact_text("YYYYYYYYYabcdefghZZZZZZZZZ.") == "«secret:long»«secret:short»."
    assert Secrets({"a": "aaaaaaaa"}).redact_text("x" + "a" * 20 + "y") == "x«secret:a»y"


def test_keys_that_become_equal_are_both_kept():
    clean, _ = SECRETS.redact({KEY: 1, json.dumps(KEY)[1:-1]: 2, "«secret:api»": 3})
    assert sorted(clean.values()) == [1, 2, 3]


def test_repr_shows_names_only():
    assert repr(SECRETS) == "Secrets(api, pin)"
    assert KEY not in repr(SECRETS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("short", "1234567"),
        ("na me", "12345678"),
        ("", "12345678"),
        ("x", "1234«5678"),
        ("x", "«secret:"),
    ],
)
def test_a_secret_that_cannot_be_kept_in_is_refused_without_showing_it(name, value):
    with pytest.raises(InvalidInput) as caught:
        Secrets({name: value})
    if value not in name:
        assert value not in str(caught.value).replace("«secret:NAME»", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("abcdefghij", "abcdefgh"),
        ("y", "secret:y"),
        ("oauth/far.0123/access", "oauth/far"),
        ("oauth/far.0123/access", "ANTHROPIC"),
        ("oauth/far.6b65797331323334/access", "keys1234"),
    ],
)
def test_a_secret_that_is_part_of_a_mark_is_taken_out_without_its_name(name, value):
    """A login server chooses its tokens: none keeps a kernel from starting."""
    secrets = Secrets({name: value, "ANTHROPIC_API_KEY": KEY})
    for text in (f"a {value} b", value.encode().hex(), f"{KEY} {value}"):
        clean = secrets.redact_text(text)
        assert "«secret" in clean
        assert value not in clean and value.encode().hex() not in clean and KEY not in clean
        stream = StreamFilter(secrets)
        assert "".join([*map(stream.feed, text), stream.end()]) == clean


def test_what_is_nested_too_deep_is_taken_out_rather_than_let_through():
    value = KEY
    for _ in range(5000):
        value = [value]
    clean, _ = SECRETS.redact(value)
    assert KEY not in json.dumps(clean)


def test_what_is_no_json_is_refused():
    with pytest.raises(TypeError):
        SECRETS.redact({"a": KEY.encode()})


def test_without_secrets_nothing_is_done():
    value = ["x"]
    assert Secrets({}).redact(value)[0] is value


# --- what must always hold ---------------------------------------------------------------------

_secret = st.text('ab1/+"\\é%', min_size=8, max_size=12)
_secrets = st.dictionaries(st.sampled_from(["one", "two", "three"]), _secret, min_size=1)


@st.composite
def _case(draw):
    values = draw(_secrets)
    forms = [
        form
        for value in values.values()
        for form in (
            value,
            value[:5],
            value[5:],
            json.dumps(value)[1:-1],
            value.encode().hex(),
            base64.b64encode(value.encode()).decode(),
            urllib.parse.quote(value),
        )
    ]
    piece = st.sampled_from([*forms, "", " ", "a", "«secret:one»", "»", "#2"])
    text = st.lists(piece, max_size=5).map("".join)
    data = st.recursive(
        text | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=8,
    )
    return values, draw(data)


def _texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


@given(_case())
def test_no_secret_is_left_in_any_nested_json(case):
    values, data = case
    try:
        secrets = Secrets(values)
    except InvalidInput:
        assume(False)
    clean, found = secrets.redact(data)
    for text in _texts(clean):
        for value in values.values():
            for form in (
                value,
                json.dumps(value)[1:-1],
                value.encode().hex(),
                base64.b64encode(value.encode()).decode(),
                urllib.parse.quote(value),
            ):
                assert form not in text
    assert set(found) <= set(values)
    assert secrets.redact(clean) == (clean, ())
