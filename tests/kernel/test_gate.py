"""What holds of every call that goes through the gate, whoever makes it and whatever it asks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_world import (
    PRIVATE,
    UNTRUSTED,
    Doing,
    JumpingRuntime,
    World,
    begin,
    database,
    rows,
    world,
)
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import (
    CallDenied,
    CallInvalid,
    InvalidInput,
    NotFound,
    ReplayDiverged,
    RunDead,
    ToolFailed,
)
from ring0.kernel import gate as gate_module
from ring0.kernel.live import LiveRun
from ring0.tools.driver import FileChange, Result
from ring0.types import (
    AgentManifest,
    ApprovalState,
    Budget,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    ModelConfig,
    Operator,
    Outcome,
    Request,
    RunState,
    VerdictKind,
)

CANARY = "sk-canary-4f9a1c77b2"
PERMIT_EXECUTE = """
@id("own") @reason("Of this installation.")
permit (principal, action in Action::"tool", resource == Tool::"crm.execute");
"""
TASK = "Set customer 2 to closed."
CLOSE = {"statement": "UPDATE customer SET state = 'closed' WHERE id = ?", "parameters": [2]}


def code(outcome: Outcome) -> str:
    assert outcome.error is not None, outcome
    return outcome.error["code"]


def crm(folder: Path) -> dict:
    return {"tools": {"crm": {"use": "sql", "database": str(database(folder))}}}


# --- form ------------------------------------------------------------------------------------


async def test_what_does_not_fit_is_refused_and_on_record(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("count", schema=schema))
        outcomes = {
            "unknown tool": await w.call("drop_everything", {}),
            "unknown field": await w.call("count", {"n": 1, "approved": True}),
            "wrong type": await w.call("count", {"n": "1"}),
            "missing field": await w.call("count", {}),
            "no object": await w.call("count", [1]),
            "a name where none is taken": await w.call("now", {}, kind=CallKind.NOW),
            "unknown model": await w.call("gpt", {"messages": []}, kind=CallKind.MODEL),
            "unknown agent": await w.call("other", {"task": "x"}, kind=CallKind.SPAWN),
        }
        for what, outcome in outcomes.items():
            assert outcome.state is CallState.REFUSED, what
            assert outcome.error is not None and outcome.error["todo"], what
        assert tool.done == 0
        calls = await w.calls()
        assert [call.state for call in calls] == [CallState.REFUSED] * len(outcomes)
        assert all(call.verdict.kind is VerdictKind.DENY and call.outcome for call in calls)
        assert (await w.row()).calls_used == 0
        assert (await w.call("count", {"n": 1})).state is CallState.OK


@pytest.mark.parametrize(
    ("path", "counter"),
    [("../0", 1), ("0/1", 1), ("0..1", 1), ("a", 1), ("0" * 300, 1), ("0\n", 1), ("٣", 1),
     ("0", -1), ("0", 2**31)],
)  # fmt: skip
async def test_a_call_that_cannot_be_named_is_refused(
    tmp_path: Path, path: str, counter: int
) -> None:
    async with world(tmp_path / "home") as w:
        with pytest.raises(CallInvalid):
            await w.call("now", {}, kind=CallKind.NOW, path=path, counter=counter)


async def test_a_name_that_is_too_long_is_refused_and_never_shortened_into_another(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("t" * limits.CALL_NAME_CHARS_MAX))
        with pytest.raises(CallInvalid):
            await w.call(tool.manifest.name + "t", {})
        assert tool.done == 0


# --- recall ----------------------------------------------------------------------------------


async def test_recall_gives_the_recorded_outcome_and_counts_nothing(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE))
        first = await w.call("act", {"x": 1}, counter=7)
        before = await w.row()
        for _ in range(3):
            assert await w.call("act", {"x": 1}, counter=7) == first
        after = await w.row()
        assert tool.done == 1
        assert (after.calls_used, after.events) == (before.calls_used, before.events)


async def test_a_refusal_is_recalled_too(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        first = await w.call("nothing", {}, counter=7)
        w.tool(Doing("nothing"))
        assert await w.call("nothing", {}, counter=7) == first


async def test_an_identical_call_in_flight_is_joined_and_its_effect_happens_once(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE))
        go = tool.hold()
        calls = [w.start("act", {"x": 1}, counter=1) for _ in range(20)]
        await tool.begun.wait()
        go.set()
        outcomes = await asyncio.gather(*calls)
        assert tool.done == 1 and all(outcome == outcomes[0] for outcome in outcomes)
        assert (await w.row()).calls_used == 1


async def test_a_call_goes_on_when_whoever_asked_goes_away(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE))
        go = tool.hold()
        asked = w.start("act", {}, counter=1)
        await tool.begun.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        again = w.start("act", {}, counter=1)
        await asyncio.sleep(0.01)
        go.set()
        assert (await again).value == {"done": 1}


async def test_the_same_id_with_other_arguments_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE))
        go = tool.hold()
        first = w.start("act", {"x": 1}, counter=1)
        await tool.begun.wait()
        with pytest.raises(CallInvalid):  # In flight …
            await w.call("act", {"x": 2}, counter=1)
        go.set()
        await first
        with pytest.raises(ReplayDiverged):  # … and on record.
            await w.call("act", {"x": 2}, counter=1)
        assert tool.args == [{"x": 1}]


async def test_arguments_that_are_equal_but_written_otherwise_are_the_same_call(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("act"))
        first = await w.call("act", {"x": 1, "text": "é"}, counter=1)
        assert await w.call("act", {"text": "é", "x": 1}, counter=1) == first
        with pytest.raises(ReplayDiverged):  # Nothing is normalised: another é is another value.
            await w.call("act", {"text": "e\u0301", "x": 1}, counter=1)


async def test_a_process_without_paths_is_told_apart_by_what_it_asks_and_how_often(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act"))
        values = [(await w.call("act", {"x": 1}, path="")).value for _ in range(3)]
        assert values == [{"done": 1}, {"done": 2}, {"done": 3}]
        assert len({call.id for call in await w.calls()}) == 3
        assert tool.done == 3


async def test_a_once_call_whose_outcome_could_not_be_recorded_is_never_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE))

        def broken(*_: object) -> None:
            raise RuntimeError("a fault of ours between the effect and its record")

        monkeypatch.setattr(gate_module.recording, "take_in", broken)
        with pytest.raises(RuntimeError):
            await w.call("act", {}, counter=1)
        monkeypatch.undo()
        again = w.start("act", {}, counter=1)
        await w.until(RunState.WAITING, "unknown")
        await w.kernel.settle(f"{w.run.id}/0/1", happened=True, by="alice")
        assert (await again).value["settled"] == "it happened"
        assert tool.done == 1


# --- bounds ----------------------------------------------------------------------------------


async def test_a_budget_of_calls_is_met_exactly_by_50_parallel_calls(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=17)) as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE))
        outcomes = await asyncio.gather(*(w.call("act", {"x": n}) for n in range(50)))
        good = [one for one in outcomes if one.state is CallState.OK]
        assert len(good) == tool.done == (await w.row()).calls_used == 17
        assert {code(one) for one in outcomes if one not in good} == {"limit_reached"}


async def test_a_budget_of_money_is_never_overspent_by_parallel_calls(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(cost_microusd=1_000)) as w:
        tool = w.tool(
            Doing(
                "buy",
                effect=Effect.ONCE,
                reserve_microusd=300,
                act=lambda *_: Result(value=1, label=PRIVATE, cost_microusd=250),
            )
        )
        go = tool.hold()
        calls = [w.start("buy", {"x": n}) for n in range(10)]
        await tool.begun.wait()
        await w.store.flush()
        assert (await w.row()).cost_used_microusd <= 1_000
        go.set()
        outcomes = await asyncio.gather(*calls)
        assert tool.done == 3
        assert sum(one.state is CallState.REFUSED for one in outcomes) == 7
        row = await w.row()
        assert row.cost_used_microusd == 750 == w.run.row.cost_used_microusd


async def test_a_tool_that_costs_reserves_its_price_before_it_runs(tmp_path: Path) -> None:
    from ring0.tools.functions import EmbeddedFunction

    async def function(args: dict, call: str, fences: dict) -> str:
        raise AssertionError("there was no money for it")

    async with world(tmp_path / "home", budget=Budget(cost_microusd=5)) as w:
        manifest = replace(Doing("pay", effect=Effect.PURE).manifest, cost_microusd=6)
        w.tool(EmbeddedFunction(manifest, function))
        assert code(await w.call("pay", {})) == "limit_reached"


@pytest.mark.parametrize("cost_microusd", [0, 1_000])
async def test_a_model_whose_price_is_not_known_is_refused_whatever_the_budget(
    tmp_path: Path, cost_microusd: int
) -> None:
    config = {"provider": "openai", "model": "m", "base_url": "https://models.example/v1"}
    manifest = AgentManifest(
        name="clerk",
        budget=Budget(cost_microusd=cost_microusd),
        models=msgspec.convert({"default": config}, dict[str, ModelConfig]),
    )
    async with world(tmp_path / "home", manifest=manifest) as w:
        asked = {"messages": [{"role": "user", "content": "hello"}]}
        outcome = await w.call("default", asked, kind=CallKind.MODEL)
        assert code(outcome) == "limit_reached" and "price" in outcome.error["what"]
        assert (await w.row()).cost_used_microusd == 0


async def test_after_the_deadline_no_call_is_admitted(tmp_path: Path) -> None:
    clock = JumpingRuntime()
    async with world(tmp_path / "home", runtime=clock, budget=Budget(wall_s=60)) as w:
        tool = w.tool(Doing("act"))
        assert (await w.call("act", {"x": 1})).state is CallState.OK
        clock.jump(61)
        assert code(await w.call("act", {"x": 2})) == "limit_reached"
        assert tool.done == 1


async def test_the_deadline_ends_a_run_that_does_nothing(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(wall_s=1)) as w:
        row = await w.kernel.runs.wait(w.run.id)
        assert row.state is RunState.FAILED


async def test_the_same_call_again_and_again_is_stopped_whatever_its_id(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("poll"))
        for _ in range(limits.IDENTICAL_CALLS_MAX):
            assert (await w.call("poll", {"x": 1})).state is CallState.OK
        assert code(await w.call("poll", {"x": 1})) == "loop_stopped"
        assert code(await w.call("poll", {"x": 1}, path="")) == "loop_stopped"
        assert (await w.call("poll", {"x": 2})).state is CallState.OK
        assert tool.done == limits.IDENTICAL_CALLS_MAX + 1


async def test_a_run_cannot_ask_for_everything_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CALLS_IN_FLIGHT_PER_RUN_MAX", 4)
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act"))
        go = tool.hold()
        calls = [w.start("act", {"x": n}) for n in range(6)]
        await tool.begun.wait()
        await asyncio.sleep(0.1)
        assert len(await w.calls()) == 4, "the others wait for a place, and are not on record"
        go.set()
        done = await asyncio.gather(*calls)
        assert [one.state for one in done] == [CallState.OK] * 6 and tool.done == 6


async def test_even_what_waits_for_a_place_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CALLS_IN_FLIGHT_PER_RUN_MAX", 2)
    monkeypatch.setattr(limits, "CALLS_WAITING_PER_RUN_MAX", 3)
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act"))
        go = tool.hold()
        calls = [w.start("act", {"x": n}) for n in range(7)]
        await tool.begun.wait()
        go.set()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(one, CallDenied) for one in done) == 2 and tool.done == 5


async def test_sleep_ends_at_a_time_that_was_fixed_when_it_was_first_asked(tmp_path: Path) -> None:
    clock, home = JumpingRuntime(), tmp_path / "home"
    async with world(home, runtime=clock, budget=Budget(wall_s=100_000)) as w:
        asleep = asyncio.create_task(w.kind(CallKind.SLEEP, {"seconds": 3_600}, counter=1))
        await asyncio.sleep(0.05)
        assert not asleep.done()
        await w.kernel.runs.stop()
        await asyncio.gather(asleep, return_exceptions=True)
        run = w.run.id
    clock.jump(3_000)
    async with world(home, runtime=clock, start=False) as w:
        await again(w, run, Doing("other"))
        asleep = asyncio.create_task(w.kind(CallKind.SLEEP, {"seconds": 3_600}, counter=1))
        await asyncio.sleep(0.05)
        assert not asleep.done()
        clock.jump(601)
        async with asyncio.timeout(2):
            assert (await asleep).state is CallState.OK


# --- labels ----------------------------------------------------------------------------------


async def test_the_runs_label_has_risen_before_the_result_goes_back(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("mail", label=UNTRUSTED))
        assert (await w.row()).label.integrity is Integrity.USER
        outcome = await w.call("mail", {})
        assert outcome.label.integrity is Integrity.UNTRUSTED
        assert (await w.row()).label.integrity is Integrity.UNTRUSTED
        assert w.run.row.label.integrity is Integrity.UNTRUSTED


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    labels=st.lists(st.sampled_from(["system", "untrusted", "private"]), min_size=2, max_size=5),
    order=st.randoms(),
)
async def test_calls_that_end_at_the_same_time_never_lower_the_runs_label(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], order
) -> None:
    known = {
        "system": Label(integrity=Integrity.SYSTEM),
        "untrusted": UNTRUSTED,
        "private": PRIVATE,
    }
    async with world(tmp_path_factory.mktemp("w") / "home") as w:
        tools = [w.tool(Doing(f"t{n}", label=known[name])) for n, name in enumerate(labels)]
        gates = [tool.hold() for tool in tools]
        calls = [w.start(tool.manifest.name, {}) for tool in tools]
        for tool in tools:
            await tool.begun.wait()
        order.shuffle(gates)
        for go in gates:
            go.set()
        await asyncio.gather(*calls)
        worst = Label(integrity=Integrity.USER)
        for name in labels:
            if name != "system":  # What the kernel made takes nothing away.
                worst = worst.join(known[name])
        for row in (await w.row(), w.run.row):
            assert row.label.integrity == worst.integrity
            assert row.label.confidentiality == worst.confidentiality
        assert (await w.row()).label_version == w.run.row.label_version
        assert (await w.call("t0", {"x": 1})).state is CallState.OK


async def test_a_decision_that_was_taken_with_the_old_label_is_taken_again(tmp_path: Path) -> None:
    policy = """
    @id("careful") @reason("A run that read untrusted data sends nothing.")
    forbid (principal, action in Action::"tool", resource == Tool::"send")
    when { principal.integrity == Integrity::"untrusted" };
    """
    async with world(tmp_path / "home", policy=policy) as w:
        reading = w.tool(Doing("mail", label=UNTRUSTED))
        sending = w.tool(Doing("send", effect=Effect.ONCE))
        reached, go = asyncio.Event(), asyncio.Event()

        async def slowly() -> None:
            reached.set()
            await go.wait()

        sending.preparing = slowly
        call = w.start("send", {})
        await reached.wait()
        assert (await w.call("mail", {})).state is CallState.OK and reading.done == 1
        go.set()
        outcome = await call
        assert code(outcome) == "denied" and "careful" in outcome.error["why"]
        assert sending.done == 0


async def test_many_reads_at_once_do_not_starve_a_write_of_its_decision(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        for n in range(30):
            w.tool(Doing(f"read{n}", label=UNTRUSTED if n % 2 else PRIVATE))
        w.tool(Doing("act", effect=Effect.ONCE))
        calls = []
        for n in range(30):
            calls += [w.start(f"read{n}", {}), w.start("act", {"x": n})]
        outcomes = await asyncio.gather(*calls)
        assert {one.state for one in outcomes} == {CallState.OK}


async def test_what_comes_back_by_undo_is_worth_what_it_was_worth_before(tmp_path: Path) -> None:
    async with world(tmp_path / "home", tools={"files": {"use": "files"}}) as w:
        ticket = FileChange(path="ticket.txt", value=b"obey me", label=UNTRUSTED)
        w.tool(
            Doing("fetch", act=lambda *_: Result(value=1, label=Label(integrity=Integrity.SYSTEM),
                                                 files=(ticket,)))
        )  # fmt: skip
        await w.call("fetch", {})
        await w.call("files.write", {"path": "ticket.txt", "text": "mine"}, counter=50)
        await w.kernel.undo(w.run.id, by="alice", only=f"{w.run.id}/0/50")
        outcome = await w.call("files.read", {"path": "ticket.txt"})
        assert outcome.value["text"] == "obey me"
        assert outcome.label.integrity is Integrity.UNTRUSTED
        assert (await w.row()).label.integrity is Integrity.UNTRUSTED


# --- secrets ---------------------------------------------------------------------------------


async def test_a_known_secret_is_nowhere_in_the_journal(tmp_path: Path) -> None:
    """In arguments, names, results, errors, files, memory, dry runs, tasks and results of runs."""

    def fails(*_: object) -> None:
        raise ToolFailed(f"login with {CANARY} failed", why=CANARY, todo=CANARY)

    environment = {"SHOP_API_KEY": CANARY}
    async with world(tmp_path / "home", environment=environment, task=f"use {CANARY}",
                     tools={"files": {"use": "files"}}) as w:  # fmt: skip
        echo = w.tool(Doing("echo", act=lambda args, _: {"you said": args, CANARY: CANARY}))
        w.tool(Doing("fails", act=fails))
        w.tool(Doing("breaks", act=lambda *_: 1 / len(CANARY[:0])))
        held = w.tool(
            Doing("held", effect=Effect.ONCE, mutates=True, own=False,
                  lines=(f"row {CANARY}", CANARY.encode().hex()), tables=("t",))
        )  # fmt: skip
        outcome = await w.call("echo", {"text": f"my key is {CANARY}", "x": {CANARY: [CANARY]}})
        assert CANARY not in str(outcome) and "«secret:SHOP_API_KEY»" in str(outcome)
        assert CANARY not in str(echo.args)
        for name, args in [
            ("fails", {}), ("breaks", {}), (CANARY, {}), ("echo", {CANARY: 1}), ("echo", CANARY),
            ("files.write", {"path": "a.txt", "text": CANARY}),
            ("files.write", {"path": CANARY, "text": "x"}), ("echo", {"text": [CANARY]}),
        ]:  # fmt: skip
            assert CANARY not in str(await w.call(name, args)), name
        await w.kind(CallKind.MEMORY_APPEND, {"text": f"note: {CANARY}"})
        waiting = w.start("held", {"text": CANARY})
        approval = await w.pending()
        assert CANARY not in str(await w.shown(approval))
        await w.kernel.answer(approval.id, yes=False, by=Operator(name="alice"))
        assert CANARY not in str(await waiting) and held.done == 0
        w.end.set_result({"key": CANARY})
        row = await w.kernel.runs.wait(w.run.id)
        assert CANARY not in (await w.store.blob(row.result)).decode()
        await w.store.flush()
        found = w.on_disk()
        assert b"SHOP_API_KEY" in found, "the search looks at the journal"
        for form in (CANARY, CANARY.encode().hex()):
            assert form.encode() not in found
        assert CANARY not in repr(w.run) + repr(w.kernel.gate.secrets) + repr(w.run.handle)


# --- approvals -------------------------------------------------------------------------------


async def test_a_mutation_is_held_and_shown_with_the_rows_it_would_take_everywhere(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        delete = {"statement": "DELETE FROM customer WHERE id = ?", "parameters": [1]}
        call = w.start("crm.execute", delete)
        approval = await w.pending()
        await w.until(RunState.WAITING, "approval")
        shown = await w.shown(approval)
        assert shown["dry_run"][:2] == ["customer: 1 deleted", "purchase: 2 deleted"]
        assert shown["reversal"] == "reversible" and shown["arguments"] == delete
        assert [reason["rule"] for reason in shown["reasons"]]
        assert len(rows(tmp_path / "crm.db")) == 3, "nothing happens before the answer"
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        assert (await call).value["changed"]["purchase"] == {"deleted": 2}
        assert len(rows(tmp_path / "crm.db")) == 2
        record = (await w.calls())[0]
        assert record.approval == approval.id
        used = await w.store.approval(approval.id)
        assert used.state is ApprovalState.CONSUMED and used.answered_by == "alice"
        await w.until(RunState.RUNNING)


async def test_a_yes_does_not_cover_what_the_world_has_become_since(tmp_path: Path) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        delete = {"statement": "DELETE FROM customer WHERE state = 'open'"}
        call = w.start("crm.execute", delete)
        first = await w.pending()
        apsw.Connection(str(tmp_path / "crm.db")).execute(
            "INSERT INTO customer VALUES (4, 'Dee', 'open')"
        )
        await w.kernel.answer(first.id, yes=True, by=Operator(name="alice"))
        second = await w.pending()
        assert second.id != first.id and second.bound_to != first.bound_to
        assert len(rows(tmp_path / "crm.db")) == 4, "the old yes took nothing"
        assert (await w.store.approval(first.id)).state is ApprovalState.REVOKED
        await w.kernel.answer(second.id, yes=True, by=Operator(name="alice"))
        assert (await call).state is CallState.OK
        assert rows(tmp_path / "crm.db") == []


async def test_a_change_in_the_last_moment_before_execution_is_never_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        execute = w.run.tools["crm.execute"].driver.execute

        async def late(*args: object) -> object:
            apsw.Connection(str(tmp_path / "crm.db")).execute(
                "UPDATE customer SET name = 'Bobby' WHERE id = 2"
            )
            return await execute(*args)

        monkeypatch.setattr(w.run.tools["crm.execute"].driver, "execute", late)
        call = w.start("crm.execute", {"statement": "DELETE FROM customer WHERE id = 2"})
        await w.kernel.answer((await w.pending()).id, yes=True, by=Operator(name="alice"))
        assert (await call).state is CallState.ERROR
        assert len(rows(tmp_path / "crm.db")) == 3


async def test_a_yes_is_lost_when_the_run_reads_untrusted_data_before_it_is_used(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        w.tool(Doing("mail", label=UNTRUSTED))
        call = w.start("crm.execute", CLOSE)
        first = await w.pending()
        await w.call("mail", {})
        await w.kernel.answer(first.id, yes=True, by=Operator(name="alice"))
        second = await w.pending()
        assert (await w.shown(second))["run_label"]["integrity"] == "untrusted"
        await w.kernel.answer(second.id, yes=False, by=Operator(name="alice"))
        assert code(await call) == "denied"
        assert rows(tmp_path / "crm.db")[1][2] == "open"


async def test_an_approval_is_used_once(tmp_path: Path) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        call = w.start("crm.execute", CLOSE)
        first = await w.pending()
        await w.kernel.answer(first.id, yes=True, by=Operator(name="alice"))
        await call
        again = w.start("crm.execute", CLOSE)
        second = await w.pending()
        assert second.id != first.id
        with pytest.raises(CallDenied):
            await w.kernel.answer(first.id, yes=True, by=Operator(name="alice"))
        await w.kernel.answer(second.id, yes=False, by=Operator(name="alice"))
        assert code(await again) == "denied"


async def test_a_no_is_on_record_with_who_said_it_and_is_recalled(tmp_path: Path) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        call = w.start("crm.execute", CLOSE, counter=9)
        approval = await w.pending()
        await w.kernel.answer(approval.id, yes=False, by=Operator(name="alice"), note="not him")
        outcome = await call
        assert outcome.state is CallState.REFUSED and "person said no" in outcome.error["what"]
        record = (await w.calls())[0]
        assert record.state is CallState.REFUSED and record.approval == approval.id
        kept = await w.store.approval(approval.id)
        assert (kept.state, kept.answered_by, kept.note) == ("denied", "alice", "not him")
        assert await w.call("crm.execute", CLOSE, counter=9) == outcome
        assert not await w.store.approvals(states=[ApprovalState.PENDING])


async def test_an_ask_that_nobody_answers_is_denied_when_its_time_is_over(tmp_path: Path) -> None:
    clock = JumpingRuntime()
    budget = Budget(wall_s=limits.APPROVAL_EXPIRY_S * 2)
    async with world(tmp_path / "home", runtime=clock, budget=budget, **crm(tmp_path)) as w:
        call = w.start("crm.execute", CLOSE)
        approval = await w.pending()
        clock.jump(limits.APPROVAL_EXPIRY_S - 5)
        await asyncio.sleep(0.05)
        assert not call.done()
        clock.jump(10)
        assert code(await call) == "denied"
        assert (await w.store.approval(approval.id)).state is ApprovalState.EXPIRED
        with pytest.raises(CallDenied):
            await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        assert rows(tmp_path / "crm.db")[1][2] == "open"


async def test_answering_twice_is_refused_and_of_two_at_once_one_counts(tmp_path: Path) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        call = w.start("crm.execute", CLOSE)
        approval = await w.pending()
        answers = await asyncio.gather(
            *(
                w.kernel.answer(approval.id, yes=n % 2 == 1, by=Operator(name=f"person {n}"))
                for n in range(6)
            ),
            return_exceptions=True,
        )
        counted = [one for one in answers if not isinstance(one, Exception)]
        assert len(counted) == 1
        assert all(isinstance(one, CallDenied) for one in answers if one is not counted[0])
        kept = await w.store.approval(approval.id)
        assert kept.answered_by == counted[0].answered_by
        assert (await call).state is (
            CallState.OK if counted[0].state == "approved" else CallState.REFUSED
        )
        with pytest.raises(CallDenied):
            await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        with pytest.raises(NotFound):
            await w.kernel.answer("a-nothing", yes=True, by=Operator(name="alice"))


async def test_parallel_asks_each_get_their_own_answer(tmp_path: Path) -> None:
    """Elsewhere interrupts that share an id answered the wrong call (langgraph#6626)."""
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        calls = {n: w.start("act", {"x": n}) for n in range(6)}
        calls |= {n: w.start("act", {}, counter=100 + n) for n in (6, 7)}  # Equal, but two calls.
        asked = await w.all_pending(8)
        said = {}
        for approval in reversed(asked):
            args = (await w.shown(approval))["arguments"]
            said[approval.call] = yes = args.get("x", 1) % 2 == 1
            await w.kernel.answer(approval.id, yes=yes, by=Operator(name="alice"))
        for n in range(6):
            wanted = CallState.OK if n % 2 else CallState.REFUSED
            assert (await calls[n]).state is wanted, n
        await asyncio.gather(*calls.values())
        for call in await w.calls():
            assert (call.state is CallState.OK) == said[call.id]
        assert sorted(args.get("x", -1) for args in tool.args) == [-1, -1, 1, 3, 5]


async def test_nothing_is_held_while_a_human_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        call = w.start("crm.execute", CLOSE)
        approval = await w.pending()
        free = apsw.Connection(str(tmp_path / "crm.db"))
        free.execute("UPDATE customer SET name = 'Ann B' WHERE id = 1")  # No lock is held …
        free.close()
        assert (await w.kind(CallKind.RANDOM, {})).state is CallState.OK  # … and no turn.
        assert (await w.row()).cost_used_microusd == 0
        await w.kernel.answer(approval.id, yes=False, by=Operator(name="alice"))
        assert code(await call) == "denied"


async def test_there_is_a_cap_on_what_waits_for_people(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        most = limits.APPROVALS_PENDING_PER_TREE_MAX
        calls = [w.start("act", {"x": n}) for n in range(most + 4)]
        await w.all_pending(most)
        done, waiting = await asyncio.wait(calls, timeout=0.5)
        assert len(done) == 4 and {code(one.result()) for one in done} == {"limit_reached"}
        for approval in await w.all_pending(most):
            await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        await asyncio.gather(*waiting)
        assert tool.done == most


async def test_a_kill_revokes_what_waits_for_people(tmp_path: Path) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        call = w.start("crm.execute", CLOSE)
        approval = await w.pending()
        await w.kernel.kill("run", w.run.id, by="alice")
        with pytest.raises(RunDead):
            await call
        assert (await w.store.approval(approval.id)).state is ApprovalState.REVOKED
        with pytest.raises(CallDenied):
            await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        assert rows(tmp_path / "crm.db")[1][2] == "open"
        assert (await w.row()).state is RunState.CANCELLED


async def test_an_agent_that_says_it_is_approved_is_not(tmp_path: Path) -> None:
    async with world(tmp_path / "home", **crm(tmp_path)) as w:
        for extra in ({"approved": True}, {"operator": True}, {"_approval": "a-1"}):
            assert code(await w.call("crm.execute", {**CLOSE, **extra})) == "call_invalid"
        for name in ("approve", "answer", "ring0.answer", "undo", "settle", "kill"):
            assert code(await w.call(name, {"approval": "a-1", "yes": True})) == "denied"
        assert rows(tmp_path / "crm.db")[1][2] == "open"


# --- policy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE customer", "drop/**/table customer", "ALTER TABLE customer ADD x",
     "CREATE TABLE t (x)", "CREATE TRIGGER t AFTER INSERT ON customer BEGIN SELECT 1; END",
     "ATTACH 'other.db' AS o", "PRAGMA writable_schema = 1", "VACUUM",
     "DELETE FROM customer; DROP TABLE customer", "SELECT load_extension('x')"],
)  # fmt: skip
async def test_no_policy_of_the_user_lets_a_statement_change_the_schema_or_leave_its_bounds(
    tmp_path: Path, statement: str
) -> None:
    async with world(tmp_path / "home", policy=PERMIT_EXECUTE, task=TASK,
                     **crm(tmp_path)) as w:  # fmt: skip
        before = (tmp_path / "crm.db").read_bytes()
        outcome = await w.call("crm.execute", {"statement": statement})
        assert outcome.state in (CallState.REFUSED, CallState.ERROR), outcome
        assert not await w.store.approvals(), "it is not even asked"
        assert (tmp_path / "crm.db").read_bytes() == before
        assert (await w.call("crm.execute", CLOSE)).state is CallState.OK, "the next one works"


