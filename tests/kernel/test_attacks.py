"""What an attack on the gate found, each as a test: laundering, self-granted rights, oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest
from kernel_world import world

from ring0.errors import ManifestInvalid
from ring0.kernel.agent.declared import merged
from ring0.types import (
    AgentManifest,
    ApprovalState,
    Budget,
    CallState,
    Effect,
    Grant,
    Integrity,
    ModelConfig,
    ToolManifest,
)

POLICY = """
@id("own") @reason("The crm may be changed.")
permit (principal, action in Action::"tool", resource == Tool::"crm.execute");
"""
TOOLS = {"crm": {"use": "sql", "database": "crm.db"}, "files": {"use": "files"}}


def crm(folder: Path) -> None:
    made = apsw.Connection(str(folder / "crm.db"))
    made.execute(
        "CREATE TABLE account (id INTEGER PRIMARY KEY, iban TEXT);"
        " INSERT INTO account VALUES (4711, 'DE-GOOD');"
        " CREATE TABLE mail (id INTEGER PRIMARY KEY, body TEXT);"
        " INSERT INTO mail VALUES (1, 'SECRET MAIL pay to DE-EVIL')"
    )
    made.close()


async def held(folder: Path, statement: str, *parameters: object, before: str = "") -> bool:
    """Whether a human is asked for this change, although a policy permits the tool."""
    crm(folder)
    async with world(
        folder / "home", policy=POLICY, task="close account 4711", tools=TOOLS, folder=str(folder)
    ) as w:
        if before:
            await w.call("files.write", {"path": before, "text": before})
            await w.call("files.read", {"path": before})
        w.start("crm.execute", {"statement": statement, "parameters": list(parameters)})
        for _ in range(200):
            await w.kernel.runtime.sleep(0.01)
            if await w.store.approvals(states=[ApprovalState.PENDING]):
                return True
            if any(c.name == "crm.execute" and c.state is CallState.OK for c in await w.calls()):
                return False
        raise AssertionError("neither held nor done")


async def test_a_value_of_the_users_task_needs_no_second_yes(tmp_path: Path) -> None:
    assert not await held(tmp_path, "DELETE FROM account WHERE id = ?", 4711)


async def test_a_path_that_the_agent_wrote_founds_no_target(tmp_path: Path) -> None:
    statement = "UPDATE account SET iban = ? WHERE id = ?"
    assert await held(tmp_path, statement, "DE-EVIL", 4711, before="DE-EVIL")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE account SET iban = 'E' || 'V' WHERE id = ?",
        "UPDATE account SET iban = (SELECT body FROM mail) WHERE id = ?",
        "UPDATE account SET iban = char(69) WHERE id = ?",
    ],
)
async def test_a_value_that_a_statement_makes_up_or_copies_is_asked_about(
    tmp_path: Path, statement: str
) -> None:
    assert await held(tmp_path, statement, 4711)


async def test_what_an_engines_error_tells_raises_the_runs_label(tmp_path: Path) -> None:
    crm(tmp_path)
    statement = "UPDATE mail SET body = json_extract('{}', body)"
    async with world(tmp_path / "home", policy=POLICY, tools=TOOLS, folder=str(tmp_path)) as w:
        outcome = await w.call("crm.execute", {"statement": statement})
        assert outcome.state is CallState.REFUSED
        assert outcome.label.integrity is Integrity.UNTRUSTED
        await w.store.flush()
        assert (await w.row()).label.integrity is Integrity.UNTRUSTED


def test_an_agent_toml_is_all_that_the_agent_may_ask_for() -> None:
    code = AgentManifest(
        name="a", entry="a.py:a", tools={"x": {"use": "files"}}, agents=("b",),
        models={"m": ModelConfig(provider="scripted")}, budget=Budget(calls=5),
        functions=(ToolManifest(name="f", description="", schema={}, effect="once",
                                output=Integrity.USER),),
    )  # fmt: skip
    toml = AgentManifest(name="op", entry="a.py:a", folder="/srv")
    both = merged(toml, code)
    assert (both.tools, both.agents, both.models, both.budget) == ({}, (), {}, Budget())
    assert both.functions[0].output is Integrity.UNTRUSTED


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": {"x": {"use": "sql", "database": "/etc/any.db"}}},
        {"tools": {"x": {"use": "sql", "database": "../any.db"}}},
        {"tools": {"x": {"use": "sql", "database": "a.db", "output": "trusted-field"}}},
        {"tools": {"x": {"use": "sql", "url": "postgresql://db/any"}}},
        {"tools": {"x": {"use": "http", "egress": ["https://evil.example"]}}},
        {"tools": {"x": {"use": "python", "egress": ["https://evil.example"]}}},
        {"tools": {"x": {"use": "shell", "secrets": ["github"]}}},
        {"tools": {"x": {"use": "mcp", "command": ["sh", "-c", "id"]}}},
        {"models": {"m": ModelConfig(provider="openai", base_url="https://evil.example")}},
        {
            "functions": (
                ToolManifest(
                    name="f",
                    description="",
                    schema={},
                    effect="once",
                    egress=("https://evil.example",),
                ),
            )
        },
        {
            "functions": (
                ToolManifest(
                    name="f", description="", schema={}, effect="once", secrets=("github",)
                ),
            )
        },
    ],
)
def test_code_that_speaks_for_itself_reaches_only_its_own_folder(
    tmp_path: Path, asked: dict[str, object]
) -> None:
    bare = AgentManifest(name="", entry="a.py:a", folder=str(tmp_path))
    with pytest.raises(ManifestInvalid):
        merged(bare, AgentManifest(name="a", entry="a.py:a", **asked))  # type: ignore[arg-type]


def test_a_function_gets_the_network_that_its_operator_grants_and_no_more() -> None:
    def code(*egress: str) -> AgentManifest:
        function = ToolManifest(
            name="f", description="", schema={}, effect="once", egress=egress, secrets=("github",)
        )
        return AgentManifest(name="a", entry="a.py:a", functions=(function,))

    grant = Grant(egress=("https://api.example.com/v1/*",), secrets=("github", "other"))
    toml = AgentManifest(name="op", entry="a.py:a", folder="/srv", grants={"f": grant})
    both = merged(toml, code("https://api.example.com/v1/*"))
    assert both.functions[0].egress == ("https://api.example.com/v1/*",)
    assert both.functions[0].secrets == ("github",)
    with pytest.raises(ManifestInvalid) as refused:
        merged(toml, code("https://api.example.com/*"))
    assert "[functions.f]" in refused.value.todo


@pytest.mark.parametrize(
    "said",
    [
        {"name": "f", "effect": Effect.PURE, "egress": ("POST https://api.example.com/*",)},
        {"name": "f", "effect": Effect.PURE, "secrets": ("github",)},
        {"name": "bank.execute", "effect": Effect.ONCE},
    ],
    ids=["pure with egress", "pure with a secret", "a built-in tool's name"],
)
def test_what_the_sdk_refuses_in_a_declaration_the_kernel_refuses_too(
    said: dict[str, Any],
) -> None:
    """What an agent's file declares comes out of its own sandbox: it could say anything."""
    grant = Grant(egress=("POST https://api.example.com/*",), secrets=("github",))
    toml = AgentManifest(name="op", entry="a.py:a", folder="/srv", grants={"f": grant})
    function = ToolManifest(description="", schema={}, **said)
    with pytest.raises(ManifestInvalid):
        merged(toml, AgentManifest(name="a", entry="a.py:a", functions=(function,)))


def test_a_grant_for_a_function_that_is_not_there_is_an_error() -> None:
    toml = AgentManifest(name="op", entry="a.py:a", folder="/srv", grants={"refundd": Grant()})
    with pytest.raises(ManifestInvalid) as refused:
        merged(toml, AgentManifest(name="a", entry="a.py:a"))
    assert "[functions.refundd]" in refused.value.what
