"""The MCP servers of an agent's folder: which one is meant, and how it is reached to be looked at.

Not here: what a person is shown of one, and whether they approve it (tooling.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ring0.cli.place import Place
from ring0.cli.vaulting import whoever_types
from ring0.errors import InvalidInput, NotFound
from ring0.identity import Vault
from ring0.kernel.agent import manifests
from ring0.tools.mcp import Pin, Server, Settings, pins, sender, settings
from ring0.tools.mcp.wording import operation_name


def said_of(
    name: str, folder: Path, command: tuple[str, ...], workspace: bool
) -> tuple[Settings, bool]:
    """The server as agent.toml names it, or as the command line does; and whether agent.toml
    does. Raises ManifestInvalid, InvalidInput."""
    if not name.isidentifier():
        raise InvalidInput(f"{name[:80]!r} is no name for a tool.", todo="Use letters and _.")
    config = configs(folder).get(name)
    given: dict[str, Any] = {"use": "mcp", "workspace": workspace}
    if len(command) == 1 and "://" in command[0]:
        given["url"] = command[0]
    else:
        given["command"] = list(command)
    if config is None:
        if not command:
            raise NotFound(
                f'There is no [tools.{name}] with `use = "mcp"` in {folder}.',
                why="Neither agent.toml nor the command line names the server.",
                todo=f"ring0 tools add {name} --from {folder} -- COMMAND…",
            )
        return settings.read(name, given), False
    said = settings.read(name, config)
    if command and command != (said.command or (said.url,)):
        raise InvalidInput(
            f"[tools.{name}] of agent.toml names another server than the command line.",
            todo="Leave the command out, or correct agent.toml.",
        )
    return said, True


def configs(folder: Path) -> dict[str, dict[str, Any]]:
    """`[tools.*] use = "mcp"` of the agent in `folder`; none where it has no agent.toml."""
    path = folder / manifests.AGENT_TOML
    if not path.exists():
        if not folder.is_dir():
            raise InvalidInput(f"{folder} is no folder.", todo="Name the agent's folder.")
        return {}
    tools = manifests.read_agent(path).tools
    return {name: config for name, config in tools.items() if config.get("use") == "mcp"}


def names(folder: Path) -> list[str]:
    return sorted({*configs(folder), *pins.read(folder)})


def pinned(name: str, folder: Path) -> Pin:
    found = pins.read(folder).get(name)
    if found is None:
        raise pins.unpinned(name, folder)
    return found


def others(folder: Path, name: str) -> list[str]:
    """The names of the tools that other servers have."""
    found: list[str] = []
    for instance, pin in pins.read(folder).items():
        if instance != name:
            own = [tool.name for tool in pin.offer.tools]
            found += [*own, *(f"{instance}.{operation_name(tool)}" for tool in own)]
    return found


async def inspect(place: Place, name: str, said: Settings, folder: Path) -> Pin:
    from ring0.kernel.sandboxes import Sandboxes

    server = Server(name, said, folder.resolve(), place.runtime, send=sender_of(place, name, said))
    tier = manifests.read_config(place.home).sandbox.tier
    sandboxes = Sandboxes(None, place.runtime, tier_min=tier)
    try:
        return await server.inspect(sandboxes)
    finally:
        await sandboxes.close()


def sender_of(place: Place, name: str, said: Settings) -> Any:
    """What reaches a server elsewhere; None for one that runs here."""
    if not said.url:
        return None
    from ring0.kernel.calls.outside import Outside
    from ring0.kernel.logins import Logins

    config = manifests.read_config(place.home)
    vault = Vault(place.home, place.runtime)
    known = vault.values()
    logins = Logins(config, vault, place.environment, place.runtime).refreshing()
    outside = Outside(
        config, lambda key: known.get(key) or place.environment.get(key, ""), place.runtime,
        token=logins.token, refused=logins.refused, principal=whoever_types(place),
    )  # fmt: skip
    return sender(outside, name, said, place.runtime)