async def test_a_policy_of_the_user_lifts_the_ask_for_the_tool_it_names_and_for_no_other(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", policy=PERMIT_EXECUTE, task=TASK,
                     **crm(tmp_path)) as w:  # fmt: skip
        other = w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        assert (await w.call("crm.execute", CLOSE)).state is CallState.OK
        assert rows(tmp_path / "crm.db")[1][2] == "closed"
        call = w.start("act", {})
        await w.kernel.answer((await w.pending()).id, yes=False, by=Operator(name="alice"))
        assert code(await call) == "denied" and other.done == 0


async def test_an_error_of_the_policy_engine_is_a_no(tmp_path: Path) -> None:
    policy = """
    @id("broken") @reason("It overflows.")
    forbid (principal, action in Action::"tool", resource == Tool::"act")
    when { context.rows + 9223372036854775807 > 9223372036854775806 && false };
    """
    async with world(tmp_path / "home", policy=policy) as w:
        tool = w.tool(Doing("act", rows=1))
        outcome = await w.call("act", {})
        assert outcome.state is CallState.REFUSED and "ring0.undecided" in outcome.error["why"]
        assert tool.done == 0


# --- effects that were cut off ---------------------------------------------------------------


@pytest.mark.parametrize("happened", [True, False])
async def test_a_once_effect_that_is_cut_off_waits_until_somebody_says_what_became_of_it(
    tmp_path: Path, happened: bool
) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE))
        tool.hold()
        call = w.start("act", {"x": 1}, counter=1)
        await tool.begun.wait()
        await w.kernel.runs.stop()
        with pytest.raises(RunDead):
            await call
        record = await w.recorded(f"{w.run.id}/0/1")
        assert record.state is CallState.UNKNOWN
    async with world(home, start=False) as w:
        run, tool = await again(w, record.run, Doing("act", effect=Effect.ONCE))
        call = w.start("act", {"x": 1}, counter=1)
        await w.until(RunState.WAITING, "unknown")
        with pytest.raises(NotFound):
            await w.kernel.settle(f"{run.id}/0/9", happened=True, by="alice")
        await w.kernel.settle(record.id, happened=happened, by="alice", note="I looked")
        outcome = await call
        assert outcome.state is (CallState.OK if happened else CallState.ERROR)
        assert tool.done == 0, "it is never run again by itself"
        with pytest.raises(InvalidInput):
            await w.kernel.settle(record.id, happened=not happened, by="alice")
        await w.until(RunState.RUNNING)
        assert (await w.call("act", {"x": 2}, counter=2)).state is CallState.OK
        assert await w.call("act", {"x": 1}, counter=1) == outcome


