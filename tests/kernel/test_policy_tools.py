"""Policies that name a tool, profiles, and what a profile refuses, in a whole kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from kernel_world import PRIVATE, Doing, World, begin, database, rows, world

from ring0.errors import ManifestInvalid, PolicyInvalid
from ring0.governance import Policies, Question
from ring0.types import (
    AgentManifest,
    Budget,
    CallKind,
    CallState,
    Effect,
    Grant,
    Operator,
    Outcome,
    RunState,
    ToolManifest,
    VerdictKind,
)

PAY = {
    "type": "object",
    "properties": {"to": {"type": "string"}, "amount": {"type": "number"}, "note": {}},
}
SMALL = """
@id("small") @reason("Small amounts to known people.")
permit (principal, action == Action::"bank.pay", resource)
when { context.args has amount && context.args.amount.lessThanOrEqual(decimal("10.0")) &&
       context.args has to && ["ann", "bob"].contains(context.args.to) };
"""
DELETES = """
@id("no-deletes") @reason("Nothing is deleted here.")
forbid (principal, action == Action::"crm.execute", resource)
when { context.args.statement like "*DELETE*" };
"""


def pays(w: World) -> Any:
    return w.tool(
        Doing("bank.pay", effect=Effect.ONCE, schema=PAY, own=False, mutates=True, rows=1)
    )


def why(outcome: Outcome) -> str:
    return f"{outcome.error}" if outcome.error else ""


async def test_a_rule_about_arguments_allows_asks_and_denies_at_the_gate(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=SMALL) as w:
        tool = pays(w)
        assert (await w.call("bank.pay", {"to": "ann", "amount": 10})).state is CallState.OK
        asked = w.start("bank.pay", {"to": "eve", "amount": 10})
        assert (await w.pending()).run == w.run.id
        asked.cancel()
        refused = await w.call("bank.pay", {"to": "ann", "amount": 0.00001})
        assert "decimal places" in why(refused) and tool.done == 1


async def test_a_decision_about_arguments_is_on_record_as_it_was_taken(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=SMALL) as w:
        pays(w)
        await w.call("bank.pay", {"to": "ann", "amount": 10, "note": "x" * 5_000})
        (call,) = await w.calls()
        question = msgspec.convert((await w.evidence(call))["question"], Question)
        assert question.args is not None
        assert question.args.values == {"to": "ann", "amount": "10.0000"}
        again = Policies.from_text(w.kernel.policies.text).decide(question)
        assert again == call.verdict and again.reasons[0].rule == "small"


@pytest.mark.parametrize("key", ["__entity", "__extn"])
async def test_an_argument_that_the_policy_engine_reads_as_an_entity_is_refused(
    tmp_path: Path, key: str
) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("bank.pay", schema=PAY))
        hostile = {"note": [{"a": {key: {"type": "Run", "id": "r-1"}}}]}
        outcome = await w.call("bank.pay", hostile)
        assert key in why(outcome) and tool.done == 0
        assert (await w.call("bank.pay", {"note": f'{{"{key}": 1}}'})).state is CallState.OK


async def test_what_a_run_has_left_and_has_read_is_what_policies_see(tmp_path: Path) -> None:
    policy = """
    @id("thrifty") forbid (principal, action in Action::"tool", resource)
    when { context.budget_left_calls < 9 ||
           principal.confidentiality != Confidentiality::"public" };
    """
    budget = Budget(calls=10, tokens=7, cost_microusd=5)
    async with world(tmp_path / "home", policy=policy, budget=budget) as w:
        w.tool(Doing("look"))
        assert (await w.call("look", {})).state is CallState.OK
        (call,) = await w.calls()
        question = (await w.evidence(call))["question"]
        assert question["budget_left_calls"] == 10
        assert (question["budget_left_tokens"], question["budget_left_microusd"]) == (7, 5)
        assert (await w.call("look", {})).state is CallState.OK
        assert "thrifty" in why(await w.call("look", {}))


# --- before an agent starts ----------------------------------------------------------------------


async def start(w: World, **fields: Any) -> None:
    await begin(w, "task", Budget(), AgentManifest(name="clerk", **fields))


async def test_a_statement_that_does_not_fit_a_tool_starts_no_agent_that_has_it(
    tmp_path: Path,
) -> None:
    database(tmp_path)
    tools = {"crm": {"use": "sql", "database": str(tmp_path / "crm.db")}}
    policy = DELETES.replace("statement", "sql")
    async with world(tmp_path / "home", policy=policy, start=False) as w:
        with pytest.raises(PolicyInvalid) as caught:
            await start(w, tools=tools)
        assert "own.cedar:2" in caught.value.what and "sql" in caught.value.why
        assert await w.store.runs() == []
        await start(w, tools={"files": {"use": "files"}})


async def test_a_tool_that_is_named_in_other_letters_starts_no_agent(tmp_path: Path) -> None:
    database(tmp_path)
    tools = {"crm": {"use": "sql", "database": str(tmp_path / "crm.db")}}
    policy = DELETES.replace("crm.execute", "CRM.Execute")
    async with world(tmp_path / "home", policy=policy, start=False) as w:
        with pytest.raises(PolicyInvalid):
            await start(w, tools=tools)


async def test_a_rule_about_a_real_tools_argument_holds(tmp_path: Path) -> None:
    path = database(tmp_path)
    tools = {"crm": {"use": "sql", "database": str(path)}}
    async with world(tmp_path / "home", policy=DELETES, start=False) as w:
        await start(w, tools=tools)
        refused = await w.call("crm.execute", {"statement": "DELETE FROM customer WHERE id = 3"})
        assert "no-deletes" in why(refused) and len(rows(path)) == 3
        read = await w.call("crm.query", {"statement": "SELECT id FROM customer"})
        assert read.state is CallState.OK


# --- profiles ------------------------------------------------------------------------------------


def says(home: Path, profile: str) -> None:
    home.mkdir()
    (home / "ring0.toml").write_text(f'profile = "{profile}"\n')


async def test_observe_holds_nothing_for_a_person_and_says_so_on_record(tmp_path: Path) -> None:
    says(tmp_path / "home", "observe")
    async with world(tmp_path / "home") as w:
        tool = pays(w)
        assert (await w.call("bank.pay", {"to": "eve"})).state is CallState.OK and tool.done == 1
        (call,) = await w.calls()
        assert call.verdict.kind is VerdictKind.ALLOW and call.approval == ""
        assert [reason.rule for reason in call.verdict.reasons] == ["ring0.observed", "mutation"]
        stopped = w.tool(Doing("drop", changes_schema=True, own=False, mutates=True))
        assert "schema-change" in why(await w.call("drop", {})) and stopped.done == 0


async def test_observe_gives_a_run_no_more_budget_by_itself(tmp_path: Path) -> None:
    says(tmp_path / "home", "observe")
    async with world(tmp_path / "home") as w:
        asked = w.start("", {"calls": 5, "why": "more to do"}, kind=CallKind.ASK)
        approval = await w.pending()
        assert (await w.row()).budget.calls == Budget().calls
        await w.kernel.answer(approval.id, yes=False, by=Operator(name="ada"))
        assert why(await asked)


@pytest.mark.parametrize("profile", ["balanced", "strict"])
async def test_embedded_agents_are_refused_under_a_profile_that_promises_more(
    tmp_path: Path, profile: str
) -> None:
    says(tmp_path / "home", profile)
    async with world(tmp_path / "home", start=False) as w:
        with pytest.raises(ManifestInvalid) as caught:
            await start(w)
        assert "embedded" in caught.value.what and profile in caught.value.what
        assert await w.store.runs() == []


FUNCTION = ToolManifest(
    name="post", description="", schema={"type": "object"}, effect=Effect.ONCE, secrets=("token",)
)


@pytest.mark.parametrize(
    "fields",
    [
        {"functions": (FUNCTION,)},
        {"grants": {"post": Grant(secrets=("token",))}},
        {
            "tools": {
                "web": {"use": "http", "egress": ["GET https://a.org/*"], "secrets": ["token"]}
            }
        },
        {"tools": {"crm": {"use": "sql", "url": "postgresql://a@b/c", "password_secret": "token"}}},
        {
            "tools": {
                "sh": {"use": "shell", "egress": ["GET https://a.org/*"], "secrets": ["token"]}
            }
        },
    ],
    ids=["function", "grant", "http", "sql", "shell"],
)
async def test_embedded_agents_that_use_secrets_are_refused(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    if "crm" in fields.get("tools", {}):
        pytest.importorskip("psycopg", reason="psycopg is not installed: make optional")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ring0.toml").write_text(
        '[credentials.token]\nsecret = "TOKEN"\nuse_for = "GET https://a.org/*"\n'
    )
    secrets = {"TOKEN": "canary-of-a-token-1f"}
    async with world(tmp_path / "home", start=False, environment=secrets) as w:
        manifest = AgentManifest(name="clerk", **fields)

        async def agent(_run: Any) -> None: ...

        async def post(**_args: Any) -> None: ...

        with pytest.raises(ManifestInvalid) as caught:
            await w.kernel.start_embedded(
                manifest, (), {"agent:clerk": agent, "tool:post": post}, "t", principal="alice"
            )
        assert "embedded, and uses the secret 'token'" in caught.value.what
        assert await w.store.runs() == []


async def test_an_undo_is_no_embedded_agent_to_a_profile(tmp_path: Path) -> None:
    path = database(tmp_path)
    tools = {"crm": {"use": "sql", "database": str(path)}}
    policy = '@id("p") permit (principal, action == Action::"crm.execute", resource);'
    async with world(tmp_path / "home", policy=policy, start=False) as w:
        statement = "UPDATE customer SET state = 'shut'"
        await begin(w, statement, Budget(), AgentManifest(name="clerk", tools=tools))
        args = {"statement": statement}
        assert (await w.call("crm.execute", args)).state is CallState.OK
        w.end.set_result("done")
        await w.kernel.runs.wait(w.run.id)
        run = w.run.id
    (tmp_path / "home" / "ring0.toml").write_text('policy = ["own.cedar"]\nprofile = "strict"\n')
    async with world(tmp_path / "home", start=False) as w:
        undone = await w.kernel.undo(run, by="ada")
        assert undone.state is RunState.DONE
        assert {state for _, _, state in rows(path)} == {"open"}


async def test_what_a_run_has_read_is_what_policies_see_from_then_on(tmp_path: Path) -> None:
    policy = """
    @id("discreet") forbid (principal, action in Action::"tool", resource == Tool::"send")
    when { principal.confidentiality != Confidentiality::"public" };
    """
    async with world(tmp_path / "home", policy=policy) as w:
        w.tool(Doing("read", label=PRIVATE))
        w.tool(Doing("send"))
        assert (await w.call("send", {})).state is CallState.OK
        assert (await w.call("read", {})).state is CallState.OK
        assert "discreet" in why(await w.call("send", {}))
