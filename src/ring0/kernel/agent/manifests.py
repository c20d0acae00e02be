"""Reads agent.toml and ring0.toml, strictly: an unknown key, a wrong type or a missing file is an
error that names the place. What each key means is in docs/configuration.md.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.identity.vault import secret_name
from ring0.kernel.agent import (
    config_caps,
    config_checkpoints,
    config_credentials,
    config_embeddings,
    config_functions,
    config_guardrails,
    config_identity,
    config_memory,
    config_notify,
    config_operators,
    config_telemetry,
)
from ring0.kernel.agent.config_caps import CapTable
from ring0.kernel.agent.config_checkpoints import CheckpointTable
from ring0.kernel.agent.config_credentials import CredentialTable, OAuthTable
from ring0.kernel.agent.config_embeddings import RecallTable
from ring0.kernel.agent.config_functions import FunctionTable
from ring0.kernel.agent.config_guardrails import GuardrailsTable
from ring0.kernel.agent.config_identity import IdentityTable, PrincipalTable
from ring0.kernel.agent.config_memory import MemoryTable
from ring0.kernel.agent.config_notify import NotifyTable
from ring0.kernel.agent.config_operators import OidcTable, RolesTable
from ring0.kernel.agent.config_telemetry import MetricsTable, OtlpTable
from ring0.scheduler.caps import Cap
from ring0.types import (
    AgentManifest,
    Budget,
    Grant,
    ModelConfig,
    Profile,
    SandboxProfile,
)

AGENT_TOML = "agent.toml"
RING0_TOML = "ring0.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


Tier = Literal["landlock", "ns", "container", "gvisor", "microvm"]


class _BudgetTable(msgspec.Struct, forbid_unknown_fields=True):
    calls: Annotated[int, msgspec.Meta(ge=1, le=limits.BUDGET_CALLS_MAX)] = limits.RUN_CALLS_DEFAULT
    tokens: Annotated[int, msgspec.Meta(ge=0, le=limits.BUDGET_TOKENS_MAX)] = (
        limits.RUN_TOKENS_DEFAULT
    )
    cost_usd: str | None = None
    wall_s: Annotated[int, msgspec.Meta(ge=1, le=limits.BUDGET_WALL_S_MAX)] = (
        limits.RUN_WALL_S_DEFAULT
    )
    children: Annotated[int, msgspec.Meta(ge=0, le=limits.RUN_CHILDREN_MAX)] = (
        limits.RUN_CHILDREN_MAX
    )
    depth: Annotated[int, msgspec.Meta(ge=0, le=limits.RUN_DEPTH_MAX)] = limits.RUN_DEPTH_MAX


class _SandboxTable(msgspec.Struct, forbid_unknown_fields=True):
    tier: Tier | Literal[""] = ""
    read: list[str] = []
    memory_mb: int = limits.SANDBOX_MEMORY_BYTES_DEFAULT // limits.MIB
    tmp_mb: int = limits.SANDBOX_TMP_BYTES_DEFAULT // limits.MIB
    processes: int = limits.SANDBOX_PROCESSES_DEFAULT


class _WorkspaceTable(msgspec.Struct, forbid_unknown_fields=True):
    copy: list[str] = []


class _AgentTable(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    entry: str = ""
    command: list[str] = []
    code: list[str] = []
    agents: list[str] = []
    tools: dict[str, dict[str, Any]] = {}
    functions: dict[str, FunctionTable] = {}
    models: dict[str, ModelConfig] = {}
    budget: _BudgetTable = msgspec.field(default_factory=_BudgetTable)
    priority: Annotated[int, msgspec.Meta(ge=0, le=limits.PRIORITY_LAST)] = limits.PRIORITY_DEFAULT
    sandbox: _SandboxTable = msgspec.field(default_factory=_SandboxTable)
    workspace: _WorkspaceTable = msgspec.field(default_factory=_WorkspaceTable)
    memory: MemoryTable = MemoryTable()


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


_AtOnce = Annotated[int, msgspec.Meta(ge=1, le=limits.AT_ONCE_MAX)]


class ModelSlotsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[scheduler.models.NAME]: a provider (`openai`) or one model of it (`"openai/gpt-5"`)."""

    at_once: _AtOnce


class TenantTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[scheduler.tenants.NAME]."""

    weight: Annotated[int, msgspec.Meta(ge=1, le=limits.TENANT_WEIGHT_MAX)] = 1
    """Its share beside the other tenants' weights."""


class SchedulerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[scheduler] of ring0.toml: how much goes on at once, and whose share is how large."""

    runs_at_work: _AtOnce = limits.RUNS_AT_WORK_DEFAULT
    """Runs that wait do not count."""
    calls_at_once: _AtOnce = limits.CALLS_AT_ONCE_DEFAULT
    sandboxes_at_once: _AtOnce = limits.SANDBOXES_AT_ONCE_DEFAULT
    models: dict[str, ModelSlotsTable] = {}
    tenants: dict[str, TenantTable] = {}


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """ring0.toml: what the operator of this machine says, whatever the agents say."""

    tenant: str = "local"
    profile: Profile = ""
    """`observe` asks nobody and says so, `balanced` is the default set, `strict` adds to it; unset:
    the default set, also for embedded agents."""
    policy: list[str] = []
    """Cedar files, beside ring0.toml, added to the default set."""
    policy_tests: list[str] = []
    """Files of cases, beside ring0.toml, that a set has to pass before `ring0 reload` takes it
    up."""
    secrets: list[str] = []
    """Names of environment variables (or of the vault) whose values never leave the kernel."""
    credentials: dict[str, CredentialTable] = {}
    oauth: dict[str, OAuthTable] = {}
    """Logins that the kernel keeps fresh (`ring0 secret login NAME`)."""
    network: NetworkTable = NetworkTable()
    sandbox: ConfigSandboxTable = ConfigSandboxTable()
    scheduler: SchedulerTable = SchedulerTable()
    caps: list[CapTable] = []
    models: dict[str, ModelConfig] = {}
    """Models that every agent may ask for, by name; an agent's own come first."""
    oidc: OidcTable | None = None
    roles: RolesTable | None = None
    identity: IdentityTable = IdentityTable()
    principals: dict[str, PrincipalTable] = {}
    notify: list[NotifyTable] = []
    checkpoints: list[CheckpointTable] = []
    """Where signed checkpoints of the journal go."""
    otlp: OtlpTable | None = None
    metrics: MetricsTable | None = None
    guardrails: GuardrailsTable = GuardrailsTable()
    memory: RecallTable = RecallTable()


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
            name: msgspec.convert(msgspec.to_builtins(found), Grant)
            for name, found in table.functions.items()
        },
        models=table.models,
        imports=tuple(table.workspace.copy),
        budget=Budget(
            calls=budget.calls,
            tokens=budget.tokens,
            cost_microusd=config_caps.money(budget.cost_usd, f"{path}: cost_usd"),
            wall_s=budget.wall_s,
            children=budget.children,
            depth=budget.depth,
        ),
        priority=table.priority,
        sandbox=SandboxProfile(
            tier=sandbox.tier,
            read=tuple(sandbox.read),
            processes=sandbox.processes,
            memory_bytes=sandbox.memory_mb * limits.MIB,
            tmp_bytes=sandbox.tmp_mb * limits.MIB,
        ),
        memory=config_memory.settings(table.memory, frozenset(table.tools), path),
        folder=str(path.parent.resolve()),
    )


def read_config(home: Path) -> Config:
    """ring0.toml of the data folder; all defaults where there is none. Raises ManifestInvalid."""
    path = home / RING0_TOML
    if not path.exists():
        return Config()
    config: Config = _read(path, Config, "ring0.toml's keys are listed in docs/configuration.md")
    config_identity.check(config.identity)
    config_identity.check_principals(config.principals)
    config_credentials.check(config.credentials, config.oauth)
    config_operators.check(config.oidc, config.roles)
    config_guardrails.check(config.guardrails)
    files = tuple(str(home / name) for name in config.network.authorities)
    config.network = msgspec.structs.replace(config.network, authorities=files)
    return config


def caps_of(config: Config) -> tuple[Cap, ...]:
    """The operator's caps. Raises ManifestInvalid."""
    return config_caps.read(config.caps)


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
    given = [table.secret for table in config.credentials.values()]
    given += [name for table in config.oauth.values() for name in (table.client_secret, table.key)]
    given += [model.key for model in config.models.values()]
    given += [name for table in config.notify for name in config_notify.secrets_of(table)]
    given += [name for one in config.checkpoints for name in config_checkpoints.secrets_of(one)]
    given += config_telemetry.secrets_of(config.otlp, config.metrics)
    given += config_embeddings.secrets_of(config.memory)
    for name in map(secret_name, filter(None, (*config.secrets, *given))):
        value = vault.get(name) or environment.get(name)
        if value is None:
            raise ManifestInvalid(
                f"ring0.toml names the secret {name}, which is not set.",
                why="A secret that is not known can't be kept back.",
                todo=f"`ring0 secret set {name}`, or set it in the environment, or take it out.",
            )
        named[name] = value
    return named


MODEL_URLS = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")
"""Variables of the environment that say where models are."""


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
    if found is None and name == "default" and environment.get("ANTHROPIC_API_KEY"):
        base = environment.get("ANTHROPIC_BASE_URL", "").rstrip("/")
        return ModelConfig(
            provider="anthropic",
            model=environment.get("ANTHROPIC_MODEL", "claude-sonnet-5-5"),
            base_url=f"{base}/v1" if base else "",
        )
    return found


def home_folder(environment: Mapping[str, str]) -> Path:
    """RING0_HOME, or the XDG data folder."""
    if named := environment.get("RING0_HOME"):
        return Path(named).expanduser().resolve()
    data = environment.get("XDG_DATA_HOME")
    base = Path(data) if data else Path(os.path.expanduser("~")) / ".local" / "share"
    return base / "ring0"


def _read(path: Path, kind: type[Any], keys: str) -> Any:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestInvalid(
            f"{path} can't be read: {error}.", todo="Name a file that is there."
        ) from None
    try:
        found = tomllib.loads(text)
        config_functions.check(path, found.get("functions") if kind is _AgentTable else None)
        return msgspec.convert(found, kind)
    except tomllib.TOMLDecodeError as error:
        raise ManifestInvalid(f"{path} is not TOML: {error}.", todo="Mend that line.") from None
    except msgspec.ValidationError as error:
        raise ManifestInvalid(
            f"{path}: {error}.", why="It has to fit exactly.", todo=f"Correct it; {keys}."
        ) from None
