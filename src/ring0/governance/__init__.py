"""Governance: whether a call may run, by where values came from, who acts and what the effect is.

Not for looking at content: that is guardrails, which may only raise a label or a risk.
"""

from ring0.governance.approvals import bound_to, check
from ring0.governance.policy import Explanation, Policies, PolicyText, Question

__all__ = ["Explanation", "Policies", "PolicyText", "Question", "bound_to", "check"]
