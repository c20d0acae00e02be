"""Rules that did not bite, and patterns that let through more than they said: each by name."""

from pathlib import Path

import pytest

from ring0.errors import PolicyInvalid
from ring0.governance import Policies, standing

PAY = {
    "type": "object",
    "properties": {
        "to": {"type": "string"},
        "any": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    },
}


def load(folder: Path, text: str) -> Policies:
    path = folder / "own.cedar"
    path.write_text(text)
    return Policies.load([path])


@pytest.mark.parametrize(
    "text",
    [
        'forbid (principal, action in Action::"tool", resource == Tool::"PAY");',
        'forbid (principal, action in Action::"tool", resource) when { resource == Tool::"Pay" };',
        'forbid (principal, action == Action::"egress", resource == Tool::"p.a-y");',
    ],
)
def test_a_tool_in_other_letters_is_refused_as_a_resource_too(tmp_path, text):
    with pytest.raises(PolicyInvalid, match=r"own\.cedar:1: there is no tool .* but 'pay'"):
        load(tmp_path, text).check_tools({"pay": PAY})


def test_a_resource_that_no_agent_has_is_warned_of_with_what_is_like_it(tmp_path):
    text = 'forbid (principal, action in Action::"tool", resource == Tool::"payy");'
    policies = load(tmp_path, text)
    policies.check_tools({"pay": PAY})
    (warning,) = policies.unknown_tools(["pay"])
    assert "'payy'" in warning and "Did you mean 'pay'?" in warning
    assert not policies.unknown_tools(["payy"])


@pytest.mark.parametrize("value", [1, 1.0])
def test_a_number_in_a_union_is_one_text_however_it_is_written(tmp_path, value):
    text = 'forbid (principal, action == Action::"pay", resource) when { context.args has any };'
    args = load(tmp_path, text).arguments("pay", "d", PAY, {"any": value})
    assert args is not None and args.values == {"any": "1"}


@pytest.mark.parametrize(
    ("glob", "value"),
    [
        ("*@example.com", "evil@evil.com,ann@example.com"),
        ("ann*", "ann@evil.com"),
        ("https://*.example.com/**", "https://evil.com?.example.com/x"),
        ("https://*.example.com/**", "https://evil.com#.example.com/x"),
        ("https://*.example.com/**", "https://evil.com\\.example.com/x"),
        ("https://*.example.com/**", "https://evil.com:80@x.example.com/"),
        ("https://?example.com/", "https://@example.com/"),
        ("https://example.com/mine/**", "https://example.com/mine/%2e%2E/theirs"),
    ],
)
def test_a_pattern_of_an_address_lets_no_other_place_through(glob, value):
    pattern = standing.Pattern(same={}, like={"to": glob})
    assert not standing.fits(pattern, {"to": value})


@pytest.mark.parametrize(
    ("glob", "value"),
    [
        ("*@example.com", "ann.b+c@example.com"),
        ("https://*.example.com/**", "https://a.example.com/x/y?z=1#a@b"),
        ("reports/*.txt", "reports/a%2eb.txt"),
    ],
)
def test_a_pattern_of_an_address_lets_through_what_it_says(glob, value):
    pattern = standing.Pattern(same={}, like={"to": glob})
    assert standing.fits(pattern, {"to": value})
