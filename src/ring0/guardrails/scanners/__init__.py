"""Scanners: what is in a text, and in what is hidden or encoded in it. A finding raises a label or
a risk. Not the gate: an injected goal reads like any request.
"""

from ring0.guardrails.scanners.budget import Budget
from ring0.guardrails.scanners.findings import NOT_SCANNED, Confidence, Finding, Severity
from ring0.guardrails.scanners.scanning import Rules, Scan, scan

__all__ = [
    "NOT_SCANNED",
    "Budget",
    "Confidence",
    "Finding",
    "Rules",
    "Scan",
    "Severity",
    "scan",
]
