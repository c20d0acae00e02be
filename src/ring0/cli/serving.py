"""`serve`: ring0 as a daemon, in the foreground, with its log as lines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Annotated, Final

import typer

from ring0.cli import output
from ring0.cli.outlet import forgive
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of
from ring0.errors import Interrupted, InvalidInput

STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_to(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    context: typer.Context,
    hooks: Annotated[
        str,
        typer.Option(
            "--hooks", metavar="ADDRESS:PORT", help="Take webhooks there: 127.0.0.1:7420."
        ),
    ] = "",
    hooks_host: Annotated[
        list[str] | None,
        typer.Option(
            "--hooks-host",
            metavar="NAME",
            show_default=False,
            help="A name that senders have for it; needed where it is no loopback address.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Keep a kernel at work on the data folder: others start runs on it, crashes are survived."""
    place = place_of(context, write=True)
    if hooks_host and not hooks:
        raise InvalidInput("--hooks-host says nothing without --hooks.", todo="Give --hooks too.")
    names = tuple(hooks_host or ())
    with asyncio.Runner() as runner:
        in_order = runner.run(_serve(place, Log(place, as_json), hooks, names))
    if not in_order:
        raise Interrupted("Ended at once.", todo="The next start goes on with what is on record.")


async def _serve(place: Place, log: Log, hooks: str, hosts: tuple[str, ...]) -> bool:
    from ring0.daemon.processes import RealWorker, notify
    from ring0.daemon.supervisor import Supervisor
    from ring0.gateway.holding import hold_as_supervisor

    home = place.home.absolute()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = hold_as_supervisor(home)
    try:
        supervisor = Supervisor(
            lambda: RealWorker(home, place.environment, hooks=hooks, hooks_hosts=hosts),
            place.runtime,
            log.line,
            lambda: notify("READY=1", place.environment),
        )

        def stop() -> None:
            log.line("asked to end", "")
            notify("STOPPING=1", place.environment)
            supervisor.stop()

        for number in STOPS:
            asyncio.get_running_loop().add_signal_handler(number, stop)
        log.line(f"serves {home} (supervisor {os.getpid()})", "")
        return await supervisor.serve()
    finally:
        os.close(lock)


class Log:
    """Lines on standard error; or, as JSON, on standard output. Losing them ends nothing."""

    def __init__(self, place: Place, as_json: bool) -> None:
        self._runtime = place.runtime
        self._as_json = as_json
        self._out = console(error=True)
        forgive(sys.stdout)
        forgive(sys.stderr)

    def line(self, what: str, run: str, trace_id: str = "") -> None:
        moment = output.moment(self._runtime.now_us())
        if self._as_json:
            told = {"at": moment.replace(" ", "T") + "Z", "run": run, "what": what}
            told |= {"trace_id": trace_id} if trace_id else {}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            return
        about = f"{run}  " if run else ""
        self._out.print(
            text((moment, "dim"), "  ", (about, "cyan"), line(what, 1_000)), soft_wrap=True
        )
