"""`tools add | list | scan | diff`: what a person sees of an MCP server before they approve it.

Everything that a server says is hostile text here: it is shown through `output`, never as it came.
"""

from __future__ import annotations

import json
import os
import sys
import termios
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console

from ring0.cli import inferring, output, servers
from ring0.cli.describing import looking
from ring0.cli.output import console, line, put, text
from ring0.cli.place import Json, place_of, work
from ring0.errors import InvalidInput, ToolFailed
from ring0.identity import operator_name
from ring0.kernel.agent import manifests
from ring0.tools.mcp import Finding, Pin, Settings, pins, scan, settings, usable
from ring0.tools.mcp.wording import clean
from ring0.types import Effect

SHOWN_MAX: Final = 1_000
"""Characters of a description in a summary; the lock file has all of it."""
EXCERPT_MAX: Final = 240

Name = Annotated[str, typer.Argument(metavar="NAME", help="As in `[tools.NAME]`.")]
From = Annotated[
    Path, typer.Option("--from", metavar="DIR", help="The agent's folder, with agent.toml.")
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="MCP servers: approve, list, compare."
    )
    group.command("add")(add)
    group.command("list")(list_)
    group.command("scan")(scan_)
    group.command("diff")(diff)
    group.command("infer")(inferring.infer)
    app.add_typer(group, name="tools")


