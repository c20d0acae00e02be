"""Questions to a policy, and short ways to ask them, for the tests in this folder."""

from ring0.governance import Policies, Question
from ring0.types import Effect, Integrity, VerdictKind

ALLOW, ASK, DENY = VerdictKind.ALLOW, VerdictKind.ASK, VerdictKind.DENY
DEFAULT = Policies.load()
LIFT = """permit(principal, action in Action::"tool", resource == Tool::"ledger.execute")
when { context.tables.contains("ledger") };"""


def question(**changes) -> Question:
    """A harmless mutation of one ledger row by an agent."""
    fields = {
        "tenant": "acme",
        "principal": "alice",
        "agent": "clerk",
        "run": "r-1",
        "action": "tool",
        "resource": "ledger.execute",
        "effect": Effect.ONCE,
        "reversal": "reversible",
        "mutates": True,
        "own": False,
        "changes_schema": False,
        "forbidden": "",
        "rows": 1,
        "tables": ("ledger",),
        "run_integrity": Integrity.UNTRUSTED,
        "untrusted_args": (),
        "unfounded_args": (),
        "operator": False,
        "depth": 0,
        "calls_used": 0,
        "cost_microusd": 0,
    }
    return Question(**(fields | changes))


def decide(policies=DEFAULT, **changes):
    verdict = policies.decide(question(**changes))
    return verdict.kind, [reason.rule for reason in verdict.reasons]


def with_extra(tmp_path, *texts) -> Policies:
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"extra{number}.cedar")
        paths[-1].write_text(text)
    return Policies.load(paths)
