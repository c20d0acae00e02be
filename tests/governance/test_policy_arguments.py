"""Arguments of a tool in policies: each has the type of its JSON Schema, and none slips past."""

import json

import msgspec
import pytest
from cedarpy import Schema
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_questions import ALLOW, ASK, DENY, question

from ring0.errors import PolicyInvalid
from ring0.governance import Policies, Question, reserved_key, schema
from ring0.governance.arguments import Shape, Unheld, quoted, shape_of, type_of, value_of
from ring0.governance.schema import tool_text
from ring0.governance.statements import action_of

SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"type": "string"},
        "amount": {"type": "number"},
        "count": {"type": "integer"},
        "urgent": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "place": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip": {"type": "integer"}},
            "required": ["city"],
        },
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "perhaps": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "anything": {},
    },
    "required": ["to", "perhaps", "count"],
}
PAY = 'action == Action::"bank.pay", resource'


def policies(*statements: str) -> Policies:
    found = Policies.from_text("\n".join(statements))
    found.check_tools({"bank.pay": SCHEMA})
    return found


def ask(found: Policies, args, tool="bank.pay", schema=SCHEMA, **more):
    known = found.arguments(tool, "d", schema, args)
    return found.decide(question(resource=tool, args=known, **more))


def kind(condition: str, args) -> str:
    found = policies(f"permit (principal, {PAY}) when {{ {condition} }};")
    return ask(found, {"to": "x", "count": 1, **args}).kind


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("to", '"to": String'),
        ("count", '"count": Long'),
        ("amount", '"amount"?: decimal'),
        ("urgent", '"urgent"?: Bool'),
        ("tags", '"tags"?: Set<String>'),
        ("place", '"place"?: {"city": String, "zip"?: Long}'),
        ("either", '"either"?: String'),
        ("perhaps", '"perhaps"?: String'),
        ("anything", '"anything"?: String'),
    ],
)
def test_an_argument_has_the_type_of_its_json_schema(name, type_):
    assert type_of(shape_of(SCHEMA), frozenset({name})) == f"{{{type_}}}"


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ('context.args.to like "*@example.com"', {"to": "a@example.com"}, {"to": "a@example.org"}),
        ("context.args.count < 3", {"count": 2}, {"count": 3}),
        (
            'context.args has amount && context.args.amount.lessThan(decimal("10.0"))',
            {"amount": 9.9999},
            {"amount": 10},
        ),
        ("context.args has urgent && context.args.urgent", {"urgent": True}, {"urgent": False}),
        (
            'context.args has tags && ["a", "b"].containsAll(context.args.tags)',
            {"tags": ["a", "a"]},
            {"tags": ["a", "c"]},
        ),
        (
            'context.args has place && context.args.place.city == "Bern"',
            {"place": {"city": "Bern", "zip": 3000}},
            {"place": {"city": "Berne"}},
        ),
        ('context.args has either && context.args.either == "7"', {"either": 7}, {"either": 8}),
        (
            'context.args has either && context.args.either == "\\"7\\""',
            {"either": "7"},
            {"either": 7},
        ),
        ("context.args has perhaps", {"perhaps": ""}, {"perhaps": None}),
        (
            'context.args has anything && context.args.anything == "{\\"a\\":[1,null]}"',
            {"anything": {"a": [1, None]}},
            {"anything": {"a": [1]}},
        ),
        ('context.args["to"] == "é\\u{1F600}\\""', {"to": 'é😀"'}, {"to": "é"}),
        ("(if context.rows == 1 then context else context).args.count == 1", {}, {"count": 2}),
    ],
)
def test_a_policy_reads_arguments_by_their_types(condition, yes, no):
    assert kind(condition, yes) == ALLOW
    assert kind(condition, no) == DENY


