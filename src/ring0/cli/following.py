"""`follow`, and what `run` does where a daemon is: the run is the daemon's, the command looks on.

It reads the journal, as any reading verb does; what agents print comes over the daemon's socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console

from ring0 import limits
from ring0.cli import output, uncalled
from ring0.cli.outlet import forgive
from ring0.cli.output import console, line, put, text
from ring0.cli.place import Json, Place, RunName, place_of, run_named, work
from ring0.cli.prompt import Prompt
from ring0.cli.view import View
from ring0.errors import Interrupted, Ring0Error
from ring0.store.sqlite import SqliteStore
from ring0.types import ENDED, Run, RunState

if TYPE_CHECKING:
    from ring0.cli.starting import Bare
    from ring0.gateway.remote import Remote

EXIT = {RunState.DONE: 0, RunState.FAILED: 1, RunState.CANCELLED: 3}
EXIT_WAITING = 4
REFUSAL_CHARS = 600
GOES_ON = "The run goes on without this command."


def add_to(app: typer.Typer) -> None:
    app.command("follow")(follow)


def follow(
    context: typer.Context,
    run: RunName = "last",
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Without what its process prints.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look on while a run goes on, and answer what it asks. Ctrl-C ends the looking only."""
    place = place_of(context)
    raise typer.Exit(work(lambda: _follow(place, run, quiet, as_json), kept=GOES_ON))


async def _follow(place: Place, name: str, quiet: bool, as_json: bool) -> int:
    from ring0.gateway import remote as other_end

    out = console(error=as_json)
    forgive(out.file)
    async with place.reading() as store:
        row = await run_named(store, name)
        if row.state not in ENDED:
            view = View(store, place.runtime, out, answer=Prompt(answering(place), out).ask)
            await view.resume(row)
            await view.ask_left()
            remote = (
                None if quiet else other_end.remote(place.home, place.runtime, place.environment)
            )
            row = await look_on(place, store, view, row, remote, since_start=False)
        await print_result(store, row, as_json)
    return EXIT.get(row.state, EXIT_WAITING)


async def submit(
    place: Place,
    bare: Bare,
    task: str,
    priority: int | None,
    only: tuple[str, ...] | None,
    *,
    detach: bool,
    as_json: bool,
) -> int:
    """Hands a run to the daemon, and looks on until it has ended. Raises what keeps it from
    starting."""
    from ring0.gateway import remote as other_end

    out = console(error=as_json)
    remote = other_end.remote(place.home, place.runtime, place.environment)
    trace = place.environment.get("TRACEPARENT", "")  # As OpenTelemetry hands it to a process.
    row = await remote.start(bare.manifest, bare.around, task, priority, only, trace)
    if detach:
        if as_json:
            output.print_json({"run": row.id})
        else:
            console().print(row.id)
        return 0
    forgive(out.file)  # A run goes on though nobody can watch it.
    async with place.reading() as store:
        view = View(store, place.runtime, out, answer=Prompt(answering(place), out).ask)
        row = await look_on(place, store, view, row, remote, since_start=True)
        await print_result(store, row, as_json)
    return EXIT.get(row.state, EXIT_WAITING)


def answering(place: Place) -> Any:
    """Gives an answer to whatever kernel has the folder just then."""
    from ring0.gateway.control import operations

    async def give(approval: str, yes: bool) -> None:
        async with operations(place.home, place.runtime, place.environment) as operator:
            await operator.answer(approval, yes=yes)

    return give


async def look_on(
    place: Place,
    store: SqliteStore,
    view: View,
    row: Run,
    remote: Remote | None,
    *,
    since_start: bool,
) -> Run:
    """Until the run has ended. Raises Interrupted: it goes on."""
    try:
        async with _hearing(place, view, row, remote, since_start=since_start):
            return await view.follow([row.root], _end_of(place, store, row.id))
    except (asyncio.CancelledError, Interrupted):
        raise Interrupted(
            f"Detached: {row.id} goes on.",
            todo=f"`ring0 follow {row.id}` looks on again, `ring0 kill {row.id}` ends it.",
        ) from None


async def _end_of(place: Place, store: SqliteStore, run: str) -> Run:
    while True:
        row = await store.run(run)
        if row is not None and row.state in ENDED:
            return row
        await place.runtime.sleep(limits.RUN_FOLLOWED_POLL_S)


@asynccontextmanager
async def _hearing(
    place: Place, view: View, row: Run, remote: Remote | None, *, since_start: bool
) -> AsyncIterator[None]:
    """Meanwhile what its processes print is shown, also when the daemon's worker is replaced."""

    async def listen() -> None:
        from_start, refused = since_start, ""
        while remote is not None:
            try:
                async for run, said in remote.printed(row.id, since_start=from_start):
                    view.heard(run, said)
                from_start = True  # A new worker has only what was printed under it.
            except Ring0Error as error:
                if error.what != refused:  # Once; whoever is given the role later sees the rest.
                    refused = error.what
                    _say_unheard(error)
            await place.runtime.sleep(1)

    listening = place.runtime.start(listen(), name="printed")
    try:
        yield
        await place.runtime.sleep(limits.RUN_FOLLOWED_POLL_S)  # The last words are on their way.
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def _say_unheard(error: Ring0Error) -> None:
    """The run goes on; that nothing of what it prints is seen must not look like silence."""
    what = f"What the run prints is not shown. {error.what} {error.why} {error.todo}"
    put(console(error=True), text((line(what, REFUSAL_CHARS), "yellow")))


async def print_result(store: Any, row: Run, as_json: bool) -> None:
    """What an ended run came to."""
    body = msgspec.json.decode(await store.blob(row.result))
    if as_json:
        output.print_json(
            {
                "run": row.id,
                "state": row.state,
                **body,
                "calls": row.calls_used,
                "cost_microusd": row.cost_used_microusd,
            }
        )
        await _tell_uncalled(store, row, body)
        return
    out = console()
    if (error := body.get("error")) is not None:
        output.print_error(
            Ring0Error(error["what"], why=error["why"], todo=error["todo"]), as_json=False
        )
    elif isinstance(body["value"], str):
        out.print(text(body["value"]), soft_wrap=True)
    else:
        out.print(
            text(msgspec.json.format(msgspec.json.encode(body["value"])).decode()), soft_wrap=True
        )
    _tell_more(out, row)
    await _tell_uncalled(store, row, body)


async def _tell_uncalled(store: Any, row: Run, body: dict[str, Any]) -> None:
    if said := await uncalled.hint(store, row, (body.get("error") or {}).get("code", "")):
        put(console(error=True), text((said, "bold yellow")))


def _tell_more(out: Console, row: Run) -> None:
    more = f"ring0 show {row.id}  ·  ring0 replay {row.id}"
    put(out, text((f"More: {more}", "dim")))
