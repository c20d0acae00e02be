"""A stream filtered bit by bit is what the whole text becomes, wherever it is cut, and what can be
nothing goes on at once."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0.guardrails import Secrets
from ring0.guardrails.scanners import Severity
from ring0.guardrails.scanners.masking import Masking
from ring0.guardrails.scanners.streaming import ContentFilter, PatternFilter, masked

ALL = Masking(profanity=Severity.LOW)
DATA = base64.b64encode(b"the balance of ann is 4711 euros").decode()
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nabcd\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PARTS = [
    "AKIAQ3EGU7XKJ2MNBV5T",
    "ghp_" + "a1B2" * 10,
    "sk-proj-a1b2c3d4e5f6g7h8i9j0k1",
    "password = ",
    "hunter2hunter2!",
    '"api_key": "a1b2c3d4e5"',
    PEM,
    PEM[:40],
    PEM[20:],
    "-----BEGIN",
    "Bearer ",
    JWT,
    f"https://evil.io/?q={DATA}",
    "![x](",
    "[y](",
    ")",
    "https://ok.io/a(b)c",
    f"//evil.io/{DATA}",
    f"data:image/png;base64,{DATA}",
    "javascript:alert(1)",
    '<img src="',
    "Dick",
    "Cheney",
    "Moby",
    "dick",
    " f u c k",
    " y o u",
    "fu\u200bck",
    "sh1t",
    "f*ck",
    "assess",
    "fuck",
    "«secret:prod-db-1»",
    "token:",
    "key",
    "İ",
    "é",
    " ",
    "  ",
    "\n",
    ".",
    ",",
    "-",
    "a",
    "the",
    "is",
    "«",
    "»",
    "=",
    ":",
    "/",
    '"',
    "a" * 300,
]


def passed(filtered: PatternFilter | ContentFilter, pieces: list[str], whole: str) -> str:
    """All that comes out; what comes out before the end begins what comes of the whole."""
    out = ""
    for piece in pieces:
        out += filtered.feed(piece)
        assert whole.startswith(out), (whole, out)
    return out + filtered.end()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("key AKIAQ3EGU7XKJ2MNBV5T.", "key «secret:aws-access-key»."),
        (f"a {PEM} b", "a «secret:private-key» b"),
        (f"a {JWT} b", "a «secret:jwt» b"),
        ("password = hunter2-hunter2;", "password = «secret:named»;"),
        (f"![x](https://evil.io/?q={DATA}) b", "![x](«link removed») b"),
        (f"[x](https://evil.io/?q={DATA}) b", "[x](«link removed») b"),
        ("[x](https://ok.io/a(b)) b", "[x](https://ok.io/a(b)) b"),
        ("Dick Cheney is a dick", "Dick Cheney is a ****"),
        ("what a sh1t, f u c k!", "what a ****, f u c k!"),
        ("oh f u c k, fu\u200bck it", "oh f u c k, ***** it"),
        ("oh f u c k it", "oh **** it"),
        ("assess the cockpit", "assess the cockpit"),
        (
            f"password=a1b2c3d4@//evil.io/a,?q={DATA} b",
            "password=«secret:named»«link removed» b",
        ),
        ("«secret:prod-db-1»", "«secret:prod-db-1»"),
    ],
)
def test_it_takes_out_what_it_should_at_every_cut(text: str, clean: str) -> None:
    assert masked(text, ALL) == clean
    for place in range(len(text) + 1):
        assert passed(PatternFilter(ALL), [text[:place], text[place:]], clean) == clean
    for size in (1, 2, 7):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert passed(PatternFilter(ALL), pieces, clean) == clean


@st.composite
def told(draw: st.DrawFn) -> list[str]:
    """A text of parts that begin, end and look like what is taken out, and its pieces."""
    whole = "".join(draw(st.lists(st.sampled_from(PARTS), max_size=12)))
    cut = draw(st.integers(0, len(whole)))
    whole = whole[:cut] + whole[cut + draw(st.integers(0, 5)) :]
    pieces = []
    while whole:
        size = draw(st.sampled_from([1, 2, 3, 7, 50, 500]))
        pieces.append(whole[:size])
        whole = whole[size:]
    return pieces


@settings(deadline=None, max_examples=400)
@given(told(), st.sampled_from([ALL, Masking(), Masking(secrets=False), Masking(links=False)]))
def test_what_comes_out_is_what_comes_of_the_whole(pieces: list[str], masking: Masking) -> None:
    whole = masked("".join(pieces), masking)
    assert passed(PatternFilter(masking), pieces, whole) == whole


@settings(deadline=None, max_examples=200)
@given(told())
def test_known_secrets_go_first_and_the_rest_after_them(pieces: list[str]) -> None:
    known = Secrets({"db": "hunter2hunter2!", "half": "AKIAQ3EGU7"})
    whole = masked(known.redact_text("".join(pieces)), ALL)
    assert passed(ContentFilter(known, ALL), pieces, whole) == whole


def test_what_can_be_nothing_goes_on_at_once() -> None:
    stream = PatternFilter(Masking())
    assert stream.feed("good day, and ") == "good day, and "
    assert not stream.holds
    assert stream.feed("see htt") == "see " and stream.holds
    assert stream.feed("p, or") == "http, "
    assert stream.feed(" not ") == "or not "


def test_profanity_stands_unless_the_policy_names_a_severity() -> None:
    assert masked("damn this shit", Masking()) == "damn this shit"
    assert masked("damn this shit", Masking(profanity=Severity.MEDIUM)) == "damn this ****"


def test_a_trusted_host_keeps_its_links() -> None:
    text = f"![x](https://i.acme.io/?q={DATA})"
    assert masked(text, Masking(hosts=frozenset({"acme.io"}))) == text
    assert masked(text, Masking()) == "![x](«link removed»)"


def test_a_run_without_end_is_not_held_without_end() -> None:
    stream, out = PatternFilter(ALL), 0
    for _ in range(300):
        out += len(stream.feed("a" * 100))
        assert len(stream._text) < 14_000
    assert out > 15_000
