"""What operators do: `approvals`, `approve`, `deny`, `kill`, `undo`, `settle`.

By way of the kernel that has the data folder, or one opened for just this.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ring0.cli import output
from ring0.cli.output import console, text
from ring0.cli.parts import Asking, asking, held
from ring0.cli.place import Json, Note, Place, RunName, call_named, place_of, run_named, work
from ring0.errors import InvalidInput, UndoRefused
from ring0.types import Approval, ApprovalState, Call, Run, RunState, Shown

if TYPE_CHECKING:
    from ring0.gateway.control import Operations

ApprovalName = Annotated[
    str, typer.Argument(metavar="APPROVAL", help="As `ring0 approvals` lists it.")
]


def add_to(app: typer.Typer) -> None:
    for name, verb in (
        ("approvals", approvals),
        ("approve", approve),
        ("deny", deny),
        ("kill", kill),
        ("undo", undo),
        ("settle", settle),
    ):
        app.command(name)(verb)


def operating(place: Place) -> AbstractAsyncContextManager[Operations]:
    from ring0.gateway.control import operations

    return operations(place.home, place.runtime, place.environment)


def approvals(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Those that were answered too.")] = False,
    as_json: Json = False,
) -> None:
    """Show the calls that wait for a human, each with what it would do."""
    place = place_of(context)
    found = work(lambda: _approvals(place, every))
    if as_json:
        output.print_json(
            {
                "approvals": [
                    {
                        **output.builtins(a),
                        "agent": of.run.agent,
                        "principal": of.run.principal,
                        "task": of.task,
                        "shown": s,
                    }
                    for a, s, of in found
                ]
            }
        )
    elif not found:
        console().print("Nothing waits for an answer.")
    elif every:
        console().print(
            output.table(
                ("APPROVAL", "STATE", "CALL", "WHAT", "ASKED (UTC)", "BY", "NOTE"),
                [
                    (
                        a.id,
                        str(a.state),
                        a.call,
                        s.title,
                        output.moment(a.asked_us),
                        a.answered_by,
                        a.note,
                    )
                    for a, s, _ in found
                ],
            )
        )
    else:
        for approval, shown, of in found:
            console().print(held(approval, shown, of))


async def _approvals(place: Place, every: bool) -> list[tuple[Approval, Shown, Asking]]:
    async with place.reading() as store:
        rows = await store.approvals(states=() if every else [ApprovalState.PENDING])
        return [
            (
                row,
                msgspec.json.decode(await store.blob(row.shown), type=Shown),
                await asking(store, row),
            )
            for row in rows
        ]


def approve(
    context: typer.Context, approval: ApprovalName, note: Note = "", as_json: Json = False
) -> None:
    """Let a held call go on: this call, with these arguments, once."""
    _answer(context, approval, True, note, as_json)


def deny(
    context: typer.Context, approval: ApprovalName, note: Note = "", as_json: Json = False
) -> None:
    """Refuse a held call."""
    _answer(context, approval, False, note, as_json)


def _answer(context: typer.Context, approval: str, yes: bool, note: str, as_json: bool) -> None:
    place = place_of(context, write=True)

    async def answer() -> Approval:
        async with operating(place) as operator:
            return await operator.answer(approval, yes=yes, note=note)

    row = work(answer)
    if as_json:
        output.print_json(row)
    else:
        console().print(text((row.id, "bold"), f" {row.state} by {row.answered_by}: {row.call}"))


def kill(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="[RUN]", show_default=False, help="A run's id, the beginning of it, or `last`."
        ),
    ] = "",
    agent: Annotated[str, typer.Option(help="Every run of this agent.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every run.")] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="The whole tree that RUN belongs to, from its root.")
    ] = False,
    as_json: Json = False,
) -> None:
    """End runs at once, with all beneath them: their handles die, their processes are stopped."""
    if [bool(run), bool(agent), every].count(True) != 1 or (tree and not run):
        raise InvalidInput(
            "Say what to kill: one of RUN, --agent NAME, --all.",
            why="--tree goes with RUN." if tree else "",
            todo="`ring0 ps` lists what goes on.",
        )
    place = place_of(context, write=True)

    async def end() -> list[str]:
        target = agent or (await run_id(place, run, of_tree=tree) if run else "")
        scope = "run" if run else "agent" if agent else "all"
        async with operating(place) as operator:
            return await operator.kill(scope, target)

    ended = work(end)
    if as_json:
        output.print_json({"killed": ended})
    else:
        for name in ended:
            console().print(text((name, "bold"), " killed"))
        if not ended:
            console().print("Nothing goes on: nothing was killed.")


async def run_id(place: Place, name: str, *, of_tree: bool = False) -> str:
    """The run of that name, or the one that its tree began with. Raises NotFound."""
    async with place.reading() as store:
        row = await run_named(store, name)
        return row.root if of_tree else row.id


def undo(
    context: typer.Context,
    run: RunName,
    call: Annotated[
        str, typer.Option("--call", help="This call only: its id, `0/3` or `#12`.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Take back what a run did, the last call first; refused where it was changed since."""
    place = place_of(context, write=True)
    row, done = work(lambda: _undo(place, run, call))
    if as_json:
        output.print_json({"run": row.id, "state": row.state, **done})
        return
    for step in done["undone"]:
        put_back = ", ".join(
            f"{part} {output.value_line(value, 300)}"
            for part, value in step.items()
            if part != "call"
        )
        console().print(text(("taken back ", "green"), (step["call"], "bold"), f"  {put_back}"))
    console().print(text(("On record as ", "dim"), row.id))


async def _undo(place: Place, name: str, call: str) -> tuple[Run, dict[str, Any]]:
    async with place.reading() as store:
        of = await run_named(store, name)
        only = (await call_named(store, of, call)).id if call else ""
    async with operating(place) as operator:
        row = await operator.undo(of.id, only)
    async with place.reading() as store:
        body = msgspec.json.decode(await store.blob(row.result))
    if row.state is not RunState.DONE:
        error = body["error"]
        raise UndoRefused(error["what"], why=error["why"], todo=error["todo"])
    return row, body["value"]


def settle(
    context: typer.Context,
    call: Annotated[str, typer.Argument(metavar="CALL", help="Its id: `r-…/0/3`.")],
    what: Annotated[str, typer.Argument(metavar="happened|did-not-happen")],
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Say whether an effect that was cut off happened; its run then goes on."""
    if what not in ("happened", "did-not-happen"):
        raise InvalidInput(
            f"{what[:40]!r} says nothing.",
            why="An effect happened or it did not.",
            todo="Say `happened` or `did-not-happen`.",
        )
    place = place_of(context, write=True)

    async def say() -> Call:
        async with place.reading() as store:
            found = await call_named(store, None, call)
        async with operating(place) as operator:
            return await operator.settle(found.id, happened=what == "happened", note=note)

    row = work(say)
    if as_json:
        output.print_json(row)
    else:
        console().print(
            text(
                (row.id, "bold"),
                f" settled: {what}. `ring0 recover` goes on with its run,"
                " unless a kernel has it already.",
            )
        )
