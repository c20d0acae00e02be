"""`ring0 mcp`: inside a sandbox, the run's MCP door on standard streams. `ring0` is on the PATH of
every sandbox, so that it is there whatever environment the program is of.
"""

from __future__ import annotations

import asyncio

import typer


def add_to(app: typer.Typer) -> None:
    app.command("mcp")(mcp)


def mcp() -> None:
    """The run's MCP door, for a client in its sandbox that starts a program and speaks to it."""
    from ring0.sdk.mcp import main

    raise typer.Exit(asyncio.run(main()))
