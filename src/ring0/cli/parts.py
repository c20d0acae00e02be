"""How a call, its arguments, its result and an ask look: while a run goes on and afterwards."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ring0.cli import output
from ring0.cli.output import escaped, line, text
from ring0.errors import StoreDamaged
from ring0.store.sqlite import SqliteStore
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallKind,
    Integrity,
    Label,
    Outcome,
    Run,
    Shown,
    Verdict,
)

ARGUMENT_CHARS_MAX: Final = 4_000
STYLES: Final = {
    "ok": "green", "done": "green", "approved": "green", "refused": "red", "error": "red",
    "failed": "red", "cancelled": "red", "denied": "red", "unknown": "bold yellow",
    "intended": "yellow", "waiting": "yellow",
}  # fmt: skip
"""By the state of a call, a run or an approval."""


def place(call: str) -> str:
    """A call's name within its run: `0/3`, or the beginning of the digest it is known by."""
    _, _, rest = call.partition("/")
    if rest.startswith("~"):
        digest, _, count = rest.partition("/")
        return f"{digest[:9]}/{count}"
    return rest


def title(call: Call) -> str:
    """What it is a call of: a tool by its name alone, all else by its kind too."""
    return named(str(call.kind), call.name)


def named(kind: str, name: str) -> str:
    return name if kind == CallKind.TOOL else f"{kind} {name}".strip()


def answered(approval: Approval) -> str:
    """What became of it, in a word, for a person."""
    return "approved" if approval.state is ApprovalState.CONSUMED else str(approval.state)


def head(call: Call, args: Any, word: str, style: str) -> Text:
    """One line: which call, allowed or not, and with what."""
    return text(
        (f"{place(call.id):<5} ", "dim"),
        (f"{word:<8}", style),
        (title(call), "bold"),
        "  ",
        (arguments(call.kind, args), ""),
    )


def reasons(verdict: Verdict) -> Text:
    """Why: each rule that decided, in its own words."""
    parts: list[str | tuple[str, str]] = []
    for reason in verdict.reasons:
        parts += [(f"{reason.rule}: ", "dim bold"), (line(reason.text) + " ", "dim")]
    return text(*parts)


def arguments(kind: CallKind, args: Any) -> str:
    """A call's arguments on one line."""
    if kind is CallKind.MODEL and isinstance(args, dict):
        return _question(args)
    if isinstance(args, dict):
        return line(" ".join(f"{key}={escaped(part, 300)}" for key, part in args.items()), 400)
    return escaped(args, 400)


def _question(args: dict[str, Any]) -> str:
    """What a model is asked, by the SDK or at a door of whatever dialect."""
    body = args.get("body", args)
    said = (body.get("messages") or body.get("input")) if isinstance(body, dict) else None
    if not said and "dialect" in args:  # It was refused, and is none; or is too large to be kept.
        known = {"dialect": args["dialect"], "model": args.get("model")}
        named = " ".join(f"{key}={escaped(one, 100)}" for key, one in known.items() if one)
        return line(f"no message on record; {named}")
    messages = said if isinstance(said, list) and said else [{"role": "user", "content": said}]
    last = messages[-1] if isinstance(messages[-1], dict) else {}
    who = last.get("role") or last.get("type") or "?"
    told = last.get("content") or last.get("output") or ""
    if isinstance(told, list):  # Pieces: their texts.
        told = " ".join(str(one.get("text") or one.get("type")) for one in told if one)
    count = output.count(len(messages), "message")
    return f"{count}; last, {line(str(who), 20)}: {line(str(told), 100)}"


def brief(call: Call, value: Any) -> str:
    """A result on one line."""
    if call.kind is CallKind.MODEL and isinstance(value, dict):
        proposed = [
            f"{one.get('name')} {escaped(one.get('args'), 120)}"
            for one in value.get("tool_calls") or ()
            if isinstance(one, dict)
        ]
        said = line(str(value.get("text") or ""), 160)
        return "; ".join([*([said] if said else []), *(f"proposes {one}" for one in proposed)])
    if isinstance(value, dict) and isinstance(value.get("rows"), list) and len(value) <= 3:
        return f"{output.count(len(value['rows']), 'row')} " + output.value_line(value["rows"], 160)
    return output.value_line(value)


@dataclass(frozen=True)
class Asking:
    """Who asks for a held call: the run, and what it was asked to do."""

    run: Run
    task: str


async def asking(store: SqliteStore, approval: Approval) -> Asking:
    """Reads it. Raises StoreDamaged."""
    run = await store.run(approval.run)
    if run is None:
        raise StoreDamaged(
            f"The run {approval.run} of {approval.id} is not on record.",
            todo="`ring0 audit verify` shows what else is missing.",
        )
    return Asking(run, "" if run.erased else (await store.blob(run.task)).decode())


async def shown_of(store: SqliteStore, approval: Approval, run: Run) -> Shown:
    """What was shown to who was asked; where that is gone, what became of it. Raises
    StoreDamaged."""
    try:
        return msgspec.json.decode(await store.blob(approval.shown), type=Shown)
    except StoreDamaged:
        if not (why := gone(store, run)):
            raise
        return Shown(title=why, tool="", arguments={}, run_label=run.label)


