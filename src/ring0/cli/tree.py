"""A run as it stands in the journal, as a tree: its calls in order, its children beneath the calls
that spawned them, its files, its result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from ring0.cli import output
from ring0.cli.labels import declassified
from ring0.cli.output import line, text
from ring0.cli.parts import (
    STYLES,
    answered,
    arguments,
    brief,
    gone,
    outcome_of,
    place,
    title,
    worst_read,
)
from ring0.errors import StoreDamaged
from ring0.kernel.undo.planning import AGENT, look
from ring0.store import child_of
from ring0.store.approving import DENIED_IN_A_ROW
from ring0.store.events import CallEnded, Declassified, Entry, RunEnded
from ring0.store.sqlite import SqliteStore
from ring0.types import (
    ENDED,
    Approval,
    Call,
    CallKind,
    CallState,
    File,
    Outcome,
    Run,
    RunState,
    UndoLeft,
    UndoStep,
)

_MARKS: Final = {
    CallState.OK: "✓",
    CallState.REFUSED: "✗",
    CallState.ERROR: "!",
    CallState.UNKNOWN: "?",
    CallState.INTENDED: "…",
}


@dataclass
class Told:
    """A run with all that hangs on it."""

    run: Run
    task: str
    result: dict[str, Any] | None
    gone: str = ""
    """Where its values are not here: what became of them."""
    calls: list[tuple[Call, Any, Outcome | None]] = field(default_factory=list)
    """Each with its arguments and its outcome; None: they are not here."""
    ways: dict[str, UndoStep | UndoLeft] = field(default_factory=dict)
    """By call: how it would be taken back, or why not. Nothing of what changed nothing."""
    declassified: dict[str, list[Declassified]] = field(default_factory=dict)
    """By call: values that somebody answers for."""
    directives: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By question to a model: records of those that stood in it."""
    approvals: dict[str, Approval] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    children: dict[str, Told] = field(default_factory=dict)
    """By the call that spawned it."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "gone": self.gone,
            "task": self.task,
            "result": self.result,
            "calls": [
                {
                    **output.builtins(call),
                    "args": args,
                    "outcome": outcome,
                    **_way_back(self.ways.get(call.id)),
                    **_answered_for(self.declassified.get(call.id)),
                    **_directed(self.directives.get(call.id)),
                    **(
                        {"child": self.children[call.id].as_dict()}
                        if call.id in self.children
                        else {}
                    ),
                }
                for call, args, outcome in self.calls
            ],
            "approvals": list(self.approvals.values()),
            "files": self.files,
        }


def _answered_for(said: list[Declassified] | None) -> dict[str, Any]:
    return {"declassified": said} if said else {}


def _directed(records: tuple[str, ...] | None) -> dict[str, Any]:
    return {"directives": records} if records else {}


def _way_back(way: UndoStep | UndoLeft | None) -> dict[str, Any]:
    if isinstance(way, UndoStep):
        by = {"undone_with": way.tool} if way.how == "call" and way.tool else {}
        return {"undoable": not way.refused, **by}
    return {"undoable": False, **({"stays": way.why} if way else {})}


async def gather(store: SqliteStore, run: Run) -> Told:
    """Reads a run and its children. Raises StoreDamaged where a value is not here, and nothing on
    record says why."""
    told = Told(run, "", None, gone=gone(store, run))
    told.task = (await _value(store, told, run.task) or b"").decode()
    if run.result and (result := await _value(store, told, run.result)) is not None:
        told.result = msgspec.json.decode(result)
    told.approvals = {approval.id: approval for approval in await store.approvals(run=run.id)}
    told.files = await store.files(run.id)
    brought: dict[str, tuple[str, ...]] = {}
    async for entry in store.entries(run.id):
        if isinstance(entry.body, Declassified):
            told.declassified.setdefault(entry.body.call, []).append(entry.body)
        elif isinstance(entry.body, CallEnded) and entry.body.recalled:
            brought[entry.body.call] = entry.body.recalled
    children = {row.id: row for row in await store.runs(parent=run.id, most=1_000)}
    for call in await store.calls(run.id):
        args = await _value(store, told, call.args)
        here = args is not None
        outcome = await outcome_of(store, call) if here else None
        told.calls.append((call, msgspec.json.decode(args) if args is not None else None, outcome))
        if call.kind is CallKind.MODEL and call.id in brought:
            told.directives[call.id] = brought[call.id]
        if here and call.kind is CallKind.TOOL and run.agent != AGENT:
            way = await look(store, call, run, None, frozenset())
            told.ways |= {call.id: way} if way else {}
        if (child := children.get(child_of(call.id))) is not None:
            told.children[call.id] = await gather(store, child)
    return told


async def _value(store: SqliteStore, told: Told, where: str) -> bytes | None:
    """None: it is not here, and that is on record."""
    try:
        return await store.blob(where)
    except StoreDamaged:
        if told.gone:
            return None
        raise


def narrowed(told: Told, only: Collection[str]) -> Told:
    """With the calls of these kinds, states, verdicts or names alone, and those that lead to a
    child; all of them where there is none of these words."""
    if not only:
        return told

    def wanted(call: Call) -> bool:
        of = {str(call.kind), call.name, str(call.state), str(call.verdict.kind)}
        return bool(of & {*only}) or call.id in told.children

    children = {call: narrowed(child, only) for call, child in told.children.items()}
    calls = [one for one in told.calls if wanted(one[0])]
    return replace(told, calls=calls, children=children)


async def printed(store: SqliteStore, run: Run) -> dict[str, str]:
    """What the run's process printed: the end of each stream. Empty while it goes on."""
    async for entry in store.entries(run.id):
        if isinstance(entry.body, RunEnded) and entry.body.output:
            body = msgspec.json.decode(await store.blob(entry.body.output))
            return {"stdout": str(body["stdout"]), "stderr": str(body["stderr"])}
    return {"stdout": "", "stderr": ""}