def test_an_optional_argument_has_to_be_looked_for_first():
    with pytest.raises(PolicyInvalid) as caught:
        policies(f"permit (principal, {PAY}) when {{ context.args.urgent }};")
    assert "optional" in caught.value.why


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"amount": 1_000_000.00001}, "decimal places"),
        ({"amount": 1e300}, "beyond"),
        ({"amount": 922337203685477.5808}, "beyond"),
        ({"amount": -1e16}, "beyond"),
        ({"count": 2**63}, "64 bits"),
        ({"count": -(2**63) - 1}, "64 bits"),
        ({"count": 1.5}, "whole"),
        ({"count": True}, "whole"),
        ({"place": {"city": "x", "zip": 2**63}}, "place.zip"),
        ({"tags": ["a", 1]}, "tags"),
        ({"to": 1}, "to"),
    ],
    ids=repr,
)
def test_a_value_that_cedar_cannot_hold_is_a_clear_deny_and_never_absent(bad, says):
    found = policies(
        "permit (principal, action, resource);",
        f"forbid (principal, {PAY}) when {{ context.args.count > 1000 }};",
        f"forbid (principal, {PAY}) when {{ context.args has amount && "
        'context.args.amount.greaterThan(decimal("1000.0")) };',
        f"forbid (principal, {PAY}) "
        'when { context.args has place && context.args.place.city == "x" };',
        f"forbid (principal, {PAY}) "
        'when { context.args has tags && context.args.tags.contains("x") };',
        f'forbid (principal, {PAY}) when {{ context.args.to == "x" }};',
    )
    verdict = ask(found, {"to": "y", "count": 1, **bad})
    assert verdict.kind is DENY
    assert [reason.rule for reason in verdict.reasons] == ["ring0.unheld"]
    assert says in verdict.reasons[0].text
    # The same value in an argument that nobody looks at harms nobody.
    other = policies(
        "permit (principal, action, resource);",
        f"forbid (principal, {PAY}) when {{ context.args has urgent && context.args.urgent }};",
    )
    assert ask(other, {"to": "y", "count": 1, **bad}).kind is ALLOW


@pytest.mark.parametrize("number", [0, -0.0, 0.1, 1e-4, 5, 123.4567, -9.5, 922337203685477, 1e14])
def test_a_number_of_at_most_four_places_is_a_decimal(number):
    assert kind("context.args has amount", {"amount": number}) == ALLOW


@pytest.mark.parametrize("key", ["__entity", "__extn"])
def test_a_key_that_cedar_reads_as_an_entity_is_found_at_any_depth(key):
    assert reserved_key({"a": [{"b": {key: {"type": "Tool", "id": "x"}}}]}) == key
    assert reserved_key({"a": [{"b": f'{{"{key}": 1}}'}]}) == ""


@pytest.mark.parametrize("key", ["__entity", "__extn"])
@pytest.mark.parametrize("name", ["to", "anything", "either", "tags", "place"])
def test_an_entity_in_the_arguments_is_never_one_for_cedar(name, key):
    """Such arguments are refused before; if they were not, they would be text or a deny."""
    found = policies(
        f"permit (principal, {PAY}) when {{ context.args == context.args }};",
    )
    args = {"to": "x", "count": 1, name: {key: {"type": "Tool", "id": "x", "fn": "ip", "arg": "1"}}}
    verdict = ask(found, args)
    assert verdict.kind is (ALLOW if name in ("anything", "either") else DENY)


def test_a_schema_with_such_a_property_is_told_as_json():
    schema = {
        "type": "object",
        "properties": {"x": {"type": "object", "properties": {"__entity": {}}}},
    }
    assert type_of(shape_of(schema)) == '{"x"?: String}'


@pytest.mark.parametrize(
    "name", ["a b", 'q"uote', "back\\slash", "in", "__cedar", "ünï", "new\nline", "*", "", "\u202e"]
)
def test_any_name_of_an_argument_can_be_spoken_of(name):
    schema = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
    found = Policies.from_text(
        'permit (principal, action == Action::"t.x", resource)'
        f' when {{ context.args[{quoted(name)}] == "v" }};'
    )
    found.check_tools({"t.x": schema})
    assert ask(found, {name: "v"}, "t.x", schema).kind is ALLOW
    assert ask(found, {name: "w"}, "t.x", schema).kind is DENY


