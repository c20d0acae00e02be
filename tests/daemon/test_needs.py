"""The lines of a daemon's log that say when a person is needed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from ring0 import limits
from ring0.daemon.needs import Needs
from ring0.errors import StoreDamaged
from ring0.runtime import Runtime
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    Shown,
    Verdict,
    VerdictKind,
)

HOSTILE = "wipe\x1b[2J\x07 all\nr-1  a call is held; `ring0 approve a-2`" + "x" * 10_000


class Blobs:
    """A store that has one text to show, or none."""

    def __init__(self, title: str | None) -> None:
        self._title = title

    async def blob(self, _: str) -> bytes:
        if self._title is None:
            raise StoreDamaged("The blob is gone.", todo="Verify.")
        label = Label(integrity=Integrity.USER)
        shown = Shown(title=self._title, tool="t", arguments={}, run_label=label)
        return msgspec.json.encode(shown)


def asked(name: str = "a-1") -> Approval:
    return Approval(
        id=name, run="r-1", call="r-1/0/3", bound_to="b", state=ApprovalState.PENDING,
        shown="s", policy_digest="p", asked_us=1, expires_us=2,
    )  # fmt: skip


async def said(title: str | None, *asks: tuple[Any, str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    needs = Needs(Blobs(title), Runtime(), lambda what, run: found.append((what, run)))  # type: ignore[arg-type]
    for what, reason in asks:
        needs.heard(what, reason)
    await asyncio.sleep(0.05)
    return found


async def test_a_held_call_is_said_with_how_to_answer_it() -> None:
    ((what, run),) = await said("DROP TABLE customers", (asked(), "approval"))
    assert run == "r-1" and what.startswith("a call is held; ")
    assert "`ring0 approve a-1` or `ring0 deny a-1`: DROP TABLE customers" in what


async def test_a_request_for_more_budget_is_said_as_one() -> None:
    ((what, _),) = await said("r-1 (clerk) asks for 5 calls more", (asked(), "budget"))
    assert what.startswith("more budget is asked for; `ring0 approve a-1`")


async def test_an_unknown_effect_is_said_with_how_to_settle_it() -> None:
    call = Call(
        id="r-1/0/3", run="r-1", seq=1, kind=CallKind.TOOL, name=HOSTILE, effect=Effect.ONCE,
        state=CallState.UNKNOWN, request_digest="d", args="a", decision="", begun_us=1,
        verdict=Verdict(kind=VerdictKind.ALLOW, reasons=(), policy_digest="p"),
    )  # fmt: skip
    ((what, run),) = await said("", (call, "unknown"))
    assert run == "r-1" and "`ring0 settle r-1/0/3 happened`" in what
    assert "did-not-happen" in what and "\x1b" not in what and len(what) < 1_000


async def test_an_ask_is_said_once_however_often_its_run_comes_to_it() -> None:
    told = await said("x", (asked(), "approval"), (asked(), "approval"), (asked("a-2"), "approval"))
    assert len(told) == 2


@pytest.mark.parametrize("title", [HOSTILE, None])
async def test_hostile_text_is_plain_bounded_last_and_on_one_line(title: str | None) -> None:
    ((what, _),) = await said(title, (asked(), "approval"))
    assert not any(ord(letter) < 32 for letter in what)
    assert what.index("ring0 approve a-1") < what.index("`: ")
    assert len(what) < limits.WORKER_TITLE_CHARS_MAX + 200


async def test_a_tree_that_was_told_no_too_often_is_said_with_what_lets_it_go_on() -> None:
    found: list[tuple[str, str]] = []
    needs = Needs(Blobs("x"), Runtime(), lambda what, run: found.append((what, run)))  # type: ignore[arg-type]
    needs.told_no("r-1", ["r-1", "r-2"])
    needs.told_no("r-3", ["r-3"])
    (two, root), (one, _) = found
    assert root == "r-1" and "2 runs of the tree are paused" in two
    assert "ring0 resume r-1 --tree" in two and "ring0 kill r-1" in two
    assert "1 run of the tree is paused" in one
