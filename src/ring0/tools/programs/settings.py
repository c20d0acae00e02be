"""What an operator says of a `python` or `shell` tool, read strictly, and the manifest of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.tools.egress import parse_rules
from ring0.tools.sandbox.spec import SandboxLimits
from ring0.types import Effect, Integrity, ToolManifest

WORK: Final = "/work"
_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,15}")
_WALL_S_MAX: Final = limits.PROGRAM_WALL_S_MAX
_WALL_S_DEFAULT: Final = limits.TOOL_WALL_S_DEFAULT


class _Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    memory_mb: Annotated[int, msgspec.Meta(ge=1)] = (
        limits.SANDBOX_MEMORY_BYTES_DEFAULT // limits.MIB
    )
    tmp_mb: Annotated[int, msgspec.Meta(ge=1)] = limits.PROGRAM_TMP_BYTES_DEFAULT // limits.MIB
    processes: Annotated[int, msgspec.Meta(ge=1)] = limits.SANDBOX_PROCESSES_DEFAULT
    cpu_s: Annotated[int, msgspec.Meta(ge=0)] = 0

    def as_sandbox(self) -> SandboxLimits:
        return SandboxLimits(
            memory_bytes=self.memory_mb * limits.MIB,
            tmp_bytes=self.tmp_mb * limits.MIB,
            processes=self.processes,
            cpu_s=self.cpu_s,
        )


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[tools.NAME]` table with `use = "python"` or `use = "shell"`: the operator's word."""

    use: Literal["python", "shell"]
    image: tuple[str, ...] = ()
    """Modules that are imported before the program starts; for `python` alone."""
    egress: tuple[str, ...] = ()
    """Where it may reach; empty: nowhere."""
    secrets: tuple[str, ...] = ()
    """Names of credentials that are put into its requests on the far side."""
    effect: Effect | None = None
    timeout_s: Annotated[int, msgspec.Meta(ge=1, le=_WALL_S_MAX)] = _WALL_S_DEFAULT
    tier: Literal["", "landlock", "ns", "container", "gvisor", "microvm"] = ""
    """The weakest sandbox that will do; empty: the operator's minimum."""
    limits: _Limits = _Limits()


def read(instance: str, config: Mapping[str, Any]) -> Settings:
    """A `[tools.NAME]` table. Raises ManifestInvalid for what is unknown or contradicts itself."""
    try:
        settings = msgspec.convert(config, Settings)
    except msgspec.ValidationError as error:
        raise _invalid(instance, str(error), "See `docs/tools.md` for what it takes.") from None
    if settings.image and settings.use != "python":
        raise _invalid(instance, "only `python` has an `image`", "Take it out.")
    if len(settings.image) > limits.PROGRAM_IMAGE_MODULES_MAX:
        raise _invalid(
            instance, f"its `image` names more than {limits.PROGRAM_IMAGE_MODULES_MAX} modules",
            "Name fewer.",
        )  # fmt: skip
    for module in settings.image:
        if not _MODULE.fullmatch(module):
            raise _invalid(instance, f"{module[:80]!r} is no name of a module", "Correct it.")
    if settings.egress and settings.effect not in (None, Effect.ONCE):
        raise _invalid(
            instance,
            f"what reaches out is not {settings.effect}: run twice, it may do it twice",
            "Take out `effect`, or `egress`.",
        )
    if settings.egress:
        parse_rules(settings.egress, f"[tools.{instance}] egress")
    if settings.secrets and not settings.egress:
        raise _invalid(
            instance,
            "it has `secrets` and no `egress`; they never go into a sandbox",
            "Name the hosts that they are for under `egress`.",
        )
    return settings


def manifest_of(instance: str, settings: Settings) -> ToolManifest:
    """What the kernel and the agent know of the tool."""
    effect = settings.effect or (Effect.ONCE if settings.egress else Effect.IDEMPOTENT)
    keeps = effect is not Effect.PURE and not settings.egress
    text = {"type": "string", "maxLength": limits.CALL_STRING_SIZE_BYTES_MAX}
    source = "code" if settings.use == "python" else "command"
    return ToolManifest(
        name=f"{instance}.run",
        description=_description(settings, effect),
        schema={
            "type": "object",
            "properties": {source: {**text, "minLength": 1}, "stdin": text},
            "required": [source],
            "additionalProperties": False,
        },
        effect=effect,
        reversal="reversible" if keeps else "irreversible",
        egress=settings.egress,
        secrets=settings.secrets,
        wall_s=settings.timeout_s,
        output=Integrity.UNTRUSTED,
        # What it runs in is as much of the tool as its schema is.
        code_digest=hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest(),
    )


def _description(settings: Settings, effect: Effect) -> str:
    what = "Python code" if settings.use == "python" else "a command with /bin/sh"
    parts = [f"Run {what} in a fresh sandbox, for at most {settings.timeout_s} s."]
    if effect is Effect.PURE:
        parts.append("It has no files but scratch ones, which are thrown away.")
    else:
        parts.append(f"The run's files are in {WORK}, its working directory; changes are kept.")
    if settings.image:
        parts.append(f"There are: {', '.join(settings.image)}.")
    reach = ", ".join(settings.egress)
    parts.append(f"It may reach {reach}, by the proxy it is given." if reach else "No network.")
    return " ".join(parts)


def _invalid(instance: str, why: str, todo: str) -> ManifestInvalid:
    return ManifestInvalid(f"[tools.{instance}] can't be used: {why}.", todo=todo)
