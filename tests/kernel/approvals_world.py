"""What the tests of approvals share: people, policies that ask, and tools that are asked about."""

from __future__ import annotations

from typing import Any

from kernel_world import Doing, World

from ring0.types import Effect, Integrity, Label, Operator, Role

ALICE = Operator(name="alice")
"""Whom the world's run acts for, by her uid."""
ADA = Operator(name="ada@example.com (https://login.example.com)", login="oidc")
BOB = Operator(name="bob@example.com (https://login.example.com)", login="oidc")
EVE = Operator(name="eve@example.com (https://login.example.com)", login="oidc")
CAROL = Operator(name="carol (uid 7)")
VIEWER = Operator(name="vic (uid 8)", roles=frozenset({Role.VIEWER}))
UNTRUSTED = Label(integrity=Integrity.UNTRUSTED)

TWO_PEOPLE = """
@id("two")
@reason("Money: two people.")
@approvers("2")
forbid (principal, action in Action::"tool", resource == Tool::"pay")
unless { context.approved };
"""
SOMEBODY_ELSE = """
@id("else")
@reason("Somebody else than whom it acts for.")
@approvers("1")
@expires("1 h")
forbid (principal, action in Action::"tool", resource == Tool::"pay")
unless { context.approved };
"""
NO_EVIL = """
@id("no-evil")
@reason("Nothing goes to evil.")
forbid (principal, action in Action::"tool", resource)
when { context.tables.contains("evil") };
"""
PAY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "maxLength": 40},
        "amount": {"type": "integer", "minimum": 1},
        "note": {"type": "string"},
        "any": {},
    },
    "required": ["to", "amount"],
}
PAY = {"to": "mallory", "amount": 5}


def payer(w: World, **more: Any) -> Doing:
    """A tool that changes the world once; it can be taken back, so a yes in advance is possible."""
    fields: dict[str, Any] = {
        "effect": Effect.ONCE,
        "mutates": True,
        "own": False,
        "schema": PAY_SCHEMA,
        "critical": ("to",),
        "reversal": "reversible",
        **more,
    }
    tool: Doing = w.tool(Doing("pay", **fields))
    return tool
