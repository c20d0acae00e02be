"""Cedar is not asked again what it has answered, unless a policy could tell the two apart."""

import cedarpy
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_questions import question

from ring0.governance import Policies, Question, telling
from ring0.types import Confidentiality, Effect, Integrity

ANY = 'permit(principal, action in Action::"tool", resource)'
READERS = {
    "calls_used": [
        f"{ANY} when {{ context.calls_used < 3 }};",
        f'{ANY} when {{ context["calls_used"] < 3 }};',
        f'{ANY} when {{ context["calls\\u{{5f}}used"] < 3 }};',
        f"{ANY} unless {{ !(context has calls_used) || context.calls_used >= 3 }};",
        f"{ANY} when {{ (if context.mutates then context else context).calls_used < 3 }};",
        f"{ANY} when {{ [context.calls_used].contains(1) }};",
        f"{ANY} when {{ {{a: {{b: context.calls_used}}}}.a.b == 1 }};",
    ],
    "cost_microusd": [f"{ANY} when {{ context.cost_microusd * 2 + 1 < 5 }};"],
    "run": [
        f'{ANY} when {{ principal == Run::"r-1" }};',
        f'{ANY} when {{ principal in [Run::"r-1", Run::"r-9"] }};',
        f'{ANY} when {{ [Run::"r-1"].contains(principal) }};',
        'permit(principal == Run::"r-1", action in Action::"tool", resource);',
        'permit(principal in Run::"r-1", action in Action::"tool", resource);',
        'permit(principal is Run in Run::"r-1", action in Action::"tool", resource);',
    ],
    "tenant": [f'{ANY} when {{ principal in Tenant::"r-1" }};'],
    "principal": ['permit(principal in Principal::"r-1", action in Action::"tool", resource);'],
    "agent": [
        f'{ANY} when {{ principal in Agent::"r-1" }};',
        f'{ANY} when {{ principal in [Agent::"r-9", Agent::"r-1"] }};',
    ],
    "depth": [
        f"{ANY} when {{ principal.depth < 3 }};",
        f"{ANY} when {{ (if context.mutates then principal else principal).depth < 3 }};",
        f"{ANY} when {{ {{a: principal}}.a.depth < 3 }};",
    ],
    "reversal": [
        f'{ANY} when {{ resource.reversal == "r-1" }};',
        f'{ANY} when {{ (if context.own then resource else resource).reversal like "r-1" }};',
    ],
    "resource": [
        f'{ANY} when {{ resource == Tool::"r-1" }};',
        f'{ANY} when {{ [Tool::"r-1"].contains(resource) }};',
        'permit(principal, action in Action::"tool", resource == Tool::"r-1");',
    ],
    "rows": [
        f"{ANY} when {{ context.rows < 3 }};",
        f"{ANY} when {{ 3 > context.rows }};",
        f"{ANY} when {{ context.rows == 1 }};",
        f"{ANY} when {{ context.rows != 5 && context.rows != 7 }};",
        f"{ANY} unless {{ context.rows >= 5 }};",
        f"{ANY} when {{ context.rows + 0 < 3 }};",
        f"{ANY} when {{ context.rows < context.recipients + 3 }};",
        f"{ANY} when {{ context.rows > -3 && context.rows < 2 }};",
    ],
    "host": [
        f'{ANY} when {{ context.host == "r-1" }};',
        f'{ANY} unless {{ "r-2" == context.host }};',
        f'{ANY} when {{ context.host != "r-2" && context.host != "r-3" }};',
        f'{ANY} when {{ context.host like "*1" }};',
        f"{ANY} unless {{ context.host == context.method }};",
    ],
    "findings": [
        f'{ANY} when {{ context.findings.contains("r-1") }};',
        f'{ANY} unless {{ context.findings.contains("r-2") }};',
        f'{ANY} when {{ context.findings.containsAny(["r-1"]) }};',
        f'{ANY} when {{ context.findings == ["r-1"] }};',
        f'{ANY} when {{ ["r-1", "r-3"].containsAll(context.findings) }};',
        f"{ANY} unless {{ context.findings.contains(context.method) }};",
        f"{ANY} when {{ !context.untrusted_args.containsAny(context.findings) }};",
    ],
    "untrusted_args": [
        f"{ANY} unless {{ context.untrusted_args.isEmpty() }};",
        f'{ANY} unless {{ context.untrusted_args.isEmpty() || context.untrusted_args == ["x"] }};',
        f'{ANY} when {{ (if context.own then context else context).untrusted_args == ["to"] }};',
    ],
}
VALUES = {
    "rows": (1, 5),
    "calls_used": (1, 5),
    "cost_microusd": (1, 5),
    "depth": (1, 5),
    "findings": (("r-1",), ("r-2",)),
    "untrusted_args": (("to",), ()),
}
"""Of each fact: one that is let through, and one that is not."""
BESIDE = {"method": "r-2"}
"""What stands in the facts that it is compared with."""
NOT_READERS = [
    ANY + ";",
    f'{ANY} when {{ context.forbidden == "calls_used" && context.rows < 5 }};',
    f'{ANY} when {{ principal in Tenant::"acme" && principal.depth < 3 }};',
    f'@reason("context.run") {ANY} unless {{ resource.reversal == "Run" }};',
]


