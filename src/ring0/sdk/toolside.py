"""The other side of a `@tool` function: its context and its one run, in a sandbox of its own.

A tool has no door: it gets arguments and gives a value. Its network and secrets are its manifest's.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from ring0 import errors, limits
from ring0.runtime import Runtime
from ring0.sdk import values
from ring0.sdk.declare import ToolDeclaration
from ring0.sdk.runner import exception_line, folder_of, place_of


class ToolContext:
    """What a running tool knows: which call it carries out. `call_id` is the idempotency key."""

    def __init__(self, call_id: str, fences: Mapping[str, int] | None = None) -> None:
        self.call_id: Final = call_id
        self.fences: Final = dict(fences or {})
        """Of the locks that the run took, by resource. A system that keeps the highest it has seen
        of a resource, and refuses what comes with a lower one, refuses whoever lost its lock."""

    def log(self, text: object) -> None:
        """A line for whoever looks at the call's output."""
        print(text, file=sys.stderr, flush=True)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise errors.CallInvalid(
            f"A tool can't use ctx.{name}.",
            why="a tool has no door to the kernel: only ctx.call_id, ctx.fences and ctx.log",
            todo="do it in the agent, and give the tool what it needs as an argument",
        )


async def run_tool(
    declared: ToolDeclaration,
    args: object,
    call_id: str,
    fences: Mapping[str, int] | None = None,
    runtime: Runtime | None = None,
) -> Any:
    """The plain value of one run of a tool. `runtime`: others share this process, and a plain
    function must not hold them up.

    Raises `CallInvalid` for arguments that don't fit, `ToolFailed` for everything that goes wrong
    inside, whatever its class: a tool must not be able to speak as the kernel.
    """
    name = declared.manifest.name
    given = declared.parameters.convert(args, name)
    first = (ToolContext(call_id, fences),) if declared.parameters.takes_context else ()
    try:
        bound = functools.partial(declared.function, *first, **given)
        if runtime is None or inspect.iscoroutinefunction(declared.function):
            value = bound()
        else:
            value = await runtime.in_thread(bound)
        value = await value if inspect.isawaitable(value) else value
        built = values.plain(value, f"The result of {name}")
        values.encode(built, limits.RESULT_SIZE_BYTES_MAX, f"The result of {name}")
        return built
    except (Exception, SystemExit) as error:
        why, todo = place_of(error.__traceback__, folder_of(declared.function)), ""
        if isinstance(error, errors.Ring0Error):
            why, todo = error.why, error.todo
        line = error.what if isinstance(error, errors.Ring0Error) else exception_line(error)
        raise errors.ToolFailed(line, why=why, todo=todo) from error