def entry_row(entry: Entry) -> tuple[str | Text, ...]:
    """A line of the journal."""
    body = output.builtins(entry.body)
    kind = type(entry.body).__struct_config__.tag
    flat = {key: part for key, part in body.items() if part not in ("", 0, None, [], ())}
    for key in ("run", "call", "approval"):
        if isinstance(flat.get(key), dict):
            flat[key] = flat[key].get("id")
    words = " ".join(f"{key}={output.value_line(part, 120)}" for key, part in flat.items())
    return (str(entry.seq), output.moment(entry.at_us), str(kind), line(words, 400))


# --- drawing ---------------------------------------------------------------------------------


def draw(told: Told, now_us: int) -> RenderableType:
    """The whole tree."""
    tree = Tree(_head(told.run, now_us), guide_style="dim")
    if told.gone:
        tree.add(text((told.gone, "yellow")))
    if told.task:
        tree.add(text(("task  ", "dim"), (line(told.task, 600), "italic")))
    if told.run.paused_by == DENIED_IN_A_ROW:
        what = f"look at what it asks for, then `ring0 resume {told.run.root} --tree`, or `kill`"
        tree.add(text((what, "yellow")))
    _add(tree, told, now_us)
    return tree


def _head(run: Run, now_us: int) -> Text:
    ends = run.ended_us if run.state in ENDED else now_us
    state = f"{run.state} ({run.waiting_for})" if run.waiting_for else str(run.state)
    if run.paused_by:
        state += f", paused by {line(run.paused_by, 100)}"
    style = {RunState.DONE: "bold green", RunState.WAITING: "bold yellow"}.get(
        run.state, "bold red"
    )
    if run.state in (RunState.QUEUED, RunState.RUNNING):
        style = "bold"
    return text(
        (run.id, "bold cyan"),
        "  ",
        (run.agent, "bold"),
        "  ",
        (state, style),
        (
            f"  {run.mode}, for {run.principal}, {run.calls_used} of {run.budget.calls} calls,"
            f" {output.money(run.cost_used_microusd)}, {output.lasted(run.started_us, ends)},"
            f" has read: {worst_read(run.label)}, agent {run.agent_digest[:12]}",
            "dim",
        ),
    )


def _add(tree: Tree, told: Told, now_us: int) -> None:
    # What a kill cut off and may be done again has no end on record.
    open_is = "was cut off" if told.run.state in ENDED else "goes on"
    for call, args, outcome in told.calls:
        branch = tree.add(
            _call(
                call,
                args,
                outcome,
                told.approvals.get(call.approval),
                open_is,
                told.ways.get(call.id),
                told.declassified.get(call.id, ()),
                told.directives.get(call.id, ()),
            )
        )
        child = told.children.get(call.id)
        if child is not None:
            inner = branch.add(_head(child.run, now_us))
            inner.add(text(("task  ", "dim"), (line(child.task, 600), "italic")))
            _add(inner, child, now_us)
    for approval in told.approvals.values():
        if approval.state == "pending":
            tree.add(
                text((approval.id, "bold yellow"), f"  waits for an answer to {approval.call}")
            )
    if told.files:
        files = tree.add(text(("workspace", "bold")))
        for file in told.files:
            files.add(
                text(
                    line(file.path),
                    (f"  {output.count(file.size_bytes, 'byte')}  {file.label.integrity}", "dim"),
                )
            )
    if told.result is not None:
        tree.add(_result(told.result))


