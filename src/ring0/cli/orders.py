"""What `cron` and `hook` share: the agent that an order starts, and whether its files have changed
since it was given.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ring0 import limits
from ring0.cli.operating import operating
from ring0.cli.place import Place
from ring0.errors import InvalidInput, Ring0Error
from ring0.types import Cron, Hook

if TYPE_CHECKING:
    from ring0.cli.starting import Bare
    from ring0.gateway.ordering import AnyChange, Described
    from ring0.kernel.life.orders import Told
    from ring0.store.sqlite import SqliteStore

OrderName = Annotated[str, typer.Argument(metavar="NAME", help="As its list has it.")]
File = Annotated[
    str, typer.Argument(metavar="FILE.py[:FUNCTION]", help="The agent, as `ring0 run` takes it.")
]
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task of each run.")]
Manifest = Annotated[
    Path | None,
    typer.Option(
        "--manifest", metavar="agent.toml", show_default=False, help="The agent's manifest."
    ),
]
Priority = Annotated[
    int | None,
    typer.Option(
        "--priority",
        min=0,
        max=limits.PRIORITY_LAST,
        show_default=False,
        help="0 goes first; else what its manifest says.",
    ),
]
Anew = Annotated[
    bool, typer.Option("--force", help="In place of the one of that name, with the code of now.")
]


def agent(
    name: str, file: str, task: str, manifest: Path | None, priority: int | None, *, anew: bool
) -> tuple[Described, Told]:
    """What is to be run, as its files say now. Raises ManifestInvalid, AgentInvalid."""
    from ring0.cli.starting import agent_of_file
    from ring0.gateway.ordering import Described
    from ring0.kernel.life.orders import Told

    if manifest is not None:
        manifest = manifest.absolute()
    path, _, function = file.partition(":")
    source = str(Path(path).absolute()) + (f":{function}" if function else "")
    bare = agent_of_file(source, manifest)
    described = Described(manifest=bare.manifest, around=bare.around, priority=priority)
    told = Told(
        name=name,
        task=task,
        source=source,
        manifest=str(manifest or ""),
        said_digest=_said(bare),
        anew=anew,
    )
    return described, told


def _said(bare: Bare) -> str:
    encoded = msgspec.json.encode(bare.manifest, order="sorted")
    return hashlib.sha256(encoded).hexdigest()


async def change(place: Place, wanted: AnyChange) -> Any:
    """By the kernel that has the folder, or one opened for just this."""
    async with operating(place) as operator:
        return msgspec.to_builtins(await operator.order(wanted))


async def code_now(place: Place, store: SqliteStore, order: Cron | Hook) -> str:
    """`as given`, `changed since` (the runs have the code of then), or `gone`."""
    from ring0.cli.starting import agent_of_file
    from ring0.kernel.agent import agents
    from ring0.kernel.folder import SNAPSHOTS

    family = msgspec.json.decode(await store.blob(order.family), type=agents.Family)
    try:
        bare = agent_of_file(order.source, Path(order.manifest) if order.manifest else None)
        code = agents.code_files(family.manifest, place.home / SNAPSHOTS)
    except (Ring0Error, OSError):
        return "gone"
    same = (
        _said(bare) == order.said_digest
        and agents.digest(family.manifest, code) == order.agent_digest
    )
    return "as given" if same else "changed since"


def only_one(**given: object) -> str:
    """Which of the options was given. Raises InvalidInput where it is not exactly one."""
    found = [name for name, value in given.items() if value]
    if len(found) != 1:
        raise InvalidInput(
            "A cron has one schedule." if found else "The cron has no schedule.",
            todo='Give an expression ("*/5 * * * *"), or --every 10m, or --at 2026-12-01T10:00Z.',
        )
    return found[0]