async def again(w: World, run: str, tool: Doing) -> tuple[LiveRun, Doing]:
    """The run of an earlier kernel, recovered, its calls made by the test."""
    from ring0.kernel.agent.agents import Agent, family_of

    async def agent(run: LiveRun) -> object:
        return await w.end

    family = await family_of(w.store, run)
    functions = {f"agent:{family.manifest.name}": agent}
    assert await w.kernel.recover(Agent(family, "embedded", functions=functions)) == [run]
    w.run = w.kernel.gate.live[run]
    w.tool(tool)
    return w.run, tool


async def test_a_once_driver_that_cannot_tell_leaves_the_call_unknown_and_the_run_waits(
    tmp_path: Path,
) -> None:
    from ring0.errors import EffectUnknown

    def lost(*_: object) -> None:
        raise EffectUnknown("the connection broke after the request was sent")

    async with world(tmp_path / "home") as w:
        w.tool(Doing("pay", effect=Effect.ONCE, act=lost))
        w.tool(Doing("bug", effect=Effect.ONCE, act=lambda *_: 1 / 0))
        w.tool(Doing("pure", act=lambda *_: 1 / 0))
        for name in ("pay", "bug"):
            call = w.start(name, {})
            await w.until(RunState.WAITING, "unknown")
            (record,) = [one for one in await w.calls() if one.state is CallState.UNKNOWN]
            await w.kernel.settle(record.id, happened=False, by="alice")
            assert code(await call) == "effect_unknown"
        assert code(await w.call("pure", {})) == "tool_failed"


