"""The MCP door: both eras at once, every call through the gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_world import Doing
from mcp_doors import LEGACY, MODERN, spoken

from ring0.types import CallKind


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_librarys_client_lists_tools_and_calls_one_in_either_era(
    tmp_path: Path, mode: str
) -> None:
    async with spoken(tmp_path) as s:
        s.w.tool(Doing("crm.query", act=lambda args, _: {"rows": [args["x"]]}))
        s.w.tool(Doing("plain", act=lambda args, _: "just text"))
        async with s.client(mode) as client:
            assert client.protocol_version == (LEGACY if mode == "legacy" else MODERN)
            listed = await client.list_tools()
            assert [tool.name for tool in listed.tools] == ["crm__query", "plain"]
            assert listed.tools[0].annotations.read_only_hint is True
            answer = await client.call_tool("crm__query", {"x": 7})
            assert answer.structured_content == {"rows": [7]} and not answer.is_error
            answer = await client.call_tool("plain", {})
            assert answer.content[0].text == "just text"
        recorded = await s.w.calls()
        assert [(call.kind, call.name) for call in recorded] == [
            (CallKind.TOOL, "crm.query"),
            (CallKind.TOOL, "plain"),
        ]
