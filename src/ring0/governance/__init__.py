"""Governance: whether a call may run, by where values came from, who acts and what the effect is.

Not for looking at content: that is guardrails, which may only raise a label or a risk.
"""

from ring0.governance.approvals import bound_to, check
from ring0.governance.arguments import reserved_key
from ring0.governance.policy import Explanation, Policies, PolicyText
from ring0.governance.questions import Arguments, Question

__all__ = [
    "Arguments",
    "Explanation",
    "Policies",
    "PolicyText",
    "Question",
    "bound_to",
    "check",
    "reserved_key",
]
