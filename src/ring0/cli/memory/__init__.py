"""`memory`: what runs remember, looked at, brought in, handed out, and forgotten.

One module a few verbs; documents are in ingesting.py.
"""

from __future__ import annotations

import typer

from ring0.cli import ingesting
from ring0.cli.memory import directing, exchanging, forgetting, looking


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What runs remember.")
    looking.add_to(group)
    ingesting.add_to(group)
    directing.add_to(group)
    exchanging.add_to(group)
    forgetting.add_to(group)
    app.add_typer(group, name="memory")