@pytest.fixture
def asked(monkeypatch):
    """How often Cedar was asked."""
    asked = []
    real = cedarpy.is_authorized

    def count(*args):
        asked.append(args)
        return real(*args)

    monkeypatch.setattr(cedarpy, "is_authorized", count)
    return asked


@pytest.mark.parametrize(
    ("fact", "text"), [(fact, text) for fact, texts in READERS.items() for text in texts]
)
def test_what_a_policy_reads_is_looked_at_every_time(fact, text):
    policies = Policies.from_text(text)
    first, other = VALUES.get(fact, ("r-1", "r-2"))
    if "untrusted_args.containsAny" in text:
        other = ("to",)
    for _ in range(2):
        ask = {"untrusted_args": ("to",), **BESIDE}
        assert policies.decide(question(**{**ask, fact: first})).kind == "allow"
        assert policies.decide(question(**{**ask, fact: other})).kind == "deny"


@pytest.mark.parametrize("text", NOT_READERS)
def test_what_no_policy_reads_is_not_asked_about_again(asked, text):
    policies = Policies.from_text(text)
    first = policies.decide(question())
    count = len(asked)
    assert policies.decide(question(run="r-2", calls_used=7, cost_microusd=9)) == first
    assert len(asked) == count


def test_what_decides_a_kind_of_call_is_looked_at_whatever_else_is_known(asked):
    """Of the default set: each of these has an answer of its own, or may have."""
    policies = Policies.load()
    policies.decide(question())
    for changed in (
        {"own": True}, {"mutates": False}, {"operator": True}, {"forbidden": "ATTACH"},
        {"host": "b"}, {"changes_schema": True}, {"chosen": True}, {"unattended": True},
        {"untrusted_args": ("a",)}, {"unfounded_args": ("a",)}, {"unchosen_args": ("a",)},
        {"untrusted_urls": ("a",)}, {"private_args": ("a",)}, {"rows": 1_001},
        {"recipients": 11}, {"removals": 21}, {"findings": ("secret",)}, {"findings": ("link",)},
        {"findings": ("not-scanned",)}, {"run_integrity": Integrity.USER}, {"action": "egress"},
        {"action": "model", "features": ("a",)},
    ):  # fmt: skip
        count = len(asked)
        policies.decide(question(**changed))
        assert len(asked) > count, changed


