"""What the policy engine allows, asks and refuses, and that it fails closed."""

import msgspec
import pytest
from cedarpy import PolicySet
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_questions import ALLOW, ASK, DEFAULT, DENY, LIFT, decide, question, with_extra

from ring0.errors import PolicyInvalid
from ring0.governance import Policies, Question
from ring0.governance import policy as policy_module
from ring0.types import CallKind, Effect, Integrity

# --- the default set ---------------------------------------------------------------------------


def test_a_read_is_allowed():
    assert decide(mutates=False) == (ALLOW, ["read"])


def test_a_write_to_the_own_workspace_is_allowed():
    assert decide(mutates=False, own=True) == (ALLOW, ["own-workspace"])


_ASKED = ("tool", "ask", "memory.forget")


@pytest.mark.parametrize("kind", [kind for kind in CallKind if kind not in _ASKED])
def test_every_other_kind_of_call_is_allowed_by_a_rule_with_a_reason(kind):
    verdict = DEFAULT.decide(question(action=kind.value, resource="x", mutates=False))
    assert verdict.kind is ALLOW
    assert verdict.reasons[0].text.endswith(".")


def test_more_budget_is_for_a_person_to_give():
    verdict = DEFAULT.decide(question(action="ask", resource="", mutates=False))
    assert verdict.kind is ASK
    assert [reason.rule for reason in verdict.reasons] == ["more-budget"]


def test_what_is_forgotten_for_good_a_person_says_yes_to():
    verdict = DEFAULT.decide(question(action="memory.forget", resource="", mutates=False))
    assert verdict.kind is ASK
    assert [reason.rule for reason in verdict.reasons] == ["forget"]


def test_a_mutation_is_asked():
    assert decide() == (ASK, ["mutation"])


def test_critical_arguments_from_untrusted_data_alone_are_asked():
    assert decide(untrusted_args=("id",)) == (ASK, ["untrusted-target"])


def test_critical_arguments_from_nowhere_are_asked():
    assert decide(unfounded_args=("id",)) == (ASK, ["unfounded-target"])


def test_a_schema_change_is_refused():
    assert decide(changes_schema=True) == (DENY, ["schema-change"])
    assert decide(changes_schema=True, mutates=False) == (DENY, ["schema-change"])


def test_what_the_engine_calls_out_of_bounds_is_refused():
    assert decide(forbidden="ATTACH") == (DENY, ["out-of-bounds"])
    assert decide(forbidden="ATTACH", mutates=False) == (DENY, ["out-of-bounds"])


def test_untrusted_bulk_is_refused_above_a_thousand_rows_only():
    assert decide(rows=1001, untrusted_args=("id",)) == (DENY, ["untrusted-bulk"])
    assert decide(rows=1000, untrusted_args=("id",))[0] is ASK
    assert decide(rows=1001)[0] is ASK
    assert decide(rows=1001, untrusted_args=("id",), run_integrity=Integrity.USER)[0] is ASK


def test_an_operators_undo_is_allowed():
    assert decide(operator=True, rows=5000, untrusted_args=("id",)) == (ALLOW, ["operator-undo"])


def test_not_even_an_operator_gets_what_is_out_of_bounds():
    assert decide(operator=True, forbidden="ATTACH") == (DENY, ["out-of-bounds"])


def test_what_no_rule_permits_is_denied_and_says_so():
    empty = Policies.from_text("")
    verdict = empty.decide(question(mutates=False))
    assert (verdict.kind, verdict.reasons[0].text) == (DENY, "No rule permits it.")


# --- files of the user -------------------------------------------------------------------------


def test_a_file_can_lift_the_ask_for_a_named_tool(tmp_path):
    lifted = with_extra(tmp_path, LIFT)
    assert decide(lifted)[0] is ALLOW
    assert decide(lifted, tables=("customer",))[0] is ASK
    assert decide(lifted, resource="crm.execute")[0] is ASK


def test_a_lifted_ask_comes_back_where_the_target_is_only_untrusted(tmp_path):
    assert decide(with_extra(tmp_path, LIFT), untrusted_args=("id",)) == (ASK, ["untrusted-target"])


def test_a_file_cannot_lift_a_default_forbid(tmp_path):
    everything = with_extra(tmp_path, "permit(principal, action, resource);")
    assert decide(everything)[0] is ALLOW
    assert decide(everything, changes_schema=True) == (DENY, ["schema-change"])
    assert decide(everything, forbidden="ATTACH") == (DENY, ["out-of-bounds"])
    assert decide(everything, rows=1001, untrusted_args=("x",)) == (DENY, ["untrusted-bulk"])


