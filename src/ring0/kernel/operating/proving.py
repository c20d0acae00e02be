"""A set of policies is held against files of cases: by `ring0 policy test`, and by a reload before
it takes the set up, against those that ring0.toml names.

Not here: what a case is (governance/cases.py), how a case that failed is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ring0.errors import CallInvalid, ManifestInvalid, PolicyInvalid
from ring0.governance import Policies, cases
from ring0.kernel.agent import manifests, offered
from ring0.kernel.agent.known import Schemas
from ring0.kernel.agent.manifests import Config
from ring0.runtime import Runtime
from ring0.tools.driver import Driver
from ring0.tools.registry import Tool
from ring0.types import Effect, ToolManifest


async def prove(home: Path, config: Config, policies: Policies, runtime: Runtime) -> None:
    """Every case of `policy_tests` comes out as it says. Raises PolicyInvalid, ManifestInvalid."""
    for name in config.policy_tests:
        path = home / name
        found = cases.read(path)
        schemas: Schemas = {}
        if found.manifest:
            agent = manifests.read_agent(path.parent / found.manifest)
            schemas = offered.schemas(await offered.tools_of(agent, (), runtime, home))
        for failed in failures(path, found, policies, schemas):
            raise PolicyInvalid(
                f"{path}: the case {failed.case!r} comes out otherwise: wanted {failed.want},"
                f" got {failed.got}.",
                why=" ".join(reason.text for reason in failed.verdict.reasons),
                todo="Correct the policy, or the case; `ring0 policy test` shows all of them."
                " What was taken up before still holds.",
            )


def failures(
    path: Path, found: cases.Cases, policies: Policies, schemas: Schemas
) -> list[cases.Failed]:
    """The cases of a file that come out otherwise; `schemas`: of its manifest's tools. Raises
    PolicyInvalid where a case, a schema or the policies don't fit the tools."""
    whole = {**schemas, **found.tools}
    tools = {name: _tool(path, name, schema) for name, schema in whole.items()}
    policies.check_tools(whole)

    def misfit(name: str, args: dict[str, Any]) -> str:
        try:
            tools[name].validate(args)
        except CallInvalid as error:
            return f"{error.what} {error.why}"
        return ""

    try:
        ran = [cases.run(case, policies, whole, misfit) for case in found.case]
    except PolicyInvalid as error:
        raise PolicyInvalid(f"{path}: {error.what}", why=error.why, todo=error.todo) from None
    return [failed for failed in ran if failed is not None]


class _Supposed:
    """Stands where a tool's driver is: of a supposed call only the arguments are looked at."""

    def __init__(self, manifest: ToolManifest) -> None:
        self.manifest = manifest


def _tool(path: Path, name: str, schema: Mapping[str, Any]) -> Tool:
    """What looks at a call's arguments at the gate. Raises PolicyInvalid."""
    manifest = ToolManifest(name=name, description="", schema=dict(schema), effect=Effect.ONCE)
    try:
        return Tool(cast("Driver", _Supposed(manifest)))
    except ManifestInvalid as error:
        raise PolicyInvalid(
            f"{path}: what it says of the tool {name[:80]!r} is no JSON Schema.",
            why=error.what,
            todo="Mend it, or name the agent's `manifest`.",
        ) from None


__all__ = ["failures", "prove"]