@pytest.mark.parametrize("name", ["t.x", 'we"ird', "send", "tool", "ünï", "a\\b", "model"])
def test_any_tool_has_an_action_of_its_own(name):
    found = Policies.from_text(
        f"permit (principal, action == Action::{quoted(action_of(name))}, resource)"
        ' when { context.args.to == "x" };'
    )
    found.check_tools({name: SCHEMA})
    assert ask(found, {"to": "x", "count": 1}, name).kind is ALLOW
    assert ask(found, {"to": "y", "count": 1}, name).kind is DENY
    assert ask(found, {"to": "x", "count": 1}, "another").kind is DENY


def test_a_tool_named_as_a_kind_of_call_gets_nothing_that_the_kind_has():
    found = Policies.from_text('permit (principal, action == Action::"send", resource);')
    assert found.decide(question(resource="send")).kind is DENY
    assert found.decide(question(action="send", resource="")).kind is ALLOW


def test_each_tools_own_action_is_in_the_action_of_all_tools():
    found = policies(
        'permit (principal, action in Action::"tool", resource);',
        f'@id("own") forbid (principal, {PAY}) when {{ context.args.to == "x" }};',
    )
    assert ask(found, {"to": "y", "count": 1}).kind is ALLOW
    assert ask(found, {"to": "x", "count": 1}).kind is DENY
    assert found.decide(question(resource="other")).kind is ALLOW
    assert found.decide(question(action="now", resource="")).kind is DENY


def test_the_arguments_are_part_of_what_is_remembered_only_where_a_policy_reads_them():
    found = policies(f'forbid (principal, {PAY}) when {{ context.args.to == "x" }};')
    assert found.arguments("other", "d", SCHEMA, {"to": "x"}) is None
    known = found.arguments("bank.pay", "d", SCHEMA, {"to": "x", "amount": 1.5, "count": 2})
    assert known is not None and known.values == {"to": "x"}
    assert Policies.load().arguments("bank.pay", "d", SCHEMA, {"to": "x"}) is None


def test_a_decision_over_arguments_is_replayed_from_what_is_on_record_alone():
    text = f'@id("own") forbid (principal, {PAY}) when {{ context.args.to == "x" }};'
    found = policies("permit (principal, action, resource);", text)
    asked = question(
        resource="bank.pay", args=found.arguments("bank.pay", "d", SCHEMA, {"to": "x", "count": 1})
    )
    stored = msgspec.json.decode(msgspec.json.encode(asked), type=Question)
    again = Policies.from_text(found.text).explain(stored)
    assert again.verdict == found.decide(asked)
    assert [policy.rule for policy in again.policies] == ["own"]


# --- what is refused when it is loaded, or when an agent starts ----------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('permit (principal, action == Action::"tool", resource);', "action in"),
        ('permit (principal, action, resource) when { action == Action::"tool" };', "action in"),
        ('permit (principal, action, resource) when { [Action::"tool"].contains(action) };', "in"),
        ('permit (principal, action, resource) when { action == Action::"bank.pay" };', "scope"),
        (
            'permit (principal, action in Action::"tool", resource) when { context.args.a == 1 };',
            "",
        ),
        ("permit (principal, action, resource) when { context has args };", "scope"),
        (
            'permit (principal, action in [Action::"tool"], resource) when { context.args == {} };',
            "",
        ),
        ('forbid (principal, action == Action::"tools", resource);', "tool"),
        ('forbid (principal, action == Action::"Tool", resource);', "tool"),
        ('forbid (principal, action == Action::"memory.apend", resource);', "memory.append"),
    ],
)
def test_a_statement_that_would_hold_for_less_than_it_seems_to_is_refused(text, says):
    with pytest.raises(PolicyInvalid) as caught:
        Policies.from_text(text)
    assert says in f"{caught.value.what} {caught.value.why} {caught.value.todo}"
    assert "policy:1" in caught.value.what


