"""What an operator says of one MCP server: `[tools.NAME] use = "mcp"` of agent.toml, strictly.

Not here: what the server says of itself (pins.py), and how its program is found (program.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.types import Confidentiality, Effect, Integrity

_SECRET_NAME: Final = re.compile(
    r"(?i)(api_?key|token(_|$)|secret|passw|credential|private_?key|(^|_)auth(_|$)|cookie|session)"
)
_LOADERS: Final = frozenset({"npx", "uvx", "uv", "pipx", "bunx", "pnpx", "dlx", "docker", "podman"})
"""Programs that fetch what they run: what they bring tomorrow is not what was approved today."""


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`[tools.NAME.operations.TOOL]`: the operator's own word about one tool."""

    effect: Effect | None = None
    """None: `once`, whatever the server says of itself."""
    reads: bool = False
    """It changes nothing anywhere: it may run again, and nobody is asked."""
    key: str = ""
    """The argument that takes an idempotency key: ring0 fills it with the call id."""
    critical: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    output: Integrity = Integrity.UNTRUSTED
    recipients: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    removes: bool = False
    unattended: bool = False
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    fields: dict[str, str] = {}
    """The operator's word, as all of this table: what the server says of itself gives no field a
    better label."""
    reversal: str = "irreversible"
    wall_s: int = 0
    """0: as the server's."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`limits`: what the server's sandbox may use."""

    memory_mb: int = limits.SANDBOX_MEMORY_BYTES_DEFAULT // limits.MIB
    tmp_mb: int = limits.SANDBOX_TMP_BYTES_DEFAULT // limits.MIB
    processes: int = limits.SANDBOX_PROCESSES_DEFAULT


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One server."""

    use: Literal["mcp"] = "mcp"
    command: tuple[str, ...] = ()
    """A program of this machine, run in a sandbox; relative paths begin at agent.toml."""
    url: str = ""
    """Or a server elsewhere, by Streamable HTTP."""
    env: dict[str, str] = {}
    """All of the program's environment but for PATH, HOME and LANG. No secrets."""
    code: tuple[str, ...] = ()
    """Files and folders that are the program, where ring0 can't tell by itself."""
    workspace: bool = False
    """The run's files are at /work, and what the server changes there is taken back."""
    egress: tuple[str, ...] = ()
    """Where the program may reach, through the kernel's proxy."""
    secrets: tuple[str, ...] = ()
    """Credentials of ring0.toml that are put into its requests on the far side."""
    serves: tuple[Literal["resources", "prompts", "completions"], ...] = ()
    """What of it may be read beside its tools, as tools of their own: what it says there, no
    approval pins."""
    through: bool = False
    """The agent meets it nearly as if no kernel were between: see through.py."""
    answers: Literal["", "defaults"] = ""
    """What the server asks of a person: refused; or, for tests, answered with the defaults that the
    server names itself."""
    only: tuple[str, ...] = ()
    """The tools that are offered; empty: all that were approved."""
    operations: dict[str, Operation] = {}
    pin: str = ""
    """The digest that tools.lock.json must have for this server; empty: as the file says."""
    wall_s: int = limits.TOOL_WALL_S_DEFAULT
    tier: Literal["", "landlock", "ns", "container", "gvisor", "microvm"] = ""
    limits: Limits = Limits()

    @property
    def contained(self) -> bool:
        """Its program reaches nothing but its own sandbox and the run's workspace."""
        return bool(self.command) and not self.egress


def read(instance: str, config: Mapping[str, Any]) -> Settings:
    """The settings of `[tools.INSTANCE]`. Raises ManifestInvalid."""
    try:
        settings = msgspec.convert(dict(config), Settings)
    except msgspec.ValidationError as error:
        raise _invalid(instance, str(error), "See docs/tools.md for the keys.") from None
    if bool(settings.command) == bool(settings.url):
        raise _invalid(
            instance,
            "An MCP server has either `command` or `url`.",
            'Set one: `command = ["python", "-m", "…"]` or `url = "https://…"`.',
        )
    if settings.command:
        _check_command(instance, settings)
    else:
        _check_url(instance, settings)
    if settings.secrets and settings.contained:
        raise _invalid(
            instance,
            "It names `secrets`, and reaches nothing that they could be for.",
            "Name where it may reach in `egress`, or take `secrets` out.",
        )
    for name, operation in settings.operations.items():
        _check_operation(instance, settings, name, operation)
    if settings.wall_s < 1 or min(msgspec.structs.astuple(settings.limits)) < 1:
        raise _invalid(instance, "`wall_s` and `limits` begin at 1.", "Raise them.")
    return settings


def _check_command(instance: str, settings: Settings) -> None:
    program = settings.command[0].rpartition("/")[2]
    if program in _LOADERS:
        raise _invalid(
            instance,
            f"{program!r} fetches what it runs: another program each time.",
            "Install the server into a folder of its own (`npm ci`, `pip install --require-hashes`)"
            " and name its program.",
        )
    for name in settings.env:
        if _SECRET_NAME.search(name):
            raise _invalid(
                instance,
                f"`env` names {name[:80]}, which looks like a secret.",
                "Secrets never enter a sandbox: give the server a placeholder, and ring0.toml a"
                " [credentials] entry that is put into its requests on the far side.",
            )


def _check_url(instance: str, settings: Settings) -> None:
    try:
        parts = urlsplit(settings.url)
        odd = parts.username is not None or parts.password is not None or bool(parts.fragment)
        host = parts.hostname
        parts.port  # noqa: B018  # it is parsed when it is asked for
    except ValueError:
        odd, host = True, None
    if odd or not host or parts.scheme not in ("https", "http"):
        raise _invalid(
            instance,
            f"{settings.url[:200]!r} is no address of a server.",
            "Write it like `https://mcp.example.com/mcp`, without a password in it.",
        )
    if any(_SECRET_NAME.search(name) for name, _ in parse_qsl(parts.query)):
        raise _invalid(
            instance,
            "Its address holds what looks like a secret.",
            "Addresses are shown and written down: name a [credentials] entry of ring0.toml in"
            " `secrets`.",
        )
    for key in ("env", "code", "workspace", "egress"):
        if getattr(settings, key):
            raise _invalid(
                instance,
                f"`{key}` is for a server that runs here; this one runs at {host}.",
                "Take it out.",
            )


def _check_operation(instance: str, settings: Settings, name: str, said: Operation) -> None:
    where = f"operations.{name[:80]}"
    if said.effect is Effect.PURE and not (settings.contained and not settings.workspace):
        raise _invalid(
            instance,
            f"{where} is called `pure`, and its server has egress, files or runs elsewhere.",
            "`pure` runs without any of these, so that a lie is harmless. Say `reads = true`"
            " where it only reads.",
        )
    if said.effect is Effect.IDEMPOTENT and not (said.key or said.reads):
        raise _invalid(
            instance,
            f"{where} is called `idempotent`, and no argument takes the key.",
            'Name it, `key = "request_id"`; say `reads = true`; or leave it `once`.',
        )
    if said.reads and said.effect is Effect.ONCE:
        raise _invalid(instance, f"{where} only reads and has an effect.", "Say one of the two.")
    if said.wall_s < 0:
        raise _invalid(instance, f"{where}: `wall_s` begins at 1.", "Raise it.")


def _invalid(instance: str, why: str, todo: str) -> ManifestInvalid:
    return ManifestInvalid(f"[tools.{instance[:80]}] can't be used.", why=why, todo=todo)