def test_a_file_can_forbid_more_and_its_reason_is_given(tmp_path):
    text = '@id("no-crm") @reason("The CRM is closed.") '
    text += 'forbid(principal in Tenant::"acme", action, resource == Tool::"crm.query");'
    closed = with_extra(tmp_path, text)
    verdict = closed.decide(question(resource="crm.query", mutates=False))
    assert verdict.kind is DENY
    assert [reason.text for reason in verdict.reasons] == ["The CRM is closed."]
    assert decide(closed, resource="crm.query", mutates=False, tenant="other")[0] is ALLOW


def test_a_file_can_ask_for_a_read(tmp_path):
    text = '@id("ask-hr") forbid(principal, action, resource == Tool::"hr.query") '
    asked = with_extra(tmp_path, text + "unless { context.approved };")
    assert decide(asked, resource="hr.query", mutates=False) == (ASK, ["ask-hr"])


def test_a_policy_sees_the_run_and_the_tool(tmp_path):
    text = (
        'permit(principal in Agent::"clerk", action in Action::"tool", resource) '
        'when { resource.effect == Effect::"idempotent" && principal.depth == 0 '
        '&& principal.integrity == Integrity::"user" && resource.reversal == "reversible" };'
    )
    lifted = with_extra(tmp_path, text)
    fits = {"effect": Effect.IDEMPOTENT, "run_integrity": Integrity.USER}
    assert decide(lifted, **fits)[0] is ALLOW
    assert decide(lifted, **fits, agent="other")[0] is ASK
    assert decide(lifted, **fits, depth=1)[0] is ASK
    assert decide(lifted, run_integrity=Integrity.USER)[0] is ASK
    assert decide(lifted, effect=Effect.IDEMPOTENT)[0] is ASK


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("// one\n\npermit(principal, action, resource", 3, "end of input"),
        (
            "permit(principal,action,resource);\npermit(principal,action,resource) when {nope};",
            2,
            "",
        ),
        ("permit(principal,action,resource)\nwhen {context.rowz > 1};", 1, "rowz"),
        ('\nforbid(principal,action == Action::"toool",resource);', 2, "toool"),
        ("permit(principal,action,resource) when {context.rows == true};", 1, "Long"),
        ('permit(principal,action,resource == Tol::"x");', 1, "Tol"),
        ('permit(principal,action,resource) when {principal.integrity == Integrity::"x"};', 1, "x"),
        ("permit(principal == ?principal,action,resource);", 1, "template"),
        ('@id("mutation")permit(principal,action,resource);', 1, "default.cedar:"),
        ('@id("ring0.no-permit")permit(principal,action,resource);', 1, "kernel"),
        ("\ufeffpermit(principal,action,resource);", 1, "byte order mark"),
    ],
)
def test_a_policy_that_does_not_fit_is_an_error_with_file_and_line(tmp_path, text, line, says):
    with pytest.raises(PolicyInvalid) as caught:
        with_extra(tmp_path, text)
    assert f"extra0.cedar:{line}: " in caught.value.what
    assert says in str(caught.value)
    assert caught.value.todo


def test_a_missing_or_binary_policy_file_is_an_error(tmp_path):
    with pytest.raises(PolicyInvalid, match="cannot be read"):
        Policies.load([tmp_path / "none.cedar"])
    (tmp_path / "binary.cedar").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyInvalid, match="UTF-8"):
        Policies.load([tmp_path / "binary.cedar"])


@pytest.mark.parametrize(
    "deep",
    [
        "(" * 9000 + "true" + ")" * 9000,
        "[" * 9000 + "]" * 9000,
        "if true then " * 9000,
        "{a:" * 9000,
    ],
)
def test_a_deeply_nested_policy_is_an_error_and_not_the_end_of_the_process(deep):
    with pytest.raises(PolicyInvalid, match="nested too deep"):
        Policies.from_text("permit(principal,action,resource) when {" + deep + "};")


def test_semicolons_and_slashes_in_strings_and_comments_split_nothing(tmp_path):
    odd = with_extra(
        tmp_path,
        '// a; "b\n@id("x;//y") @reason("a \\" b;") permit(principal,action,resource);// ;',
    )
    assert "x;//y" in decide(odd)[1]


