"""`use = "agent"`: a tool of the agent's own process that its manifest tells the kernel of.

What models propose of it is judged like a call of a tool of the kernel's: by its effect, by where
its critical arguments came from. Nothing here carries it out, and so nothing takes it back: the
agent does the one, and a person sees that nobody does the other.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ring0.errors import ManifestInvalid
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import Effect, Integrity, Label, ToolManifest


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    use: str
    effect: Effect = Effect.ONCE
    critical: tuple[str, ...] = ()
    polls: bool = False
    description: str = ""
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object"})


class AgentSide:
    """One such tool."""

    def __init__(self, instance: str, config: dict[str, Any]) -> None:
        """Raises ManifestInvalid."""
        try:
            table = msgspec.convert(config, _Table)
        except msgspec.ValidationError as error:
            raise ManifestInvalid(
                f"[tools.{instance}] is not of the right form: {error}.",
                todo="It has: use, effect, critical, polls, description, schema; and recipients,"
                " content, removes.",
            ) from None
        _check_critical(instance, table)
        self.manifest = ToolManifest(
            name=instance,
            description=table.description or f"{instance}, in the agent's own process.",
            schema=table.schema,
            effect=table.effect,
            critical=table.critical,
            polls=table.polls,
            where="agent",
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        mutates = self.manifest.effect is not Effect.PURE
        return Prepared(
            driver_bytes=msgspec.json.encode(args, order="sorted"),
            mutates=mutates,
            own=False,
            effect=Effect.PURE,  # To judge it again changes nothing.
            uncounted=True,
            title=f"the agent itself would carry out {self.manifest.name}" if mutates else "",
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        """The arguments as they may go to the agent."""
        return Result(value={"args": args}, label=Label(integrity=Integrity.SYSTEM), remember="")


def _check_critical(instance: str, table: _Table) -> None:
    """A name that is mistyped would leave the argument unjudged. Raises ManifestInvalid."""
    known: Any = table.schema.get("properties")
    for argument in table.critical if isinstance(known, dict) else ():
        if argument not in known:
            raise ManifestInvalid(
                f"[tools.{instance}] calls {argument[:80]!r} critical, and its schema has no such"
                " argument.",
                todo="Correct the name.",
            )