def test_all_tools_may_be_named_in_a_condition():
    text = 'permit (principal, action, resource) when { action in Action::"tool" };'
    assert Policies.from_text(text).decide(question()).kind is ALLOW


@pytest.mark.parametrize(
    "condition",
    [
        "context.args.nope == 1",
        'context.args.count == "1"',
        "context.args.to < 3",
        "context.rowz > 1",
    ],
)
def test_a_statement_that_does_not_fit_the_tools_schema_names_file_and_line(tmp_path, condition):
    path = tmp_path / "own.cedar"
    path.write_text(f"\n\nforbid (principal, {PAY}) when {{ {condition} }};")
    found = Policies.load([path])
    found.check_tools({"other": SCHEMA})
    with pytest.raises(PolicyInvalid) as caught:
        found.check_tools({"bank.pay": SCHEMA, "other": SCHEMA})
    assert f"{path}:3" in caught.value.what


@pytest.mark.parametrize("name", ["Bank.pay", "bank.Pay", "bank_pay", "bank.pay "])
def test_a_tools_name_in_other_letters_is_refused_when_an_agent_has_the_tool(name):
    found = Policies.from_text(f'forbid (principal, action == Action::"{name}", resource);')
    with pytest.raises(PolicyInvalid) as caught:
        found.check_tools({"bank.pay": SCHEMA})
    assert "bank.pay" in caught.value.what


def test_a_statement_for_a_tool_that_no_agent_has_is_warned_of_with_what_is_like_it():
    found = Policies.from_text('\nforbid (principal, action == Action::"bank.pya", resource);')
    found.check_tools({"bank.pay": SCHEMA})
    (warning,) = found.unknown_tools(["bank.pay"])
    assert "policy:2" in warning and "Did you mean 'bank.pay'" in warning
    assert found.unknown_tools(["bank.pya"]) == []


def test_a_statement_for_two_tools_is_held_against_those_that_are_there():
    text = 'forbid (principal, action in [Action::"bank.pay", Action::"mail.send"], resource)'
    found = Policies.from_text(text + ' when { context.args.to == "x" };')
    found.check_tools({"bank.pay": SCHEMA})
    other = {"type": "object", "properties": {"address": {"type": "string"}}}
    with pytest.raises(PolicyInvalid):
        found.check_tools({"bank.pay": SCHEMA, "mail.send": other})


def test_the_schema_that_is_printed_is_one_that_cedar_reads():
    Schema.from_str(
        "\n".join([schema.text(), tool_text("bank.pay", SCHEMA), tool_text("send", {})])
    )


# --- hostile schemas -----------------------------------------------------------------------------


def _deep() -> dict:
    schema: dict = {"type": "string"}
    for _ in range(60):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        _deep(),
        {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/x"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
        {"type": "object", "properties": {str(n): {"$ref": "#"} for n in range(30)}},
        {"type": "object", "properties": {str(n): {"type": "string"} for n in range(3_000)}},
        {"type": "object", "properties": {"a": {"anyOf": [{"anyOf": [{"type": "null"}]}]}}},
        {"type": "object", "properties": {"a": True, "b": False}},
        {"type": "object", "properties": {"a": {"type": []}}},
        {"type": "array"},
        {},
    ],
)
def test_no_schema_of_a_tool_breaks_the_policies(schema):
    found = Policies.from_text(
        'permit (principal, action == Action::"t.x", resource)'
        " when { context.args == context.args };"
    )
    found.check_tools({"t.x": schema})
    assert ask(found, {}, "t.x", schema).kind is ALLOW


def test_local_references_are_followed():
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A~1B"}},
        "$defs": {"A/B": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    }
    assert type_of(shape_of(schema)) == '{"a"?: {"x"?: Long}}'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(SCHEMA["properties"])), VALUES))
