"""A call that is taken back by another call: `reversal = "compensable:TOOL"`.

What TOOL is called with is named by the original's arguments, then by the fields of its result.
Not here: when that is done (undoing.py), and what else can be taken back (planning.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0.errors import ManifestInvalid, Ring0Error
from ring0.kernel.steps import recording
from ring0.store import Store
from ring0.tools.driver import CallContext, Driver, Prepared, Result
from ring0.tools.functions import EmbeddedFunction, Function
from ring0.tools.mcp.tools import McpTool
from ring0.tools.registry import Tool
from ring0.types import COMPENSABLE, Call, Effect, ToolManifest, UndoStep

if TYPE_CHECKING:
    from ring0.kernel.undo.planning import ToolsOf

_CUT: Final = frozenset({"cut", "size_bytes", "why"})
"""A result that was too large is on record as its beginning: it has no fields."""


# --- when an agent starts ----------------------------------------------------------------------


def check(tools: Iterable[Tool]) -> None:
    """Every way back that a manifest names is one, as far as that can be told before it is
    needed. Raises ManifestInvalid."""
    named = {tool.manifest.name: tool for tool in tools}
    for tool in named.values():
        way, _, other = tool.manifest.reversal.partition(":")
        if way == COMPENSABLE:
            if (why := _why_not(tool, named.get(other), other, sorted(named))) is not None:
                raise ManifestInvalid(
                    f"{tool.manifest.name} says that {other[:80]!r} takes it back, and it can't.",
                    why=why,
                    todo=f"Correct the `reversal` of {tool.manifest.name}, or that tool.",
                )
        elif _is_told_by_author(tool) and tool.manifest.reversal != "irreversible":
            raise ManifestInvalid(
                f"{tool.manifest.name} says reversal = {tool.manifest.reversal[:80]!r}.",
                why="ring0 sees nothing of what it changes, so there is nothing to put back.",
                todo='Say "compensable:TOOL" with the tool that takes it back, or "irreversible".',
            )


def _is_told_by_author(tool: Tool) -> bool:
    """Its driver keeps nothing that could be put back; what is said of it is somebody's word."""
    driver = tool.driver
    if isinstance(driver, McpTool):
        return not driver.contained
    return isinstance(driver, Function | EmbeddedFunction)


def _why_not(tool: Tool, other: Tool | None, name: str, there: list[str]) -> str | None:
    if other is None:
        return f"It is no tool of this agent. There are: {', '.join(there)}."
    if other is tool:
        return "A call of it would have to be taken back by another call of it."
    if Effect.PURE in (tool.manifest.effect, other.manifest.effect):
        return "What is pure changes nothing: it takes nothing back, and there is nothing to."
    mine, others = _properties(tool.manifest), _properties(other.manifest)
    for argument, schema in others.items():
        if argument in mine and _differ(mine[argument], schema):
            return (
                f"Its {argument} is {schema['type']}, and that of {tool.manifest.name} is"
                f" {mine[argument]['type']}."
            )
    fields = getattr(tool.driver, "result_fields", None)
    for argument in other.manifest.schema.get("required", ()):
        if argument not in mine and fields is not None and argument not in fields:
            return (
                f"It needs {argument}, which is no argument of {tool.manifest.name} and no field"
                " of its results."
            )
    return None


def _properties(manifest: ToolManifest) -> Mapping[str, Any]:
    found = manifest.schema.get("properties", {})
    return found if isinstance(found, dict) else {}


def _differ(one: Any, other: Any) -> bool:
    """Both say one type, and no value has both."""
    types = {schema.get("type") for schema in (one, other) if isinstance(schema, dict)}
    return len(types) == 2 and all(isinstance(t, str) for t in types) and types != _NUMBERS


_NUMBERS: Final = {"integer", "number"}


# --- before anything is taken back ---------------------------------------------------------------


async def step(store: Store, call: Call, name: str, tools: ToolsOf, *, told: bool) -> UndoStep:
    """How the tool `name` takes the call back, or why it can't.

    `told`: the call's outcome is what its tool returned, and not what a person said of it.
    """
    found = UndoStep(call=call.id, name=call.name, how="call", tool=name)
    try:
        tool = (await tools()).get(name)
        if tool is None:
            return _refused(found, f"It is taken back by {name}, and there is no such tool here.")
        given = msgspec.json.decode(await store.blob(call.args))
        value = (await recording.load(store, call)).value if told and call.outcome else None
        args, from_result, missing = _named(tool.manifest, given, value)
        found = msgspec.structs.replace(found, args=args, from_result=from_result)
        if missing:
            return _refused(
                found,
                f"{name} needs {', '.join(missing)}: the call had no such argument, and its result"
                " no such field.",
            )
        tool.validate(args)
    except Ring0Error as error:
        return _refused(found, f"{error.what} {error.why}".strip())
    return found


def _refused(found: UndoStep, why: str) -> UndoStep:
    return msgspec.structs.replace(found, refused=why)


def _named(
    tool: ToolManifest, given: Mapping[str, Any], value: Any
) -> tuple[dict[str, Any], tuple[str, ...], list[str]]:
    """The arguments by name, which of them the result gave, and those that nothing gives."""
    fields = value if isinstance(value, dict) and value.keys() != _CUT else {}
    required = tool.schema.get("required", ())
    args = {}
    from_result = []
    for argument in _properties(tool):
        if argument in given:  # First: a result can't change what the call was asked to do.
            args[argument] = given[argument]
        # Nor add what is not needed: whoever answered could say to whom, or how much.
        elif argument in fields and argument in required:
            args[argument] = fields[argument]
            from_result.append(argument)
    missing = [name for name in required if name not in args]
    return args, tuple(from_result), missing


# --- doing it ----------------------------------------------------------------------------------


class Compensation:
    """A tool in the run of an undo: each call of it takes one call back, once."""

    def __init__(self, driver: Driver, takes_back: Callable[[str], str]) -> None:
        """`driver`: made for this run alone. `takes_back`: the call that a step takes back."""
        # Whatever its author says: what was cut off is looked at, and never done a second time.
        self.manifest = msgspec.structs.replace(
            driver.manifest, effect=Effect.ONCE, reversal="irreversible"
        )
        driver.manifest = self.manifest
        self._driver = driver
        self._takes_back = takes_back

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        call = self._takes_back(context.call)
        prepared = await self._driver.prepare(args, context)
        lines = (f"take back {call}", *prepared.lines)
        return msgspec.structs.replace(
            prepared, undoes=call, effect="", reversal="irreversible", lines=lines
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        result = await self._driver.execute(args, prepared, context)
        result.undoes = prepared.undoes
        result.undo = b""
        return result

    async def close(self) -> None:
        close = getattr(self._driver, "close", None)
        if close is not None:
            await close()
