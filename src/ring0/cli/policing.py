"""`policy check | test | explain | diff | schema`: what the kernel decides by, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ring0.cli import auditing, output
from ring0.cli.output import console, indented, line, put, text
from ring0.cli.place import Json, Place, place_of, work
from ring0.errors import PolicyCasesFailed, Ring0Error
from ring0.kernel.agent import manifests

if TYPE_CHECKING:
    from ring0.governance import Policies, cases

Manifest = Annotated[
    Path | None,
    typer.Option("--manifest", metavar="agent.toml", help="Of an agent: its tools are known then."),
]
Schemas = Mapping[str, Mapping[str, Any]]


class ToolsUnknown(Ring0Error):
    """Policies name a tool that no agent which is known has."""

    code, whose, exit_code = "policy_tools_unknown", "yours", 1


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="What the kernel decides by, and why it decided so.",
    )
    group.command("check")(check)
    group.command("test")(test)
    group.command("explain")(auditing.explain_call)
    group.command("diff")(diff)
    group.command("schema")(show_schema)
    app.add_typer(group, name="policy")


def check(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Cedar files; else those that ring0.toml names."),
    ] = None,
    manifests_: Annotated[
        list[Path] | None,
        typer.Option(
            "--manifest",
            metavar="agent.toml",
            show_default=False,
            help="Of an agent that has not run here yet: its tools are known then. Several times.",
        ),
    ] = None,
    allow_unknown_tools: Annotated[
        bool,
        typer.Option("--allow-unknown-tools", help="A rule for a tool that no agent has is fine."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Hold policies against the schema, the tools of all agents that are known, and ring0.toml's
    principals."""
    place = place_of(context)
    policies = _policies(place, files)
    agents = [found for path in manifests_ or [] if (found := _schemas(place, path)) is not None]
    on_record, warned = work(lambda: _on_record(place, policies))
    agents += on_record
    for schemas in agents:
        policies.check_tools(schemas)
    unknown = policies.unknown_tools(sorted({name for schemas in agents for name in schemas}))
    if unknown and not allow_unknown_tools:
        raise ToolsUnknown(
            f"{len(unknown)} of the policies hold for no call. {unknown[0]}",
            why="\n".join(unknown[1:]) or _looked_at(len(agents)),
            todo="Correct the name; name the agent that has it, `--manifest agent.toml`; or say"
            " --allow-unknown-tools.",
        )
    warned += unknown
    if as_json:
        output.print_json(
            {"ok": True, "digest": policies.digest, "profile": policies.profile,
             "statements": policies.count, "warnings": warned}
        )  # fmt: skip
        return
    out = console()
    for warning in warned:
        put(out, text(("! ", "yellow"), line(warning, 600)))
    against = "the schema and the agent's tools" if agents else "the schema"
    out.print(
        text(
            ("The policies fit ", "bold green"),
            (f"{against}. ", "bold green"),
            (f"{output.count(policies.count, 'statement')}, {policies.digest[:12]}", "dim"),
            (f", profile {policies.profile}" if policies.profile else "", "dim"),
        )
    )


def _looked_at(agents: int) -> str:
    if not agents:
        return "No agent is known: none has run in this data folder, and no manifest is named."
    return f"Those that were looked at: {output.count(agents, 'agent')}."


async def _on_record(place: Place, policies: Policies) -> tuple[list[Schemas], list[str]]:
    """The tools of each agent that the data folder knows, and what to warn of its ring0.toml.
    Raises ManifestInvalid."""
    from ring0.kernel.agent import known
    from ring0.kernel.operating import principals

    config = manifests.read_config(place.home)
    if place.is_new:
        return [], await principals.check(config, None)
    async with place.reading() as store:
        warned = await principals.check(config, store)
        if not policies.names_tools:
            return [], warned
        found = await known.tools(store, place.runtime, place.home)
    return list(found.values()), warned


