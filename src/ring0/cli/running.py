"""`run` and `recover`: a kernel in this process, its runs followed until they end.

Where a daemon has the folder, the runs are its own: following.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer._click.exceptions import ClickException  # as in app.py

from ring0 import limits
from ring0.cli import looking, meant, output
from ring0.cli.following import EXIT, EXIT_WAITING, GOES_ON, print_result, submit
from ring0.cli.outlet import forgive
from ring0.cli.output import console, line, put, text
from ring0.cli.place import (
    RUN_KEPT,
    Json,
    Place,
    WithCommand,
    command_of,
    place_of,
    typed_in,
    work,
)
from ring0.cli.prompt import Prompt, giving
from ring0.cli.view import View
from ring0.errors import Interrupted, InvalidInput, ReplayDiverged
from ring0.gateway.holding import supervisor
from ring0.identity import narrowing
from ring0.kernel.agent import manifests
from ring0.types import ENDED, LIVE, CallState, Mode, Operator, Run, RunState

if TYPE_CHECKING:
    from ring0.kernel.agent.agents import Family
    from ring0.kernel.kernel import Kernel

WORDS = "The agent's file and the task; or, after `--`, any program and its arguments."


class RunCommand(WithCommand):
    """A program's own options, where `--` was left out, are told as what they are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except ClickException as error:
            typed, place = typed_in(ctx), ctx.find_object(Place)
            search = place.environment.get("PATH", "") if place is not None else ""
            if "--" in args or not (todo := meant.odd_option(typed, meant.options(self), search)):
                raise
            raise InvalidInput(
                error.format_message(), why="A program's own options stand after `--`.", todo=todo
            ) from None


def add_to(app: typer.Typer) -> None:
    app.command("run", cls=RunCommand)(run)
    app.command("recover")(recover)


def run(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE.py[:FUNCTION] TASK | -- CMD", show_default=False, help=WORDS),
    ] = None,
    task: Annotated[str, typer.Option("--task", help="The task, in place of the argument.")] = "",
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="agent.toml",
            help="The agent's manifest; else the agent.toml beside FILE.py that names it.",
        ),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            "--priority",
            min=0,
            max=limits.PRIORITY_LAST,
            show_default=False,
            help="0 goes first; else what its manifest says.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PATTERN",
            help="The task's grant: crm.query, 'files.*', model:NAME, agent:NAME; several times."
            " Else all that the agent's manifest names.",
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="AMOUNTS",
            help='What a program may use up: "5 USD, 200 calls, 10 min"; else what its manifest'
            " says, or a dollar where it has none.",
        ),
    ] = "",
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the run's id and return: the daemon has it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run an agent in its sandbox: FILE.py "task", or any program: -- CMD ARGS."""
    from ring0.cli.starting import agent_of_command, agent_of_file, beside, budgeted, typed_to

    place = place_of(context, write=True)
    command = command_of(context)
    grant = None if only is None else tuple(only)
    narrowing.exactly(grant or ())  # A wrong one is told before anything is started.
    search, typed = place.environment.get("PATH", ""), typed_in(context)
    if command is None:
        meant.check_words(typed, words or (), search, manifest is not None)
    file, task = _words(list(words or ()), task, manifest is not None, command is not None)
    if command is not None:
        task = task or typed_to(command, _here())
        if manifest is None and (manifest := beside(command, _here())) is None:
            _say_unused(_here())
        bare = agent_of_command(command, manifest, _here(), search)
    else:
        bare = agent_of_file(file, manifest, search)
    if budget:
        bare = budgeted(bare, budget)
    if supervisor(place.home) is not None:
        asked = submit(place, bare, task, priority, grant, detach=detach, as_json=as_json)
        with meant.or_a_program(file, typed):
            code = work(lambda: asked, kept=GOES_ON)
        raise typer.Exit(code)
    if detach:
        raise InvalidInput(
            "There is no daemon that the run could be left to.",
            why=f"None serves {place.home}.",
            todo="Start one: `ring0 serve`.",
        )

    async def describe(kernel: Kernel) -> Family:
        from ring0.gateway.operations import prioritised

        found: Family = prioritised(await bare.describe(kernel), priority)
        return found

    with meant.or_a_program(file, typed):
        code = work(lambda: _run(place, describe, task, grant, as_json), kept=RUN_KEPT)
    raise typer.Exit(code)


