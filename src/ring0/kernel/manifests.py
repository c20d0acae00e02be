"""Reads agent.toml and ring0.toml, strictly: an unknown key, a wrong type or a missing file is an
error that names the place. What each key means is in docs/configuration.md.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.types import AgentManifest, Budget, Grant, ModelConfig, SandboxProfile

AGENT_TOML = "agent.toml"
RING0_TOML = "ring0.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


Tier = Literal["landlock", "ns", "container", "gvisor", "microvm"]


class _BudgetTable(msgspec.Struct, forbid_unknown_fields=True):
    calls: int = limits.RUN_CALLS_DEFAULT
    cost_usd: str | None = None
    wall_s: int = limits.RUN_WALL_S_DEFAULT


class _SandboxTable(msgspec.Struct, forbid_unknown_fields=True):
    tier: Tier | Literal[""] = ""
    read: list[str] = []
    memory_mb: int = limits.SANDBOX_MEMORY_BYTES_DEFAULT // limits.MIB
    tmp_mb: int = limits.SANDBOX_TMP_BYTES_DEFAULT // limits.MIB
    processes: int = limits.SANDBOX_PROCESSES_DEFAULT


class _WorkspaceTable(msgspec.Struct, forbid_unknown_fields=True):
    copy: list[str] = []


class _FunctionTable(msgspec.Struct, forbid_unknown_fields=True):
    egress: list[str] = []
    secrets: list[str] = []


class _AgentTable(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    entry: str = ""
    command: list[str] = []
    code: list[str] = []
    agents: list[str] = []
    tools: dict[str, dict[str, Any]] = {}
    functions: dict[str, _FunctionTable] = {}
    models: dict[str, ModelConfig] = {}
    budget: _BudgetTable = msgspec.field(default_factory=_BudgetTable)
    sandbox: _SandboxTable = msgspec.field(default_factory=_SandboxTable)
    workspace: _WorkspaceTable = msgspec.field(default_factory=_WorkspaceTable)


class CredentialTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[credentials.NAME]: which secret is put into which requests, on the far side."""

    secret: str
    """Its name in the vault or the environment."""
    use_for: str
    """The requests that it is for, as an egress rule: `GET https://api.github.com/repos/*`."""
    header: str = "Authorization"
    form: str = "Bearer {value}"
    """What the header says; `{value}` is the secret, `{base64}` what Basic wants."""


class NetworkTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[network]: what tools may reach beyond the public internet."""

    allow_private: tuple[str, ...] = ()
    """Address ranges (`10.1.2.0/24`) that are not public and may be reached all the same."""
    authorities: tuple[str, ...] = ()
    """Files (PEM) of certificate authorities that are trusted beside the system's."""
    plain_credentials: tuple[str, ...] = ()
    """Hosts that get credentials without TLS: everybody on the way can read them."""


class ConfigSandboxTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[sandbox] of ring0.toml."""

    tier: Tier = "ns"
    """The weakest tier that any sandbox may have."""
    image: tuple[str, ...] = ()
    """Modules beyond the standard library that an `image` may name: they are imported outside of
    any sandbox."""


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """ring0.toml: what the operator of this machine says, whatever the agents say."""

    tenant: str = "local"
    policy: list[str] = []
    """Cedar files, beside ring0.toml, added to the default set."""
    secrets: list[str] = []
    """Names of environment variables (or of the vault) whose values never leave the kernel."""
    credentials: dict[str, CredentialTable] = {}
    network: NetworkTable = NetworkTable()
    sandbox: ConfigSandboxTable = ConfigSandboxTable()
    models: dict[str, ModelConfig] = {}
    """Models that every agent may ask for, by name; an agent's own come first."""


