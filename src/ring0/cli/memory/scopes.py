"""Whose memory a verb means: an agent's, for one principal and no other."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ring0.cli.place import Place
from ring0.errors import NotFound
from ring0.identity import operator_name
from ring0.kernel.agent import manifests
from ring0.store import Store
from ring0.types import Owner, Scope

Agent = Annotated[str, typer.Option("--agent", metavar="NAME", help="Whose memory.")]
AnyAgent = Annotated[
    str,
    typer.Option(
        "--agent",
        metavar="NAME",
        help="Whose memory; else that of each agent that ran for the principal.",
        show_default=False,
    ),
]
Principal = Annotated[
    str,
    typer.Option(
        "--principal", metavar="NAME", help="For whom it ran; else for you.", show_default=False
    ),
]


def principal_of(principal: str) -> str:
    return principal or operator_name(os.getuid())


async def owners(place: Place, store: Store, agent: str, principal: str) -> list[Owner]:
    """Those that remember anything, by agent. Raises NotFound."""
    tenant, who = manifests.read_config(place.home).tenant, principal_of(principal)
    known = [one.owner for one in await store.scopes() if one.owner[:2] == (tenant, who)]
    found = sorted(one for one in known if not agent or one[2] == agent)
    if not found:
        names = ", ".join(sorted(one[2] for one in known)[:20])
        raise NotFound(
            f"No agent{f' {agent[:60]!r}' if agent else ''} remembers anything for {who}.",
            why=f"There are: {names}." if names else "",
            todo="`ring0 memory stats` prints whose memory there is; see --principal.",
        )
    return found


def scope_of(owner: Owner) -> Scope:
    tenant, principal, agent = owner
    return Scope(tenant=tenant, principal=principal, agent=agent, run=None)