def gone(store: SqliteStore, run: Run) -> str:
    """Where a run's values are not here any more: what became of them; empty: they are here."""
    if run.erased:
        return "What it was told, said and returned was erased, for good. Its events stand."
    if store.storage.archive(run.id) is not None:
        return f"What it said and returned is archived: `ring0 unarchive {run.id}` puts it back."
    return ""


def held(approval: Approval, shown: Shown, of: Asking) -> Panel:
    """All that a human needs to answer: who asks, what it would take, from where, the way back."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    begins = of.task.strip().partition("\n")[0]
    grid.add_row("asked by", text((of.run.id, "bold"), f", agent {line(of.run.agent, 80)}"))
    grid.add_row("for", text(line(of.run.principal, 100)))
    grid.add_row("its task", text(line(begins, 100) + (" …" if begins != of.task.strip() else "")))
    grid.add_row(
        "waits",
        text(
            f"since {output.moment(approval.asked_us)},"
            f" until {output.moment(approval.expires_us)} (UTC)"
        ),
    )
    if approval.needs > 1 or approval.apart:
        grid.add_row("answered by", text(_people(approval, of.run.principal)))
    for key, value in shown.arguments.items():
        grid.add_row(text(line(key, 40)), text(escaped(value, ARGUMENT_CHARS_MAX)))
        if (whole := len(escaped(value, sys.maxsize))) > ARGUMENT_CHARS_MAX:
            left_out = f"{whole - ARGUMENT_CHARS_MAX + 1:,} more letters are not shown"
            grid.add_row("", text((f"{left_out}: `ring0 approvals --json` has all", "bold red")))
        if (who := shown.edited.get(key)) is not None:
            was = escaped(shown.before[key], 300) if key in shown.before else "not there"
            grid.add_row(
                "", text((f"changed by {line(who, 80)}; the agent had it ", "yellow"), was)
            )
        if key in shown.takes:
            grid.add_row("", text((f"takes {line(shown.takes[key], 300)}", "dim")))
    for key, takes in shown.takes.items():
        if key not in shown.arguments:
            grid.add_row(text(line(key, 40)), text((f"not given; takes {line(takes, 300)}", "dim")))
    for number, change in enumerate(shown.dry_run):
        name = "would change" if number == 0 else ""
        style = "dim" if change.startswith(" ") else "bold"
        indent = "  " if change.startswith(" ") else ""
        grid.add_row(name, text((indent + line(change, 400), style)))
    for number, origin in enumerate(shown.origins):
        grid.add_row(
            "came from" if number == 0 else "",
            text(
                f"{line(origin.argument, 60)} = {line(origin.value, 80)}: ",
                (
                    ", ".join(line(source, 80) for source in origin.sources)
                    or "nowhere that the kernel has seen",
                    "bold",
                ),
                (f"  [{origin.integrity}{'' if origin.exact else ', matched by text'}]", "dim"),
                (f"  {line(origin.chosen, 120)}" if origin.chosen else "", "green"),
            ),
        )
    for number, origin in enumerate(shown.beside):
        first = number == 0 and not shown.origins
        grid.add_row(
            "came from" if first else "",
            text(
                (f"{line(origin.argument, 60)} = {line(origin.value, 80)}: ", "dim"),
                ", ".join(line(source, 80) for source in origin.sources)
                or "nowhere that the kernel has seen",
                (f"  [{origin.integrity}{'' if origin.exact else ', matched by text'}]", "dim"),
            ),
        )
    for number, finding in enumerate(shown.findings):
        grid.add_row("found" if number == 0 else "", text((line(finding, 300), "yellow")))
    grid.add_row("the run has read", text((worst_read(shown.run_label), "bold")))
    grid.add_row("the way back", text((line(shown.reversal), "bold")))
    for reason in shown.reasons:
        grid.add_row(
            "held by", text((f"{line(reason.rule, 80)}: ", "bold"), line(reason.text, 400))
        )
    if shown.approver:
        grid.add_row("meant for", text(line(", ".join(shown.approver), 200)))
    foot = _foot(approval)
    title = text((f"held: {line(shown.title, 100)}", "bold yellow"))
    return Panel(
        Group(grid, Text(), foot),
        title=title,
        title_align="left",
        border_style="yellow",
        expand=False,
    )


def worst_read(label: Label) -> str:
    """A run's own label in words: the worst that it has read, and who may see that."""
    return f"{label.integrity}, {label.confidentiality}"


def _people(approval: Approval, principal: str) -> str:
    """Who has to answer, and who has."""
    said = f"{approval.needs} people" if approval.needs > 1 else "one person"
    if approval.apart:
        said += f", none of them {line(principal, 80)}"
    if approval.needs > 1:
        said += ", each logged in (`ring0 login`)"
    if approval.yes_by:
        said += f"; yes from {', '.join(line(one, 80) for one in approval.yes_by)}"
    return said


def _foot(approval: Approval) -> Text:
    return text(
        (f"ring0 approve {approval.id}", "bold green"),
        ("  or  ", "dim"),
        (f"ring0 deny {approval.id}", "bold red"),
    )


async def outcome_of(store: SqliteStore, call: Call) -> Outcome:
    """What a call came to, as it is on record; of one that goes on, what is known."""
    if not call.outcome:
        return Outcome(state=call.state, label=Label(integrity=Integrity.SYSTEM))
    return msgspec.json.decode(await store.blob(call.outcome), type=Outcome)