def test_whatever_the_arguments_are_the_answer_is_by_a_rule_and_never_a_surprise(args):
    found = WHOLE
    known = found.arguments("bank.pay", "d", SCHEMA, args)
    verdict = found.decide(question(resource="bank.pay", args=known))
    rules = [reason.rule for reason in verdict.reasons]
    missing = any(args.get(name) is None for name in ("to", "count"))
    assert rules in (["whole"], ["ring0.unheld"]) or (missing and rules == ["ring0.undecided"])


WHOLE = policies(f'@id("whole") permit (principal, {PAY}) when {{ context.args == context.args }};')


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20))
def test_a_decimal_is_exactly_the_number_or_it_is_refused(number):
    try:
        text = value_of(Shape(kind="decimal"), number)
    except Unheld:
        return
    assert float(text) == number and len(text.partition(".")[2]) == 4


def test_json_text_is_canonical():
    assert value_of(Shape(kind="json"), {"b": 1, "a": [True, None]}) == '{"a":[true,null],"b":1}'
    assert json.loads(value_of(Shape(kind="json"), "x")) == "x"


def test_an_ask_by_arguments_is_an_ask():
    found = policies(
        f"permit (principal, {PAY}) when {{ context.approved && context.args.count < 3 }};"
    )
    assert ask(found, {"to": "x", "count": 2}).kind is ASK
    assert ask(found, {"to": "x", "count": 3}).kind is DENY


# --- what a statement looks at -----------------------------------------------------------------

LOOKS_AT_TO = [
    'context.args.to == "x"',
    'context["args"]["to"] == "x"',
    'context.args["t\\u{6f}"] == "x"',
    '["x"].contains(context.args.to)',
    '{a: {b: context.args}}.a.b.to == "x"',
    '(if context.rows == 1 then context.args else context.args).to == "x"',
    '(if context.rows == 1 then context else context).args.to == "x"',
    'context.args.to like "x*"',
    '!(context.args.to != "x")',
]


@pytest.mark.parametrize("condition", LOOKS_AT_TO)
def test_what_a_statement_looks_at_is_given_and_is_part_of_what_is_remembered(condition):
    found = policies(f"permit (principal, {PAY}) when {{ {condition} }};")
    for to, wanted in (("x", ALLOW), ("y", DENY), ("x", ALLOW)):
        assert ask(found, {"to": to, "count": 1}).kind is wanted


@pytest.mark.parametrize("there", [True, False])
def test_whether_an_argument_is_there_is_looked_at_too(there):
    found = policies(f"permit (principal, {PAY}) when {{ context.args has amount }};")
    args = {"to": "x", "count": 1} | ({"amount": 1} if there else {})
    assert ask(found, args).kind is (ALLOW if there else DENY)


CONDITIONS = [
    *LOOKS_AT_TO,
    "context.args.count < 2",
    "context.args has amount",
    'context.args has amount && context.args.amount.lessThan(decimal("1.0"))',
    "context.rows == 1",
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=3, unique=True),
    st.lists(
        st.fixed_dictionaries(
            {"to": st.sampled_from(["x", "y"]), "count": st.integers(0, 3)},
            optional={"amount": st.sampled_from([0.5, 2, 0.00001])},
        ),
        min_size=2,
        max_size=6,
    ),
)
def test_an_answer_about_arguments_is_the_same_whatever_was_asked_before(conditions, asks):
    texts = [f"permit (principal, {PAY}) when {{ {conditions[0]} }};"]
    texts += [f"forbid (principal, {PAY}) when {{ {one} }};" for one in conditions[1:]]
    known = policies(*texts)
    for args in asks:
        assert ask(known, args) == ask(policies(*texts), args)


def test_long_arguments_fill_no_memory():
    found = policies(f'permit (principal, {PAY}) when {{ context.args.to != "x" }};')
    for number in range(20):
        assert ask(found, {"to": f"{number}" * 10_000, "count": 1}).kind is ALLOW
    assert len(found._decided) == 0
    assert ask(found, {"to": "short", "count": 1}).kind is ALLOW
    assert len(found._decided) == 1
