"""What a tool needs of this machine and of its operator, looked at before a run begins.

So that a tool that can never start says so then, and not at its first call, after somebody was
asked about it. Nothing beyond this machine is reached: no database, no host, no server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

from ring0.errors import InvalidInput, ManifestInvalid, SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.mcp import settings as mcp_settings
from ring0.tools.programs import settings as program_settings
from ring0.tools.registry import Means
from ring0.tools.sandbox import SandboxSpec, tiers
from ring0.tools.sandbox.spec import check_image
from ring0.types import AgentManifest, Effect, Frozen


class Need(Frozen, frozen=True, kw_only=True):
    """What one `[tools.*]` table, or one `@tool` function, can't start without."""

    place: str
    """Where it stands, for a person: `[tools.py]`."""
    sandbox: bool = True
    tier: str = ""
    """The weakest that it may have; empty: the operator's minimum."""
    egress: bool = False
    workspace: bool = False
    image: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    """Names of `[credentials.*]` in ring0.toml."""
    password: str = ""
    """The name of a secret."""


def needs_of(tools: Mapping[str, Mapping[str, Any]]) -> Iterator[Need]:
    """Of a manifest's `[tools.*]`, which the registry has read without an error."""
    for instance, config in tools.items():
        place = f"[tools.{instance}]"
        match config.get("use"):
            case "python" | "shell":
                program = program_settings.read(instance, config)
                yield Need(
                    place=place,
                    tier=program.tier,
                    egress=bool(program.egress),
                    workspace=program.effect is not Effect.PURE,
                    image=program.image,
                    credentials=program.secrets,
                )
            case "mcp":
                server = mcp_settings.read(instance, config)
                yield Need(
                    place=place,
                    sandbox=bool(server.command),
                    tier=server.tier,
                    egress=bool(server.egress),
                    workspace=server.workspace or bool(server.egress),
                    credentials=server.secrets,
                )
            case "http":
                yield Need(place=place, sandbox=False, credentials=tuple(config.get("secrets", ())))
            case "sql":
                yield Need(
                    place=place, sandbox=False, password=str(config.get("password_secret", ""))
                )


def needs_of_functions(manifest: AgentManifest) -> Iterator[Need]:
    """Of an isolated agent's `@tool` functions that reach out; without egress one needs no more
    than the agent's own process."""
    for function in manifest.functions:
        if function.egress:
            yield Need(
                place=f"[functions.{function.name}]",
                tier=manifest.sandbox.tier,
                egress=True,
                workspace=True,
                credentials=function.secrets,
            )


def check_named(needs: Iterable[Need], means: Means, trusted: Collection[str]) -> None:
    """Are there the modules, credentials and passwords that they name? Raises ManifestInvalid.

    `trusted`: modules beyond the standard library that the operator lets an `image` name."""
    for need in needs:
        means.outside.of(need.credentials, f"{need.place} secrets")
        if need.password and not means.secret(need.password):
            raise ManifestInvalid(
                f"{need.place} names the secret {need.password[:60]!r}, which is not there.",
                why="It is the password of its database.",
                todo=f"`ring0 secret set {need.password[:60]}`",
            )
        _check_image(need, trusted)


def _check_image(need: Need, trusted: Collection[str]) -> None:
    try:
        check_image(need.image, trusted)
    except InvalidInput as error:
        raise ManifestInvalid(
            f"{need.place} can't have its `image`: {error.what}", why=error.why, todo=error.todo
        ) from None
    for module in need.image:
        first = module.partition(".")[0]
        if find_spec(first) is None:  # of its package: nothing is imported here
            raise ManifestInvalid(
                f"{need.place} names {first[:80]!r} in its `image`, which is not installed.",
                why="An image is imported from the environment that ring0 itself runs in.",
                todo=f"Install it there (`python -m pip install …`), or take {first[:80]!r} out.",
            )


async def check_tiers(
    needs: Iterable[Need], minimum: str, runtime: Runtime, *, host_uid: int | None
) -> None:
    """Can this machine give the sandboxes? One of each kind is made and ended, once in the life
    of this process where it worked. Raises SandboxUnavailable, SandboxFailed."""
    for need in needs:
        if not need.sandbox:
            continue
        spec = SandboxSpec(
            argv=("/bin/true",),
            tier=tiers.stronger(need.tier, minimum),
            egress=need.egress,
            workspace=need.workspace,
            host_uid=host_uid,
        )
        kind = (spec.tier, spec.egress, spec.workspace)
        if kind in _made:
            continue
        try:
            made = await tiers.make(spec, runtime)
        except SandboxUnavailable as error:
            raise SandboxUnavailable(
                f"{need.place} can't be started on this machine: {error.what}",
                why=error.why,
                todo=f"{error.todo} `ring0 doctor` shows what is here.".strip(),
            ) from None
        await made.close()
        _made.add(kind)


_made: Final[set[tuple[str, bool, bool]]] = set()
"""What this machine has been seen to give. If that changes, the making fails and says so."""


__all__ = ["Need", "check_named", "check_tiers", "needs_of", "needs_of_functions"]
