"""A child's built-in tools: of what its own manifest and its parent's say, the narrower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0.errors import ManifestInvalid
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.agent.inheriting import within
from ring0.tools.egress import parse_rules
from ring0.tools.egress.request import canonical
from ring0.types import AgentManifest, Budget

WEB = {"use": "http", "egress": ["GET https://a.org/v1/*"]}


def inherit(parents: dict[str, Any], own: dict[str, Any], folder: str = "/p") -> dict[str, Any]:
    """What the child of a parent has, where each says that of the tool `t`."""
    parent = AgentManifest(name="parent", entry="src/a.py:f", tools={"t": parents}, folder=folder)
    child = AgentManifest(name="child", tools={"t": own})
    agent = Agent(Family(manifest=parent, others=(child,)), "d").child("child", Budget())
    return agent.manifest.tools["t"]


def test_a_child_that_says_nothing_more_has_the_tool_as_its_parent_has_it() -> None:
    assert inherit(WEB, {"use": "http"}) == WEB


def test_credentials_are_not_inherited_each_child_names_its_own() -> None:
    parents = {**WEB, "secrets": ["github", "gitlab"]}
    assert inherit(parents, {"use": "http"}) == {**WEB, "secrets": []}
    assert inherit(parents, {"use": "http", "secrets": ["gitlab"]})["secrets"] == ["gitlab"]
    assert inherit(parents, dict(parents)) == parents


@pytest.mark.parametrize(
    ("key", "parents", "own", "has"),
    [
        ("timeout_s", 30, 10, 10),
        ("timeout_s", 10, 30, 10),
        ("secrets", ["a", "b"], ["b", "c"], ["b"]),
        ("secrets", ["a"], [], []),
        ("image", ["json", "csv"], ["json"], ["json"]),
        ("tier", "ns", "gvisor", "gvisor"),
        ("tier", "gvisor", "ns", "gvisor"),
        ("tier", "gvisor", "", "gvisor"),
        ("limits", {"memory_mb": 64, "tmp_mb": 8}, {"memory_mb": 128, "tmp_mb": 4},
         {"memory_mb": 64, "tmp_mb": 4}),
        ("limits", {"cpu_s": 5}, {"cpu_s": 0}, {"cpu_s": 5}),
        ("limits", {"cpu_s": 0}, {"cpu_s": 5}, {"cpu_s": 5}),
        ("egress", ["api.a.org"], ["GET https://api.a.org/x"], ["GET https://api.a.org/x"]),
        ("egress", ["GET https://api.a.org/x"], ["api.a.org"], ["GET https://api.a.org/x"]),
        ("egress", ["a.org", "b.org"], ["b.org"], ["b.org"]),
        ("egress", ["a.org"], ["https://a.org/* own_auth"], ["a.org"]),
        ("egress", ["a.org"], [], []),
        ("egress", [], ["a.org"], []),
    ],
)  # fmt: skip
def test_where_both_speak_the_narrower_holds(key: str, parents: Any, own: Any, has: Any) -> None:
    found = inherit({"use": "python", key: parents}, {"use": "python", key: own})
    assert found == {"use": "python", key: has}


@pytest.mark.parametrize(
    ("use", "key", "own", "has"),
    [
        ("python", "timeout_s", 5, 5),
        ("python", "timeout_s", 600, 60),  # What holds where nobody says it.
        ("shell", "limits", {"memory_mb": 9_999, "cpu_s": 7},
         {"memory_mb": 1024, "tmp_mb": 128, "processes": 64, "cpu_s": 7}),
        ("python", "tier", "container", "container"),
        ("python", "secrets", ["github"], []),
        ("sql", "output", "trusted-field", "untrusted"),
        ("mcp", "only", ["read"], ["read"]),
        ("mcp", "pin", "ab", "ab"),
        ("mcp", "wall_s", 5, 5),
        ("mcp", "workspace", True, False),
    ],
)  # fmt: skip
def test_what_a_child_alone_says_narrows_what_holds_unsaid_and_never_widens_it(
    use: str, key: str, own: Any, has: Any
) -> None:
    assert inherit({"use": use}, {"use": use, key: own})[key] == has


@pytest.mark.parametrize(
    ("use", "key", "parents", "own"),
    [
        ("sql", "database", "a.db", "b.db"),
        ("sql", "url", "", "postgresql://a@b/c"),
        ("sql", "role", "reader", "admin"),
        ("sql", "password_secret", "a", "b"),
        ("python", "effect", "once", "pure"),
        ("python", "effect", None, "pure"),
        ("http", "egress", ["a.org"], ["b.org"]),
        ("http", "egress", ["GET https://*.a.org/x/*"], ["POST https://*.a.org/*"]),
        ("http", "idempotency_header", "a", "b"),
        ("mcp", "only", ["read"], ["write"]),  # An empty list would offer every tool.
        ("mcp", "pin", "ab", "cd"),
        ("mcp", "command", ["a"], ["b"]),
        ("mcp", "env", {}, {"A": "1"}),
        ("mcp", "operations", {}, {"x": {"reads": True}}),
        ("python", "timeout_s", 5, "long"),
        ("python", "timeout_s", 5, True),
        ("python", "secrets", ["a"], "a"),
        ("python", "tier", "ns", "none"),
        ("python", "limits", {}, {"colour": 1}),
        ("python", "limits", {}, 5),
        ("mcp", "limits", {}, {"cpu_s": 5}),
        ("python", "timeuot_s", None, 5),
        ("sql", "output", "untrusted", "gospel"),
    ],
)  # fmt: skip
def test_where_neither_is_the_narrower_the_child_is_not_spawned_and_the_field_is_named(
    use: str, key: str, parents: Any, own: Any
) -> None:
    has = {} if parents is None else {key: parents}
    with pytest.raises(ManifestInvalid) as caught:
        inherit({"use": use, **has}, {"use": use, key: own})
    assert "child may not be spawned" in caught.value.what
    assert key in caught.value.what and "tool t" in caught.value.what
    assert "leave" in caught.value.todo


def test_a_tool_that_uses_something_else_is_another_tool() -> None:
    with pytest.raises(ManifestInvalid, match="use = 'shell'"):
        inherit({"use": "python"}, {"use": "shell"})


def test_a_rule_that_is_none_is_told_as_such() -> None:
    with pytest.raises(ManifestInvalid, match="no egress rule"):
        inherit(WEB, {"use": "http", "egress": ["FETCH it"]})


def test_a_database_is_the_same_by_whatever_path(tmp_path: Path) -> None:
    """The code tells its paths from its own file, a manifest from its own folder."""
    parents = {"use": "sql", "database": "src/crm.db"}
    for own in ("crm.db", "../src/crm.db", str(tmp_path / "src" / "crm.db")):
        assert inherit(parents, {"use": "sql", "database": own}, str(tmp_path)) == parents
    with pytest.raises(ManifestInvalid):
        inherit(parents, {"use": "sql", "database": "src/crm.db"}, str(tmp_path))


RULES = st.builds(
    lambda methods, host, path, words: f"{methods}https://{host}{path}{words}",
    st.sampled_from(["", "GET ", "POST ", "GET,POST "]),
    st.sampled_from(["a.org", "*.a.org", "b.a.org", "*.b.a.org", "a.org:8443"]),
    st.sampled_from(["", "/*", "/v1", "/v1/*", "/v1/x"]),
    st.sampled_from(["", " own_auth"]),
)
PROBES = [
    canonical(method, "https", host, port, path)
    for method in ("GET", "HEAD", "POST", "PUT")
    for host in ("a.org", "b.a.org", "c.b.a.org", "c.a.org")
    for port in (443, 8443)
    for path in ("/", "/v1", "/v1/", "/v1/x", "/v2")
]


@settings(max_examples=500)
@given(parents=st.lists(RULES, max_size=3), own=st.lists(RULES, max_size=3))
def test_no_request_goes_out_that_either_of_the_two_lists_does_not_allow(
    parents: list[str], own: list[str]
) -> None:
    try:
        found = inherit({"use": "http", "egress": parents}, {"use": "http", "egress": own})
    except ManifestInvalid:
        return
    above, beside, has = (parse_rules(one, "x") for one in (parents, own, found["egress"]))
    for probe in PROBES:
        rule = has.allows(probe)
        if rule is None:
            continue
        other, own_rule = above.allows(probe), beside.allows(probe)
        assert other is not None and own_rule is not None
        assert not rule.own_auth or (other.own_auth and own_rule.own_auth)


@settings(max_examples=500)
@given(one=RULES, other=RULES)
def test_a_rule_within_another_allows_nothing_that_the_other_does_not(one: str, other: str) -> None:
    (rule,), (wider,) = parse_rules([one], "x").rules, parse_rules([other], "x").rules
    if within(rule, wider):
        assert all(wider.allows(probe) for probe in PROBES if rule.allows(probe))
    assert within(rule, rule)