def add(
    context: typer.Context,
    name: Name,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND…|URL]", help="If agent.toml does not name it yet."),
    ] = None,
    folder: From = Path("."),
    workspace: Annotated[
        bool, typer.Option("--workspace", help="The server works on the run's files, at /work.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Approve without being asked, if nothing grave is found.")
    ] = False,
    accept: Annotated[
        bool, typer.Option("--accept-findings", help="With --yes: also with grave findings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at an MCP server in a sandbox, and approve it as it is: code, tools and words."""
    place = place_of(context)
    said, named = servers.said_of(name, folder, tuple(command or ()), workspace)
    pin = work(lambda: servers.inspect(place, name, said, folder))
    found = scan(pin.offer, servers.others(folder, name), looking())
    if not as_json:
        _show(name, pin, found)
    _decide(found, yes=yes, accept=accept, ask=not as_json)
    approved = msgspec.structs.replace(
        pin,
        approved_by=operator_name(os.geteuid()),
        approved_at=output.moment(place.runtime.now_us()),
    )
    path = pins.write(folder, {**pins.read(folder), name: approved})
    if as_json:
        output.print_json({"name": name, "pin": pin.digest, "findings": found, "lock": str(path)})
        return
    put(console(), text(("approved: ", "green"), f"{name} {pin.digest}"))
    put(console(), text(("written: ", "dim"), str(path)))
    if not named:
        put(console(), text(f"Put this into {folder / manifests.AGENT_TOML}:"))
        put(console(), text(_snippet(name, said)), 2)


def list_(context: typer.Context, folder: From = Path("."), as_json: Json = False) -> None:
    """List an agent's MCP servers with their pins."""
    place_of(context)
    rows = [_row(name, folder) for name in servers.names(folder)]
    if as_json:
        output.print_json({"tools": rows})
    elif not rows:
        console().print("No MCP server is named in agent.toml or approved.")
    else:
        heads = (
            "NAME",
            "STATE",
            "SERVER",
            "TOOLS",
            "WAY BACK",
            "PIN",
            "APPROVED (UTC)",
            "BY",
            "RUNS",
        )
        keys = (
            "name", "state", "server", "tools", "way_back", "pin", "approved_at", "approved_by",
            "runs",
        )  # fmt: skip
        cells = [[str(row[key])[: 16 if key == "pin" else None] for key in keys] for row in rows]
        console().print(output.table(heads, cells))


def scan_(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    folder: From = Path("."),
    as_json: Json = False,
) -> None:
    """Look through what approved servers say, for what is not meant for the person who reads."""
    place_of(context)
    locked = pins.read(folder)
    if name is not None:
        locked = {name: servers.pinned(name, folder)}
    found = {
        instance: scan(pin.offer, servers.others(folder, instance), looking())
        for instance, pin in locked.items()
    }
    if as_json:
        output.print_json({"findings": found})
    else:
        for instance, findings in sorted(found.items()):
            put(console(), text((instance, "bold"), f": {output.count(len(findings), 'finding')}"))
            _show_findings(console(), findings)
    if any(finding.grave for findings in found.values() for finding in findings):
        raise typer.Exit(ToolFailed.exit_code)


def diff(
    context: typer.Context, name: Name, folder: From = Path("."), as_json: Json = False
) -> None:
    """Start a server in a sandbox, and show what has changed since it was approved."""
    place = place_of(context)
    was = servers.pinned(name, folder)
    said, _ = servers.said_of(
        name, folder, was.command or ((was.url,) if was.url else ()), was.workspace
    )
    now = work(lambda: servers.inspect(place, name, said, folder))
    lines = pins.differences(was, now)
    if as_json:
        output.print_json({"name": name, "changed": bool(lines), "lines": lines})
    elif not lines:
        put(console(), text(("unchanged: ", "green"), f"{name} {was.digest}"))
    else:
        styles = {"-": "red", "+": "green"}
        for each in lines:
            put(console(), text((each, styles.get(each.strip()[:1], "bold"))))
    if lines:
        raise typer.Exit(ToolFailed.exit_code)


# --- what is shown --------------------------------------------------------------------------------


def _show(name: str, pin: Pin, found: list[Finding]) -> None:
    out = console()
    offer = pin.offer
    put(out, text((name, "bold"), f": {line(offer.server_name)} {line(offer.server_version, 40)}"))
    runs = " ".join(pin.command) or pin.url
    where = "at its address" if pin.url else "in a sandbox of its own"
    put(out, text(("runs  ", "dim"), f"{line(runs)}, {where}"), 2)
    files = sum(unit.files for unit in pin.code)
    count = f"{output.count(len(pin.code), 'part')}, {output.count(files, 'file')}"
    put(out, text(("code  ", "dim"), count if pin.code else "elsewhere: it can't be pinned"), 2)
    if offer.instructions:
        put(out, text(("says  ", "dim"), _said_of(offer.instructions)), 2, mark="| ")
    good, bad = usable(pin)
    for operation, tool in good.items():
        hint = " (it says of itself: it only reads)" if _reads(tool.annotations) else ""
        put(out, text((f"{name}.{operation}", "bold"), hint), 2)
        put(out, text(_said_of(tool.description)), 6, mark="| ")
        arguments = ", ".join(line(clean(key), 60) for key in tool.schema.get("properties", {}))
        put(out, text(("takes ", "dim"), arguments or "nothing"), 6)
    for tool_name, why in bad.items():
        put(out, text((f"{line(tool_name)}: left out", "yellow"), f", {line(why)}"), 2)
    put(out, text(output.count(len(found), "finding"), _style_of(found)), 0)
    _show_findings(out, found)


def _said_of(words: str) -> str:
    """A server's words on one line; where they are cut, how much is not shown."""
    whole = line(clean(words, len(words) + 1), len(words) + 1)
    if len(whole) <= SHOWN_MAX:
        return whole
    more = f" [{len(whole) - SHOWN_MAX:,} characters more in {pins.LOCK}, once it is written]"
    return whole[:SHOWN_MAX] + more


def _style_of(found: list[Finding]) -> str | tuple[str, str]:
    grave = sum(finding.grave for finding in found)
    return (f", {grave} of them grave", "bold red") if grave else ""


def _reads(annotations: dict[str, Any]) -> bool:
    return annotations.get("readOnlyHint") is True


def _show_findings(out: Console, found: list[Finding]) -> None:
    for finding in found:
        style = "bold red" if finding.grave else "yellow"
        said = f": {output.escaped(finding.excerpt, EXCERPT_MAX)}" if finding.excerpt else ""
        put(
            out,
            text(("! " if finding.grave else "  ", style), f"{line(finding.where)}: ",
                 (line(finding.what), style), said),
            2,
            mark="| ",
        )  # fmt: skip


def _decide(found: list[Finding], *, yes: bool, accept: bool, ask: bool) -> None:
    """Returns where it is approved. Raises InvalidInput where it is not."""
    grave = any(finding.grave for finding in found)
    if yes and (accept or not grave):
        return
    if yes:
        raise InvalidInput(
            "It was not approved: what was found is grave.",
            todo="Read the findings; then approve without --yes, or with --accept-findings.",
        )
    if not (ask and sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput(
            "It was not approved: there is nobody to ask.",
            todo="Run it in a terminal, or with --yes.",
        )
    # What was typed before the server was shown is no answer to it.
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    console().print("Approve it as it is? Type yes: ", end="")
    if sys.stdin.readline().strip().lower() != "yes":
        raise InvalidInput("It was not approved.", todo="Nothing was written.")


def _row(name: str, folder: Path) -> dict[str, Any]:
    config, pin = servers.configs(folder).get(name), pins.read(folder).get(name)
    if pin is None:
        state = "not approved"
    elif config is None:
        state = "approved, not in agent.toml"
    else:
        said = settings.read(name, config)
        asked = (said.command, said.env, said.url, said.workspace)
        same = asked == (pin.command, pin.env, pin.url, pin.workspace)
        state = "approved" if same else "changed in agent.toml"
    offer = pin.offer if pin else None
    runs = (" ".join(pin.command) or pin.url) if pin else ""
    return {
        "name": name,
        "way_back": _way_back(pin, settings.read(name, config) if config is not None else None),
        "state": state,
        "server": f"{offer.server_name} {offer.server_version}" if offer else "",
        "tools": len(usable(pin)[0]) if pin else 0,
        "pin": pin.digest if pin else "",
        "approved_at": pin.approved_at if pin else "",
        "approved_by": pin.approved_by if pin else "",
        "runs": runs,
    }


def _way_back(pin: Pin | None, said: Settings | None) -> str:
    """How what its tools change is taken back: said before, and not after."""
    if pin is None:
        return ""
    if said is not None and said.contained:
        return "files are put back"
    ways, stay = [], 0
    for name, tool in usable(pin)[0].items():
        named = said.operations if said is not None else {}
        own = named.get(tool.name) or named.get(name) or settings.Operation()
        way, _, by = own.reversal.partition(":")
        if own.reads or own.effect is Effect.PURE:
            continue
        if by:
            ways.append(f"{name} by {line(by, 80)}")
        stay += way == "irreversible"
    return ", ".join([*ways, *([f"{stay} irreversible"] if stay else [])])


def _snippet(name: str, said: Settings) -> str:
    lines = [f"[tools.{name}]", 'use = "mcp"']
    if said.url:
        lines.append(f"url = {json.dumps(said.url)}")
    else:
        lines.append(f"command = {json.dumps(list(said.command))}")
    if said.workspace:
        lines.append("workspace = true")
    return "\n".join(lines)
