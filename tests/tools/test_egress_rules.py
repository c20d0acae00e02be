"""The grammar of `egress`: what a rule lets out, and how a wrong one is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring0.errors import CallInvalid, ManifestInvalid
from ring0.tools.egress import Rules, canonical, from_args, parse_rule, parse_rules, split_url


def allows(rule: str, method: str, url: str) -> bool:
    scheme, host, port, target = split_url(url)
    request = canonical(method, scheme, host, port, target)
    return parse_rules([rule], "egress").allows(request) is not None


@pytest.mark.parametrize(
    ("rule", "method", "url", "so"),
    [
        ("shop.test", "GET", "https://shop.test/a?b", True),
        ("shop.test", "HEAD", "https://shop.test/", True),
        ("shop.test", "POST", "https://shop.test/", False),
        ("shop.test", "OPTIONS", "https://shop.test/", False),
        ("shop.test", "GET", "http://shop.test/", False),
        ("shop.test", "GET", "https://shop.test:444/", False),
        ("shop.test", "GET", "https://a.shop.test/", False),
        ("shop.test", "GET", "https://notshop.test/", False),
        ("shop.test", "GET", "https://shop.test.evil.test/", False),
        ("https://shop.test", "GET", "https://shop.test/x", True),
        ("https://shop.test", "DELETE", "https://shop.test/x", False),
        ("https://SHOP.test", "GET", "https://shop.TEST/x", True),
        ("https://shop.test/", "GET", "https://shop.test/", True),
        ("https://shop.test/", "GET", "https://shop.test/x", False),
        ("https://shop.test/*", "GET", "https://shop.test/x", True),
        ("https://shop.test:8443", "GET", "https://shop.test:8443/", True),
        ("https://shop.test:8443", "GET", "https://shop.test/", False),
        ("https://shop.test:443", "GET", "https://shop.test/", True),
        ("POST,PATCH https://shop.test/a", "POST", "https://shop.test/a", True),
        ("POST,PATCH https://shop.test/a", "PATCH", "https://shop.test/a?b=c", True),
        ("POST,PATCH https://shop.test/a", "GET", "https://shop.test/a", False),
        ("POST https://shop.test/a", "POST", "https://shop.test/a/b", False),
        ("POST https://shop.test/a", "POST", "https://shop.test/A", False),
        ("POST https://shop.test/a", "POST", "https://shop.test/a/", False),
        ("GET https://shop.test/a/*", "GET", "https://shop.test/a/b/c", True),
        ("GET https://shop.test/a/*", "GET", "https://shop.test/a/", True),
        ("GET https://shop.test/a/*", "GET", "https://shop.test/a", False),
        ("GET https://shop.test/a/*", "GET", "https://shop.test/ab", False),
        ("GET https://shop.test/a/*", "GET", "https://shop.test/%61/b", True),
        ("GET https://*.shop.test", "GET", "https://a.shop.test/", True),
        ("GET https://*.shop.test", "GET", "https://a.b.shop.test/", True),
        ("GET https://*.shop.test", "GET", "https://shop.test/", False),
        ("GET https://*.shop.test", "GET", "https://evilshop.test/", False),
        ("GET https://*.shop.test", "GET", "https://a.shop.test.evil.test/", False),
        ("*.googleapis.com", "GET", "https://storage.googleapis.com/", True),
        ("*.googleapis.com", "GET", "https://generativelanguage.googleapis.com/", False),
        ("GET http://shop.test", "GET", "http://shop.test/", True),
        ("GET http://shop.test", "GET", "https://shop.test/", False),
        ("https://bücher.example", "GET", "https://xn--bcher-kva.example/", True),
        ("https://shop.test tunnel", "GET", "https://shop.test/", False),
    ],
)
def test_a_rule_lets_out_what_it_says_and_nothing_else(rule, method, url, so):
    assert allows(rule, method, url) is so


@pytest.mark.parametrize(
    "rule",
    ["", " ", "*", "*.test", "*shop.test", "sh*p.test", "a.*.test", "**.shop.test", "*.*.test",
     "ftp://shop.test", "//shop.test", "https:shop.test", "https://", "https://*", "https:///a",
     "get https://shop.test", "GET,,POST https://shop.test", "GET, POST https://shop.test",
     "GET,GET https://shop.test", "CONNECT https://shop.test", "TRACE https://shop.test",
     "ANY https://shop.test", "GET  https://shop.test", " https://shop.test", "https://shop.test ",
     "https://shop.test\n", "https://shop.test/a b", "https://a@shop.test", "https://a:b@shop.test",
     "https://shop.test:0", "https://shop.test:99999", "https://shop.test:", "https://shop.test.",
     "https://shop.test/*/a", "https://shop.test/a*", "https://shop.test/**", "https://shop.test?a",
     "https://shop.test/a?b", "https://shop.test/#a", "https://shop.test/../a",
     "https://shop.test/%2e%2e/a", "https://shop.test/a%2fb", "https://shop.test/%zz",
     "https://*.127.0.0.1", "https://127.1", "https://0x7f000001", "https://[::1]",
     "https://shop.test own", "https://shop.test tunnel own_auth", "GET https://shop.test tunnel",
     "https://shop.test/a tunnel", "http://shop.test tunnel", "https://shop.test own_auth own_auth",
     "api.openai.com", "POST https://api.anthropic.com/v1/messages", "openrouter.ai",
     "https://api.openai.com tunnel", "*.openai.azure.com", "shop_x.test", "shop\x00.test"],
)  # fmt: skip
def test_a_wrong_rule_is_told_with_its_place(rule):
    with pytest.raises(ManifestInvalid, match=r"egress\[1\]") as told:
        parse_rules(["shop.test", rule], "egress")
    assert told.value.why and told.value.todo


def test_too_many_rules_are_refused():
    with pytest.raises(ManifestInvalid):
        parse_rules(["shop.test"] * 257, "egress")


def test_no_rules_let_nothing_out():
    request = canonical("GET", "https", "shop.test", 443, "/")
    assert Rules([]).allows(request) is None
    assert not Rules([]).reaches("https", "shop.test", 443)


@given(st.text(min_size=1, max_size=60))
def test_any_text_is_a_rule_or_is_refused_in_words(text):
    try:
        rule = parse_rule(text, "egress[0]")
    except ManifestInvalid:
        return
    assert rule.host == rule.host.lower() and rule.host.isascii()


@given(st.text(alphabet="ab.%2eE5cfF/;\\?#&=+\x00é~:@ ", max_size=40))
def test_a_canonical_request_stays_what_it_is(target):
    try:
        request = canonical("GET", "https", "shop.test", 443, "/" + target)
    except CallInvalid:
        return
    assert from_args(request.args()) == request
    assert ".." not in request.path.split("/") and "\\" not in request.path


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_prefix_holds_on_every_reading_of_a_path(tail, other):
    from urllib.parse import unquote

    try:
        request = canonical("GET", "https", "shop.test", 443, "/a/" + tail)
    except CallInvalid:
        return
    path = request.path
    for _ in range(4):
        segments = [segment.partition(";")[0] for segment in path.split("/")]
        assert ".." not in segments and path.startswith("/a/")
        path = unquote(path)


def test_arguments_of_the_gate_can_not_smuggle_lines_or_two_bodies():
    good = {"method": "POST", "url": "https://shop.test/a", "body": "x"}
    assert from_args(good).body == b"x"
    for bad in (
        {**good, "headers": {"X-A": "b\r\nX-Evil: 1"}},
        {**good, "headers": {"X-A\r\nX-Evil": "1"}},
        {**good, "headers": {"X-A": "b\x00"}},
        {**good, "url": "https://shop.test/a\r\nX-Evil: 1"},
        {**good, "url": "https://shop.test/a b"},
        {**good, "url": "https://evil.test\\@shop.test/"},
        {**good, "url": "https://shop.test"[:8] + "evil.test@shop.test/"},
        {**good, "url": "file:///etc/passwd"},
        {**good, "url": "unix:/run/docker.sock"},
        {**good, "method": "POST /b HTTP/1.1\r\nX-Evil: 1\r\n"},
        {**good, "body_base64": "eA=="},
        {"method": "POST", "url": "https://shop.test/a", "body_base64": "!"},
        {"method": "GET", "url": "https://shop.test/a", "body": "x"},
    ):
        with pytest.raises(CallInvalid):
            from_args(bad)
