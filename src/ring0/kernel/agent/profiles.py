"""What the policies and the operator's profile say of an agent before anything of it starts.

Not for single calls: the gate judges those.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.governance import Policies
from ring0.kernel.agent import known
from ring0.kernel.agent.agents import Agent
from ring0.tools.registry import Tool
from ring0.types import Mode

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

CONTAINED: Final = ("balanced", "strict")
"""Profiles that promise what an agent in the kernel's own process can't be held to."""


def check(agent: Agent, tools: Iterable[Tool], policies: Policies) -> None:
    """Raises PolicyInvalid where a statement that names a tool does not fit it; ManifestInvalid
    where an embedded agent is not for this profile, or for secrets."""
    own = agent.operator or agent.family.kernels
    if agent.family.mode is Mode.EMBEDDED and not own:
        _check_embedded(agent, policies.profile)
    if policies.names_tools:
        policies.check_tools({tool.manifest.name: tool.manifest.schema for tool in tools})


async def warnings(kernel: Kernel, run: str) -> list[str]:
    """What may be misspelt: statements that name a tool which neither this live run has nor any
    other agent of the folder. Said once for each agent and set of policies."""
    live, policies = kernel.gate.live.get(run), kernel.policies
    if live is None or not policies.unknown_tools(sorted(live.tools)):
        return []
    about = (live.row.agent, live.row.agent_digest, policies.digest)
    if about in kernel.looked_for_tools:
        return []
    if len(kernel.looked_for_tools) >= limits.POLICY_WARNED_OF_MAX:
        kernel.looked_for_tools.clear()
    kernel.looked_for_tools.add(about)
    return await unknown_tools(kernel, policies, live.tools)


async def unknown_tools(kernel: Kernel, policies: Policies, names: Iterable[str] = ()) -> list[str]:
    """A warning for each statement that names a tool which no agent of the folder has; `names`: of
    tools that are known beside theirs."""
    if not policies.names_tools:
        return []
    found = await known.tools(kernel.store, kernel.runtime, kernel.home)
    everybodys = {tool for schemas in found.values() for tool in schemas}
    return policies.unknown_tools(sorted(everybodys.union(names)))


def _check_embedded(agent: Agent, profile: str) -> None:
    if profile in CONTAINED:
        raise ManifestInvalid(
            f"{agent.manifest.name} is embedded, and ring0.toml says profile = {profile!r}.",
            why="An embedded agent can read and do whatever its process can: nothing holds it to a"
            " profile.",
            todo="Run it isolated (`ring0 run`), or use a data folder without `profile`.",
        )
    if secret := _secret_of(agent):
        raise ManifestInvalid(
            f"{agent.manifest.name} is embedded, and uses the secret {secret!r}.",
            why="An embedded agent can read whatever its process can, secrets too.",
            todo="Run it isolated (`ring0 run`): there the kernel adds the secret on the far side.",
        )


def _secret_of(agent: Agent) -> str:
    """The first secret that any agent of the family names; empty: none does."""
    for manifest in (agent.manifest, *agent.family.others):
        for function in manifest.functions:
            for secret in function.secrets:
                return secret
        for grant in manifest.grants.values():
            for secret in grant.secrets:
                return secret
        for config in manifest.tools.values():
            for key in ("secrets", "password_secret"):
                if named := config.get(key):
                    return named if isinstance(named, str) else str(named[0])
    return ""
