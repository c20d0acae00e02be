"""What guardrails' scanners find in what an MCP server says of its tools: orders to a model, and
hidden text, also where it is encoded. Evidence for whoever approves; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ring0.guardrails.scanners import Budget, Rules, Severity, scan
from ring0.tools.mcp.scan import Look

_RULES: Final = Rules(secrets=False, personal=False, profanity=False, links=False)


def looking() -> Look:
    """Looks at all texts of one server, within one budget."""
    budget = Budget()

    def look(text: str) -> Iterator[tuple[str, str, bool]]:
        for each in scan(text, budget=budget, rules=_RULES).findings:
            how = f", read as {', '.join(each.view)}" if each.view else ""
            yield f"{each.rule}{how}", each.shown, each.severity >= Severity.MEDIUM

    return look
