"""The table of what held, as `make compat` prints it and docs/compatibility.md has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from compat.cases import CASES
from compat.clients import Client

BEGIN: Final = "<!-- make compat: begin -->"
END: Final = "<!-- make compat: end -->"
Row = dict[str, str]
"""By case, what did not hold; empty: it held."""


def written(rows: Mapping[Client, Row], versions: Mapping[Client, str]) -> str:
    names = [name for name in CASES if any(name in row for row in rows.values())]
    lines = [
        f"| client | version | route | {' | '.join(names)} |",
        f"|{' --- |' * (3 + len(names))}",
    ]
    notes = []
    for client, row in rows.items():
        cells = []
        for name in names:
            why = row.get(name, "")
            if why:
                notes.append(f"{client.name}, {name}: {_line(why)}")
            cells.append(f"no ({len(notes)})" if why else "yes")
        lines.append(
            f"| {client.name} | {versions[client]} | `{client.path}` | {' | '.join(cells)} |"
        )
    return "\n".join([*lines, *(f"\n{n}. {note}" for n, note in enumerate(notes, start=1))])


def put(page: Path, text: str) -> None:
    """Between the page's two marks."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def _line(why: str) -> str:
    return " ".join(why.split()).replace("|", "\\|")
