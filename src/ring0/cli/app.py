"""The commands put together, and the one place where an error becomes a message and an exit code.

No traceback is ever shown: what a user can cause has a message of its own; a fault of ring0 is one
line that says where its traceback was written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer._click.exceptions import (
    ClickException,  # typer hands these on, and names them nowhere else
)

from ring0 import __version__
from ring0.cli import (
    approving,
    auditing,
    bisecting,
    budgeting,
    crons,
    ending,
    exporting,
    following,
    forking,
    hooks,
    identities,
    initing,
    labels,
    login,
    logs,
    looking,
    machine,
    memory,
    operating,
    policing,
    quarantining,
    reloading,
    replaying,
    reporting,
    rundiff,
    running,
    sandboxing,
    serving,
    shimming,
    steering,
    storing,
    tokens,
    tooling,
    topping,
    vaulting,
    workspace,
)
from ring0.cli.arguments import read_lightly
from ring0.cli.folder import folder_refused, home_of
from ring0.cli.outlet import OutputFailed, install_outlets
from ring0.cli.output import print_error
from ring0.cli.piping import fill_closed_streams
from ring0.cli.place import Place
from ring0.daemon.faults import FAULT_EXIT, FAULT_FILE, keep_fault
from ring0.errors import Interrupted, InvalidInput, Ring0Error
from ring0.runtime import Runtime

app = typer.Typer(
    name="ring0",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="An operating system for autonomous agents: it decides what their reasoning may do.",
)
GROUPS: Final = (
    initing,
    running,
    serving,
    following,
    crons,
    hooks,
    looking,
    logs,
    reporting,
    topping,
    approving,
    operating,
    ending,
    steering,
    budgeting,
    workspace,
    auditing,
    replaying,
    forking,
    rundiff,
    bisecting,
    exporting,
    labels,
    quarantining,
    memory,
    policing,
    tooling,
    vaulting,
    login,
    reloading,
    tokens,
    identities,
    sandboxing,
    storing,
    machine,
    shimming,
)
for group in GROUPS:
    group.add_to(app)
read_lightly()


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"ring0 {__version__}\n")
        raise typer.Exit


@app.callback()
def globals_(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            metavar="DIR",
            help="The data folder; else RING0_HOME, else the XDG data folder.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if home is not None:
        os.environ["RING0_HOME"] = str(home)  # also for a fault, which is told without a context
    environment = dict(os.environ)
    context.obj = Place(home_of(environment), environment, Runtime())


class Usage(InvalidInput):
    """The command line itself is wrong."""


def main(arguments: list[str]) -> int:
    """Runs the command of a whole process, which may have lost its output; the exit code."""
    fill_closed_streams()
    # A text that this terminal has no letters for must not end the command.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    install_outlets()
    code = guarded(arguments)
    try:
        sys.stdout.flush()
    except OutputFailed as error:
        print_error(error, as_json=False)
        code = error.exit_code
    return code


def guarded(arguments: list[str]) -> int:
    """Runs the command; its exit code. Every error ends here."""
    until = arguments.index("--") if "--" in arguments else len(arguments)
    as_json = "--json" in arguments[:until]
    try:
        return _run(arguments)
    except OutputFailed as error:
        print_error(error, as_json=False)  # Standard output is what failed.
        return error.exit_code
    except Ring0Error as error:
        return _told(error, as_json)
    except OSError as fault:
        if (refused := folder_refused(fault)) is not None:
            return _told(refused, as_json)
        return _fault(fault, as_json)
    except Exception as fault:
        return _fault(fault, as_json)


def _run(arguments: list[str]) -> int:
    try:
        result: Any = app(args=arguments, prog_name="ring0", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(error.format_message() + "\n")
            return Usage.exit_code
        raise Usage(
            error.format_message(),
            todo="`ring0 --help` and `ring0 VERB --help` tell what there is.",
        ) from None
    except (KeyboardInterrupt, typer.Abort):
        raise Interrupted("Interrupted.", todo="What was on record is kept.") from None


def _told(error: Ring0Error, as_json: bool) -> int:
    """Prints an error where it can be; its exit code."""
    try:
        print_error(error, as_json=as_json)
    except OutputFailed as failed:
        print_error(failed, as_json=False)
    return error.exit_code


def _fault(fault: Exception, as_json: bool) -> int:
    """A fault of ours: one line, and the traceback in a file, if it can be written."""
    try:
        path = home_of(os.environ) / FAULT_FILE
        keep_fault(path.parent, fault)
        todo = f"Report it, with {path}: it holds the details."
    except Ring0Error as error:
        todo = f"Report it. There is no place for its details: {error.what}"
    except OSError as error:
        todo = f"Report it. There is no place for its details: {path}: {error.strerror}."
    told_as = Ring0Error(f"A fault of ring0: {type(fault).__name__}.", todo=todo)
    _told(told_as, as_json)
    return FAULT_EXIT
