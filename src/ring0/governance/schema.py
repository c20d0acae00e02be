"""The schema that policies are held against: what the package says, and an action for each tool.

Validates and parses; decides nothing.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from typing import Any, Final

import cedarpy
from cedarpy import Schema

from ring0 import limits
from ring0.errors import PolicyInvalid
from ring0.governance.arguments import quoted, shape_of, type_of
from ring0.governance.statements import BASE_ACTIONS, TOOLS, Statement, action_of

_CALL: Final = re.compile(r"^type Call = \{\n(.*?)^\};$", re.DOTALL | re.MULTILINE)
_MISSPELT: Final = 0.85
"""From so alike on, of 1 (difflib's ratio), one name is taken for a misspelt other."""
_TODO: Final = "`ring0 policy schema --manifest agent.toml` prints all that can be spoken about."


@functools.cache
def packaged(name: str) -> str:
    """A file of this package."""
    return resources.files("ring0.governance").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def text() -> str:
    """The schema without any tool."""
    return packaged("schema.cedarschema")


@functools.cache
def digest() -> str:
    """Of all that decides what Cedar is given beside the facts."""
    return hashlib.sha256(text().encode()).hexdigest()


@functools.lru_cache(maxsize=limits.POLICY_SCHEMAS_KEPT_MAX)
def of_action(action: str, args: str) -> Schema:
    """For a request with this action: a kind of call, or a tool's own with that type of arguments
    (empty: no policy looks at them)."""
    if action in BASE_ACTIONS:
        return _base()
    return Schema.from_str(f"{text()}\n{_action(action, args)}")


@functools.cache
def _base() -> Schema:
    return Schema.from_str(text())


def _action(action: str, args: str) -> str:
    """A tool's own action, as Cedar's schema has it."""
    (facts,) = _CALL.findall(text())
    arguments = f"  // The arguments of this tool.\n  args: {args},\n" if args else ""
    return (
        f'action {quoted(action)} in [Action::"{TOOLS}"] appliesTo {{\n'
        f"principal: Run, resource: Tool, context: {{\n{facts}{arguments}}} }};\n"
    )


def tool_text(tool: str, json_schema: Mapping[str, Any]) -> str:
    """A tool's own action, for a person to read, and for other tools of Cedar's."""
    return _action(action_of(tool), type_of(shape_of(json_schema)))


def _check_names(statement: Statement) -> None:
    """A misspelt kind of call would else be taken for a tool that nobody has."""
    for name in statement.tools:
        if like := get_close_matches(name.casefold(), BASE_ACTIONS, n=1, cutoff=_MISSPELT):
            raise PolicyInvalid(
                f"{statement.file}:{statement.line}: there is no action {name[:80]!r}, but"
                f" {like[0]!r}.",
                why="Taken for a tool of that name, it would hold for no call.",
                todo=f"Correct it. A tool that is called so: `resource == Tool::{quoted(name)}`.",
            )


# --- held against it ---------------------------------------------------------------------------


def check(parsed: Sequence[Statement]) -> None:
    """Every @id is there once, and each statement that names no tool fits. Raises PolicyInvalid."""
    seen: dict[str, Statement] = {}
    for statement in parsed:
        if first := seen.get(statement.rule):
            raise PolicyInvalid(
                f"{statement.file}:{statement.line}: @id({statement.rule!r}) is taken.",
                why=f"{first.file}:{first.line} has it already.",
                todo="Choose another @id: a verdict names the rule by it.",
            )
        seen[statement.rule] = statement
        _check_names(statement)
    _fit([s for s in parsed if not s.tools], _base())


def check_tools(parsed: Sequence[Statement], tools: Mapping[str, Mapping[str, Any]]) -> None:
    """Every statement that names one of these tools fits its JSON Schema. Raises PolicyInvalid."""
    actions = {action_of(name): name for name in tools}
    _check_letters(parsed, actions, tools)
    concerned = [s for s in parsed if set(s.tools) & actions.keys()]
    if not concerned:
        return
    named = {name for s in concerned for name in s.tools}
    added = [
        _action(name, type_of(shape_of(tools[actions[name]])))
        if name in actions
        else f"action {quoted(name)};"
        for name in sorted(named)
    ]
    try:
        whole = Schema.from_str("\n".join([text(), *added]))
    except ValueError as error:
        raise PolicyInvalid(
            "A tool's arguments can't be told to policies.",
            why=str(error)[:600],
            todo="Take the statements that name it out, or mend the tool's schema.",
        ) from None
    _fit(concerned, whole)


def _check_letters(
    parsed: Sequence[Statement], actions: Collection[str], tools: Collection[str]
) -> None:
    """A tool whose name differs from one that is there only in case, in blanks, in `_`, `-`, `.`
    is misspelt, be it as an action or as a resource."""
    of_actions = {_bare(action): action for action in actions}
    of_tools = {_bare(tool): tool for tool in tools}
    for where in parsed:
        named = [(name, actions, of_actions) for name in where.tools]
        named += [(name, tools, of_tools) for name in where.of_tools]
        for name, known, like in named:
            if name not in known and (tool := like.get(_bare(name))):
                raise PolicyInvalid(
                    f"{where.file}:{where.line}: there is no tool {name[:80]!r}, but {tool!r}.",
                    why="A rule for a tool that is not there holds for no call.",
                    todo="Write the tool's name exactly as it is.",
                )


def unknown(parsed: Sequence[Statement], tools: Sequence[str]) -> list[str]:
    """What to warn of: statements that name a tool which is none of these, and what is like it."""
    actions = [action_of(name) for name in tools]
    found = []
    for statement in parsed:
        absent = [(name, actions) for name in statement.tools if name not in actions]
        absent += [
            (name, list(tools))
            for name in statement.of_tools
            if name not in tools and name not in statement.tools
        ]
        for name, known in absent:
            like = get_close_matches(name, [*known, *sorted(BASE_ACTIONS)], n=1, cutoff=0.7)
            hint = f" Did you mean {like[0]!r}?" if like else ""
            found.append(
                f"{statement.file}:{statement.line}: {statement.rule} names the tool {name[:80]!r},"
                f" which no agent that is known here has: it holds for no call.{hint}"
            )
    return found


def _bare(name: str) -> str:
    return re.sub(r"[\s._-]", "", name).casefold()


def _fit(parsed: Sequence[Statement], schema: Schema) -> None:
    whole = cedarpy.validate_policies("\n".join(s.text for s in parsed), schema)
    if whole.validation_passed and not whole.errors:
        return
    for statement in parsed:
        result = cedarpy.validate_policies(statement.text, schema)
        if result.validation_passed and not result.errors:
            continue
        raise PolicyInvalid(
            f"{statement.file}:{statement.line}: {statement.rule} does not fit the schema.",
            why="; ".join(e.error.removeprefix("for policy `policy0`").lstrip(":, ")
                          for e in result.errors),
            todo=f"Use the actions, attributes and values that it names. {_TODO}",
        )  # fmt: skip
    raise PolicyInvalid("The policies do not fit the schema.",
                        why="; ".join(e.error for e in whole.errors))  # fmt: skip
