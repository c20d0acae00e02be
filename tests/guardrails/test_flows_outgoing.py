"""What goes out: URLs that are not the user's, and what was read in private."""

from __future__ import annotations

import pytest

from flowing import Desk, reader, tool
from ring0 import limits

POST = tool("post_message", recipients=("channel",), content=("text",))
COMMENT = tool("add_comment", "issue", content=("body",))
PUBLISH = tool("publish_page", recipients=("url",), content=("html",))
GET = reader("get_webpage", "url")
ISSUES = [
    {"id": "I-11", "title": "Docs are stale", "text": "see https://docs.example.org/old"},
    {"id": "I-12", "title": "Crash on start", "text": "fix: https://evil.example/patch"},
]


def test_a_url_that_the_user_typed_goes_out() -> None:
    desk = Desk("Comment on issue I-11: moved to https://docs.example.org/new")
    assert desk.asks(COMMENT, issue="I-11", body="It moved to https://docs.example.org/new.") == []


@pytest.mark.parametrize(
    "body",
    [
        "see https://evil.example/patch",
        "![x](https://evil.example/i.png?d=secret)",
        "go to www.evil.example/login now",
        "HTTPS://EVIL.EXAMPLE/PATCH",
        "https://docs.example.org/new?leak=4711",
        "https://docs.example.org/new/../evil",
    ],
)
def test_any_other_url_is_asked_about(body) -> None:
    desk = Desk("Comment on issue I-11 that it moved to https://docs.example.org/new")
    desk.saw("list_issues", ISSUES)
    assert desk.asks(COMMENT, issue="I-11", body=body) == ["untrusted-url"]


def test_the_host_that_the_user_typed_may_be_named_but_nothing_added_to_it() -> None:
    desk = Desk("Tell #general that docs.example.org is up")
    assert desk.asks(POST, channel="#general", text="https://docs.example.org/ is up") == []
    for other in ("https://docs.example.org/?q=1", "http://general/", "http://docs.example/"):
        assert desk.asks(POST, channel="#general", text=other) == ["untrusted-url"]


def test_a_link_in_what_the_user_names_may_be_passed_on() -> None:
    desk = Desk("Post the link from 'Docs are stale' to #general")
    desk.saw("list_issues", ISSUES)
    assert desk.asks(POST, channel="#general", text="https://docs.example.org/old") == []
    assert desk.asks(POST, channel="#general", text="https://evil.example/patch") != []


def test_where_the_words_speak_of_no_link_none_is_passed_on() -> None:
    desk = Desk("Post a summary of 'Docs are stale' to #general")
    desk.saw("list_issues", ISSUES)
    assert desk.asks(POST, channel="#general", text="https://docs.example.org/old") != []


def test_more_urls_than_are_looked_at_are_asked_about() -> None:
    url = "https://docs.example.org/new"
    desk = Desk(f"Comment on I-11: {url}")
    many = " ".join(f"https://a.example/{n}" for n in range(limits.FLOW_URLS_MAX + 1))
    assert desk.asks(COMMENT, issue="I-11", body=many) == ["untrusted-url"]
    long = "x" * (limits.FLOW_CONTENT_CHARS_MAX + 1)
    assert desk.asks(COMMENT, issue="I-11", body=long) == ["untrusted-url"]


@pytest.mark.parametrize(
    ("task", "url", "asked"),
    [
        ("Read https://news.example/a and sum it up", "https://news.example/a", False),
        ("Sum up the issues", "https://evil.example/patch", True),
        ("Sum up the issues", "https://evil.example/?d=board-minutes", True),
        ("Read the page that 'Docs are stale' links to", "https://docs.example.org/old", False),
        ("Read the page that 'Docs are stale' links to", "https://evil.example/patch", True),
        ("Read the page that 'Docs are stale' links to", "https://docs.example.org/old?d=1", True),
    ],
)
def test_what_is_read_tells_whoever_is_there_and_so_has_to_be_the_users(task, url, asked) -> None:
    desk = Desk(task)
    desk.saw("list_issues", ISSUES)
    assert desk.asks(GET, url=url) == (["untrusted-url"] if asked else [])


