"""Which tools an agent has, found out without a kernel: to hold policies against them beforehand.

Nothing of it can be called: there is no way out, and no secret.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from msgspec.structs import replace

from ring0.errors import ManifestInvalid
from ring0.kernel.agent import agents, declared, processes, vouching
from ring0.kernel.agent.agents import Family
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.tools import registry
from ring0.tools.egress import Credential, Egress
from ring0.tools.mcp import bare_name
from ring0.tools.reach import Outlet
from ring0.tools.registry import Means, Tool
from ring0.tools.sandbox import Sandbox
from ring0.types import AgentManifest, ToolManifest


class _Nowhere:
    """Stands where the kernel's ways out are; whatever asks for one learns that there is none."""

    @property
    def egress(self) -> Egress:
        _no_way_out()

    def of(self, _names: tuple[str, ...], _place: str) -> list[Credential]:
        return []

    def refusal(self, *_: Any) -> NoReturn:
        raise AssertionError("nothing is sent")

    def seen_by(self, _agent: str) -> _Nowhere:
        return self

    async def __call__(self, sandbox: Sandbox, rules: tuple[str, ...]) -> Outlet:
        _no_way_out()


def _no_way_out() -> NoReturn:
    raise ManifestInvalid("Tools are only looked at here.", todo="`ring0 run` starts the agent.")


async def tools_of(
    manifest: AgentManifest, around: tuple[str, ...], runtime: Runtime, home: Path
) -> list[ToolManifest]:
    """The manifests of all its tools. Its code, where it has `@tool` functions, is imported in a
    sandbox. `around`: files that it may import. Raises ManifestInvalid, AgentInvalid,
    SandboxUnavailable."""
    if manifest.entry:
        wide = replace(manifest, code=manifest.code + around)
        with tempfile.TemporaryDirectory(prefix="ring0-check-") as folder:
            bare = agents.snapshot(Family(manifest=wide), Path(folder))
            found = await processes.describe(bare, Sandboxes(None, runtime), runtime)
        manifest = declared.merged(manifest, processes.choose(found, manifest.entry))
    tools = [*manifest.functions, *built_in(manifest, runtime, home)]
    vouching.check(tools)
    return tools


def built_in(manifest: AgentManifest, runtime: Runtime, home: Path) -> list[ToolManifest]:
    """The manifests of its `[tools.*]`. Raises ManifestInvalid."""
    return [tool for tool, _ in built_in_with_bare(manifest, runtime, home)]


def built_in_with_bare(
    manifest: AgentManifest, runtime: Runtime, home: Path
) -> list[tuple[ToolManifest, str]]:
    """The same, each with what its MCP server calls it, where agents meet it under that name.
    Raises ManifestInvalid."""
    nowhere = _Nowhere()
    means = Means(
        runtime=runtime,
        off_limits=home,
        secret=lambda _name: "",
        outside=nowhere,
        reach=nowhere,
    )
    drivers = registry.built_in(manifest.tools, Path(manifest.folder), means)
    return [(Tool(driver).manifest, bare_name(driver)) for driver in drivers]


def schemas(tools: list[ToolManifest]) -> Mapping[str, Mapping[str, Any]]:
    """By name, the JSON Schema of each tool's arguments."""
    return {tool.name: tool.schema for tool in tools}