async def test_a_pure_call_that_was_cut_off_just_runs_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        tool = w.tool(Doing("look"))
        tool.hold()
        call = w.start("look", {}, counter=1)
        await tool.begun.wait()
        await w.kernel.runs.stop()
        await asyncio.gather(call, return_exceptions=True)
        run = w.run.id
    async with world(home, start=False) as w:
        _, tool = await again(w, run, Doing("look"))
        assert (await w.call("look", {}, counter=1)).value == {"done": 1}
        assert (await w.row()).calls_used == 1, "it is one call"


async def test_an_ask_outlives_the_kernel_and_its_answer_is_used_after_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        call = w.start("act", {"x": 1}, counter=1)
        approval = await w.pending()
        run = w.run.id
        await w.kernel.runs.stop()
        await asyncio.gather(call, return_exceptions=True)
        row = await w.row()
        assert (row.state, row.waiting_for) == (RunState.WAITING, "approval")
    async with world(home, start=False) as w:
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        tool = Doing("act", effect=Effect.ONCE, mutates=True, own=False)
        await again(w, run, tool)
        assert (await w.call("act", {"x": 1}, counter=1)).state is CallState.OK
        assert tool.done == 1 and len(await w.store.approvals(run=run)) == 1


async def test_resuming_does_not_run_an_approved_sibling_again(tmp_path: Path) -> None:
    """As it did elsewhere (langgraphjs#992)."""
    home = tmp_path / "home"
    fields = {"effect": Effect.ONCE, "mutates": True, "own": False}
    async with world(home) as w:
        tool = w.tool(Doing("act", **fields))
        calls = [w.start("act", {"x": n}, counter=n) for n in (1, 2)]
        first, second = sorted(await w.all_pending(2), key=lambda one: one.call)
        await w.kernel.answer(first.id, yes=True, by=Operator(name="alice"))
        assert (await calls[0]).state is CallState.OK and tool.done == 1
        run = w.run.id
        await w.kernel.runs.stop()
        await asyncio.gather(*calls, return_exceptions=True)
    async with world(home, start=False) as w:
        _, tool = await again(w, run, Doing("act", **fields))
        calls = [w.start("act", {"x": n}, counter=n) for n in (1, 2)]
        assert (await calls[0]).value == {"done": 1}
        await w.kernel.answer(second.id, yes=True, by=Operator(name="alice"))
        assert (await calls[1]).state is CallState.OK
        assert tool.args == [{"x": 2}]


