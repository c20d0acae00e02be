"""What slipped past policies elsewhere: names in other letters, misspelt files, a part of a set."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_world import Doing, database, rows, world

from ring0.errors import KernelBusy, Ring0Error
from ring0.sdk.embedded import embedded
from ring0.types import ApprovalState, Budget, CallState, Effect

EVERYTHING = """
@id("all") @reason("Of this test.")
permit (principal, action, resource);
"""


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE customer",
        "drop table customer",
        "Drop  Table customer",
        "  dRoP\n\ttable customer ;",
        "/* a comment */ drop /* another */ table customer",
        "-- a comment\ndrop table customer",
        "DROP TABLE IF EXISTS customer",
        "\ufeffDROP TABLE customer",
        "DROP\u00a0TABLE customer",
        "ＤＲＯＰ TABLE customer",
        "SELECT 1; DROP TABLE customer",
    ],
)
async def test_a_drop_in_other_letters_blanks_or_comments_is_as_refused_as_any(
    tmp_path: Path, statement: str
) -> None:
    tools = {"crm": {"use": "sql", "database": str(database(tmp_path))}}
    async with world(tmp_path / "home", policy=EVERYTHING, tools=tools) as w:
        outcome = await w.call("crm.execute", {"statement": statement})
        assert outcome.state is CallState.REFUSED, outcome
        assert not await w.store.approvals(states=[ApprovalState.PENDING])
        assert len(rows(tmp_path / "crm.db")) == 3


@pytest.mark.parametrize(
    "name",
    [
        "ACT",
        "Act",
        "act ",
        " act",
        "act\u200b",
        "ａct",
        "a\u0441t",
        "act.",
        "tool:act",
        "act_all",
        "",
    ],
)
async def test_a_tool_in_other_letters_is_no_tool_though_all_is_permitted(
    tmp_path: Path, name: str
) -> None:
    """What no manifest names is denied: an unknown name is never taken for the one it is like."""
    async with world(tmp_path / "home", policy=EVERYTHING) as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        assert (await w.call("act", {})).state is CallState.OK and tool.done == 1
        outcome = await w.call(name, {})
        assert outcome.state is CallState.REFUSED and tool.done == 1


@pytest.mark.parametrize(
    "said",
    [
        'policy = ["own.cedra"]',
        'policy = ["OWN.cedar"]',
        'policy = "own.cedar"',
        'policies = ["own.cedar"]',
        '[policy]\nfiles = ["own.cedar"]',
        'policy = ["own.cedar"]\nprofile = "stric"',
        'policy = ["own.cedar"]\nprofile = "Strict"',
        'policy = ["own.cedar"]\nprofil = "strict"',
    ],
)
async def test_a_misspelt_policy_or_profile_starts_no_kernel(tmp_path: Path, said: str) -> None:
    """Elsewhere a name that was not found allowed everything."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "own.cedar").write_text(EVERYTHING)
    (home / "ring0.toml").write_text(said + "\n")
    with pytest.raises(Ring0Error) as caught:
        async with world(home, start=False):
            pass
    assert caught.value.what and caught.value.todo


async def test_no_embedded_agent_runs_in_a_data_folder_that_is_served(tmp_path: Path) -> None:
    """It could read all that the kernel at work there can."""
    async with world(tmp_path / "home", start=False) as w:
        with pytest.raises(KernelBusy):
            async with embedded(w.home, {}):
                pass
    async with embedded(tmp_path / "home", {}):
        pass


def test_a_tree_is_three_levels_deep_where_nobody_says_otherwise() -> None:
    assert Budget().depth == 3