def test_calls_that_differ_in_names_alone_are_asked_about_once(asked):
    """As from call to call and from tool to tool: what the arguments are called tells nothing."""
    policies = Policies.load()
    first = policies.decide(question(untrusted_args=("to",), rows=3))
    count = len(asked)
    for other in (
        {"untrusted_args": ("a", "b")}, {"resource": "mail.send"}, {"tenant": "b"}, {"agent": "b"},
        {"principal": "b"}, {"depth": 2}, {"rows": 999}, {"tables": ("b",)}, {"method": "PUT"},
        {"findings": ("personal/iban",), "severity": 3}, {"recipients": 9}, {"removals": 19},
        {"untrusted_args": ("é",)}, {"effect": Effect.IDEMPOTENT}, {"reversal": "irreversible"},
        {"run_confidentiality": Confidentiality.SECRET}, {"budget_left_calls": 7},
    ):  # fmt: skip
        ask = {"untrusted_args": ("to",), "rows": 3, **other}
        assert policies.decide(question(**ask)) == first
    assert len(asked) == count


def test_what_is_in_a_set_and_whether_anything_is_in_it_are_two_things():
    policies = Policies.from_text(
        f'{ANY} when {{ context.findings.contains("r-1") || context.findings.isEmpty() }};'
    )
    for _ in range(2):
        for findings, kind in (((), "allow"), (("x",), "deny"), (("x", "r-1"), "allow")):
            assert policies.decide(question(findings=findings)).kind == kind, findings


def test_a_tool_that_a_policy_names_is_told_from_all_others():
    policies = Policies.from_text(
        f'{ANY}; @id("own") forbid(principal, action == Action::"pay", resource);'
        '@id("at") forbid(principal, action in Action::"tool", resource == Tool::"lend");'
        '@id("of") forbid(principal, action in Action::"tool", resource)'
        ' when { resource == Tool::"sell" };'
    )
    for _ in range(2):
        for name, kind in (("a", "allow"), ("pay", "deny"), ("lend", "deny"), ("sell", "deny")):
            assert policies.decide(question(resource=name)).kind == kind, name


def test_who_is_asked_for_may_be_who_asks():
    """`principal in resource` compares two names of the question, and writes none."""
    policies = Policies.from_text(
        'permit(principal, action == Action::"spawn", resource) unless { principal in resource };'
    )
    for _ in range(2):
        assert policies.decide(question(action="spawn", agent="a", resource="b")).kind == "allow"
        assert policies.decide(question(action="spawn", agent="b", resource="b")).kind == "deny"
        assert policies.decide(question(action="spawn", agent="a", resource="a")).kind == "deny"


def test_every_fact_of_a_question_is_known_here():
    """One that is added and is not would be told apart by nothing."""
    names = {field.name for field in msgspec.structs.fields(Question)}
    assert names == {*telling.FACTS, "action", "args"}


@pytest.mark.parametrize(
    "bad",
    [
        {"calls_used": 2**63},
        {"cost_microusd": 2**64},
        {"calls_used": -(2**63) - 1},
        {"calls_used": 1.0},
        {"cost_microusd": True},
        {"run": {"__entity": {"type": "Run", "id": "r-1"}}},
        {"run": None},
        {"run": "\ud800"},
        {"rows": -1.0},
        {"rows": True},
        {"removals": 2**63},
        {"mutates": None},
        {"host": 1},
        {"method": "\ud800"},
        {"untrusted_args": ("\ud800",)},
        {"findings": (1,)},
        {"tables": ({"__entity": {"type": "Run", "id": "r-1"}},)},
        {"reversal": 1},
        {"resource": "\udfff"},
    ],
)
def test_what_cedar_does_not_take_is_a_deny_though_no_policy_reads_it_and_the_rest_is_known(bad):
    policies = Policies.from_text(ANY + ";")
    assert policies.decide(question()).kind == "allow"
    assert policies.decide(question(**bad)).reasons[0].rule == "ring0.undecided"


def test_a_fault_is_not_remembered(monkeypatch):
    policies = Policies.from_text(ANY + ";")
    with monkeypatch.context() as broken:
        broken.setattr(cedarpy, "is_authorized", lambda *_: 1 / 0)
        assert policies.decide(question()).kind == "deny"
    assert policies.decide(question()).kind == "allow"