def _call(
    call: Call,
    args: Any,
    outcome: Outcome | None,
    approval: Approval | None,
    open_is: str,
    way: UndoStep | UndoLeft | None,
    answered_for: Iterable[Declassified],
    directives: Collection[str],
) -> Group:
    style = STYLES[call.state]
    took = output.lasted(call.begun_us, call.ended_us) if call.ended_us else open_is
    cost = f", {output.money(call.cost_microusd)}" if call.cost_microusd else ""
    parts: list[RenderableType] = [
        text(
            (f"{_MARKS[call.state]} ", style),
            (f"{place(call.id)} #{call.seq}  ", "dim"),
            (title(call), "bold"),
            "  ",
            arguments(call.kind, args) if outcome is not None else "",
            (f"  {took}{cost}", "dim"),
        )
    ]
    said = " ".join(line(reason.text) for reason in call.verdict.reasons)
    rules = ", ".join(reason.rule for reason in call.verdict.reasons)
    parts.append(text((f"{call.verdict.kind}", style), (f" by {rules}: {said}", "dim")))
    if approval is not None:
        note = f": {line(approval.note)}" if approval.note else ""
        parts.append(
            text((f"{approval.id} ", "dim"), f"{answered(approval)} by {_who(approval)}{note}")
        )
    if directives:
        named = line(", ".join(directives), 400)
        parts.append(text((f"given {output.count(len(directives), 'directive')}: {named}", "dim")))
    if call.edited:
        who = ", ".join(f"{name} by {by}" for name, by in call.edited.items())
        parts.append(text(("changed before it ran: ", "yellow"), line(who, 400)))
    if outcome is None:
        pass  # What is said of the whole run says why.
    elif outcome.error is not None:
        parts.append(
            text(
                (line(outcome.error["what"], 400), "red"),
                (f"  {line(outcome.error['why'], 400)}", "dim"),
            )
        )
    elif call.state is CallState.OK:
        parts.append(
            text("→ ", brief(call, outcome.value), (f"  [{outcome.label.integrity}]", "dim"))
        )
    elif call.state is CallState.UNKNOWN:
        parts.append(
            text(
                ("nobody knows whether it happened: ", "yellow"),
                f"ring0 settle {call.id} happened|did-not-happen",
            )
        )
    if outcome is not None and outcome.findings:
        found = [f"{each.rule} in {each.where or 'it'} ({each.shown})" for each in outcome.findings]
        parts.append(text(("found in it: ", "yellow"), (line("; ".join(found), 400), "dim")))
    parts += [text((declassified(said), "yellow")) for said in answered_for]
    if call.notice:
        parts.append(text(("told: ", "bold yellow"), line(call.notice, 400)))
    if isinstance(way, UndoStep) and not way.refused:
        run, _, rest = call.id.partition("/")
        by = f"can be taken back by {line(way.tool, 80)}: " if way.tool else "can be taken back: "
        parts.append(text((by, "dim"), f"ring0 undo {run} --call {rest}"))
    elif way is not None and call.state is not CallState.UNKNOWN:
        why = way.refused if isinstance(way, UndoStep) else way.why
        parts.append(text(("can't be taken back: ", "dim"), (line(why, 400), "dim")))
    elif call.undone_by:
        parts.append(text(("taken back by ", "bold"), call.undone_by))
    return Group(*parts)


def _who(approval: Approval) -> str:
    """Everybody whose yes it took, else who answered last."""
    several = len(approval.yes_by) > 1 and answered(approval) == "approved"
    return " and ".join(approval.yes_by) if several else approval.answered_by


def _result(result: dict[str, Any]) -> Text:
    if (error := result.get("error")) is not None:
        return text(
            ("failed  ", "bold red"),
            line(error["what"], 600),
            (f"  {line(error['why'], 600)}", "dim"),
        )
    return text(("result  ", "bold"), output.value_line(result.get("value"), 2_000))
