"""Which tools a run has by its manifest's settings, and what each of them is pinned by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec

from ring0 import limits
from ring0.errors import CallInvalid, ManifestInvalid
from ring0.runtime import Runtime
from ring0.tools import deriving, files, labelling, mcp, programs, schemas, sql
from ring0.tools.agentside import AgentSide
from ring0.tools.driver import Driver
from ring0.tools.egress import http
from ring0.tools.reach import Outside, Reach
from ring0.types import ToolManifest

BUILT_IN = ("files", "sql", "python", "shell", "http", "mcp", "agent", "derive")


class Tool:
    """A driver with its schema compiled and its manifest pinned."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.manifest: ToolManifest = driver.manifest
        self.digest = digest(driver.manifest)
        try:
            self._parts = schemas.parts(driver.manifest.schema)
            self._schema = schemas.validator(driver.manifest.schema)
            self._patterns = schemas.Patterns(driver.manifest.schema)
            self._whole = schemas.whole_of(driver.manifest.schema)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise ManifestInvalid(
                f"The schema of the tool {driver.manifest.name!r} is not JSON"
                f" Schema: {str(error)[:300]}.",
                todo="Mend the schema.",
            ) from None

    async def close(self) -> None:
        """Ends what the driver keeps. Any number of times."""
        close = getattr(self.driver, "close", None)
        if close is not None:
            await close()

    def validate(self, args: Any) -> dict[str, Any]:
        """The arguments, or CallInvalid with the first thing that does not fit."""
        if not isinstance(args, dict):
            raise CallInvalid(
                f"{self.manifest.name} takes an object of arguments.",
                todo="Send `args` as a JSON object.",
            )
        allowed = self.manifest.schema.get("properties", {})
        # Of a tool in the agent's process the schema may be known to the agent alone.
        is_told = "properties" in self.manifest.schema or self.manifest.where == "kernel"
        if is_told and (unknown := [key for key in args if key not in allowed]):
            raise CallInvalid(
                f"{self.manifest.name} has no argument {unknown[0][:80]!r}.",
                why=f"It takes: {', '.join(allowed) or 'none'}.",
                todo="Leave it out, or correct its name.",
            )
        if schemas.values(args) * self._parts > limits.SCHEMA_CHECKS_MAX:
            raise CallInvalid(
                f"{self.manifest.name} is given too many values to check them.",
                todo="Send fewer at a time.",
            )
        if self._patterns.tries(args) > limits.SCHEMA_PATTERN_CHARS_MAX:
            raise CallInvalid(
                f"{self.manifest.name} is given more text than its patterns are tried on.",
                why=f"Letters times patterns are at most {limits.SCHEMA_PATTERN_CHARS_MAX}.",
                todo="Send less at a time.",
            )
        error = next(iter(self._schema.iter_errors(args)), None)
        if error is not None:
            place = ".".join(str(part) for part in error.instance_path) or "the arguments"
            raise CallInvalid(
                f"{self.manifest.name}: {place} does not fit.",
                why=error.message[:4_000],
                todo="See the tool's schema.",
            )
        return self._with_integers(args)

    def _with_integers(self, args: dict[str, Any]) -> dict[str, Any]:
        """JSON Schema takes 10.0 for an integer, and so does policy: a driver sees 10."""
        floats = {name: args[name] for name in self._whole & args.keys()}
        floats = {name: value for name, value in floats.items() if isinstance(value, float)}
        for name, value in floats.items():
            if abs(value) >= limits.INTEGER_BEYOND:
                raise CallInvalid(
                    f"{self.manifest.name}: {name} does not fit.",
                    why="It is an integer beyond 64 bits.",
                    todo="Send a smaller one.",
                )
        return {**args, **{name: int(value) for name, value in floats.items()}} if floats else args


def digest(manifest: ToolManifest) -> str:
    """Pins a tool: SHA-256 over its whole manifest, its code's digest included."""
    return hashlib.sha256(msgspec.json.encode(manifest, order="sorted")).hexdigest()


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel gives to drivers: clock, secrets, and the two ways out."""

    runtime: Runtime
    off_limits: Path
    """ring0's own data folder: nothing in it is ever an agent's."""
    secret: Callable[[str], str]
    """A secret's value by its name; empty where there is none."""
    outside: Outside
    """For what the kernel itself sends."""
    reach: Reach
    """For what a tool's sandbox sends."""

    def of(self, agent: str) -> Means:
        """What this agent's drivers are given."""
        return msgspec.structs.replace(self, outside=self.outside.seen_by(agent))


def built_in(
    tools: Mapping[str, Mapping[str, Any]], folder: Path, means: Means
) -> Iterable[Driver]:
    """The drivers of a manifest's `[tools.*]`. Raises ManifestInvalid."""
    for instance, config in tools.items():
        if not instance.isidentifier():
            raise ManifestInvalid(
                f"{instance!r} is no name for a tool.", todo="Use letters, digits and _."
            )
        rest, said = labelling.split(instance, config)
        drivers = _drivers(instance, rest, folder, means)
        yield from labelling.apply(instance, rest.get("use"), said, drivers)


def _drivers(instance: str, config: dict[str, Any], folder: Path, means: Means) -> Iterable[Driver]:
    runtime = means.runtime
    match config.get("use"):
        case "files":
            return files.drivers(instance, config)
        case "sql":
            return sql.drivers(instance, config, folder, runtime, means.off_limits, means.secret)
        case "python" | "shell":
            return programs.drivers(instance, config, runtime, means.reach)
        case "http":
            return http.drivers(instance, config, means.outside, runtime)
        case "agent":
            return (AgentSide(instance, config),)
        case "derive":
            return deriving.drivers(instance, config)
        case "mcp":
            return mcp.drivers(
                instance, config, folder, runtime, reach=means.reach, outside=means.outside
            )
    raise ManifestInvalid(
        f"[tools.{instance}] uses {config.get('use')!r}, which is no built-in tool.",
        why=f"There are: {', '.join(BUILT_IN)}.",
        todo="Set `use` to one of those.",
    )
