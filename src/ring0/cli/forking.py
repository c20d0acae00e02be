"""`fork`: a run begun anew from a point of its past, and looked at as `run` looks at one."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import typer

from ring0.cli import output
from ring0.cli.following import EXIT, EXIT_WAITING, GOES_ON, answering, look_on, print_result
from ring0.cli.outlet import forgive
from ring0.cli.output import console
from ring0.cli.place import (
    RUN_KEPT,
    Json,
    Place,
    RunName,
    call_named,
    place_of,
    whole_run_named,
    work,
)
from ring0.cli.prompt import Prompt, giving
from ring0.cli.view import View
from ring0.errors import Interrupted, InvalidInput
from ring0.gateway.holding import supervisor
from ring0.identity import narrowing
from ring0.kernel import values
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore
from ring0.types import Run


def add_to(app: typer.Typer) -> None:
    app.command("fork")(fork)


def fork(
    context: typer.Context,
    run: RunName,
    at: Annotated[
        int,
        typer.Option(
            "--at",
            metavar="SEQ",
            min=0,
            show_default=False,
            help="What it had done by this seq is recalled; what comes after is live. Else: just"
            " after what is edited.",
        ),
    ] = 0,
    edit: Annotated[
        list[str] | None,
        typer.Option(
            "--edit",
            metavar="WHAT=VALUE",
            help='task=TEXT; or a call by its place, 0/3={"rows": []}: its result, as JSON.'
            " Several times.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PATTERN", help="The task's grant, as `ring0 run` has it."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the run's id and return: the daemon has it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Begin a new run with another's past. It is yours: your grants, today's budget and policy;
    nothing that was approved is approved here, and every call that isn't pure asks."""
    place = place_of(context, write=True)
    grant = None if only is None else tuple(only)
    narrowing.exactly(grant or ())
    asked = work(lambda: _asked(place, run, at, edit or []))
    body = {**asked, "only": grant}
    if supervisor(place.home) is not None:
        code = work(lambda: _submit(place, body, detach, as_json), kept=GOES_ON)
        raise typer.Exit(code)
    if detach:
        raise InvalidInput(
            "There is no daemon that the run could be left to.",
            why=f"None serves {place.home}.",
            todo="Start one: `ring0 serve`.",
        )
    raise typer.Exit(work(lambda: _here(place, body, as_json), kept=RUN_KEPT))


async def _asked(place: Place, named: str, at: int, given: list[str]) -> dict[str, Any]:
    """The request for the verb, with the full ids of what is edited."""
    from ring0.kernel.life.forking import TASK  # It loads what decides and carries out.

    async with place.reading() as store:
        row = await whole_run_named(store, named)
        edits: dict[str, Any] = {}
        for one in given:
            what, sign, value = one.partition("=")
            if not sign or not what:
                raise InvalidInput(
                    f"--edit {one[:60]!r} says nothing.",
                    todo="Write it like --edit task=TEXT or --edit '0/3={\"rows\": []}'.",
                )
            if what == TASK:
                edits[TASK] = value
            else:
                call = await call_named(store, row, what)
                edits[call.id] = _json(value, what)
        if not at and not edits:
            raise InvalidInput(
                "There is nothing to tell the fork from the run.",
                todo=f"Say --at SEQ (`ring0 show {row.id}` lists them), or --edit.",
            )
        at = at or await _after(store, row, set(edits))
        return {"run": row.id, "at": at, "edits": edits}


def _json(value: str, what: str) -> Any:
    try:
        return values.parse(value.encode())
    except Exception as error:
        raise InvalidInput(
            f"The result of {what[:40]} is not JSON.",
            why=str(error)[:300],
            todo="Write a text in quotes: '0/3=\"a text\"'.",
        ) from None


async def _after(store: SqliteStore, row: Run, edited: set[str]) -> int:
    """The seq by which all that is edited had ended; 1 where that is the task alone."""
    last = 1
    async for entry in store.entries(row.id):
        body = entry.body
        match body:
            case ev.CallEnded(call=call) | ev.CallSettled(call=call):
                ended = call
            case ev.CallRefused(call=row_) | ev.CallCopied(call=row_):
                ended = row_.id
            case _:
                continue
        if ended in edited:
            last = entry.seq
    return last


async def _submit(place: Place, body: dict[str, Any], detach: bool, as_json: bool) -> int:
    from ring0.gateway import remote as other_end

    remote = other_end.remote(place.home, place.runtime, place.environment)
    row = msgspec.convert(await remote.ask("fork", body), Run)
    out = console(error=as_json)
    if detach:
        if as_json:
            output.print_json({"run": row.id})
        else:
            console().print(row.id)
        return 0
    forgive(out.file)
    async with place.reading() as store:
        view = View(store, place.runtime, out, answer=Prompt(answering(place), out).ask)
        row = await look_on(place, store, view, row, remote, since_start=True)
        await print_result(store, row, as_json)
    return EXIT.get(row.state, EXIT_WAITING)


async def _here(place: Place, body: dict[str, Any], as_json: bool) -> int:
    """On a kernel of this process, as `ring0 run` does where there is no daemon."""
    from ring0.gateway.control import here
    from ring0.gateway.operations import asked_for

    out = console(error=as_json)
    forgive(out.file)
    from ring0.cli.running import at_work

    async with at_work(place) as kernel:
        direct = await here(kernel, place.environment)
        row: Run = await asked_for("fork", body).do(direct)
        view = View(kernel.store, place.runtime, out, answer=Prompt(giving(kernel), out).ask)
        kernel.runs.heard = view.heard
        try:
            row = await view.follow([row.id], kernel.runs.wait(row.id))
        except (asyncio.CancelledError, Interrupted):
            raise Interrupted(
                f"Interrupted; {row.id} is kept.",
                todo=f"`ring0 recover` goes on with it, `ring0 kill {row.id}` ends it.",
            ) from None
        await print_result(kernel.store, row, as_json)
    return EXIT.get(row.state, EXIT_WAITING)
