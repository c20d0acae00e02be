"""Imports an agent's file and collects what it declares. Runs the author's code: sandboxed only,
or in embedded mode, which says that it is not contained.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import msgspec

from ring0 import errors
from ring0.sdk.declare import AgentDeclaration, ToolDeclaration, agent_of, tool_of, way_back
from ring0.sdk.runner import exception_line, place_of
from ring0.types import AgentManifest, ToolManifest

_RING0: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


@dataclass(frozen=True)
class Declared:
    """What a file declares, by manifest name. `entry`, `code` and `folder` of agents are set."""

    file: str
    agents: dict[str, AgentManifest]
    tools: dict[str, ToolManifest]
    agent_functions: dict[str, Callable[..., Any]]
    tool_declarations: dict[str, ToolDeclaration]

    def agent(self, name: str) -> Callable[..., Any]:
        """The agent of that name (its own or its function's); the only one if `name` is empty."""
        if not name and len(self.agents) == 1:
            return next(iter(self.agent_functions.values()))
        for manifest in self.agents.values():
            if name and name in (manifest.name, manifest.entry.rpartition(":")[2]):
                return self.agent_functions[manifest.name]
        here = ", ".join(one.entry.rpartition(":")[2] for one in self.agents.values())
        if not self.agents:
            what, todo = "holds no agent", "decorate a function with @agent"
        elif not name:
            what, todo = "holds several agents and none was named", f"name one of {here}"
        else:
            what, todo = f"holds no agent called {name!r}", f"name one of {here}"
        raise errors.AgentInvalid(f"{os.path.basename(self.file)} {what}.", todo=todo)

    def tool(self, name: str) -> ToolDeclaration:
        if name not in self.tool_declarations:
            raise errors.AgentInvalid(
                f"{os.path.basename(self.file)} holds no tool called {name!r}.",
                todo=f"name one of {', '.join(self.tools) or 'none: decorate one with @tool'}",
            )
        return self.tool_declarations[name]


def load_file(file: str) -> Declared:
    """Imports `file`, its folder first on `sys.path`, and collects. Raises `AgentInvalid`."""
    path = os.path.abspath(file)
    if not os.path.isfile(path):
        raise errors.AgentInvalid(
            f"{file} is not a file.", todo="give the path of the agent's Python file"
        )
    return collect(_import(path), path)


def _import(path: str) -> ModuleType:
    folder = os.path.dirname(path)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    stem = os.path.splitext(os.path.basename(path))[0]
    # Its own name, so that files beside it can import it; but never another module's.
    taken = stem in sys.modules or stem in sys.stdlib_module_names or not stem.isidentifier()
    name = f"ring0_agent_{stem}" if taken else stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise errors.AgentInvalid(
            f"{os.path.basename(path)} is not a Python file.", todo="give a file that ends in .py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        del sys.modules[name]
        raise
    except BaseException as error:
        del sys.modules[name]
        place = place_of(error.__traceback__, folder)
        if isinstance(error, SyntaxError) and error.filename:
            place = f"{os.path.basename(error.filename)}, line {error.lineno}"
        if isinstance(error, errors.Ring0Error):  # It has said all, in three parts: once is enough.
            raise errors.AgentInvalid(
                f"{os.path.basename(path)} does not import: {error.what}",
                why=": ".join(part for part in (place, error.why) if part),
                todo=error.todo,
            ) from None
        raise errors.AgentInvalid(
            f"{os.path.basename(path)} does not import: {exception_line(error)}",
            why=place,
            todo="mend the line, or add what it imports to the agent's environment",
        ) from error
    return module


def collect(module: ModuleType, path: str) -> Declared:
    """What `module` declares, in order of definition. Raises `AgentInvalid` for a name used twice,
    and for a name (an agent to spawn, a compensation) that the file doesn't hold."""
    agents: dict[str, AgentManifest] = {}
    functions: dict[str, Callable[..., Any]] = {}
    tools: dict[str, ToolDeclaration] = {}
    found: list[AgentDeclaration] = []
    code = _code_of(os.path.dirname(path))
    for attribute, value in list(vars(module).items()):
        declared_tool, declared_agent = tool_of(value), agent_of(value)
        if declared_tool is not None:
            _add_tool(tools, declared_tool)
        if declared_agent is None or declared_agent in found:
            continue
        name = declared_agent.manifest.name
        if name in agents:
            raise errors.AgentInvalid(f"Two agents are called {name}.", todo="rename one")
        found.append(declared_agent)
        functions[name] = value
        agents[name] = msgspec.structs.replace(
            declared_agent.manifest,
            entry=f"{os.path.basename(path)}:{attribute}",
            code=tuple(sorted({*declared_agent.manifest.code, *code})),
            folder=os.path.dirname(path),
        )
    for one in found:
        for own in one.tools:
            _add_tool(tools, own)
    for one in found:
        manifest = agents[one.manifest.name]
        granted = tuple(own.manifest for own in with_ways_back(one.tools, tools))
        agents[one.manifest.name] = msgspec.structs.replace(manifest, functions=granted)
    manifests = {name: one.manifest for name, one in tools.items()}
    _check_names(agents, manifests)
    return Declared(path, agents, manifests, functions, tools)


def with_ways_back(
    own: Iterable[ToolDeclaration], there: Mapping[str, ToolDeclaration]
) -> tuple[ToolDeclaration, ...]:
    """An agent's tools, and those of `there` that take a call of one back: whoever may do it may
    also undo it. One that is not there is left out: who looks for it says so."""
    found = {one.manifest.name: one for one in own}
    waiting = list(found.values())
    while waiting:
        name = way_back(waiting.pop().manifest)
        if name in there and name not in found:
            found[name] = there[name]
            waiting.append(there[name])
    return tuple(found.values())


def _add_tool(tools: dict[str, ToolDeclaration], declared: ToolDeclaration) -> None:
    known = tools.setdefault(declared.manifest.name, declared)
    if known is not declared:
        raise errors.AgentInvalid(
            f"Two tools are called {declared.manifest.name}.", todo="rename one of the functions"
        )


def _check_names(agents: dict[str, AgentManifest], tools: dict[str, ToolManifest]) -> None:
    for agent in agents.values():
        for name in agent.agents:
            if name not in agents:
                raise errors.AgentInvalid(
                    f"The agent {agent.name} may spawn {name}, which the file does not hold.",
                    todo="import it into the file, or drop it from agents=[…]",
                )
    for tool in tools.values():
        name = way_back(tool)
        if name and "." not in name and name not in tools:
            raise errors.AgentInvalid(
                f"The tool {tool.name} is compensated by {name}, which the file does not hold.",
                todo=f"define {name} as a @tool in the file, or say another reversal",
            )


def _code_of(folder: str) -> tuple[str, ...]:
    """The files in `folder` that are imported now: what must be in the snapshot of its code."""
    found = set()
    for module in list(sys.modules.values()):
        file = os.path.abspath(getattr(module, "__file__", None) or os.sep)
        if file.startswith(folder + os.sep) and not file.startswith(_RING0):
            found.add(os.path.relpath(file, folder))
    # A virtual environment beside the agent is not its code.
    return tuple(sorted(one for one in found if "site-packages" not in one.split(os.sep)))
