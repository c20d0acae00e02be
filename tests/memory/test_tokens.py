"""Tokens are counted on the high side, within bounds that nothing breaks."""

from __future__ import annotations

import random

from ring0.memory import tokens

KNOWN = [
    # (text, tokens in cl100k, o200k, Llama 3, Qwen 3: the most of the four), as their own
    # vocabularies count them.
    ("The quick brown fox jumps over the lazy dog.", 10),
    ("def f(x):\n    return [i**2 for i in range(100)]  # 1+2+3==6", 29),
    ("internationalization of antidisestablishmentarianism", 9),
    ("ALLCAPS lowercase MixedCase 1234567890 3.14159 0xDEADBEEF 99.99%", 38),
    ("https://example.com/path?q=1&x=2#frag <html><body>x</body></html>", 24),
    ("我们今天去公园散步，天气非常好。", 18),
    ("Съешь ещё этих мягких французских булок, да выпей чаю.", 34),
    ("한국어 문장입니다. 오늘 날씨가 좋네요.", 23),
    ("eRgZG0Gwq1LmTz", 14),
    ("𒅝𒊺𒂇", 12),
    ("        \n\n\n\t\t", 3),
]


def test_no_known_text_takes_more_tokens_than_the_estimate_says() -> None:
    for text, most in KNOWN:
        assert tokens.estimate(text) >= most, text


def test_an_estimate_is_never_more_than_the_bytes_and_they_are_never_too_few() -> None:
    dice = random.Random(9)
    for _ in range(500):
        text = "".join(chr(dice.choice([dice.randrange(32, 127), dice.randrange(1, 0xD7FF)]))
                       for _ in range(dice.randrange(60)))  # fmt: skip
        assert 0 <= tokens.estimate(text) <= tokens.upper_bound(text)
    assert tokens.estimate("\ud800") <= tokens.upper_bound("\ud800") == 3


def test_a_text_is_cut_to_its_tokens_and_says_that_it_was() -> None:
    text = "one two three four five six seven " * 40
    for most in (0, 1, 5, 20, 100, 10_000):
        cut = tokens.cut(text, most)
        assert tokens.estimate(cut) <= max(most, 0) or not cut
        assert cut == text or not cut or cut.endswith(" […]")
    assert tokens.cut(text, 10_000) == text and tokens.cut(text, 20) != ""


def test_a_message_takes_what_its_calls_take_too() -> None:
    bare = {"role": "assistant", "content": "look"}
    calls = [{"id": "c1", "name": "crm.query", "args": {"sql": "SELECT 1"}}]
    assert tokens.of_message({**bare, "tool_calls": calls}) > tokens.of_message(bare) + 10
    assert tokens.of_messages([bare, bare]) == 2 * tokens.of_message(bare)