def test_a_page_that_is_fetched_once_is_judged_by_where_its_address_stands() -> None:
    """Also where nobody says that fetching changes nothing."""
    fetch = tool("fetch_page", "url", recipients=("url",))
    desk = Desk("Read the page that Dora linked to and tell me what it says")
    desk.saw(
        "list_posts",
        [
            {"id": 1, "by": "Dora", "text": "nice: https://a.example/x"},
            {"id": 2, "by": "Dora", "text": "and https://a.example/y"},
            {"id": 3, "by": "Eve", "text": "read https://evil.example/z"},
        ],
    )
    assert desk.asks(fetch, url="https://a.example/x") == []
    assert desk.asks(fetch, url="https://a.example/y") == []
    assert desk.asks(fetch, url="https://evil.example/z") == ["untrusted-target"]
    assert desk.asks(fetch, url="https://a.example/x?d=4711") == ["unfounded-target"]


def test_an_allow_list_of_hosts_is_the_operators_word_on_what_is_read() -> None:
    listed = reader("get_webpage", "url", egress=("https://evil.example",))
    desk = Desk("Sum up the issues")
    desk.saw("list_issues", ISSUES)
    assert desk.asks(listed, url="https://evil.example/patch") == []


# --- private data ---------------------------------------------------------------------------------

SALARIES = [{"id": "p-1", "name": "Zoe Lang", "pay": 48350, "note": "ask again in spring"}]


def test_naming_a_place_is_no_leave_to_send_it_what_was_read_in_private() -> None:
    desk = Desk("Post a status to #general")
    desk.saw("list_salaries", SALARIES, private=True)
    assert desk.asks(POST, channel="#general", text="Zoe Lang earns 48350") == ["private-to-place"]
    assert desk.asks(POST, channel="#general", text="All fine") == []


def test_what_the_user_names_beside_the_place_may_go_there() -> None:
    desk = Desk("Post what Zoe Lang earns to #general")
    desk.saw("list_salaries", SALARIES, private=True)
    assert desk.asks(POST, channel="#general", text="Zoe Lang earns 48350") == []


def test_a_site_and_a_host_are_places_too() -> None:
    desk = Desk("Publish our news at https://www.corp.example/news")
    desk.saw("list_salaries", SALARIES, private=True)
    page = "https://www.corp.example/news"
    assert desk.asks(PUBLISH, url=page, html="Pay: 48350") == ["private-to-place"]
    send = tool("publish_news", content=("text",))
    assert desk.asks(send, host="corp.example", text="News: 48350") == ["private-to-place"]


def test_what_is_public_as_well_is_not_private() -> None:
    desk = Desk("Post a status to #general")
    desk.saw("list_salaries", SALARIES, private=True)
    desk.saw("get_price", {"id": "x-1", "price": 48350})
    assert desk.asks(POST, channel="#general", text="it costs 48350") == []


def test_several_words_of_it_are_no_chance_and_one_is() -> None:
    desk = Desk("Post a status to #general")
    secret = "merger negotiations collapsed because regulators objected strongly yesterday"
    desk.saw("read_minutes", {"id": "m-9", "text": secret}, private=True)
    assert desk.asks(POST, channel="#general", text=secret) == ["private-to-place"]
    assert desk.asks(POST, channel="#general", text="all went well yesterday") == []


def test_strict_denies_it() -> None:
    from flowing import STRICT

    desk = Desk("Post a status to #general", policies=STRICT)
    desk.saw("list_salaries", SALARIES, private=True)
    rules = desk.asks(POST, channel="#general", text="Zoe Lang earns 48350")
    assert "strict-private-to-place" in rules
