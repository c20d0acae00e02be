"""AGT (agent-os-kernel, the engine of agent-governance-toolkit): one decision of PolicyEvaluator.

As its documentation has it: a PolicyDocument of rules, each with one condition, `evaluate` on a
context. The rules are those of bench/policy.py in its terms. Prints one JSON object. Run by
`ring0 bench policy` with the Python of `.venv-rivals`.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import sys
import time

from agent_os.policies.evaluator import PolicyEvaluator
from agent_os.policies.schema import (
    PolicyAction,
    PolicyCondition,
    PolicyDefaults,
    PolicyDocument,
    PolicyOperator,
    PolicyRule,
)

WARM = 50


def rules(installed: int, about_rows: int, tool: str) -> list[PolicyRule]:
    """The one that lets the call through comes last: a forbid before it counts more."""
    found = []
    for number in range(installed - 1):
        if number < about_rows - 1:
            condition = PolicyCondition(
                field="rows", operator=PolicyOperator.GT, value=1_000_000 + number
            )
        else:
            condition = PolicyCondition(
                field="tool_name", operator=PolicyOperator.EQ, value=f"other.t{number}"
            )
        found.append(
            PolicyRule(name=f"r{number}", condition=condition, action=PolicyAction.DENY, priority=1)
        )
    own = PolicyCondition(field="tool_name", operator=PolicyOperator.EQ, value=tool)
    return [*found, PolicyRule(name="own", condition=own, action=PolicyAction.ALLOW)]


def main(installed: int, about_rows: int, decisions: int, tool: str) -> dict[str, object]:
    document = PolicyDocument(
        name="bench",
        rules=rules(installed, about_rows, tool),
        defaults=PolicyDefaults(action=PolicyAction.DENY),
    )
    evaluator = PolicyEvaluator(policies=[document])
    wall: list[float] = []
    cpus: list[float] = []
    for number in range(decisions + WARM):
        begun, cpu = time.perf_counter(), time.thread_time()
        decision = evaluator.evaluate(
            {
                "tool_name": tool,
                "agent_id": "clerk",
                "rows": number + 1,
                "mutates": True,
                "args": {"to": "ann", "amount": 12.5},
            }
        )
        cpus.append(time.thread_time() - cpu)
        wall.append(time.perf_counter() - begun)
        assert decision.allowed and decision.matched_rule == "own"
    return {"wall_s": wall[WARM:], "cpu_s": cpus[WARM:]}


if __name__ == "__main__":
    installed, about_rows, decisions = (int(word) for word in sys.argv[1:4])
    print(json.dumps(main(installed, about_rows, decisions, sys.argv[4])))
