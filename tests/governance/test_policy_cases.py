"""`ring0 policy test`: cases that a user writes."""

import pytest

from ring0.errors import PolicyInvalid
from ring0.governance import Policies, cases

SCHEMA = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
SMALL = """
@id("small") permit (principal, action == Action::"bank.pay", resource)
when { context.args.amount < 10 && principal in Principal::"ada" };
"""


def read(tmp_path, text) -> cases.Cases:
    path = tmp_path / "cases.toml"
    path.write_text(text)
    return cases.read(path)


def misfit(tool, args) -> str:
    """As the tool's schema has it: one whole number, which has to be there."""
    assert tool == "bank.pay"
    return "" if isinstance(args.get("amount"), int) else "bank.pay: amount does not fit."


def failures(tmp_path, text, policies=None):
    (tmp_path / "own.cedar").write_text(SMALL)
    policies = policies or Policies.load([tmp_path / "own.cedar"])
    found = read(tmp_path, text)
    ran = [cases.run(case, policies, {"bank.pay": SCHEMA}, misfit) for case in found.case]
    return [failure for failure in ran if failure]


def case(**fields) -> str:
    lines = {"name": '"a"', "tool": '"bank.pay"', **fields}
    return "[[case]]\n" + "\n".join(f"{name} = {value}" for name, value in lines.items())


PAYS = {"args": "{amount = 5}", "facts": "{mutates = true}"}


def test_a_case_that_comes_out_as_wanted_is_no_failure(tmp_path):
    text = case(want='"allow"', principal='"ada"', rules='["small"]', **PAYS)
    assert failures(tmp_path, text) == []


@pytest.mark.parametrize(
    ("fields", "want", "got"),
    [
        ({"want": '"deny"'}, "deny", "ask"),
        ({"want": '"ask"', "rules": '["small"]'}, "ask, by small", "ask, by mutation"),
        ({"want": '"ask"', "approvers": "2"}, "ask, 2 approvers", "ask, 0 approvers"),
        ({"want": '"ask"', "principal": '"ada"'}, "ask", "allow"),
    ],
)
def test_a_case_that_comes_out_otherwise_says_what_and_why(tmp_path, fields, want, got):
    (failure,) = failures(tmp_path, case(**fields, **PAYS))
    assert (failure.case, failure.want, failure.got) == ("a", want, got)
    assert failure.verdict.reasons


@pytest.mark.parametrize(
    "fact",
    ["integrity", "confidentiality", "depth", "effect", "reversal", "tables", "host", "rows"],
)
def test_every_fact_has_the_name_that_policies_use(tmp_path, fact):
    value = {
        "integrity": '"untrusted"', "confidentiality": '"secret"', "depth": 2, "effect": '"pure"',
        "reversal": '"reversible"', "tables": '["a"]', "host": '"h"', "rows": 3,
    }[fact]  # fmt: skip
    where = {"integrity": "principal", "confidentiality": "principal", "depth": "principal",
             "effect": "resource", "reversal": "resource"}.get(fact, "context")  # fmt: skip
    wanted = {
        "integrity": f"Integrity::{value}", "confidentiality": f"Confidentiality::{value}",
        "effect": f"Effect::{value}",
    }.get(fact, value)  # fmt: skip
    policies = Policies.from_text(
        'permit (principal, action in Action::"tool", resource)'
        f" when {{ {where}.{fact} == {wanted} }};"
    )
    text = case(tool='"x"', want='"allow"', facts=f"{{{fact} = {value}}}")
    assert failures(tmp_path, text, policies) == []
    text = case(tool='"x"', want='"deny"')
    assert failures(tmp_path, text, policies) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "case"),
        ("case = []", "case"),
        ("[[case]]", "name"),
        (case(), "want"),
        (case(want='"maybe"'), "maybe"),
        (case(want='"ask"', facts="{mutate = true}"), "mutate"),
        (case(want='"ask"', rule='["a"]'), "rule"),
        (case(want='"ask"') + "\n" + case(want='"ask"'), "two cases"),
        ('profile = "lax"\n' + case(want='"ask"'), "lax"),
        ("case = [", "TOML"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_named(tmp_path, text, says):
    with pytest.raises(PolicyInvalid) as caught:
        read(tmp_path, text)
    assert "cases.toml" in caught.value.what and says in caught.value.what


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"args": "{amnt = 5}"}, "amnt"),
        ({"tool": '"bank.send"', "args": "{amount = 5}"}, "bank.send"),
    ],
)
def test_arguments_that_the_tool_does_not_take_are_refused(tmp_path, fields, says):
    with pytest.raises(PolicyInvalid) as caught:
        failures(tmp_path, case(want='"ask"', **fields))
    assert says in caught.value.what


@pytest.mark.parametrize("args", ["{amount = 'five'}", "{}"])
def test_arguments_that_do_not_fit_the_tools_schema_are_refused_with_the_place(tmp_path, args):
    """Such a call never gets as far as the policies: whatever they say, the case says nothing."""
    with pytest.raises(PolicyInvalid) as caught:
        failures(tmp_path, case(want='"deny"', args=args))
    assert "'a'" in caught.value.what and "amount does not fit" in caught.value.what


def test_a_case_leaves_its_arguments_out_only_where_no_rule_looks_at_them(tmp_path):
    with pytest.raises(PolicyInvalid) as caught:
        failures(tmp_path, case(want='"deny"'))
    assert "a rule looks at them" in caught.value.why
    plain = Policies.load([])
    assert failures(tmp_path, case(want='"ask"', facts="{mutates = true}"), plain) == []


def test_a_file_that_is_not_there_or_too_long_is_refused(tmp_path, monkeypatch):
    with pytest.raises(PolicyInvalid):
        cases.read(tmp_path / "none.toml")
    monkeypatch.setattr("ring0.limits.POLICY_CASES_SIZE_BYTES_MAX", 10)
    with pytest.raises(PolicyInvalid) as caught:
        read(tmp_path, case(want='"ask"'))
    assert "too long" in caught.value.what
