"""A text that comes in pieces lets no known secret through, however it is cut, and costs no more
than its length."""

import time
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from ring0.guardrails import Secrets
from ring0.guardrails.stream import StreamFilter

KEY = 'sk-a/"b+c\\é=123'


def passed(secrets: Secrets, pieces: list[str]) -> str:
    """All that comes out; what came out before the end is checked to begin what comes out whole."""
    stream, found, whole = StreamFilter(secrets), "", secrets.redact_text("".join(pieces))
    for piece in pieces:
        found += stream.feed(piece)
        assert whole.startswith(found), (found, whole)
    return found + stream.end()


def cuts(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def test_a_secret_in_any_form_is_taken_out_wherever_the_text_is_cut() -> None:
    secrets = Secrets({"api": KEY, "pin": "1234567890"})
    for form in secrets.forms():
        text = f"before {form} and {form}{form} after"
        whole = secrets.redact_text(text)
        assert form not in whole
        for place in range(len(text) + 1):
            assert passed(secrets, [text[:place], text[place:]]) == whole
        for size in (1, 2, 7):
            assert passed(secrets, cuts(text, size)) == whole


def test_secrets_that_overlap_in_a_chain_are_held_until_the_last_is_clear() -> None:
    secrets = Secrets({"A": "abcdefghij", "B": "ijklmnopqr", "C": "qrstuvwxyz"})
    for text in ("abcdefghijklmnopqrs!", "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqr"):
        for size in range(1, 12):
            assert passed(secrets, cuts(text, size)) == secrets.redact_text(text)


@st.composite
def told(draw: st.DrawFn) -> tuple[Secrets, list[str]]:
    """Secrets of two letters, which overlap all the time, and a text of parts of their forms."""
    values = draw(st.lists(st.text("ab", min_size=8, max_size=13), min_size=1, max_size=5))
    secrets = Secrets({f"S{number}": value for number, value in enumerate(values)})
    forms = st.sampled_from(sorted(secrets.forms()))
    parts = st.builds(
        lambda form, begin, end: form[begin : end or None],
        forms,
        st.integers(0, 4),
        st.integers(-4, 0),
    )
    text = "".join(draw(st.lists(st.one_of(forms, parts, st.text("ab6=", max_size=5)))))
    found, rest = [], text
    while rest:
        size = draw(st.integers(1, 9))
        found.append(rest[:size])
        rest = rest[size:]
    return secrets, found


@settings(deadline=None, max_examples=300)
@given(told())
def test_what_comes_out_is_what_comes_of_the_whole(one: tuple[Secrets, list[str]]) -> None:
    secrets, pieces = one
    assert passed(secrets, pieces) == secrets.redact_text("".join(pieces))


def test_what_can_be_no_secret_goes_on_at_once() -> None:
    stream = StreamFilter(Secrets({"api": "hunter2-hunter2"}))
    assert stream.feed("good day, hunt") == "good day, "
    assert stream.holds
    assert stream.feed("er") == ""
    assert stream.feed("s!") == "hunters!" and not stream.holds
    assert stream.feed("and more") == "and more"


def test_what_is_held_is_no_longer_than_a_secret() -> None:
    secrets = Secrets({"api": "abababab"})
    stream = StreamFilter(secrets)
    for _ in range(5_000):
        stream.feed("ab" * 10)  # One occurrence after the other, each over the one before.
        assert len(stream._held) < max(map(len, secrets.forms()))
    assert stream.feed("!") + stream.end() == "«secret:api»!"


def test_a_secret_that_becomes_known_on_the_way_is_kept_in_from_then_on() -> None:
    secrets = Secrets({})
    stream = StreamFilter(secrets)
    assert stream.feed("first hunter2-hunter2, ") == "first hunter2-hunter2, "
    key = "hunter2-" * 5
    secrets.replace({"api": key})
    assert stream.feed(f"then {key[:30]}") == "then "
    secrets.replace({"api": key, "other": f"{key[20:]}and more"})
    assert stream.feed(f"{key[30:]}and more!") == "«secret:api»«secret:other»!"


def hostile() -> Iterator[str]:
    """Texts that are full of what begins a secret."""
    size = 600_000
    key = f"sk-proj-{'x' * 30}"
    yield key[:-1] * (size // (len(key) - 1))
    yield "sk-proj-" * (size // 8)
    yield "a" * size
    yield "nothing of note, " * (size // 17)


def test_two_hundred_secrets_cost_a_hostile_text_no_more_than_its_length() -> None:
    alike = {f"S{number}": f"sk-proj-{'x' * 30}{number:03}" for number in range(199)}
    secrets = Secrets({**alike, "a": "a" * 40})
    StreamFilter(secrets)  # What is looked up is made once.
    for text in hostile():
        for size in (6, len(text)):
            begun = time.process_time()
            stream = StreamFilter(secrets)
            out = [stream.feed(piece) for piece in cuts(text, size)]
            out.append(stream.end())
            took_s = time.process_time() - begun
            assert took_s < 4, f"{took_s:.1f} s for {text[:20]!r}"  # One by one it is far more.
            assert ("a" * 40) not in "".join(out)