def read_agent(path: Path) -> AgentManifest:
    """An agent.toml. Raises ManifestInvalid."""
    table = _read(path, _AgentTable, "agent.toml's keys are listed in docs/configuration.md")
    if not _NAME.fullmatch(table.name):
        raise ManifestInvalid(
            f"{path}: {table.name[:60]!r} is no name for an agent.",
            todo="Use letters, digits, `.`, `_` and `-`.",
        )
    if bool(table.entry) == bool(table.command):
        raise ManifestInvalid(
            f"{path}: an agent has either `entry` or `command`.",
            why="`entry` is a Python file with @agent; `command` is any program.",
            todo='Set one: `entry = "agent.py"` or `command = ["node", "a.js"]`.',
        )
    budget = table.budget
    if budget.calls < 1 or budget.wall_s < 1:
        raise ManifestInvalid(f"{path}: [budget] calls and wall_s begin at 1.", todo="Raise them.")
    sandbox = table.sandbox
    if min(sandbox.memory_mb, sandbox.tmp_mb, sandbox.processes) < 1:
        raise ManifestInvalid(f"{path}: the numbers of [sandbox] begin at 1.", todo="Raise them.")
    return AgentManifest(
        name=table.name,
        entry=table.entry,
        command=tuple(table.command),
        code=tuple(table.code),
        agents=tuple(table.agents),
        tools=table.tools,
        grants={
            name: Grant(egress=tuple(found.egress), secrets=tuple(found.secrets))
            for name, found in table.functions.items()
        },
        models=table.models,
        imports=tuple(table.workspace.copy),
        budget=Budget(
            calls=budget.calls, cost_microusd=_money(budget.cost_usd, path), wall_s=budget.wall_s
        ),
        sandbox=SandboxProfile(
            tier=sandbox.tier,
            read=tuple(sandbox.read),
            processes=sandbox.processes,
            memory_bytes=sandbox.memory_mb * limits.MIB,
            tmp_bytes=sandbox.tmp_mb * limits.MIB,
        ),
        folder=str(path.parent.resolve()),
    )


def read_config(home: Path) -> Config:
    """ring0.toml of the data folder; all defaults where there is none. Raises ManifestInvalid."""
    path = home / RING0_TOML
    if not path.exists():
        return Config()
    config: Config = _read(path, Config, "ring0.toml's keys are listed in docs/configuration.md")
    files = tuple(str(home / name) for name in config.network.authorities)
    config.network = msgspec.structs.replace(config.network, authorities=files)
    return config


def secrets_of(
    config: Config, environment: Mapping[str, str], vault: Mapping[str, str]
) -> dict[str, str]:
    """The values that never leave: every *_API_KEY of the environment, those that ring0.toml
    names, and all of the vault."""
    named = {
        name: value
        for name, value in environment.items()
        if name.endswith("_API_KEY") and len(value) >= limits.SECRET_CHARS_MIN
    }
    named.update(vault)
    for name in (*config.secrets, *(table.secret for table in config.credentials.values())):
        value = vault.get(name) or environment.get(name)
        if value is None:
            raise ManifestInvalid(
                f"ring0.toml names the secret {name}, which is not set.",
                why="A secret that is not known can't be kept back.",
                todo=f"`ring0 secret set {name}`, or set it in the environment, or take it out.",
            )
        named[name] = value
    return named


def model_of(
    name: str, manifest: AgentManifest, config: Config, environment: Mapping[str, str]
) -> ModelConfig | None:
    """The model of that name: the agent's, the operator's, or the environment's."""
    found = manifest.models.get(name) or config.models.get(name)
    if found is None and name == "default" and environment.get("OPENAI_API_KEY"):
        return ModelConfig(
            provider="openai",
            model=environment.get("OPENAI_MODEL", "gpt-5-mini"),
            base_url=environment.get("OPENAI_BASE_URL", ""),
        )
    return found


def home_folder(environment: Mapping[str, str]) -> Path:
    """RING0_HOME, or the XDG data folder."""
    if named := environment.get("RING0_HOME"):
        return Path(named).expanduser().resolve()
    data = environment.get("XDG_DATA_HOME")
    base = Path(data) if data else Path(os.path.expanduser("~")) / ".local" / "share"
    return base / "ring0"


def _money(text: str | None, path: Path) -> int:
    if text is None:
        return 0
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or value < 0 or value > 10**6:
        raise ManifestInvalid(
            f"{path}: cost_usd = {text!r} is no amount of money.", todo='Write it like "0.50".'
        )
    return int(value * 1_000_000)


def _read(path: Path, kind: type[Any], keys: str) -> Any:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestInvalid(
            f"{path} can't be read: {error}.", todo="Name a file that is there."
        ) from None
    try:
        return msgspec.convert(tomllib.loads(text), kind)
    except tomllib.TOMLDecodeError as error:
        raise ManifestInvalid(f"{path} is not TOML: {error}.", todo="Mend that line.") from None
    except msgspec.ValidationError as error:
        raise ManifestInvalid(
            f"{path}: {error}.", why="It has to fit exactly.", todo=f"Correct it; {keys}."
        ) from None
