"""`init`, `openapi`: what an author begins with: a project that works; the native API described.

A project is the files of `project/`, written as they stand there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import typer

from ring0.cli import output
from ring0.cli.output import console, line, text
from ring0.cli.place import Json
from ring0.errors import InvalidInput
from ring0.kernel.agent.manifests import RING0_TOML

HOME: Final = ".ring0"
"""The data folder of a project, in it."""
FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "agent.py": "agent.py",
        "agent.toml": "agent.toml",
        "puppet.toml": "puppet.toml",
        "policy.cedar": "policy.cedar",
        "policy_tests.toml": "policy_tests.toml",
        RING0_TOML: f"{HOME}/{RING0_TOML}",
        "README.md": "README.md",
        "gitignore": ".gitignore",
    }
)
"""Each file of `project/`, and what it is called in a project."""
_TEMPLATES: Final = Path(__file__).with_name("project")


def add_to(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("openapi")(openapi)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", show_default=False, help="Else the one here.")
    ] = Path("."),
    as_json: Json = False,
) -> None:
    """Make a project: an agent with a tool, its manifest, a policy and a test of it."""
    written = make(folder)
    if as_json:
        output.print_json({"folder": str(folder), "files": written})
        return
    out = console()
    for name in written:
        out.print(text(("+ ", "green"), line(str(folder / name))))
    out.print(text(("It works as it is: ", "bold green"), line(str(folder / "README.md"))))


def openapi() -> None:
    """Print the native API, as any program speaks it at its run's door: OpenAPI 3.1."""
    from ring0.gateway.openapi import document

    sys.stdout.write(document().decode() + "\n")


def make(folder: Path) -> list[str]:
    """Writes a project, and nothing over what is there; the names of its files. Raises
    InvalidInput."""
    there = [name for name in (*FILES.values(), HOME) if os.path.lexists(folder / name)]
    if there:
        raise _refused(folder, f"{there[0]} is there already, and nothing is written over it")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HOME).mkdir(mode=0o700)
        written.append(folder / HOME)
        for template, name in FILES.items():
            body = (_TEMPLATES / template).read_bytes()
            with (folder / name).open("xb") as file:
                written.append(folder / name)
                file.write(body)
    except OSError as error:
        _take_back(written)
        raise _refused(folder, f"{error.filename or folder}: {error.strerror}") from None
    return list(FILES.values())


def _take_back(written: list[Path]) -> None:
    """Half a project would be in the way of the next try."""
    for path in reversed(written):
        try:
            path.rmdir() if path.name == HOME else path.unlink()
        except OSError:
            pass  # What went wrong before is told.


def _refused(folder: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"No project was made in {folder}.",
        why=f"{why}.",
        todo="Name another: `ring0 init FOLDER`.",
    )
