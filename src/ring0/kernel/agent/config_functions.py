"""[functions.NAME] of agent.toml: what the operator says of one `@tool` function of the code.

What the words mean: docs/guardrails.md; how they come to count: declared.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ring0.errors import ManifestInvalid
from ring0.types import Confidentiality


class FunctionTable(msgspec.Struct, forbid_unknown_fields=True):
    """One function."""

    egress: list[str] = []
    secrets: list[str] = []
    critical: list[str] = []
    recipients: list[str] = []
    content: list[str] = []
    settings: list[str] = []
    removes: bool = False
    unattended: bool = False
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    fields: dict[str, str] = {}


def check(place: object, tables: object) -> None:
    """Raises ManifestInvalid, which names the function: msgspec names no key of a table."""
    for name, table in tables.items() if isinstance(tables, Mapping) else ():
        try:
            msgspec.convert(table, FunctionTable)
        except msgspec.ValidationError as error:
            raise ManifestInvalid(
                f"{place}: [functions.{str(name)[:80]}] is not of the right form: {error}.",
                why="It has to fit exactly.",
                todo=f"It has: {', '.join(FunctionTable.__struct_fields__)}.",
            ) from None
