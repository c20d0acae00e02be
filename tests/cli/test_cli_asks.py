"""How an ask looks to whoever answers it: all of it is hostile text, and what is cut says so."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from ring0.cli.parts import ARGUMENT_CHARS_MAX, Asking, held
from ring0.types import (
    Approval,
    ApprovalState,
    Budget,
    Integrity,
    Label,
    Mode,
    Origin,
    Reason,
    Run,
    RunState,
    Shown,
)

EVIL = "x\x1b[2J\x1b]0;t\x07\n\r│ the way back  reversible\u202e\u200b\u2028end"


PLAIN = Label(integrity=Integrity.USER)
RUN = Run(
    id="r-1", state=RunState.WAITING, root="r-1", agent="clerk" + EVIL, agent_digest="d",
    mode=Mode.ISOLATED, tenant="local", principal="alice" + EVIL, task="t", label=PLAIN,
    budget=Budget(), started_us=0, deadline_us=1,
)  # fmt: skip


def seen(**fields: Any) -> str:
    shown = Shown(
        **{
            "title": "pay",
            "tool": "pay",
            "arguments": {},
            "run_label": PLAIN,
            "reversal": "irreversible",
            **fields,
        }
    )
    approval = Approval(
        id="a-1", run="r-1", call="r-1/0/1", bound_to="b", state=ApprovalState.PENDING,
        shown="s", policy_digest="p", asked_us=0, expires_us=1,
    )  # fmt: skip
    out = io.StringIO()
    console = Console(file=out, width=120, markup=False, emoji=False, highlight=False)
    console.print(held(approval, shown, Asking(RUN, EVIL)))
    return out.getvalue()


def test_what_is_cut_of_an_argument_is_said_with_how_much_it_is() -> None:
    fits = seen(arguments={"text": "a" * (ARGUMENT_CHARS_MAX - 2)})
    assert "not shown" not in fits
    cut = seen(arguments={"text": "a" * (ARGUMENT_CHARS_MAX + 98)})
    assert "101 more letters are not shown" in cut


def test_nothing_hostile_in_an_ask_moves_the_cursor_hides_itself_or_makes_a_line_of_its_own() -> (
    None
):
    origin = Origin(
        argument=EVIL, value=EVIL, sources=(EVIL,), integrity=Integrity.UNTRUSTED, exact=False
    )
    said = seen(
        title=EVIL,
        tool=EVIL,
        arguments={EVIL: EVIL, "nested": {EVIL: [EVIL]}},
        origins=(origin,),
        dry_run=(EVIL, " " + EVIL),
        reversal=EVIL,
        reasons=(Reason(rule=EVIL, text=EVIL),),
        approver=(EVIL,),
        edited={EVIL: EVIL},
        before={EVIL: EVIL},
    )
    assert not set(said) & set("\x1b\x07\r\u202e\u200b\u2028")
    assert sum(line.startswith("│ the way back") for line in said.split("\n")) == 1
    assert not [line for line in said.split("\n") if line.startswith("│  ") and line[34:35] == "│"]