def test(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="TOML files of cases.")],
    as_json: Json = False,
) -> None:
    """Decide the cases of a file and compare: for CI, with no data folder and no kernel."""
    from ring0.governance import Policies, cases
    from ring0.kernel.operating import proving

    place = place_of(context)
    done: list[dict[str, Any]] = []
    failed: list[tuple[Path, cases.Failed]] = []
    for path in files:
        found = cases.read(path)
        policies = Policies.load([path.parent / name for name in found.policy], found.profile)
        schemas = _schemas(place, path.parent / found.manifest if found.manifest else None) or {}
        wrong = proving.failures(path, found, policies, schemas)
        failed += [(path, failure) for failure in wrong]
        done.append({"file": str(path), "cases": len(found.case), "failed": wrong})
    total = sum(one["cases"] for one in done)
    if as_json:
        output.print_json(output.builtins(done))
        raise typer.Exit(PolicyCasesFailed.exit_code if failed else 0)
    _print_cases(failed, total)
    if failed:
        raise PolicyCasesFailed(
            f"{len(failed)} of {total} cases came out otherwise.",
            todo="Correct the policy, or the case.",
        )


def _print_cases(failed: list[tuple[Path, cases.Failed]], total: int) -> None:
    out = console()
    for path, failure in failed:
        out.print(text(("✗ ", "red"), (line(failure.case), "bold"), (f"  {path}", "dim")))
        out.print(indented(text(("want  ", "dim"), line(failure.want)), 4))
        out.print(indented(text(("got   ", "dim"), line(failure.got)), 4))
        for reason in failure.verdict.reasons:
            out.print(indented(text(f"{reason.rule}: ", line(reason.text, 600)), 10))
    if not failed:
        out.print(text((f"{output.count(total, 'case')}, all as wanted.", "bold green")))


def diff(
    context: typer.Context,
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD", help="A Cedar file, a ring0.toml, or `now`: what ring0.toml says."
        ),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="As OLD.")],
    as_json: Json = False,
) -> None:
    """Decide every decision on record again under both, and show those that differ."""
    place = place_of(context)
    sets = _set(place, old), _set(place, new)
    from ring0.cli.differing import compare, show

    compared = work(lambda: compare(place, *sets))
    if as_json:
        output.print_json(output.builtins(compared))
        return
    show(compared)


def show_schema(context: typer.Context, manifest: Manifest = None) -> None:
    """Print all that a policy can speak about, as Cedar's schema."""
    from ring0.governance import schema

    schemas = _schemas(place_of(context), manifest) or {}
    parts = [schema.text(), *(schema.tool_text(name, schemas[name]) for name in sorted(schemas))]
    # Names of tools are from outside: they are printed as texts are, never as they come.
    console().print(text("\n".join(parts)), soft_wrap=True)


def _policies(place: Place, files: list[Path] | None) -> Policies:
    from ring0.governance import Policies

    if files:
        return Policies.load(files)
    return _of_config(manifests.read_config(place.home), place.home)


def _of_config(config: manifests.Config, folder: Path) -> Policies:
    from ring0.governance import Policies

    return Policies.load([folder / name for name in config.policy], config.profile)


def _set(place: Place, named: str) -> Policies:
    """Raises PolicyInvalid, ManifestInvalid."""
    from ring0.governance import Policies

    if named == "now":
        return _of_config(manifests.read_config(place.home), place.home)
    path = Path(named)
    folder = path.parent if path.name == manifests.RING0_TOML else path
    if folder.is_dir():
        return _of_config(manifests.read_config(folder), folder)
    return Policies.load([path])


def _schemas(place: Place, manifest: Path | None) -> Schemas | None:
    """Of the agent's tools; None: no agent is named."""
    if manifest is None:
        return None
    from ring0.cli.starting import agent_of_file
    from ring0.kernel.agent import offered

    bare = agent_of_file("", manifest)
    tools = work(lambda: offered.tools_of(bare.manifest, bare.around, place.runtime, place.home))
    return offered.schemas(tools)
