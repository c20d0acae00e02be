"""What is kept of how a call was judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from kernel_world import Doing, world
from spoken import Spoken, priced, said

from ring0.types import ApprovalState, Budget, CallKind

LONG = "a conversation that grows with each turn"
ASKED = {"messages": [{"role": "user", "content": LONG}], "max_tokens": 100}
BUDGET = Budget(calls=100, tokens=10_000, cost_microusd=10_000)
ASKS = """
@id("looked-at") @reason("Somebody looks at it.")
forbid (principal, action == Action::"model", resource) unless { context.approved };
"""


def kept(w: Any) -> int:
    return sum(LONG.encode() in value for _, value in w.store.stored_blobs())


async def test_a_conversation_is_on_record_once_for_each_question(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        Spoken(w, said(1, 1))
        outcome = await w.call("default", ASKED, kind=CallKind.MODEL)
        assert outcome.error is None
        (call,) = await w.calls()
        assert kept(w) == 1 and LONG.encode() in await w.store.blob(call.args)
        evidence = await w.evidence(call)
        assert evidence["shown"]["arguments"] == {}
        assert evidence["shown"]["tool"] == "default" and evidence["question"]["resource"]


async def test_what_a_person_was_shown_is_kept_as_they_saw_it(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET), policy=ASKS) as w:
        Spoken(w, said(1, 1))
        asking = w.start("default", ASKED, kind=CallKind.MODEL)
        approval = await w.pending()
        assert approval.state is ApprovalState.PENDING
        evidence = msgspec.json.decode(await w.store.blob(approval.decision))
        for shown in (await w.shown(approval), evidence["shown"]):
            assert shown["arguments"]["messages"][0]["content"] == LONG
        asking.cancel()


async def test_a_tools_evidence_has_its_arguments(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("look"))
        await w.call("look", {"text": LONG})
        (call,) = await w.calls()
        assert (await w.evidence(call))["shown"]["arguments"] == {"text": LONG}
