"""A set of policies is held against the cases that ring0.toml names before it is taken up.

Not here: what a case is (governance/cases.py), the command that runs files of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ring0.errors import PolicyInvalid
from ring0.governance import Policies, cases
from ring0.kernel.agent import manifests, offered
from ring0.kernel.agent.manifests import Config
from ring0.runtime import Runtime


async def prove(home: Path, config: Config, policies: Policies, runtime: Runtime) -> None:
    """Every case of `policy_tests` comes out as it says. Raises PolicyInvalid, ManifestInvalid."""
    for name in config.policy_tests:
        path = home / name
        found = cases.read(path)
        schemas: Mapping[str, Mapping[str, Any]] = {}
        if found.manifest:
            agent = manifests.read_agent(path.parent / found.manifest)
            schemas = offered.schemas(await offered.tools_of(agent, (), runtime, home))
        schemas = {**schemas, **found.tools}
        policies.check_tools(schemas)
        for case in found.case:
            failed = cases.run(case, policies, schemas)
            if failed is not None:
                raise PolicyInvalid(
                    f"{path}: the case {failed.case!r} comes out otherwise: wanted {failed.want},"
                    f" got {failed.got}.",
                    why=" ".join(reason.text for reason in failed.verdict.reasons),
                    todo="Correct the policy, or the case; `ring0 policy test` shows all of them."
                    " What was taken up before still holds.",
                )


__all__ = ["prove"]