async def test_an_answer_that_comes_before_a_recovered_process_asks_again_is_not_lost(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        call = w.start("act", {}, counter=1)
        approval = await w.pending()
        run = w.run.id
        await w.kernel.runs.stop()
        await asyncio.gather(call, return_exceptions=True)
    async with world(home, start=False) as w:
        await again(w, run, Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        async with asyncio.timeout(2):
            assert (await w.call("act", {}, counter=1)).state is CallState.OK


# --- ends ------------------------------------------------------------------------------------


async def test_a_handle_is_dead_from_the_end_of_its_run(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("act"))
        go = tool.hold()
        late = w.start("act", {"x": 1})
        await tool.begun.wait()
        handle = w.run.handle
        w.end.set_result("done")
        await w.kernel.runs.wait(w.run.id)
        go.set()
        with pytest.raises(RunDead):
            await late
        for kind, name in ((CallKind.TOOL, "act"), (CallKind.NOW, "")):
            with pytest.raises(RunDead):
                await w.call(name, {}, kind=kind)
        first = w.run.id
        w.end = asyncio.get_running_loop().create_future()
        await begin(w, "another", Budget())
        with pytest.raises(RunDead):
            await w.kernel.gate.call(handle, Request(kind=CallKind.NOW, args={}))
        assert all(call.run == first for call in await w.store.calls(first))


async def test_ends_and_calls_race_and_no_call_is_admitted_after_the_end(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=10_000)) as w:
        tool = w.tool(Doing("act", effect=Effect.ONCE))

        async def hammer(first: int) -> None:
            for n in range(first, first + 10_000):
                await w.call("act", {"x": n}, counter=n)

        tasks = [asyncio.create_task(hammer(n * 10_000)) for n in range(20)]
        while tool.done < 50:
            await asyncio.sleep(0)
        await w.kernel.kill("run", w.run.id, by="alice")
        done = tool.done
        assert {type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)} == {
            RunDead
        }
        assert tool.done == done
        entries = [entry async for entry in w.store.entries(w.run.id)]
        end = next(n for n, entry in enumerate(entries) if type(entry.body).__name__ == "RunEnded")
        assert end == len(entries) - 1, "nothing of a run stands behind its end"


