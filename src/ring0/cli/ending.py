"""What ends runs and what takes back what they did: `kill`, `undo`.

By way of the kernel that has the data folder, or one opened for just this.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from ring0.cli import output
from ring0.cli.operating import operating, run_id
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, RunName, call_named, place_of, run_named, work
from ring0.errors import EffectUnknown, InvalidInput, UndoRefused
from ring0.kernel.trees import beneath
from ring0.types import ApprovalState, CallState, Run, RunState, UndoPlan, UndoStep


def add_to(app: typer.Typer) -> None:
    app.command("kill")(kill)
    app.command("undo")(undo)


def kill(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="[RUN]", show_default=False, help="A run's id, the beginning of it, or `last`."
        ),
    ] = "",
    agent: Annotated[str, typer.Option(help="Every run of this agent.")] = "",
    tenant: Annotated[str, typer.Option(help="Every run of this tenant.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every run.")] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="The whole tree that RUN belongs to, from its root.")
    ] = False,
    as_json: Json = False,
) -> None:
    """End runs at once, with all beneath them. It returns when every process is confirmed dead."""
    if [bool(run), bool(agent), bool(tenant), every].count(True) != 1 or (tree and not run):
        raise InvalidInput(
            "Say what to kill: one of RUN, --agent NAME, --tenant NAME, --all.",
            why="--tree goes with RUN." if tree else "",
            todo="`ring0 ps` lists what goes on.",
        )
    place = place_of(context, write=True)

    async def end() -> tuple[list[str], int, list[str]]:
        target = agent or tenant or (await run_id(place, run, of_tree=tree) if run else "")
        scope = "run" if run else "agent" if agent else "tenant" if tenant else "all"
        async with operating(place) as operator:
            begun_us = place.runtime.monotonic_us()
            ended = await operator.kill(scope, target)
            took_us = place.runtime.monotonic_us() - begun_us
        return ended, took_us, await _cut_off(place, ended)

    ended, took_us, unknown = work(end)
    if as_json:
        output.print_json({"killed": ended, "took_ms": took_us // 1_000, "unknown": unknown})
        return
    for name in ended:
        console().print(text((name, "bold"), " killed"))
    for call in unknown:
        console().print(
            text(("nobody knows whether it happened: ", "yellow"), f"ring0 settle {call}")
        )
    if ended:
        runs = output.count(len(ended), "run")
        console().print(
            text((f"{runs} dead, confirmed in {took_us / 1e6:.2f} s, and all beneath.", "dim"))
        )
    else:
        whose = f" of the agent {agent}" if agent else f" of the tenant {tenant}" if tenant else ""
        console().print(text(line(f"No run{whose} goes on: nothing was killed.")))


async def _cut_off(place: Place, ended: list[str]) -> list[str]:
    """Effects that the kill cut off in the middle, of these runs and of all beneath them."""
    found = []
    async with place.reading() as store:
        for name in ended:
            row = await store.run(name)
            for one in await beneath(store, row) if row is not None else ():
                calls = await store.calls(one.id)
                found += [call.id for call in calls if call.state is CallState.UNKNOWN]
    return sorted(set(found))


def undo(
    context: typer.Context,
    run: RunName,
    call: Annotated[
        str, typer.Option("--call", help="This call only: its id, `0/3` or `#12`.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would do, and do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take back what a run and all beneath it did, the last call first; refused where it was
    changed since."""
    place = place_of(context, write=True)
    if dry_run:
        plan = work(lambda: _plan(place, run, call))
        if as_json:
            output.print_json(plan)
        else:
            _show(plan, all_of_it=True)
        return
    row, done, left = work(lambda: _undo(place, run, call, show=not as_json))
    if as_json:
        output.print_json({"run": row.id, "state": row.state, **done, "left": left})
        return
    for step in done["undone"]:
        put_back = ", ".join(
            f"{part} {output.value_line(value, 300)}"
            for part, value in step.items()
            if part != "call"
        )
        console().print(text(("taken back ", "green"), (step["call"], "bold"), f"  {put_back}"))
    console().print(text(("On record as ", "dim"), row.id))


