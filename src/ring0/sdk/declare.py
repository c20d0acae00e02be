"""`@agent` and `@tool`: what an author says of a function, as the manifests that the kernel reads.

The function stays what it was; its declaration hangs on it and is read by `load.collect`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, overload

import msgspec

from ring0 import errors, limits
from ring0.sdk.budget import parse_budget
from ring0.sdk.parameters import Parameters, parameters_of
from ring0.sdk.values import plain
from ring0.tools.labelling import Words, with_words
from ring0.tools.touching import why_not
from ring0.types import AgentManifest, Budget, Confidentiality, Effect, ModelConfig, ToolManifest

F = TypeVar("F", bound=Callable[..., Any])
EffectName = Literal["once", "idempotent", "pure"]
ConfidentialityName = Literal["public", "private", "secret"]

_TOOL_MARK: Final = "__ring0_tool__"
_AGENT_MARK: Final = "__ring0_agent__"
_TOOL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_AGENT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_REVERSAL: Final = re.compile(r"irreversible|reversible|compensable:[A-Za-z][A-Za-z0-9_.]{0,63}")


@dataclass(frozen=True)
class ToolDeclaration:
    """A `@tool` function with its manifest."""

    manifest: ToolManifest
    function: Callable[..., Any]
    parameters: Parameters


@dataclass(frozen=True)
class AgentDeclaration:
    """An `@agent` function with its manifest; `entry`, `code` and `folder` are set by `collect`."""

    manifest: AgentManifest
    function: Callable[..., Any]
    tools: tuple[ToolDeclaration, ...]
    model: str
    """The model that `ctx.model` and `ctx.loop` ask for where the call names none."""
    takes_task: bool


def tool_of(value: object) -> ToolDeclaration | None:
    """The declaration of a `@tool` function; None for anything else."""
    found = getattr(value, "__dict__", {}).get(_TOOL_MARK)
    return found if isinstance(found, ToolDeclaration) else None


def agent_of(value: object) -> AgentDeclaration | None:
    """The declaration of an `@agent` function; None for anything else."""
    found = getattr(value, "__dict__", {}).get(_AGENT_MARK)
    return found if isinstance(found, AgentDeclaration) else None


def way_back(manifest: ToolManifest) -> str:
    """The name of the tool that takes a call of this one back; empty where none does."""
    return manifest.reversal.partition(":")[2]


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    effect: EffectName = ...,
    reversal: str = ...,
    critical: Sequence[str] = ...,
    egress: Sequence[str] = ...,
    secrets: Sequence[str] = ...,
    wall_s: int = ...,
    polls: bool = ...,
    locks: Sequence[str] = ...,
    recipients: Sequence[str] = ...,
    content: Sequence[str] = ...,
    removes: bool = ...,
    confidentiality: ConfidentialityName = ...,
    fields: Mapping[str, str] | None = ...,
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    effect: EffectName = "once",
    reversal: str = "irreversible",
    critical: Sequence[str] = (),
    egress: Sequence[str] = (),
    secrets: Sequence[str] = (),
    wall_s: int = limits.TOOL_WALL_S_DEFAULT,
    polls: bool = False,
    locks: Sequence[str] = (),
    recipients: Sequence[str] = (),
    content: Sequence[str] = (),
    removes: bool = False,
    confidentiality: ConfidentialityName = "public",
    fields: Mapping[str, str] | None = None,
) -> F | Callable[[F], F]:
    """Declares a function, async or plain, as a tool that the kernel carries out in a sandbox.

    Its name is the function's, its description the docstring, its schema comes from the type
    hints (a first parameter `ctx` aside). What isn't said is the worst: it acts once and can't
    be taken back. polls: it is meant to be asked the same again and again, as of a job's state: the
    loop stop leaves it to a cap. locks: what a call touches, by its arguments, as in
    `["ticket:{id}"]`: it waits while another run has locked that, and no other call that touches it
    goes on beside it. recipients, content: arguments that say where something goes, and what.
    removes: it takes away what `critical` names. confidentiality, fields: of what it returns
    (`{"**.note": "untrusted private"}`); where an agent.toml counts, only what makes a label worse.
    Raises `ManifestInvalid` where the declaration contradicts itself.
    """

    def declare(inner: F) -> F:
        name = _function_name(inner, _TOOL_NAME, "tool")
        _check_tool(name, effect, reversal, wall_s)
        parameters = parameters_of(inner)
        manifest = ToolManifest(
            name=name,
            description=inspect.getdoc(inner) or "",
            schema=parameters.schema,
            effect=Effect(effect),
            reversal=reversal,
            critical=_names(critical, name, "critical"),
            egress=_names(egress, name, "egress"),
            secrets=_names(secrets, name, "secrets"),
            wall_s=wall_s,
            polls=bool(polls),
            locks=_names(locks, name, "locks"),
        )
        manifest = _labelled(
            manifest, recipients, content, removes, confidentiality, dict(fields or {})
        )
        _check_critical(manifest)
        for why in filter(None, (why_not(one, manifest.schema) for one in manifest.locks)):
            raise _invalid(name, f"locks: {why}", 'write locks=["ticket:{id}"], after an argument'
                           " that every call has")  # fmt: skip
        if manifest.polls and manifest.effect is Effect.ONCE:
            raise _invalid(name, "a tool that polls acts more than once",
                           "drop polls, or say effect='pure' or 'idempotent'")  # fmt: skip
        if manifest.effect is Effect.PURE and (manifest.egress or manifest.secrets):
            raise _invalid(name, "a pure tool has neither network nor secrets",
                           "drop egress and secrets, or say effect='idempotent'")  # fmt: skip
        setattr(inner, _TOOL_MARK, ToolDeclaration(manifest, inner, parameters))
        return inner

    return declare if function is None else declare(function)


@overload
def agent(function: F, /) -> F: ...
@overload
def agent(
    *,
    name: str | None = ...,
    model: str = ...,
    models: Mapping[str, ModelConfig | Mapping[str, Any]] = ...,
    tools: Sequence[Callable[..., Any]] = ...,
    builtins: Mapping[str, Mapping[str, Any]] = ...,
    budget: str | Budget = ...,
    priority: int = ...,
    agents: Sequence[Callable[..., Any] | str] = ...,
    imports: Sequence[str] = ...,
    code: Sequence[str] = ...,
) -> Callable[[F], F]: ...
def agent(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    model: str = "default",
    models: Mapping[str, ModelConfig | Mapping[str, Any]] | None = None,
    tools: Sequence[Callable[..., Any]] = (),
    builtins: Mapping[str, Mapping[str, Any]] | None = None,
    budget: str | Budget = Budget(),  # noqa: B008  (frozen)
    priority: int = limits.PRIORITY_DEFAULT,
    agents: Sequence[Callable[..., Any] | str] = (),
    imports: Sequence[str] = (),
    code: Sequence[str] = (),
) -> F | Callable[[F], F]:
    """Declares a function `(ctx)` or `(ctx, task)`, async or plain, as an agent.

    tools: `@tool` functions. builtins: built-in tools by instance, as in
    `{"crm": {"use": "sql", "database": "x.db"}}`. priority: 0 goes first, 9 last.
    agents: agents that it may spawn. imports: files copied into each run's workspace.
    code: files of its code that its import doesn't load.
    Raises `ManifestInvalid` or `AgentInvalid`.
    """

    def declare(inner: F) -> F:
        called = name if name is not None else _function_name(inner, _AGENT_NAME, "agent")
        if not isinstance(called, str) or not _AGENT_NAME.fullmatch(called):
            raise _invalid(repr(called), "it is not a name", "use letters, digits, _ and -")
        declared = _tools(tools, called)
        manifest = AgentManifest(
            name=called,
            code=_paths(code, called, "code"),
            tools=_builtins(builtins or {}, called),
            functions=tuple(one.manifest for one in declared),
            models=_models(models or {}, model, called),
            agents=_agents(agents, called),
            imports=_paths(imports, called, "imports"),
            budget=budget if isinstance(budget, Budget) else parse_budget(budget),
            priority=_priority(priority, called),
        )
        declaration = AgentDeclaration(manifest, inner, declared, model, _takes_task(inner, called))
        setattr(inner, _AGENT_MARK, declaration)
        return inner

    return declare if function is None else declare(function)


# --- checks ----------------------------------------------------------------------------------


def _function_name(function: object, form: re.Pattern[str], kind: str) -> str:
    name = getattr(function, "__name__", "")
    if not callable(function) or not inspect.isroutine(function) or not form.fullmatch(name):
        raise _invalid(name or repr(function), f"only a named function can be a {kind}",
                       "write `def` or `async def`, named in letters, digits and _")  # fmt: skip
    return str(name)


def _check_tool(name: str, effect: str, reversal: str, wall_s: int) -> None:
    effects = [one.value for one in Effect]
    if effect not in effects:
        raise _invalid(name, f"effect={effect!r}", f"say one of {', '.join(effects)}")
    if not isinstance(reversal, str) or not _REVERSAL.fullmatch(reversal):
        raise _invalid(name, f"reversal={reversal!r}",
                       "say irreversible, reversible or compensable:NAME_OF_A_TOOL")  # fmt: skip
    if isinstance(wall_s, bool) or not isinstance(wall_s, int) or wall_s < 1:
        raise _invalid(name, f"wall_s={wall_s!r}", "say whole seconds, at least 1")


def _priority(given: object, owner: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise _invalid(owner, f"priority={given!r}", "say a whole number")
    if not 0 <= given <= limits.PRIORITY_LAST:
        raise _invalid(owner, f"priority={given}", f"say 0 (first) to {limits.PRIORITY_LAST}")
    return given


def _labelled(
    manifest: ToolManifest,
    recipients: Sequence[str],
    content: Sequence[str],
    removes: bool,
    confidentiality: str,
    fields: Mapping[str, str],
) -> ToolManifest:
    name = manifest.name
    known = [one.value for one in Confidentiality]
    if confidentiality not in known:
        raise _invalid(
            name, f"confidentiality={confidentiality!r}", f"say one of {', '.join(known)}"
        )
    for path, word in fields.items():
        if not isinstance(path, str) or not isinstance(word, str):
            raise _invalid(name, "fields is not from texts to texts", 'write {"**.id": "private"}')
    said = Words(
        recipients=_names(recipients, name, "recipients"),
        content=_names(content, name, "content"),
        removes=bool(removes),
        confidentiality=Confidentiality(confidentiality),
        fields=dict(fields),
    )
    return with_words(f"@tool {name}:", manifest, said)


def _check_critical(manifest: ToolManifest) -> None:
    for argument in manifest.critical:
        if argument not in manifest.schema.get("properties", {}):
            raise _invalid(manifest.name, f"critical names {argument!r}, which it doesn't take",
                           "name parameters of the function")  # fmt: skip


def _names(given: Sequence[str], owner: str, field: str) -> tuple[str, ...]:
    """A list of texts. A lone text would count as a list of letters, so it is refused."""
    if isinstance(given, str) or not all(isinstance(one, str) and one for one in given):
        raise _invalid(owner, f"{field}={given!r} is not a list of texts",
                       f"write {field}=[…]")  # fmt: skip
    return tuple(given)


def _paths(given: Sequence[str], owner: str, field: str) -> tuple[str, ...]:
    for path in (names := _names(given, owner, field)):
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise _invalid(owner, f"{field} names {path!r}, which is outside of its folder",
                           "give paths beside the agent's file, without '..'")  # fmt: skip
    return names


def _tools(given: Sequence[Callable[..., Any]], owner: str) -> tuple[ToolDeclaration, ...]:
    declared: dict[str, ToolDeclaration] = {}
    for one in given if not isinstance(given, str) else (given,):
        found = tool_of(one)
        if found is None:
            raise errors.AgentInvalid(
                f"The agent {owner} can't have {getattr(one, '__name__', one)!r} among its tools.",
                why="it is not a @tool function",
                todo="decorate it with @tool; a built-in tool goes into builtins={…}",
            )
        if found.manifest.name in declared:
            raise errors.AgentInvalid(
                f"The agent {owner} has two tools called {found.manifest.name}.",
                todo="rename one of the functions",
            )
        declared[found.manifest.name] = found
    return tuple(declared.values())


def _builtins(given: Mapping[str, Mapping[str, Any]], owner: str) -> dict[str, dict[str, Any]]:
    for instance, configuration in given.items():
        named = isinstance(instance, str) and _TOOL_NAME.fullmatch(instance)
        uses = isinstance(configuration, Mapping) and isinstance(configuration.get("use"), str)
        if not named or not uses:
            raise _invalid(owner, f"builtins has {instance!r}: {configuration!r}",
                           'write {"crm": {"use": "sql", "database": "x.db"}}')  # fmt: skip
    built: dict[str, dict[str, Any]] = plain(
        {instance: dict(one) for instance, one in given.items()}, f"builtins of {owner}"
    )
    return built


def _models(
    given: Mapping[str, ModelConfig | Mapping[str, Any]], default: str, owner: str
) -> dict[str, ModelConfig]:
    if not isinstance(default, str) or not default:
        raise _invalid(owner, f"model={default!r}", "name the model that it asks for")
    if given and default not in given:
        raise _invalid(owner, f"model={default!r} is not among its models",
                       f"use one of {', '.join(given)}")  # fmt: skip
    try:
        return {
            name: one if isinstance(one, ModelConfig) else msgspec.convert(dict(one), ModelConfig)
            for name, one in given.items()
        }
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise _invalid(owner, f"models: {error}", "see ModelConfig in ring0/types.py") from None


def _agents(given: Sequence[Callable[..., Any] | str], owner: str) -> tuple[str, ...]:
    names = []
    for one in given if not isinstance(given, str) else (None,):
        found = agent_of(one)
        if found is None and not isinstance(one, str):
            raise errors.AgentInvalid(
                f"The agent {owner} can't have {one!r} among its agents.",
                why="it is neither an @agent function nor the name of one",
                todo="decorate it with @agent",
            )
        names.append(found.manifest.name if found else str(one))
    return tuple(dict.fromkeys(names))


def _takes_task(function: Callable[..., Any], owner: str) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = list(inspect.signature(function).parameters.values())
    placed = [one for one in found if one.kind in kinds]
    needed = [one for one in found if one.default is one.empty]
    if not placed or len(needed) > 2 or any(one not in placed[:2] for one in needed):
        raise errors.AgentInvalid(
            f"The agent {owner} can't be started.",
            why=f"its function takes {', '.join(one.name for one in found) or 'nothing'}",
            todo="write it as `async def name(ctx: Context, task: str)` or `(ctx: Context)`",
        )
    return len(placed) > 1


def _invalid(owner: str, why: str, todo: str) -> errors.ManifestInvalid:
    return errors.ManifestInvalid(f"The declaration of {owner} is invalid.", why=why, todo=todo)