def _say_unused(folder: Path) -> None:
    """A manifest that somebody wrote, and that is not heeded, is no small thing."""
    if (folder / manifests.AGENT_TOML).is_file():
        console(error=True).print(
            output.line(
                "The agent.toml in this folder is not about this command: it is not used."
                " `--manifest agent.toml` uses it.",
                400,
            )
        )


def _say_held(kernel: Kernel) -> None:
    """Whoever took a line out of ring0.toml would else believe that it counts."""
    from ring0.kernel.operating import changing

    if kernel.held_profile:
        said = line(f"{changing.told(kernel)}.", 400)
        put(console(error=True), text((said, "bold yellow")))


def _here() -> Path:
    """The folder that a command's files lie in. Raises InvalidInput."""
    try:
        return Path.cwd()
    except OSError as error:
        raise InvalidInput(
            f"The folder that you are in can't be read: {error.strerror}.",
            why="It was removed, or it is not yours.",
            todo="`cd` to another one.",
        ) from None


def _words(words: list[str], task: str, has_manifest: bool, is_command: bool) -> tuple[str, str]:
    """FILE and task among the words of the command line. Raises InvalidInput."""
    file = ""
    if (
        words
        and not is_command
        and (not has_manifest or words[0].partition(":")[0].endswith(".py"))
    ):
        file = words.pop(0)
    if words and task:
        raise InvalidInput("The task was given twice.", todo="Give it once.")
    if len(words) > 1:
        raise InvalidInput(
            "There is more than one task.",
            why=f"{words[1][:60]!r} is left over.",
            todo="Put the task into quotes.",
        )
    if not file and not is_command and not has_manifest:
        raise InvalidInput(
            "There is nothing to run.",
            todo='`ring0 run FILE.py "task"`, or `ring0 run -- CMD ARGS`.',
        )
    return file, words[0] if words else task


@asynccontextmanager
async def at_work(place: Place) -> AsyncIterator[Kernel]:
    """A kernel with its doors and its control socket."""
    from ring0.gateway.control import at_work as opened

    async with opened(place.home, place.runtime, place.environment) as (kernel, _):
        yield kernel


async def _may(place: Place, kernel: Kernel, verb: str) -> Operator:
    """Who runs this command, if that one may. Raises RoleMissing, LoginOver."""
    from ring0.gateway.control import here

    return (await here(kernel, place.environment)).may(verb)


async def _run(
    place: Place,
    describe: Callable[[Kernel], Awaitable[Family]],
    task: str,
    only: tuple[str, ...] | None,
    as_json: bool,
) -> int:
    from ring0.cli import keyless
    from ring0.kernel.agent import profiles

    out = console(error=as_json)
    forgive(out.file)  # A run goes on though nobody can watch it.
    async with at_work(place) as kernel:
        _say_held(kernel)
        by = await _may(place, kernel, "run")
        left = await kernel.store.runs(states=LIVE)
        if left:
            count = (
                "1 unfinished run waits" if len(left) == 1 else f"{len(left)} unfinished runs wait"
            )
            out.print(text((f"{count}: `ring0 recover` goes on with them.", "yellow")))
        family = await describe(kernel)
        for warning in keyless.told(kernel, family.manifest):
            put(out, text((line(warning, 600), "bold yellow")))
        trace = place.environment.get("TRACEPARENT", "")
        row = await kernel.start(family, task, principal=by.name, only=only, traceparent=trace)
        for warning in await profiles.warnings(kernel, row.id):
            put(out, text((line(warning, 600), "bold yellow")))
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


# --- recover ---------------------------------------------------------------------------------


