"""What a server asks of a person, answered without one: `answers = "defaults"`, for tests.

Only what the server itself gives as defaults goes back to it. No person and no model is asked.
"""

from __future__ import annotations

from typing import Any

from mcp_types import ElicitRequestFormParams, ElicitResult


async def with_defaults(context: Any, params: Any) -> ElicitResult:
    """Agrees with the defaults of the form; declines where something is needed that has none."""
    if not isinstance(params, ElicitRequestFormParams):
        return ElicitResult(action="decline")
    asked = params.requested_schema
    properties = asked.get("properties", {})
    content = {
        name: field["default"]
        for name, field in properties.items()
        if isinstance(field, dict) and "default" in field
    }
    if any(name not in content for name in asked.get("required", ())):
        return ElicitResult(action="decline")
    return ElicitResult(action="accept", content=content)
