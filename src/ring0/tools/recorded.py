"""Tools of a run that is only replayed: what they were called and took. They do nothing."""

from __future__ import annotations

from typing import Any

from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import ToolManifest


class KeptDriver:
    """Stands where a driver stood."""

    def __init__(self, manifest: ToolManifest, bare: str = "") -> None:
        self.manifest = manifest
        self.bare = bare
        """What its MCP server calls it, where the agent meets it under that name; else empty."""
        self.through = bool(bare)

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        raise AssertionError("a strict replay prepares nothing")

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        raise AssertionError("a strict replay carries nothing out")