def recover(
    context: typer.Context,
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="Return when every run has ended or waits for somebody."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Go on with every run that a crash or Ctrl-C stopped."""
    place = place_of(context, write=True)
    if (daemon := supervisor(place.home)) is not None:
        _leave_to(daemon, context, as_json)
        return
    raise typer.Exit(work(lambda: _recover(place, no_wait, as_json), kept=RUN_KEPT))


def _leave_to(daemon: int, context: typer.Context, as_json: bool) -> None:
    """Two kernels never go on with the same runs."""
    if not as_json:
        console().print(f"The daemon (supervisor {daemon}) goes on with them by itself:")
    looking.ps(context, as_json=as_json)


async def _recover(place: Place, no_wait: bool, as_json: bool) -> int:
    out = console(error=as_json)
    forgive(out.file)  # A run goes on though nobody can watch it.
    async with at_work(place) as kernel:
        _say_held(kernel)
        await _may(place, kernel, "recover")
        view = View(kernel.store, place.runtime, out, answer=Prompt(giving(kernel), out).ask)
        kernel.runs.heard = view.heard
        for left in reversed(await kernel.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)):
            if left.mode is not Mode.EMBEDDED:
                await view.resume(left)
        started = await kernel.recover()
        for run, error in kernel.runs.not_recovered.items():
            out.print(text((run, "cyan"), f"  could not go on: {error}"))
        rows = [row for run in started if (row := await kernel.store.run(run)) is not None]
        roots = [row.id for row in rows if row.parent not in started]
        await _tell_unknown(kernel, rows, out)
        embedded = [
            row
            for row in await kernel.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)
            if row.mode is Mode.EMBEDDED and row.id not in started
        ]
        for row in embedded:
            out.print(
                text(
                    (row.id, "cyan"),
                    f"  {row.agent} waits for its own program: it is embedded"
                    " there and `resume`s it.",
                )
            )
        shown = [row.root for row in rows if row.id in roots]
        await view.look(shown)  # "goes on" comes before what a run asks.
        await view.ask_left()
        try:
            await view.follow(
                shown,
                _quiet(kernel, started) if no_wait else _ended(kernel, roots),
            )
        except (asyncio.CancelledError, Interrupted):
            raise Interrupted(
                "Interrupted; the runs are kept.", todo="`ring0 recover` goes on with them."
            ) from None
        last = [row for run in roots if (row := await kernel.store.run(run)) is not None]
    if as_json:
        output.print_json({"recovered": last, "embedded": embedded})
    elif not last and not embedded:
        out.print("Nothing to recover: every run has ended.")
    return max((EXIT.get(row.state, EXIT_WAITING) for row in last), default=0)


async def _tell_unknown(kernel: Kernel, rows: list[Run], out: Any) -> None:
    """Effects that nobody knows of, and how to say what became of them."""
    for row in rows:
        for call in await kernel.store.calls(row.id):
            if call.state is CallState.UNKNOWN:
                out.print(
                    text(
                        (call.id, "bold yellow"),
                        f"  {call.name} was cut off: nobody knows whether it happened.",
                    )
                )
                put(
                    out,
                    text(
                        ("Find out, then: ", "dim"),
                        f"ring0 settle {call.id} happened",
                        ("  or  ", "dim"),
                        f"ring0 settle {call.id} did-not-happen",
                    ),
                    4,
                )


async def _ended(kernel: Kernel, roots: list[str]) -> None:
    """Until all have ended; one whose replay diverged waits as a row for a human."""
    ends = await asyncio.gather(*map(kernel.runs.wait, roots), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, ReplayDiverged):
            raise end


async def _quiet(kernel: Kernel, runs: list[str]) -> None:
    """Until each has ended or waits for somebody."""
    while True:
        rows = [await kernel.store.run(run) for run in runs]
        if all(
            row is None
            or row.state in ENDED
            or (row.state is RunState.WAITING and row.waiting_for != "timer")
            for row in rows
        ):
            return
        await kernel.runtime.sleep(0.05)


__all__ = ["add_to", "at_work"]