# --- replay and explain ------------------------------------------------------------------------


def test_an_old_decision_is_replayed_to_the_same_verdict(tmp_path):
    then = with_extra(tmp_path, LIFT)
    stored = msgspec.json.encode(question())
    again = Policies.from_text(then.text)
    assert again.digest == then.digest
    asked = msgspec.json.decode(stored, type=Question)
    assert again.decide(asked) == then.decide(question())
    assert DEFAULT.digest != then.digest


def test_a_set_made_for_another_schema_is_refused():
    head, _, rest = DEFAULT.text.partition("\n")
    with pytest.raises(PolicyInvalid, match="another version"):
        Policies.from_text(head[:-1] + ("0" if head[-1] != "0" else "1") + "\n" + rest)


def test_explain_gives_the_full_text_of_what_decided():
    explained = DEFAULT.explain(question(forbidden="ATTACH", changes_schema=True))
    assert explained.verdict.kind is DENY
    assert [p.rule for p in explained.policies] == ["schema-change", "out-of-bounds"]
    assert all(p.text.startswith(f'@id("{p.rule}")') for p in explained.policies)
    assert explained.context["forbidden"] == "ATTACH"


# --- what must always hold ---------------------------------------------------------------------

# fmt: off
_pieces = st.sampled_from([
    "permit(principal,action,resource);",
    'permit(principal,action in Action::"tool",resource)', "when {context.approved};",
    'unless {context.forbidden != ""};', ";", "//", "\n", '"', "\\", '@id("schema-change")',
    '@id("zz")', "forbid(principal,action,resource)", "when {", "}", "(",
    "context.rows + 9223372036854775807 > 0", "true", "/*", "*/", "@reason(", "\r", "\u2028",
    'resource == Tool::"ledger.execute"',
])
# fmt: on
_extra = st.one_of(st.text(max_size=60), st.lists(_pieces, max_size=8).map("".join))
_forbidden = st.sampled_from(
    [
        {"changes_schema": True},
        {"forbidden": "ATTACH"},
        {"rows": 1001, "untrusted_args": ("id",)},
        {"changes_schema": True, "operator": True},
    ]
)


@settings(max_examples=150, deadline=None)
@given(_extra, _forbidden)
def test_no_extra_text_turns_a_default_forbid_into_allow_or_ask(tmp_path_factory, text, changes):
    path = tmp_path_factory.mktemp("policy") / "extra.cedar"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        policies = Policies.load([path])
    except PolicyInvalid:
        return
    assert policies.decide(question(**changes)).kind is DENY


_policy = st.builds(
    lambda effect, action, resource, when: f"{effect}(principal,{action},{resource}){when};",
    st.sampled_from(["permit", "forbid"]),
    st.sampled_from(
        [
            "action",
            'action in Action::"tool"',
            'action in [Action::"now",Action::"wait"]',
            'action in Action::"model"',
        ]
    ),
    st.sampled_from(
        [
            "resource",
            'resource == Tool::"a"',
            'resource == Tool::"b"',
            "resource is Tool",
            'resource == Kernel::"kernel"',
            'resource in Tool::"a"',
        ]
    ),
    st.sampled_from(
        [
            "",
            "when {context.approved}",
            "when {context.rows > 1}",
            "unless {context.own}",
            "when {context.rows + 9223372036854775807 > 0}",
        ]
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(_policy, max_size=6),
    st.sampled_from(["tool", "now", "model"]),
    st.sampled_from(["a", "b", "kernel"]),
    st.integers(-1, 3),
    st.booleans(),
)
def test_a_slice_by_scope_decides_as_the_whole_set_does(texts, action, resource, rows, own):
    try:
        policies = Policies.from_text("\n".join(texts))
    except PolicyInvalid:
        return
    asked = question(action=action, resource=resource, rows=rows, own=own)
    sliced = policies.decide(asked)
    policies._slices = _Whole(policies)
    policies._decided.clear()
    assert policies.decide(asked) == sliced


class _Whole(dict):
    """Slices that leave nothing out."""

    def __init__(self, policies):
        self.policies = policies

    def get(self, key):
        return policy_module._Slice(key, self.policies._statements)


def test_cedar_reads_as_many_policies_as_ring0_does():
    assert len(PolicySet.from_str(DEFAULT.text)) == len(DEFAULT._statements)
