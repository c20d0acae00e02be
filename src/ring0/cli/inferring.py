"""`tools infer`: a proposed manifest for tools that have none, a line a word, each with its reason.

Nothing is written and nothing is started: a person puts what is right into agent.toml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import console, put, text
from ring0.cli.place import Json
from ring0.errors import InvalidInput, NotFound
from ring0.tools.inferring import infer as inferred
from ring0.tools.inferring import proposed
from ring0.tools.mcp import pins, usable

_HEAD: Final = """\
# Worked out from names, words and schemas: what you take over is your word. `unattended = true` is
# the one line that loosens: leave it out where a person is to be asked. docs/guardrails.md
"""


class Told(NamedTuple):
    """One tool, as whoever made it describes it."""

    table: str
    name: str
    description: str
    schema: dict[str, Any]
    hints: dict[str, Any]
    server: bool


def infer(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SERVER|FILE",
            help="An MCP server that is approved, or a JSON file with a list of tools.",
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="The agent's folder, with agent.toml.")
    ] = Path("."),
    as_json: Json = False,
) -> None:
    """Propose manifests for tools: what each seems to change, to whom, and why it seems so."""
    found = [(told, inferred(told.name, told.description, told.schema, told.hints))
             for told in _told(what, folder)]  # fmt: skip
    if as_json:
        output.print_json({"tools": {told.table: one for told, one in found}})
        return
    put(console(), text(_HEAD))
    for told, one in found:
        put(console(), text(proposed(told.table, one, server=told.server)))
        put(console(), text(""))


def _told(what: str, folder: Path) -> list[Told]:
    """Raises NotFound, InvalidInput."""
    pin = pins.read(folder).get(what)
    if pin is not None:
        good, _ = usable(pin)
        place = f"tools.{what}.operations"
        return [
            Told(f"{place}.{key(name)}", tool.name, tool.description, tool.schema,
                 tool.annotations, True)
            for name, tool in good.items()
        ]  # fmt: skip
    path = Path(what)
    if not path.is_file():
        raise NotFound(
            f"There is no MCP server {what[:80]!r} that is approved, and no file of that name.",
            todo=f"`ring0 tools list --from {folder}` lists servers; or name a JSON file with tools"
            " as a model is offered them.",
        )
    return list(_of_file(path))


def _of_file(path: Path) -> Iterator[Told]:
    """Tools as MCP lists them, or as models are offered them in any dialect."""
    try:
        raw = path.read_bytes()
        if len(raw) > limits.CALL_BODY_SIZE_BYTES_MAX:
            raise InvalidInput(f"{path} is too large.", todo="Name a file with a few tools.")
        given = msgspec.json.decode(raw)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(
            f"{path} can't be read as JSON.",
            why=str(error)[:300],
            todo="Name an approved MCP server, or a JSON file with a list of tools.",
        ) from None
    listed = given.get("tools") if isinstance(given, Mapping) else given
    if not isinstance(listed, list):
        raise InvalidInput(
            f"{path} has no list of tools.",
            todo='Write `[{"name": …, "description": …, "parameters": …}]`, or `{"tools": […]}`.',
        )
    for number, one in enumerate(listed[: limits.MODEL_TOOLS_MAX]):
        inner = one.get("function", one) if isinstance(one, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(name, str) or not name:
            raise InvalidInput(f"Tool {number} of {path} has no name.", todo="Give it one.")
        keys = ("parameters", "inputSchema", "input_schema", "schema")
        schemas = [inner[one] for one in keys if isinstance(inner.get(one), Mapping)]
        hints = inner.get("annotations")
        yield Told(
            f"tools.{key(name)}",
            name,
            str(inner.get("description") or ""),
            dict(schemas[0]) if schemas else {},
            dict(hints) if isinstance(hints, Mapping) else {},
            False,
        )


def key(name: str) -> str:
    """A name as a key of TOML: bare where it can be, and else quoted."""
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else msgspec.json.encode(name).decode().replace("\x7f", "\\u007f")
