"""A changed call whose dry run nobody has seen is asked about again; and what can be changed to
what is said with each ask, by the tool's schema."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from approvals_world import (
    ADA,
    ALICE,
    BOB,
    CAROL,
    PAY,
    PAY_SCHEMA,
    SOMEBODY_ELSE,
    TWO_PEOPLE,
    payer,
)
from kernel_world import Doing, World, world

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid
from ring0.kernel.steps import choices
from ring0.types import Approval, ApprovalState, CallKind, CallState, Effect


class Rehearsed(Doing):
    """Its dry run says who would get what, and what that leaves."""

    async def prepare(self, args: Any, context: Any) -> Any:
        self.prepared["lines"] = (f"{args['to']} gets {args['amount']}",)
        self.prepared["digest"] = f"{args}"
        return await super().prepare(args, context)


def rehearsed(w: World) -> Rehearsed:
    tool = Rehearsed("pay", effect=Effect.ONCE, mutates=True, own=False, schema=PAY_SCHEMA,
                     critical=("to",), reversal="reversible")  # fmt: skip
    w.tool(tool)
    return tool


async def anew(w: World, than: Approval) -> Approval:
    async with asyncio.timeout(5):
        while True:
            for one in await w.store.approvals(run=than.run):
                if one.call == than.call and one.edition > than.edition:
                    return one  # type: ignore[no-any-return]
            await asyncio.sleep(0.005)


async def test_whoever_changes_a_call_has_not_said_yes_to_a_dry_run_that_nobody_saw(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        tool = rehearsed(w)
        call = w.start("pay", PAY)
        first = await w.pending()
        assert (await w.shown(first))["dry_run"] == ["mallory gets 5"]
        await w.kernel.answer(first.id, yes=True, by=CAROL, edits={"to": "bob"})
        second = await anew(w, first)
        assert (second.state, second.yes_by) == (ApprovalState.PENDING, ())
        assert second.bound_to != first.bound_to, "a new hash"
        shown = await w.shown(second)
        assert shown["dry_run"] == ["bob gets 5"] and shown["edited"] == {"to": CAROL.name}
        await asyncio.sleep(0.05)
        assert not call.done() and tool.done == 0
        with pytest.raises(CallDenied):
            await w.kernel.answer(first.id, yes=True, by=CAROL)  # That one is over.
        await w.kernel.answer(second.id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK and tool.args == [{"to": "bob", "amount": 5}]
        record = (await w.calls())[0]
        assert (record.approval, record.edited) == (second.id, {"to": CAROL.name})


async def test_a_changed_call_is_denied_as_any_other(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = rehearsed(w)
        call = w.start("pay", PAY)
        first = await w.pending()
        await w.kernel.answer(first.id, yes=True, by=CAROL, edits={"to": "bob"})
        await w.kernel.answer((await anew(w, first)).id, yes=False, by=CAROL)
        assert (await call).state is CallState.REFUSED and tool.done == 0


async def test_an_author_counts_once_he_has_seen_it_where_two_are_wanted(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE) as w:
        tool = rehearsed(w)
        call = w.start("pay", PAY)
        first = await w.pending()
        await w.kernel.answer(first.id, yes=True, by=ADA, edits={"to": "bob"})
        second = await anew(w, first)
        assert (second.needs, second.yes_by) == (2, ())
        await w.kernel.answer(second.id, yes=True, by=ADA)
        with pytest.raises(CallDenied, match="counts once"):
            await w.kernel.answer(second.id, yes=True, by=ADA)
        assert tool.done == 0
        await w.kernel.answer(second.id, yes=True, by=BOB)
        assert (await call).state is CallState.OK and tool.done == 1


async def test_whom_the_run_acts_for_gains_nothing_by_somebodys_change(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=SOMEBODY_ELSE) as w:
        tool = rehearsed(w)
        call = w.start("pay", PAY)
        first = await w.pending()
        await w.kernel.answer(first.id, yes=True, by=CAROL, edits={"amount": "6"})
        second = await anew(w, first)
        with pytest.raises(CallDenied, match="whom the run acts for"):
            await w.kernel.answer(second.id, yes=True, by=ALICE)
        await w.kernel.answer(second.id, yes=True, by=CAROL)
        assert (await call).state is CallState.OK and tool.done == 1


async def test_what_a_run_asks_of_its_budget_is_shown_again_when_it_was_made_less(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        call = w.start("", {"calls": 500, "why": "much to do"}, kind=CallKind.ASK)
        first = await w.pending()
        await w.kernel.answer(first.id, yes=True, by=CAROL, edits={"calls": "5"})
        second = await anew(w, first)
        assert second.state is ApprovalState.PENDING
        assert any("5 calls" in one for one in (await w.shown(second))["dry_run"])
        await w.kernel.answer(second.id, yes=True, by=CAROL)
        outcome = await call
        assert outcome.state is CallState.OK and outcome.value["given"] == {"calls": 5}


# --- what arguments take --------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {"Colour": {"enum": ["red", "green"]}, "Loop": {"$ref": "#/$defs/Loop"}},
    "properties": {
        "to": {"type": "string", "maxLength": 40},
        "amount": {"type": "integer", "minimum": 1, "maximum": 9},
        "how": {"type": "string", "enum": ["wire", "cash"]},
        "colour": {"$ref": "#/$defs/Colour"},
        "maybe": {"anyOf": [{"$ref": "#/$defs/Colour"}, {"type": "null"}]},
        "mixed": {"enum": [1, "1", None]},
        "list": {"type": "array"},
        "either": {"type": ["string", "null"]},
        "any": {},
        "loop": {"$ref": "#/$defs/Loop"},
        "out": {"$ref": "https://evil.example/x"},
        "odd": {"type": {"not": "a type"}, "enum": "no list", "maximum": True, "anyOf": []},
        "true": True,
        "const": {"const": {"a": 1}},
    },
}
SENSIBLE: dict[str, Any] = {
    "type": "object",
    "$defs": {"Colour": {"enum": ["red", "green"]}},
    "properties": {
        name: SCHEMA["properties"][name] for name in ("to", "amount", "how", "colour", "maybe")
    },
    "additionalProperties": False,
}


def test_each_argument_says_what_it_takes() -> None:
    said = {name: choices.takes(part, SCHEMA) for name, part in SCHEMA["properties"].items()}
    anything = "anything: JSON, or text"
    assert said == {
        "to": "text, at most 40 letters",
        "amount": "a whole number, at least 1, at most 9",
        "how": "one of: wire, cash",
        "colour": "one of: red, green",
        "maybe": "one of: red, green or null",
        "mixed": 'one of: 1, "1", null',
        "list": "a list, as JSON",
        "either": "text or null",
        "any": anything,
        "loop": anything,
        "out": anything,
        "odd": anything,
        "true": anything,
        "const": 'only {"a":1}',
    }


def test_a_schema_without_end_is_said_within_bounds() -> None:
    many = {"enum": ["x" * 5_000, *range(5_000)]}
    said = choices.takes(many, {})
    most = limits.EDIT_TAKES_CHARS_MAX
    assert len(said) <= most + 40 and said.endswith(" more")
    deep: dict[str, Any] = {"anyOf": [{"type": "string"}]}
    for _ in range(200):
        deep = {"anyOf": [deep, deep]}
    assert len(choices.takes(deep, {})) <= most


async def test_an_ask_says_what_its_arguments_take_and_others_that_could_be_given(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        payer(w, schema=SENSIBLE)
        call = w.start("pay", {"to": "mallory", "how": "wire"})
        takes = (await w.shown(await w.pending()))["takes"]
        assert takes["how"] == "one of: wire, cash" and takes["amount"].startswith("a whole number")
        call.cancel()


async def test_what_nobody_can_change_says_nothing_of_it(tmp_path: Path) -> None:
    policy = """
        @id("looks-ask") @reason("Asked.")
        forbid (principal, action == Action::"sleep", resource) unless { context.approved };
    """
    async with world(tmp_path / "home", policy=policy) as w:
        call = w.start("", {"seconds": 1}, kind=CallKind.SLEEP)
        assert "takes" not in await w.shown(await w.pending())
        call.cancel()


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"how": "gold"}, "how takes one of: wire, cash."),
        ({"colour": '"blue"'}, "colour takes one of: red, green."),
        ({"amount": "many"}, "amount takes a whole number, at least 1, at most 9."),
        ({"amount": "10"}, "amount takes a whole number, at least 1, at most 9."),
    ],
)
async def test_a_change_that_does_not_fit_is_told_what_would(
    tmp_path: Path, edits: dict[str, str], said: str
) -> None:
    async with world(tmp_path / "home") as w:
        payer(w, schema=SENSIBLE)
        call = w.start("pay", {"to": "mallory", "how": "wire"})
        approval = await w.pending()
        with pytest.raises(CallInvalid) as refused:
            await w.kernel.answer(approval.id, yes=True, by=CAROL, edits=edits)
        assert said in refused.value.why
        assert (await w.store.approval(approval.id)).state is ApprovalState.PENDING
        call.cancel()
