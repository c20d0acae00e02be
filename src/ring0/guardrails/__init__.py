"""Guardrails: what is in a value and where it came from. They may only raise a label or a risk.

Not the gate: whether a call may run is governance's to say.
"""

from ring0.guardrails.origins import Seen, leaves
from ring0.guardrails.redact import Secrets

__all__ = ["Secrets", "Seen", "leaves"]