async def _named(place: Place, name: str, call: str) -> tuple[str, str]:
    """The run, and the one call of it that is meant."""
    async with place.reading() as store:
        of = await run_named(store, name)
        return of.id, (await call_named(store, of, call)).id if call else ""


async def _plan(place: Place, name: str, call: str) -> UndoPlan:
    run, only = await _named(place, name, call)
    async with operating(place) as operator:
        body = {"run": run, "call": only, "rehearse": True}
        return msgspec.convert(await operator.ask("undo-plan", body), UndoPlan)


def _show(plan: UndoPlan, *, all_of_it: bool) -> None:
    """`all_of_it`: the steps too; what is left is always told."""
    ended = False
    for step in plan.steps if all_of_it else ():
        console().print(_step(step, ended))
        ended = ended or bool(step.refused)
    for left in plan.left:
        console().print(
            text(("stays       ", "yellow"), (left.call, "bold"), f"  {line(left.name, 80)}: "),
            text(line(left.why, 400)),
        )
    if all_of_it and not plan.steps:
        console().print("There is nothing to take back.")


def _step(step: UndoStep, ended: bool) -> Any:
    how = {"files": "its files are put back", "rows": "its rows are put back"}.get(step.how, "")
    if step.how == "call":
        args = ", ".join(
            # As JSON, quoted: no value can look like one argument more.
            f"{line(name, 40)} = {line(msgspec.json.encode(value).decode(), 120)}"
            + (" (from its result)" if name in step.from_result else "")
            for name, value in step.args.items()
        )
        how = f"{line(step.tool, 80)}({args})"
    head = ("would take back ", "green")
    if step.refused:
        head = ("can't take back ", "red")
        how = line(step.refused, 400)
    elif ended:
        head = ("not reached     ", "dim")
    return text(head, (step.call, "bold"), f"  {line(step.name, 80)}: {how}")


async def _undo(
    place: Place, name: str, call: str, *, show: bool
) -> tuple[Run, dict[str, Any], list[Any]]:
    """The run of the undo, what it took back, and what stays. Raises UndoRefused, EffectUnknown."""
    run, only = await _named(place, name, call)
    async with operating(place) as operator:
        body = {"run": run, "call": only, "rehearse": False}
        plan = await operator.ask("undo-plan", body)
        if show:  # What stays is said before anything is taken back, and not after.
            _show(msgspec.convert(plan, UndoPlan), all_of_it=False)
        row = await operator.undo(run, only)
    if row.state is RunState.WAITING:
        await _say_what_for(place, row)
    async with place.reading() as store:
        body = msgspec.json.decode(await store.blob(row.result))
    if row.state is not RunState.DONE:
        error = body["error"]
        raise UndoRefused(error["what"], why=error["why"], todo=error["todo"])
    return row, body["value"], plan.get("left", [])


async def _say_what_for(place: Place, row: Run) -> None:
    """Raises what says for whom the undo waits, and how it goes on."""
    goes_on = "the undo then goes on by itself, or with `ring0 recover`"
    async with place.reading() as store:
        for approval in await store.approvals(states=[ApprovalState.PENDING], run=row.id):
            raise UndoRefused(
                f"{approval.call} of the undo {row.id} waits for an approval.",
                why="A policy asks for it.",
                todo=f"`ring0 approve {approval.id}`; {goes_on}.",
            )
        for call in await store.calls(row.id):
            if call.state is CallState.UNKNOWN:
                raise EffectUnknown(
                    f"{call.id} of the undo {row.id} was cut off: it may have happened.",
                    why=f"It takes back {call.undoes}, and does so once.",
                    todo=f"Look, then `ring0 settle {call.id} happened` or `did-not-happen`;"
                    f" {goes_on}.",
                )
    raise UndoRefused(f"The undo {row.id} waits.", why=row.waiting_for, todo=goes_on)
