"""`ring0 demo`: the main job on a database of its own, and a human's yes or no in the middle."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ring0.cli.place import work
from ring0.cli.prompt import Prompt, giving
from ring0.runtime import Runtime

if TYPE_CHECKING:
    from ring0.demo.follow import Answer
    from ring0.demo.screen import Screen
    from ring0.kernel.kernel import Kernel


def demo(
    approve_as: Annotated[
        str,
        typer.Option(
            "--approve-as",
            metavar="NAME",
            help="Where there is no terminal: say yes to every held call, on record as demo:NAME."
            " In the demo's own folder only.",
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME",
            help="`local`: a small real model on this machine, offline (`make local` installs it).",
        ),
    ] = "",
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Forget the demos before: empty the demo's folder first."),
    ] = False,
) -> None:
    """Watch an agent that obeys everybody meet a kernel that does not."""
    from ring0.demo.play import Setting, play
    from ring0.demo.screen import Screen

    screen = Screen()
    setting = Setting(
        environment=dict(os.environ),
        approve_as=approve_as,
        fresh=fresh,
        model=model,
        has_terminal=sys.stdin.isatty() and sys.stdout.isatty(),
    )
    code = work(lambda: play(setting, screen, Runtime(), _human))
    raise typer.Exit(code)


def _human(kernel: Kernel, screen: Screen) -> Answer:
    return Prompt(giving(kernel), screen.console).ask


__all__ = ["demo"]