def test_an_error_in_a_policy_is_not_remembered(asked):
    policies = Policies.from_text(f"{ANY} when {{ context.rows * 9223372036854775807 == 1 }};")
    for times in (1, 2):
        assert policies.decide(question(rows=2)).reasons[0].rule == "ring0.undecided"
        assert len(asked) == times


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("ring0.governance.policy.DECISIONS_KEPT_MAX", 3)
    policies = Policies.from_text(f"{ANY} when {{ context.rows * 2 > 3 }};")
    for rows in range(10):
        policies.decide(question(rows=rows))
    assert len(policies._decided) == 3


TEXT = st.sampled_from(["r-1", "r-2", ""])
SET = st.sampled_from([(), ("r-1",), ("r-2",), ("r-1", "r-2"), ("r-3",)])
SMALL = st.integers(0, 6)
FACTS = {
    **dict.fromkeys(("run", "tenant", "principal", "agent", "resource", "reversal"), TEXT),
    **dict.fromkeys(("host", "method", "forbidden"), TEXT),
    **dict.fromkeys(("calls_used", "cost_microusd", "rows", "recipients", "depth"), SMALL),
    **dict.fromkeys(("findings", "untrusted_args", "tables"), SET),
    **dict.fromkeys(("mutates", "own", "operator"), st.booleans()),
    "run_integrity": st.sampled_from(Integrity),
    "effect": st.sampled_from(Effect),
}
TEXTS = [text for texts in READERS.values() for text in texts] + NOT_READERS
FORBIDS = [text.replace("permit", "forbid", 1) for text in TEXTS]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(TEXTS + FORBIDS), min_size=1, max_size=4, unique=True),
    st.lists(st.fixed_dictionaries(FACTS), min_size=2, max_size=12),
)
def test_an_answer_is_the_same_whatever_was_asked_before(texts, asks):
    text = "\n".join(texts)
    known = Policies.from_text(text)
    for ask in asks:
        assert known.decide(question(**ask)) == Policies.from_text(text).decide(question(**ask))


COMPARED = st.builds(
    lambda fact, how, number, turned: (
        f"{number} {how} context.{fact}" if turned else f"context.{fact} {how} {number}"
    ),
    st.sampled_from(["rows", "recipients", "calls_used"]),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.integers(-1, 6),
    st.booleans(),
)
HELD = st.builds(
    lambda fact, text, more: f'context.{fact}.contains("{text}"){more}',
    st.sampled_from(["findings", "untrusted_args", "tables"]),
    TEXT,
    st.sampled_from(["", " || context.findings.isEmpty()", " && !context.tables.isEmpty()"]),
)
EQUAL = st.builds(
    lambda fact, how, text: f'context.{fact} {how} "{text}"',
    st.sampled_from(["host", "method", "forbidden"]),
    st.sampled_from(["==", "!="]),
    TEXT,
)
CONDITIONS = st.lists(st.one_of(COMPARED, HELD, EQUAL), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(CONDITIONS, min_size=1, max_size=3),
    st.lists(st.fixed_dictionaries(FACTS), min_size=4, max_size=24),
)
def test_no_two_questions_share_an_answer_that_a_policy_tells_apart(policies, asks):
    """Whatever is compared with whatever: what is taken for alike has one answer."""
    text = "\n".join(f"{ANY} when {{ {' && '.join(conditions)} }};" for conditions in policies)
    known, plain = Policies.from_text(text), Policies.from_text(text)
    for ask in asks:
        plain._decided.clear()
        assert known.decide(question(**ask)) == plain.decide(question(**ask))


def test_a_policy_whose_form_is_not_known_reads_everything():
    read = {fact for fact, how, _ in telling.uses_of({"new": [{"Var": "context"}]})}
    assert read == telling._OF_CONTEXT
    assert all(how == telling.WHOLE for _, how, _ in telling.uses_of({"x": {"Var": "context"}}))
    within = {"new": {"left": {"Var": "principal"}, "right": {"Var": "resource"}}}
    names = {fact for fact, _, _ in telling.uses_of(within)}
    assert names >= {"tenant", "principal", "agent", "run", "resource", "depth", "reversal"}
