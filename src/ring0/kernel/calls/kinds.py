"""The kernel's own drivers: one for every kind of call that is not a tool. Those of memory are in
kernel/memory/."""

from __future__ import annotations

from typing import Any

import msgspec

from ring0 import limits
from ring0.errors import LimitReached
from ring0.identity import narrowing
from ring0.kernel.calls.models import Model
from ring0.kernel.calls.ports import Ports
from ring0.kernel.calls.proposals import Observed, Proposal
from ring0.kernel.calls.waits import Sleep, Wait
from ring0.runtime import Runtime
from ring0.tools.deriving import Derive
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.registry import Tool
from ring0.types import CallKind, Effect, Integrity, Label, ToolManifest

_SYSTEM = Label(integrity=Integrity.SYSTEM)


def _schema(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


class _Kind:
    """What most of them have in common: nothing to prepare."""

    manifest: ToolManifest

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))


class Now(_Kind):
    """`now`: microseconds since 1970."""

    manifest = ToolManifest(
        name="now", description="The time.", schema=_schema({}), effect=Effect.PURE
    )

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        return Result(value=self._runtime.now_us(), label=_SYSTEM)


class Random(_Kind):
    """`random`: a number from 0 to 1, 53 bits of it random."""

    manifest = ToolManifest(
        name="random", description="A random number.", schema=_schema({}), effect=Effect.PURE
    )

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        number = int.from_bytes(self._runtime.random_bytes(7), "big") >> 3
        return Result(value=number / 2**53, label=_SYSTEM)


class Spawn(_Kind):
    """`spawn`: a child run; its budget is moved from its parent's."""

    manifest = ToolManifest(
        name="spawn",
        description="Start a child run.",
        effect=Effect.IDEMPOTENT,
        schema=_schema(
            {
                "task": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": limits.TASK_SIZE_BYTES_MAX,
                }
            },
            {
                "only": {
                    "type": "array",
                    "items": {"type": "string", "maxLength": limits.GRANT_CHARS_MAX},
                    "maxItems": limits.GRANT_PATTERNS_MAX,
                },
            },
        ),
    )

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        if context.run.budget.depth < 1:
            raise LimitReached(
                f"The tree is {context.run.depth} deep already.",
                why="Children of children have an end.",
                todo="Do it in this run.",
            )
        narrowing.exactly(args.get("only", ()))  # What can't be read is refused, not left out.
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        child = await self._ports.spawn(
            context.run, context.name, args["task"], context.call, args.get("only")
        )
        return Result(value={"run": child}, label=_SYSTEM)


def kinds(runtime: Runtime, ports: Ports) -> dict[CallKind, Tool]:
    """The table from kind to driver; `tool` is not in it: those are each run's own."""
    return {
        CallKind.NOW: Tool(Now(runtime)),
        CallKind.RANDOM: Tool(Random(runtime)),
        CallKind.SLEEP: Tool(Sleep(ports.sleep)),
        CallKind.DERIVE: Tool(Derive("derive")),
        CallKind.MODEL: Tool(Model(ports)),
        CallKind.PROPOSAL: Tool(Proposal()),
        CallKind.OBSERVED: Tool(Observed()),
        CallKind.SPAWN: Tool(Spawn(ports)),
        CallKind.WAIT: Tool(Wait(ports.wait, ports.receive)),
    }


__all__ = ["Ports", "kinds"]
