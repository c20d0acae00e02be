"""The drivers of `sleep` and `wait`: what a run does while it does nothing.

A wait is begun once, on record, and may be put away and made again any number of times: what it
waits for stands as rows. So it is pure, whatever it waits for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import Effect, Integrity, Label, ToolManifest

_RUN: Final = {"type": "string"}


class Sleep:
    """`sleep`: until a time that is fixed when the call is first made."""

    manifest = ToolManifest(
        name="sleep",
        description="Wait.",
        effect=Effect.PURE,
        schema={
            "type": "object",
            "properties": {
                "seconds": {"type": "number", "minimum": 0, "maximum": limits.SLEEP_S_MAX}
            },
            "required": ["seconds"],
            "additionalProperties": False,
        },
    )

    def __init__(self, sleep: Callable[[CallContext, int], Awaitable[None]]) -> None:
        """`sleep(context, until_us)`."""
        self._sleep = sleep

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        await self._sleep(context, context.begun_us + int(args["seconds"] * 1_000_000))
        return Result(value=None, label=Label(integrity=Integrity.SYSTEM))


class Wait:
    """`wait`: for one child's result; for several children, for all or for the first of them,
    `cancel`: the others (or, without `first`, all) are ended; or for a message."""

    manifest = ToolManifest(
        name="wait",
        description="Wait for child runs, or for a message.",
        effect=Effect.PURE,
        schema={
            "type": "object",
            "properties": {
                "run": _RUN,
                "runs": {
                    "type": "array",
                    "items": _RUN,
                    "minItems": 1,
                    "maxItems": limits.RUN_CHILDREN_MAX,
                    "uniqueItems": True,
                },
                "first": {"type": "boolean"},
                "cancel": {"type": "boolean"},
                "message": {"const": True},
                "timeout_s": {"type": "number", "minimum": 0, "maximum": limits.SLEEP_S_MAX},
            },
            "additionalProperties": False,
        },
    )
    _GOES_WITH: Final = {
        "run": frozenset[str](),
        "runs": frozenset({"first", "cancel"}),
        "message": frozenset({"timeout_s"}),
    }

    def __init__(
        self,
        children: Callable[[CallContext, dict[str, Any]], Awaitable[Result]],
        receive: Callable[[CallContext, float | None], Awaitable[Result]],
    ) -> None:
        self._children = children
        self._receive = receive

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        named = [what for what in self._GOES_WITH if what in args]
        if len(named) != 1 or set(args) - {named[0]} - self._GOES_WITH[named[0]]:
            raise CallInvalid(
                "A `wait` waits for one thing.",
                why=f"This one names {', '.join(sorted(args)) or 'nothing'}.",
                todo="Give `run`; or `runs`, with `first` and `cancel`; or `message`, with"
                " `timeout_s`.",
            )
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        if "message" in args:
            return await self._receive(context, args.get("timeout_s"))
        return await self._children(context, args)
