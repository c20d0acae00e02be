"""What an agent's code may say of the agent: it is what is to be kept in, so little of it counts.

Not here: how its file is read in a sandbox (processes.py), what agent.toml says (manifests.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from ring0.errors import ManifestInvalid
from ring0.models.base import ANY_MODEL
from ring0.tools.labelling import Words, with_words, without_praise
from ring0.types import AgentManifest, Effect, Grant, Integrity, ToolManifest

CODE_MAY_SAY: Final = {
    "files": frozenset({"use"}),
    "derive": frozenset({"use"}),
    "sql": frozenset({"use", "database"}),
    "python": frozenset({"use", "timeout_s"}),
    "shell": frozenset({"use", "timeout_s"}),
}
"""What an agent's code may set of a built-in tool where no agent.toml speaks for it."""


def merged(manifest: AgentManifest, declared: AgentManifest) -> AgentManifest:
    """A manifest with what its code declares.

    An agent.toml says all that the agent may ask for: its code adds nothing to that but its own
    functions, which run in sandboxes. Without one (`manifest.name` is empty) the decorator is the
    manifest, within bounds that code can't move: see `_within_its_folder`.
    """
    # The code tells its paths from the entry's own folder; a manifest, from its own.
    beneath = Path(manifest.entry.partition(":")[0]).parent
    code = manifest.code or tuple(str(beneath / path) for path in declared.code)
    entry = manifest.entry if ":" in manifest.entry else str(beneath / declared.entry)
    functions = tuple(
        msgspec.structs.replace(
            function,
            output=Integrity.UNTRUSTED,
            fields=without_praise(function.fields),
            unattended=False,
            settings=(),
        )
        for function in declared.functions
    )
    _granted(functions, manifest.grants)
    functions = tuple(_as_said(function, manifest.grants) for function in functions)
    if manifest.name:
        return msgspec.structs.replace(manifest, code=code, entry=entry, functions=functions)
    _within_its_folder(declared, Path(manifest.folder).resolve())
    return msgspec.structs.replace(
        declared,
        code=code,
        entry=entry,
        functions=functions,
        folder=manifest.folder,
        sandbox=manifest.sandbox,
    )


def _granted(functions: tuple[ToolManifest, ...], grants: Mapping[str, Grant]) -> None:
    """A function reaches out only where the operator says so too. Raises ManifestInvalid.

    The SDK refuses the same; but it runs beside the agent's code, which could say anything.
    """
    if unknown := sorted(set(grants) - {function.name for function in functions}):
        raise ManifestInvalid(
            f"agent.toml has [functions.{unknown[0][:80]}], and no `@tool` has that name.",
            why=f"There are: {', '.join(function.name for function in functions) or 'none'}.",
            todo="Correct its name, or take it out.",
        )
    for function in functions:
        if not function.name.isidentifier():
            raise ManifestInvalid(
                f"{function.name[:80]!r} is no name for a function.",
                why="With a dot it would take the place of a built-in tool's operation.",
                todo="Use letters, digits and _.",
            )
        if function.effect is Effect.PURE and (function.egress or function.secrets):
            raise ManifestInvalid(
                f"{function.name} is called pure, and it has egress or secrets.",
                why="A pure call is never asked about: a lie about it has to be harmless.",
                todo="Take them out, or say effect='idempotent' or 'once'.",
            )
        grant = grants.get(function.name, Grant())
        for key in ("egress", "secrets"):
            asked, given = getattr(function, key), getattr(grant, key)
            if beyond := [wish for wish in asked if wish not in given]:
                raise ManifestInvalid(
                    f"The agent's code gives {function.name} the {key} {beyond[0][:200]!r}.",
                    why="What leaves a sandbox is the operator's word, not the code's.",
                    todo=f"Write in agent.toml, under [functions.{function.name}]:"
                    f" {key} = {list(asked)}.",
                )


def _as_said(function: ToolManifest, grants: Mapping[str, Grant]) -> ToolManifest:
    """The function with the operator's words about its labels. Raises ManifestInvalid."""
    grant = grants.get(function.name)
    if grant is None:
        return function
    said = Words(**{key: getattr(grant, key) for key in Words.__struct_fields__})
    return with_words(f"agent.toml [functions.{function.name}]", function, said)


def _within_its_folder(declared: AgentManifest, folder: Path) -> None:
    """What code may say of itself without an agent.toml. Raises ManifestInvalid."""
    for name, model in declared.models.items():
        if model.base_url:
            raise ManifestInvalid(
                f"The agent's code sends the model {name!r} to {model.base_url[:200]!r}.",
                why="The operator's key would go there.",
                todo=f"Write an agent.toml with [models.{name}]: that is the operator's word.",
            )
        if model.model == ANY_MODEL:
            raise ManifestInvalid(
                f"The agent's code lets the model {name!r} be any model.",
                why="Which models the operator's key pays for is the operator's word.",
                todo=f"Write an agent.toml with [models.{name}], or name one model.",
            )
        if model.key:
            raise ManifestInvalid(
                f"The agent's code gives the model {name!r} the secret {model.key[:60]!r}.",
                why="Which secrets go where is the operator's word.",
                todo=f"Write an agent.toml with [models.{name}] and its key.",
            )
    for instance, config in declared.tools.items():
        database = config.get("database")
        if isinstance(database, str):
            inside = (folder / database).resolve().is_relative_to(folder)
            if not inside:
                raise ManifestInvalid(
                    f"The agent's code names the database {database[:200]!r}.",
                    why="Code that speaks for itself reaches only files beside it.",
                    todo=f"Write an agent.toml with [tools.{instance}], the operator's word.",
                )
        may = CODE_MAY_SAY.get(str(config.get("use")), frozenset())
        if beyond := sorted(set(config) - may):
            raise ManifestInvalid(
                f"The agent's code sets {beyond[0][:80]!r} of the tool {instance!r}.",
                why="What reaches out, runs programs or vouches for text is the operator's word.",
                todo=f"Write an agent.toml with [tools.{instance}].",
            )
