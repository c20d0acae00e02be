"""Which tools a run has: built-in ones by its manifest's settings, its own `@tool` functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec

from ring0.errors import CallInvalid, ManifestInvalid
from ring0.runtime import Runtime
from ring0.tools import files, sql
from ring0.tools.driver import Driver
from ring0.types import ToolManifest

BUILT_IN = ("files", "sql")


class Tool:
    """A driver with its schema compiled and its manifest pinned."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.manifest: ToolManifest = driver.manifest
        self.digest = digest(driver.manifest)
        try:
            self._schema = jsonschema_rs.validator_for(driver.manifest.schema)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise ManifestInvalid(
                f"The schema of the tool {driver.manifest.name!r} is not JSON"
                f" Schema: {str(error)[:300]}.",
                todo="Mend the schema.",
            ) from None

    def validate(self, args: Any) -> dict[str, Any]:
        """The arguments, or CallInvalid with the first thing that does not fit."""
        if not isinstance(args, dict):
            raise CallInvalid(
                f"{self.manifest.name} takes an object of arguments.",
                todo="Send `args` as a JSON object.",
            )
        allowed = self.manifest.schema.get("properties", {})
        if unknown := [key for key in args if key not in allowed]:
            raise CallInvalid(
                f"{self.manifest.name} has no argument {unknown[0][:80]!r}.",
                why=f"It takes: {', '.join(allowed) or 'none'}.",
                todo="Leave it out, or correct its name.",
            )
        error = next(iter(self._schema.iter_errors(args)), None)
        if error is not None:
            place = ".".join(str(part) for part in error.instance_path) or "the arguments"
            raise CallInvalid(
                f"{self.manifest.name}: {place} does not fit.",
                why=error.message[:4_000],
                todo="See the tool's schema.",
            )
        return args


def digest(manifest: ToolManifest) -> str:
    """Pins a tool: SHA-256 over its whole manifest, its code's digest included."""
    return hashlib.sha256(msgspec.json.encode(manifest, order="sorted")).hexdigest()


def built_in(
    tools: Mapping[str, Mapping[str, Any]], folder: Path, runtime: Runtime, off_limits: Path
) -> Iterable[Driver]:
    """The drivers of a manifest's `[tools.*]`. Raises ManifestInvalid."""
    for instance, config in tools.items():
        if not instance.isidentifier():
            raise ManifestInvalid(
                f"{instance!r} is no name for a tool.", todo="Use letters, digits and _."
            )
        use = config.get("use")
        if use == "sql":
            yield from sql.drivers(instance, dict(config), folder, runtime, off_limits)
        elif use == "files":
            yield from files.drivers(instance, dict(config))
        else:
            raise ManifestInvalid(
                f"[tools.{instance}] uses {use!r}, which is no built-in tool.",
                why=f"There are: {', '.join(BUILT_IN)}.",
                todo='Set `use = "sql"` or `use = "files"`.',
            )