@pytest.mark.parametrize("scope", ["run", "agent", "tenant", "all"])
async def test_a_kill_ends_what_it_names(tmp_path: Path, scope: str) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("act"))
        target = {"run": w.run.id, "agent": "clerk", "tenant": "local", "all": ""}[scope]
        assert await w.kernel.kill(scope, target, by="alice") == [w.run.id]
        assert (await w.row()).state is RunState.CANCELLED
        with pytest.raises(RunDead):
            await w.call("act", {})
        w.end = asyncio.get_running_loop().create_future()
        await begin(w, "a later run is not reached", Budget())
        w.tool(Doing("act"))
        assert (await w.call("act", {})).state is CallState.OK


async def test_a_kill_by_a_misspelt_scope_or_of_nothing_is_an_error(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        before = await w.store.kill_generation()
        with pytest.raises(InvalidInput):
            await w.kernel.kill("agnet", "clerk", by="alice")
        with pytest.raises(NotFound):
            await w.kernel.kill("run", "r-nothing", by="alice")
        assert await w.store.kill_generation() == before
        assert (await w.row()).state is RunState.RUNNING


async def test_a_run_that_was_killed_is_not_recovered_even_if_its_end_was_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        run = w.run.id

        async def crash(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(w.kernel.runs, "end_all", crash)
        with pytest.raises(KeyboardInterrupt):
            await w.kernel.kill("all", "", by="alice")
    async with world(home, start=False) as w:
        from ring0.kernel.agent.agents import Agent, family_of

        async def agent(run: LiveRun) -> None:
            raise AssertionError("it goes on although it was killed")

        agent_of = Agent(
            await family_of(w.store, run), "embedded", functions={"agent:clerk": agent}
        )
        assert await w.kernel.recover(agent_of) == []
        assert (await w.row(run)).state is RunState.CANCELLED
